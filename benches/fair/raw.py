"""Lines and frames by hand, where nothing is to stand between the clock and the server."""

import lines
from load import HEADER
from processes import Failed


def greeted(server):
    """A connection behind its greeting."""
    line = lines.Line(server.port)
    line.reply("220")
    return line


def field(reply, key):
    """The value of a field, or None."""
    return next((word[len(key) + 1 :] for word in reply.split() if word.startswith(key + "=")), None)


def take(line, count):
    """So many bytes of what follows the lines."""
    # What came together with the last line.
    some, line.unread = line.unread[:count], line.unread[count:]
    while len(some) < count:
        more = line.socket.recv(min(count - len(some), 1 << 20))
        if not more:
            raise Failed("the server closed the connection")
        some += more
    return some


def frame(line):
    """Reads a frame, throws its payload away, and tells its kind."""
    kind, length, _ = HEADER.unpack(take(line, HEADER.size))
    take(line, length)
    return kind
