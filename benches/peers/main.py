"""What `benches/peers.sh` starts: flags, the files to move, and one figure after the other."""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time

import bulk
import command
import machine
import memory
import processes
import small
from packages import Packages
from servers import ACCOUNT, Servers
from table import Table

FIGURES = {
    "sink": bulk.sink,
    "get": bulk.get,
    "put": bulk.put,
    "many": bulk.many,
    "lanes": bulk.lanes,
    "files": small.files,
    "logins": small.logins,
    "noop": small.beside,
    "memory": memory.memory,
    "binary": memory.binary,
}
STREAMS = 64
STARTED = time.monotonic()
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"


class Bench:
    """The files to move, the servers, the sizes of this run, and the table that it fills."""

    def __init__(self, work, servers, options):
        self.work, self.servers = work, servers
        self.table = Table(self.tell)
        self.size = options.size
        self.rounds = options.pairs
        quick = options.quick
        self.warm_up_rounds = 0 if quick else 1
        self.idle_ours, self.idle_peers = (2_000, 50) if quick else (10_000, 500)
        self.login_seconds, self.pings = (0.3, 100) if quick else (2, 1000)
        self.served = servers.root
        self.one = os.path.join(self.served, "one")
        self.small = os.path.join(self.served, "small")
        self.uploads = os.path.join(self.served, "up")
        self.sources_folder = os.path.join(work, "sources")
        self.source = os.path.join(self.sources_folder, "one")
        self.downloads = os.path.join(work, "down")
        names = [f"part-{number:02}" for number in range(STREAMS)]
        self.parts = [os.path.join(self.served, name) for name in names]
        self.sources = [os.path.join(self.sources_folder, name) for name in names]
        self._make(500 if quick else 5000)

    @staticmethod
    def tell(text):
        """What happens, beside the table."""
        print(f"{time.monotonic() - STARTED:5.0f} s  {text}", file=sys.stderr, flush=True)

    def _make(self, small_files):
        """The same files to be served and to be sent. Written just now, they are in memory."""
        for folder in (self.small, self.uploads, self.sources_folder, self.downloads):
            os.makedirs(folder)
        _fill(self.one, self.size)
        for path in self.parts:
            _fill(path, self.size // STREAMS)
        for number in range(small_files):
            _fill(os.path.join(self.small, f"{number:05}"), small.SMALL_BYTES)
        for name in ("one", *map(os.path.basename, self.parts)):
            source = os.path.join(self.sources_folder, name)
            shutil.copyfile(os.path.join(self.served, name), source)
        shutil.copytree(self.small, os.path.join(self.sources_folder, "small"))
        if os.geteuid() == 0:
            # Only that one: vsftpd does not start a session in a root that it may write to.
            os.chown(self.uploads, *ACCOUNT[1:])
        os.sync()

    def turns(self):
        """The numbers of the rounds: those that warm up are negative."""
        return range(-self.warm_up_rounds, self.rounds)

    def touch(self):
        """Makes the served files new ones for a server that remembers digests."""
        for path in (self.one, *self.parts):
            os.utime(path)

    @staticmethod
    def forget(path):
        """Takes away what an earlier candidate left."""
        if os.path.exists(path):
            os.remove(path)

    @staticmethod
    def expect(path, size):
        """A transfer that came to nothing is not to be praised for its speed."""
        if not os.path.exists(path) or os.path.getsize(path) != size:
            raise processes.Failed("what arrived is not of the size that it should have")


def _fill(path, size):
    """A file of bytes that can't be compressed, and are nowhere the same."""
    with open(path, "wb") as out:
        while size > 0:
            size -= out.write(os.urandom(min(size, 1 << 20)))


def _size(text):
    match = re.fullmatch(r"(\d+)([KMG]iB)?", text)
    size = int(match[1]) * UNITS[match[2] or ""] if match else 0
    if size < STREAMS * 65536 or size % STREAMS:
        raise argparse.ArgumentTypeError("a size such as 1GiB or 256MiB, of at least 4 MiB")
    return size


def _options():
    parser = argparse.ArgumentParser(
        prog="benches/peers.sh",
        description="Measures towpath and what a user would pick instead, in one run.",
        epilog="TOW_BENCH_DIR: the folder to work in [default: peers below the build directory].",
    )
    parser.add_argument("--quick", action="store_true", help="less than two minutes, and rough")
    command.add_only(parser, FIGURES)
    parser.add_argument("--size", type=_size, help="of the large file [1GiB; quick: 128MiB]")
    parser.add_argument("--pairs", type=int, help="rounds that count [5; quick: 2]")
    parser.add_argument("--into", metavar="FILE", help=f"also write it between {BEGIN} and {END}")
    options = parser.parse_args()
    options.size = options.size or _size("128MiB" if options.quick else "1GiB")
    options.pairs = options.pairs or (2 if options.quick else 5)
    return options


def main():
    options = _options()
    processes.adopt_orphans()
    command.exit_on_signals()
    target = os.path.abspath(os.environ.get("CARGO_TARGET_DIR", "target"))
    programs = {name: os.path.join(target, "release", name) for name in ("tow", "towd")}
    base = os.environ.get("TOW_BENCH_DIR") or os.path.join(target, "peers")
    os.makedirs(base, exist_ok=True)
    os.umask(0o022)
    work = tempfile.mkdtemp(prefix="run-", dir=os.path.abspath(base))
    try:
        # Servers that do not run as we do go through it.
        os.chmod(work, 0o755)
        packages = Packages(os.path.join(target, "peers", "packages"))
        servers = Servers(packages, programs, work, os.path.join(work, "served"))
        bench = Bench(work, servers, options)
        if servers.get("towpath") is None:
            sys.exit(f"towd {servers.missing['towpath']}")
        for name in options.only or FIGURES:
            FIGURES[name](bench)
        text = machine.report(bench, options)
    finally:
        processes.stop_all()
        shutil.rmtree(work, ignore_errors=True)
    print(text)
    if options.into:
        _write_into(options.into, text)


def _write_into(path, text):
    with open(path, encoding="utf-8") as page:
        before, begin, rest = page.read().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{path} has no {BEGIN} and {END}")
    with open(path, "w", encoding="utf-8") as page:
        page.write(f"{before}{begin}\n{text}\n{end}{after}")


if __name__ == "__main__":
    main()
