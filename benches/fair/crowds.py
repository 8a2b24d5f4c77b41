"""What a stream gets, and what its bytes cost, as more and more others are connected."""

import resource
import statistics
import time

import processes
import raw
from loads import Load

CROWDS = (10, 1_000, 10_000)
STREAMS = 8
# Idle connections say a word now and then, one after the other: so many in a second, together.
WORDS_PER_SECOND = 100
BOUND = 1.2
GIB = 1 << 30


def crowds(bench):
    """Rate per client and CPU time per byte of 8 downloads, beside 10, 1,000 and 10,000 others."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seconds, rounds = (2, 2) if bench.quick else (5, 5)
    found = {crowd: [] for crowd in CROWDS}
    for _ in range(rounds):
        server, idle = bench.servers.towd(), []
        with Load(bench, server, gets=STREAMS) as load:
            time.sleep(0.5)
            for crowd in CROWDS:
                while len(idle) < crowd:
                    idle.append(raw.greeted(server))
                found[crowd].append(_measure(load, server, idle, seconds))
        for line in idle:
            line.close()
        processes.stop(server.process)
    for name, unit, at in (("rate per client", "MiB/s", 0), ("CPU time per byte", "s/GiB", 1)):
        base = found[CROWDS[0]]
        for crowd in CROWDS:
            ratio = statistics.median(one[at] / first[at] for one, first in zip(found[crowd], base))
            value = statistics.median(one[at] for one in found[crowd])
            worst = max(ratio, 1 / ratio)
            measured = f"{value:.3g} {unit}; × {ratio:.2f}"
            bound = f"× {1 / BOUND:.2f} to {BOUND}" if crowd != CROWDS[0] else ""
            figure = f"{name}, {STREAMS} downloads beside {crowd:,} others"
            bench.add(figure, measured, bound, worst <= BOUND)


def _measure(load, server, idle, seconds):
    """MiB per second of a client, and seconds of CPU time per GiB."""
    before, began = load.moved()
    cpu = processes.cpu_seconds(server.pid)
    number = 0
    while time.monotonic() < began + seconds:
        idle[number % len(idle)].ask("noop", "200")
        number += 1
        time.sleep(1 / WORDS_PER_SECOND)
    cpu = processes.cpu_seconds(server.pid) - cpu
    after, ended = load.moved()
    moved = sum(after) - sum(before)
    return moved / (ended - began) / len(after) / (1 << 20), cpu * GIB / moved
