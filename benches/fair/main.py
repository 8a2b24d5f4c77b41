"""What `benches/fair.sh` starts: flags, the files to move, and one figure after the other."""

import argparse
import os
import shutil
import sys
import tempfile
import time

import command
import crowds
import durable
import held
import pings
import processes
import resume
import shares
from servers import Servers

FIGURES = {
    "pings": pings.pings,
    "shares": shares.shares,
    "crowds": crowds.crowds,
    "held": held.held,
    "resume": resume.resume,
    "durable": durable.durable,
}
STARTED = time.monotonic()
# Files that downloads are of: together they are in memory.
FILES, FILE_BYTES = 8, 64 << 20


class Bench:
    """The folder, the server's programs, the sizes of this run, and what it found."""

    def __init__(self, work, programs, options):
        self.work, self.quick = work, options.quick
        self.failed = []
        self.rows = []
        self.root = os.path.join(work, "served")
        self.programs = programs
        os.makedirs(os.path.join(self.root, "up"))
        self.servers = Servers(None, programs, work, self.root)
        self.names = [f"file-{number}" for number in range(FILES)]
        for name in self.names:
            with open(os.path.join(self.root, name), "wb") as out:
                for _ in range(FILE_BYTES >> 20):
                    out.write(os.urandom(1 << 20))
        os.sync()

    @staticmethod
    def tell(text):
        """What happens, beside the table."""
        print(f"{time.monotonic() - STARTED:5.0f} s  {text}", file=sys.stderr, flush=True)

    def add(self, figure, measured, bound="", kept=True):
        """A row of the table: what was measured, the bound, and whether it was kept."""
        verdict = "" if not bound else "yes" if kept else "**no**"
        if not kept:
            self.failed.append(figure)
        self.rows.append((figure, measured, bound, verdict))
        self.tell("  " + " | ".join(cell for cell in self.rows[-1] if cell))

    def report(self):
        """The table, as Markdown."""
        rows = [("figure", "measured", "bound", "kept"), ("---",) * 4, *self.rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _options():
    parser = argparse.ArgumentParser(
        prog="benches/fair.sh",
        description="Measures that no client feels another. Ends with 1 if a bound is not kept.",
        epilog="TOW_BENCH_DIR: the folder to work in [default: fair below the build directory].",
    )
    parser.add_argument("--quick", action="store_true", help="shorter, with smaller files")
    command.add_only(parser, FIGURES)
    return parser.parse_args()


def main():
    options = _options()
    command.exit_on_signals()
    target = os.path.abspath(os.environ.get("CARGO_TARGET_DIR", "target"))
    programs = {name: os.path.join(target, "release", name) for name in ("tow", "towd")}
    base = os.environ.get("TOW_BENCH_DIR") or os.path.join(target, "fair")
    os.makedirs(base, exist_ok=True)
    work = tempfile.mkdtemp(prefix="run-", dir=os.path.abspath(base))
    try:
        bench = Bench(work, programs, options)
        began, stolen = time.monotonic(), processes.stolen_seconds()
        for name in options.only or FIGURES:
            FIGURES[name](bench)
        stolen = processes.stolen_seconds() - stolen
        share = stolen / os.cpu_count() / (time.monotonic() - began)
        bench.add("what the host took of the processors", f"{stolen:.1f} s, {share:.1%} of all")
    finally:
        processes.stop_all()
        shutil.rmtree(work, ignore_errors=True)
    print(bench.report())
    if bench.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
