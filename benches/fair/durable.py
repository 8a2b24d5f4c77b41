"""How long a client waits for its verdict: everything is to be on the disk by then."""

import os
import shutil
import time

import processes
import raw
from load import FRAME, ZEROS, frames_of_zeros, last_frame
from loads import Load
from pings import SlowDisk

GIB = 1 << 30
UPLOADS, UPLOAD_BYTES = 4, GIB // 2
# What the server lets one be ahead, a checkpoint, and what is in the buffers of the line.
AHEAD_BYTES = (64 + 8 + 24) << 20
# The last checkpoints, the commit's own syncs and the disk's own cache: not the file.
BOUND_SECONDS = 1.0


def durable(bench):
    """From the last byte of an upload to `226`, beside the same bytes written and synced here."""
    size = GIB // 2 if bench.quick else 2 * GIB
    rounds = 2 if bench.quick else 3
    server = bench.servers.towd()
    for number in range(rounds):
        plain = _plain(os.path.join(bench.work, "plain"), size)
        os.sync()
        sent, verdict = _put(server, size, number)
        measured = (
            f"{verdict:.2f} s behind {sent:.2f} s of sending; "
            f"write and fsync of the same bytes: {plain:.2f} s"
        )
        figure = f"from the end of {size / GIB:g} GiB to 226"
        bench.add(figure, measured, f"≤ {BOUND_SECONDS:g} s", verdict <= BOUND_SECONDS)
    if shutil.which("strace"):
        _ahead(bench, server)
    processes.stop(server.process)


def _ahead(bench, server):
    """What uploads bring while every sync takes 2 s: the rest would fill the memory."""
    with Load(bench, server, puts=UPLOADS, put_bytes=UPLOAD_BYTES) as load, SlowDisk(bench, server):
        before, _ = load.moved()
        time.sleep(4)
        after, _ = load.moved()
    most = max(now - then for then, now in zip(before, after))
    figure = f"taken of each of {UPLOADS} uploads in 4 s, with 2 s for each sync"
    measured = f"{most / (1 << 20):.0f} MiB at most"
    bench.add(figure, measured, f"≤ {AHEAD_BYTES >> 20} MiB", most <= AHEAD_BYTES)


def _plain(path, size):
    began = time.perf_counter()
    with open(path, "wb", buffering=0) as out:
        for _ in range(size // FRAME):
            out.write(ZEROS)
        os.fsync(out.fileno())
    took = time.perf_counter() - began
    os.remove(path)
    return took


def _put(server, size, number):
    """Seconds of sending, and of waiting for the verdict."""
    owner = os.urandom(16).hex()
    with raw.greeted(server) as line:
        line.ask(f"put /up/durable size={size} mtime={number}.000000000 tag=t owner={owner}", "402")
        began = time.perf_counter()
        line.socket.sendall(f"426 offset=0 length={size}\n".encode())
        for piece in frames_of_zeros(0, size):
            line.socket.sendall(piece)
        line.socket.sendall(last_frame(size))
        ended = time.perf_counter()
        told = line.reply("100", "226")
        while told.startswith("100"):
            told = line.reply("100", "226")
        return ended - began, time.perf_counter() - ended
