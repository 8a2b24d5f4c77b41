"""Raw sockets: what a session costs without the client's own start-up."""

import base64
import socket

import scram
from processes import Failed

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 60


class Line:
    """A connection of which the server speaks first, in lines of a code and a text."""

    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port), TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def read(self):
        """The next line, without its end."""
        while b"\n" not in self.unread:
            some = self.socket.recv(4096)
            if not some:
                raise Failed("the server closed the connection")
            self.unread += some
        line, _, self.unread = self.unread.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    def reply(self, *codes):
        """The next reply; of several lines, the last. Another code than these is a failure."""
        line = self.read()
        if line[3:4] == "-":
            end = line[:3] + " "
            while not line.startswith(end):
                line = self.read()
        if codes and line[:3] not in codes:
            raise Failed(f"the server says {line!r}")
        return line

    def ask(self, command, *codes):
        """Says a line and reads the reply."""
        self.socket.sendall(command.encode() + b"\r\n")
        return self.reply(*codes)


def logged_in(server, password):
    """A connection to a server, behind its greeting and log-in if it has one."""
    line = Line(server.port)
    if server.speaks == "rsync":
        line.read()
        return line
    greeting = line.reply("220")
    if server.speaks == "ftp":
        if line.ask(f"USER {server.user}", "331", "230")[:3] == "331":
            line.ask(f"PASS {password}", "230")
    elif "login=none" not in greeting.split():
        scram_log_in(line, server.user, password)
    return line


def scram_log_in(line, user, password):
    """SCRAM-SHA-256 (RFC 5802, 7677) as tow/1 carries it: base64 without padding behind `auth`
    and `data=`."""
    exchange = scram.Exchange(user, password)
    first = line.ask(f"auth scram-sha-256 data={unpadded(exchange.first())}", "334")
    final = exchange.final(data_of(first))
    last = line.ask(f"334 data={unpadded(final)}", "230")
    if "data=" in last:
        exchange.verify(data_of(last))


def unpadded(text):
    return base64.b64encode(text.encode()).decode().rstrip("=")


def data_of(reply):
    """What stands behind `data=`."""
    for word in reply.split():
        if word.startswith("data="):
            text = word[len("data=") :]
            return base64.b64decode(text + "=" * (-len(text) % 4)).decode()
    raise Failed(f"no data= in {reply!r}")


def begin_download(server, line, path):
    """Has the server begin to send a file, and reads none of it. The sockets to keep open."""
    if server.speaks == "tow":
        line.ask(f"get /{path}", "203")
        line.ask("402", "426")
        return [line.socket]
    line.ask("TYPE I", "200")
    numbers = line.ask("PASV", "227").rpartition("(")[2].partition(")")[0].split(",")
    port = int(numbers[4]) * 256 + int(numbers[5])
    data = socket.create_connection((HOST, port), TIMEOUT_SECONDS)
    line.ask(f"RETR {path}", "150", "125")
    return [line.socket, data]
