"""Many transfers of `tow/1` in one process that does as little as can be: downloads are thrown away
in the kernel, uploads are zeros whose digests are known beforehand. They go on without end.

    load.py PORT GETS PUTS SIZE NAME,... UPLOADS

The downloads are of the files NAME in turn; each upload is of SIZE bytes, whole segments, to a name
of its own that begins with UPLOADS. `ready` is printed once all of them move. Each line on standard
input is answered with the bytes that every stream has moved so far, downloads first; its end ends
the load.
"""

import hashlib
import itertools
import json
import os
import selectors
import socket
import struct
import sys
import time

HOST = "127.0.0.1"
HEADER = struct.Struct(">c3xIQ")
SEGMENT = 4 << 20
FRAME = 1 << 20
# Of zeros: docs/protocol.md, section 7.
SEGMENT_DIGEST = bytes.fromhex("11982d9688b6023b8f64719c066c3a88")
ZEROS = memoryview(bytes(FRAME))
GULP = bytearray(1 << 22)
# Bytes moved for one stream before the others have their turn.
TURN = 256 << 10


class Stream:
    """A connection, behind its greeting."""

    wants = selectors.EVENT_READ

    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.moved = 0
        self._line = b""
        self._expect("220")
        self.begin()
        self.socket.setblocking(False)

    def read_line(self):
        """The next line, byte by byte: what follows it may be frames. None if it is not here."""
        while not self._line.endswith(b"\n"):
            byte = self.socket.recv(1)
            if not byte:
                sys.exit("the server closed the connection")
            self._line += byte
        line, self._line = self._line.decode(), b""
        return line

    def _expect(self, *codes):
        line = self.read_line()
        if line[:3] not in codes:
            sys.exit(f"the server says {line!r}")


class Get(Stream):
    """A download. Its end is answered with a refusal, so that the server hashes each one anew."""

    def __init__(self, port, path):
        self._command = f"get /{path}\n402\n".encode()
        super().__init__(port)

    def begin(self):
        self.socket.sendall(self._command)
        self._awaited = ["203", "426"]
        self._header, self._left = b"", 0

    def pump(self):
        budget = TURN
        while budget > 0:
            if self._awaited:
                self._expect(self._awaited[0])
                self._awaited.pop(0)
            elif self._left == 0:
                some = self.socket.recv(HEADER.size - len(self._header))
                if not some:
                    sys.exit("the server closed the connection")
                self._header += some
                if len(self._header) == HEADER.size:
                    kind, self._left, _ = HEADER.unpack(self._header)
                    self._header = b""
                    if kind == b"E":
                        self._skip()
                        self.socket.sendall(b"451 not looked at\n")
                        self.begin()
            else:
                got = self.socket.recv_into(GULP, min(self._left, len(GULP)), socket.MSG_TRUNC)
                self._left -= got
                self.moved += got
                budget -= got

    def _skip(self):
        """The root: 16 bytes, which come with their header."""
        self.socket.setblocking(True)
        while self._left:
            self._left -= len(self.socket.recv(self._left))
        self.socket.setblocking(False)


class Put(Stream):
    """An upload, again and again under the same name."""

    _times = itertools.count(int(time.time()))

    def __init__(self, port, path, size):
        self._path, self._size = path, size
        self._owner = os.urandom(16).hex()
        super().__init__(port)

    def begin(self):
        when = next(self._times)
        fields = f"size={self._size} mtime={when}.000000000 tag=t{when} owner={self._owner}"
        self.socket.sendall(f"put /{self._path} {fields}\n".encode())
        self._frames = itertools.chain(frames_of_zeros(0, self._size), [last_frame(self._size)])
        self.wants = selectors.EVENT_READ

    def pump(self):
        if self.wants == selectors.EVENT_READ:
            line = self.read_line()
            if line.startswith("402"):
                self._piece = memoryview(f"426 offset=0 length={self._size}\n".encode())
                self.wants = selectors.EVENT_WRITE
            elif line.startswith("226"):
                self.begin()
            elif not line.startswith("100"):
                sys.exit(f"the server says {line!r}")
            return
        budget = TURN
        while budget > 0:
            if not self._piece:
                piece = next(self._frames, None)
                if piece is None:
                    self.wants = selectors.EVENT_READ
                    return
                self._piece = memoryview(piece)
            sent = self.socket.send(self._piece[:TURN])
            self._piece = self._piece[sent:]
            self.moved += sent
            budget -= sent


def frames_of_zeros(start, end):
    """The frames of zeros from and to the start of a segment, a header or a payload at a time."""
    for segment in range(start, end, SEGMENT):
        for offset in range(segment, segment + SEGMENT, FRAME):
            yield HEADER.pack(b"D", FRAME, offset)
            yield ZEROS
        yield HEADER.pack(b"S", 16, segment) + SEGMENT_DIGEST


def last_frame(size):
    """What ends the frames of so many zeros, whole segments: their root."""
    root = hashlib.md5(SEGMENT_DIGEST * (size // SEGMENT) + struct.pack(">Q", size)).digest()
    return HEADER.pack(b"E", 16, size) + root


def main():
    port, gets, puts, size = map(int, sys.argv[1:5])
    names, uploads = sys.argv[5].split(","), sys.argv[6]
    streams = [Get(port, names[number % len(names)]) for number in range(gets)]
    streams += [Put(port, f"{uploads}-{number}", size) for number in range(puts)]
    selector = selectors.DefaultSelector()
    for stream in streams:
        selector.register(stream.socket, stream.wants, stream)
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
    is_ready = False
    while True:
        for key, _ in selector.select():
            stream = key.data
            if stream is None:
                if not os.read(key.fd, 64):
                    return
                print(json.dumps([one.moved for one in streams]), flush=True)
                continue
            before = stream.wants
            try:
                stream.pump()
            except BlockingIOError:
                pass
            if stream.wants != before:
                selector.modify(stream.socket, stream.wants, stream)
        if not is_ready and all(stream.moved for stream in streams):
            is_ready = True
            print("ready", flush=True)


if __name__ == "__main__":
    main()
