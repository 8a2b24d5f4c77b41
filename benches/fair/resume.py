"""How soon a resume moves its first new byte, and that what is there is not read again."""

import os
import socket
import subprocess
import time

import processes
import raw
from load import HEADER, SEGMENT, ZEROS, frames_of_zeros
from relay import Relay

BOUND_MILLIS = 50
LEAF = 32 << 10
ROUNDS = 5
# What a receiver may read of a resume's files: the journal, of 16 bytes for each leaf and some
# more for each segment; and what a process reads as it starts.
READ_BYTES_MAX = 8 << 20


def resume(bench):
    """A transfer that was cut at 99 %, both ways: raw, and by `tow` from its start."""
    size = (1 if bench.quick else 8) << 30
    have = size * 99 // 100 // SEGMENT * SEGMENT
    server = bench.servers.towd()
    source = os.path.join(bench.root, "sparse")
    with open(source, "wb") as out:
        out.truncate(size)
    _raw_get(bench, server, source, have)
    _raw_put(bench, server, size, have)
    _tow(bench, server, "get", source, have)
    local = os.path.join(bench.work, "sparse")
    os.rename(source, local)
    _tow(bench, server, "put", local, have)
    os.remove(local)
    processes.stop(server.process)


def _tell(bench, what, times, more=""):
    times = sorted(1000 * seconds for seconds in times)
    measured = f"median {times[len(times) // 2]:.1f} ms, at most {times[-1]:.1f} ms{more}"
    figure = f"first new byte of a resume, {what}"
    bench.add(figure, measured, f"≤ {BOUND_MILLIS} ms", times[-1] <= BOUND_MILLIS)


def _raw_get(bench, server, source, have):
    times = []
    for _ in range(ROUNDS):
        # A version whose digests nobody knows.
        os.utime(source)
        with raw.greeted(server) as line:
            began = time.perf_counter()
            tag = raw.field(line.ask("get /sparse", "203"), "tag")
            line.ask(f"000 offset={have} tag={tag}", "426")
            kind = b""
            while kind != b"D":
                kind, length, _ = HEADER.unpack(raw.take(line, HEADER.size))
                raw.take(line, length if kind != b"D" else 1)
            times.append(time.perf_counter() - began)
    _tell(bench, "get, from the command to the byte", times)


def _raw_put(bench, server, size, have):
    put = f"put /up/resumed size={size} mtime=7.000000000 tag=t owner={os.urandom(16).hex()}"
    with raw.greeted(server) as line:
        line.ask(put, "402")
        line.socket.sendall(f"426 offset=0 length={size}\n".encode())
        for piece in frames_of_zeros(0, have):
            line.socket.sendall(piece)
        _leave(line)
    times, read, start = [], 0, have
    for number in range(ROUNDS):
        with raw.greeted(server) as line:
            before = bytes_read(server.pid)
            began = time.perf_counter()
            offset = int(raw.field(line.ask(put, "000"), "offset"))
            if offset < start:
                raise processes.Failed(f"of {start} bytes there are {offset}")
            line.socket.sendall(f"426 offset={offset} length={size - offset}\n".encode())
            # One leaf more each time: the next round finds that this one's has come.
            line.socket.sendall(HEADER.pack(b"D", LEAF, offset) + bytes(ZEROS[:LEAF]))
            times.append(time.perf_counter() - began)
            _leave(line)
            read = max(read, bytes_read(server.pid) - before)
            start = offset + LEAF
    more = f"; {read / (1 << 20):.2f} MiB read for {have / (1 << 20):,.0f} MiB that are there"
    _tell(bench, "put, from the command to the byte", times, more)
    _expect_unread(bench, "the server of a put", read)


def _leave(line):
    """Breaks off once the server has taken everything: who comes back at once would take over."""
    line.socket.shutdown(socket.SHUT_WR)
    while line.socket.recv(4096):
        pass


def _expect_unread(bench, who, read):
    kept = read <= READ_BYTES_MAX
    bench.add(f"read at a resume by {who}", f"{read / (1 << 20):.2f} MiB", "≤ 8 MiB", kept)


def _tow(bench, server, way, path, have):
    """`tow` through a relay that cuts, then again."""
    local = os.path.join(bench.work, "resumed")

    def command(port):
        url = f"tow://127.0.0.1:{port}/"
        ends = [url + "sparse", local] if way == "get" else [path, url + "up/by-tow"]
        return [bench.programs["tow"], "--quiet", "--give-up", "0", way, *ends]

    alone = _descriptors(server)
    cut = Relay(server, cut_after=have)
    first = subprocess.run(command(cut.port), capture_output=True, check=False)
    cut.close()
    if first.returncode == 0:
        raise processes.Failed("the line was not cut")
    # Another process is refused as long as the server works on what came before the cut.
    processes.wait_until(lambda: _descriptors(server) <= alone, "the server lets go")
    relay = Relay(server)
    began = time.perf_counter()
    client = processes.start(command(relay.port))
    begins = lambda: relay.first_data_at or client.poll() is not None
    processes.wait_until(begins, "the resume begins")
    receiver = client.pid if way == "get" else server.pid
    read = bytes_read(receiver)
    processes.finish([client])
    relay.close()
    _tell(bench, f"tow {way}, from its start", [relay.first_data_at - began])
    if way == "get":
        _expect_unread(bench, "tow get", read)
        os.remove(local)


def _descriptors(server):
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def bytes_read(pid):
    """What a process has read from files so far, be they in memory or not."""
    with open(f"/proc/{pid}/io", encoding="ascii") as told:
        return int(next(line.split()[1] for line in told if line.startswith("rchar")))
