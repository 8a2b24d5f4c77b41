"""Stands between `tow` and `towd`: cuts the line after so many bytes, and notes when the first byte
of a file passes."""

import socket
import threading
import time

from load import HEADER
from lines import HOST


class Relay:
    """One connection, to a port that is known before it comes."""

    def __init__(self, server, cut_after=None):
        self._server, self._cut_after = server, cut_after
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self.first_data_at = None
        self._sockets = []
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self):
        client, _ = self._listener.accept()
        # Nobody else comes: after the cut, the client is to give up.
        self._listener.close()
        server = socket.create_connection((HOST, self._server.port))
        self._sockets += [client, server]
        for one in self._sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
        back.start()
        self._threads.append(back)
        self._pass(client, server)

    def _pass(self, source, sink):
        passed, head = 0, b""
        try:
            while some := source.recv(1 << 20):
                if self.first_data_at is None and len(head) < 1 << 20:
                    head += some
                    if has_data(head):
                        self.first_data_at = time.perf_counter()
                sink.sendall(some)
                passed += len(some)
                if self._cut_after and passed > self._cut_after:
                    break
        except OSError:
            pass
        for one in self._sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        """Waits for the end of both directions."""
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()


def has_data(head):
    """Whether a byte of a data frame is among these: lines up to `426`, then frames."""
    while head and not head.startswith(b"426"):
        _, end, head = head.partition(b"\n")
        if not end:
            return False
    _, _, frames = head.partition(b"\n")
    while len(frames) > HEADER.size:
        kind, length, _ = HEADER.unpack(frames[: HEADER.size])
        if kind == b"D":
            return True
        frames = frames[HEADER.size + length :]
    return False
