"""Memory of the server: with nothing to do, with idle connections, with streams that stand still."""

import itertools
import os
import resource
import time
from subprocess import PIPE

import lines
import processes
import raw
from load import HEADER, ZEROS

START_BYTES, IDLE_BYTES, STREAM_BYTES = 4 << 20, 16 << 20, 64 << 10
IDLE = 10_000
STREAMS = (64, 1_000)
# Enough to fill the buffers of a line and to let the server work on it.
HALF_SENT = (1 << 20) - 4096

_numbers = itertools.count()


def held(bench):
    """Resident memory; what the kernel keeps for sockets is not in it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    at_start, parts = _at_start(bench)
    measured = f"{_mib(at_start)}, of which {_mib(parts['Anonymous'])} are its own, "
    measured += f"{_mib(at_start - parts['Anonymous'])} are pages of programs and libraries"
    bench.add("memory at start", measured, "≤ 4 MiB", at_start <= START_BYTES)
    server = bench.servers.towd()
    at_start = processes.resident_bytes(server.pid)
    idle = _open(IDLE, lambda _: raw.greeted(server))
    more = processes.resident_bytes(server.pid) - at_start
    bench.add(f"{IDLE:,} idle connections", f"{_mib(more)} more", "≤ 16 MiB", more <= IDLE_BYTES)
    _close(idle)
    processes.stop(server.process)
    for what, begin in (("downloads that are not read", _get), ("uploads half sent", _put)):
        for count in STREAMS:
            server = bench.servers.towd()
            # The buffers of the loop are there once somebody has used them.
            _close(_open(16, lambda number: begin(bench, server, number)))
            before = processes.resident_bytes(server.pid)
            streams = _open(count, lambda number: begin(bench, server, number))
            time.sleep(1)
            each = (processes.resident_bytes(server.pid) - before) / count
            measured = f"{each / 1024:.1f} KiB each"
            figure = f"{count:,} {what}"
            bench.add(figure, measured, "≤ 64 KiB each", each <= STREAM_BYTES)
            _close(streams)
            processes.stop(server.process)


def _at_start(bench):
    """Of a server that nobody has spoken to yet."""
    towd = [bench.programs["towd"], "--quiet", "--no-login", "--root", bench.root]
    process = processes.start([*towd, "--listen", "127.0.0.1:0"], stdout=PIPE)
    # It listens.
    process.stdout.readline()
    found = processes.resident_bytes(process.pid), _parts(process.pid)
    processes.stop(process)
    return found


def _open(count, one):
    return [one(number) for number in range(count)]


def _close(opened):
    for line in opened:
        line.close()


def _get(bench, server, number):
    line = raw.greeted(server)
    lines.begin_download(server, line, bench.names[number % len(bench.names)])
    return line


def _put(_, server, __):
    line = raw.greeted(server)
    size = 8 << 20
    name = f"half-{next(_numbers)}"
    offer = f"put /up/{name} size={size} mtime=1.000000000 tag=t owner={os.urandom(16).hex()}"
    line.ask(offer, "402")
    line.socket.sendall(f"426 offset=0 length={size}\n".encode())
    line.socket.sendall(HEADER.pack(b"D", 1 << 20, 0) + bytes(ZEROS[:HALF_SENT]))
    return line


def _parts(pid):
    """How the resident memory divides, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as told:
        fields = (line.split() for line in told)
        return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields if len(field) == 3}


def _mib(number):
    return f"{number / (1 << 20):.2f} MiB"
