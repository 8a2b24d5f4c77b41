"""A client of `tow/1` that only counts: many downloads in one process, which throws the bytes away
in the kernel. So the server is what is measured, not 64 clients that share its processors."""

import selectors
import socket
import struct
import time

import lines
from processes import Failed

HEADER = struct.Struct(">c3xIQ")
# Bytes thrown away by one call.
GULP = bytearray(1 << 22)
END, ABORT = b"E", b"A"


class Stream:
    """One download, behind its `426`."""

    def __init__(self, port, path, md5):
        self.line = lines.Line(port)
        self.line.reply("220")
        self.line.ask(f"get /{path}" + (" digest=md5" if md5 else ""), "203")
        self.socket = self.line.socket
        self._header = b""
        self._left = 0

    def begin(self):
        """Asks for the bytes. From here on the socket belongs to `pump`."""
        self.socket.sendall(b"402\r\n")
        # One byte at a time: what follows the line is frames.
        line = b""
        while not line.endswith(b"\n"):
            line += self.socket.recv(1)
        if not line.startswith(b"426"):
            raise Failed(f"the server says {line!r}")
        self.socket.setblocking(False)

    def pump(self):
        """Takes what is there; true once the stream has ended."""
        try:
            while True:
                if self._left == 0:
                    if self._take_header():
                        return True
                    continue
                got = self.socket.recv_into(GULP, min(self._left, len(GULP)), socket.MSG_TRUNC)
                self._left -= self._some(got)
        except BlockingIOError:
            return False

    def _take_header(self):
        some = self.socket.recv(HEADER.size - len(self._header))
        self._some(len(some))
        self._header += some
        if len(self._header) < HEADER.size:
            return False
        kind, self._left, _ = HEADER.unpack(self._header)
        self._header = b""
        if kind == ABORT:
            raise Failed("the server gave up")
        return kind == END

    @staticmethod
    def _some(count):
        if count == 0:
            raise Failed("the server closed the connection")
        return count


def seconds(port, paths, md5):
    """How long the server takes to send these files at the same time."""
    streams = [Stream(port, path, md5) for path in paths]
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        for stream in streams:
            stream.begin()
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        left = len(streams)
        while left:
            ready = selector.select(lines.TIMEOUT_SECONDS)
            if not ready:
                raise Failed("the server sends nothing any more")
            for key, _ in ready:
                if key.data.pump():
                    selector.unregister(key.fileobj)
                    left -= 1
        wall = time.perf_counter() - started
    for stream in streams:
        stream.line.close()
    return wall
