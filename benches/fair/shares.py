"""Whether equal clients get equal shares."""

import statistics
import time

import processes
from loads import Load

STREAMS = 64
BOUND = 0.95
GIB = 1 << 30


def shares(bench):
    """Jain's index over 64 equal downloads, and over 64 equal uploads, within a window."""
    seconds = 3 if bench.quick else 10
    for what, way in (("downloads", {"gets": STREAMS}), ("uploads", {"puts": STREAMS})):
        server = bench.servers.towd()
        with Load(bench, server, **way) as load:
            time.sleep(0.5)
            rates = load.rates(seconds)
        index = jain(rates)
        mean = statistics.mean(rates)
        spread = f"{min(rates) / mean:.2f} to {max(rates) / mean:.2f}"
        measured = f"{index:.4f}; of the mean {spread}; {sum(rates) / GIB:.2f} GiB/s in sum"
        figure = f"Jain's index of {STREAMS} equal {what} in {seconds} s"
        bench.add(figure, measured, f"≥ {BOUND}", index >= BOUND)
        processes.stop(server.process)


def jain(shares_of):
    """1 if all are equal, 1/n if one has everything."""
    squares = sum(share * share for share in shares_of)
    return sum(shares_of) ** 2 / (len(shares_of) * squares) if squares else 0.0
