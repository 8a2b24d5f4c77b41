"""Runs candidates turn by turn, A B C A B C, so that what else the machine does meets all alike."""

import dataclasses
import os
import statistics
import time

import processes

GIB = 1 << 30


def nothing():
    """For candidates that need no preparation."""


@dataclasses.dataclass
class Candidate:
    """One way to do the job. `stages` run one after the other, the commands of one at the same
    time; `prepare` and `check` stand outside the clock."""

    who: str
    server: object
    stages: list
    verified: str
    prepare: object = nothing
    check: object = nothing
    own_cpu: bool = True
    walls: list = dataclasses.field(default_factory=list)
    cpu: list = dataclasses.field(default_factory=list)
    failed: str | None = None

    def once(self):
        """One run: wall seconds and the server's CPU seconds."""
        self.prepare()
        # What an earlier candidate left to be written is not this one's burden.
        os.sync()
        self.server.quiet()
        time.sleep(self.server.rest_seconds)
        pid = self.server.pid
        cpu = _cpu_seconds(pid)
        started = time.perf_counter()
        for commands in self.stages:
            processes.run_all(commands)
        wall = time.perf_counter() - started
        # A session's CPU time is its server's once it has been waited for.
        self.server.quiet()
        cpu = _cpu_seconds(pid) - cpu
        self.check()
        return wall, cpu


def _cpu_seconds(pid):
    """The server's, and that of sessions which outlived it in the family."""
    return processes.cpu_seconds(pid) + processes.orphans_seconds()


def compare(bench, figure, candidates, size, unit="rate", runs=1):
    """Measures all candidates, and compares them with the first if that is ours. Rounds of a
    negative number warm up and do not count. Of so many runs in a row, the last counts."""
    for turn in bench.turns():
        for candidate in candidates:
            if candidate.failed:
                continue
            try:
                wall, cpu = [candidate.once() for _ in range(runs)][-1]
            except (processes.Failed, OSError) as reason:
                candidate.failed = str(reason)
                continue
            if turn >= 0:
                candidate.walls.append(wall)
                candidate.cpu.append(cpu)
    ours = next((one for one in candidates[:1] if one.server.speaks == "tow"), None)
    if ours is not None and ours.failed:
        ours = None
    for candidate in candidates:
        _add(bench.table, figure, candidate, ours, size, unit)


def _add(table, figure, candidate, ours, size, unit):
    if candidate.failed:
        table.add(figure, candidate.who, f"failed: {candidate.failed}")
        return
    wall = statistics.median(candidate.walls)
    measured = f"{size / GIB / wall:.2f} GiB/s" if unit == "rate" else f"{wall:.2f} s"
    # CPU time has a grain of 10 ms: the sum of the rounds is finer than their median.
    cpu = sum(candidate.cpu) / len(candidate.cpu)
    compared = ours is not None and candidate is not ours
    cells = {"verified": candidate.verified}
    if compared:
        pairs = zip(candidate.walls, ours.walls)
        cells["ratio"] = statistics.median(their / our for their, our in pairs)
    if candidate.own_cpu:
        per_gib = unit == "rate"
        cells["cpu"] = f"{cpu * GIB / size:.2f} s/GiB" if per_gib else f"{cpu:.2f} s"
        our_cpu = sum(ours.cpu) / len(ours.cpu) if compared else 0
        if our_cpu > 0:
            cells["cpu_ratio"] = cpu / our_cpu
    table.add(figure, candidate.who, measured, **cells)
