"""The round trip of a small command beside everything that might hold it up."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import lines
import processes
import raw
from loads import Load

BOUND_MILLIS = 5.0
STREAMS = 64
NAMES = 100_000
PREFIX_BYTES, LEAF = 10 << 30, 32 << 10
# What a disk that hangs does before each of its calls.
SLOW_CALLS = "fsync,fdatasync,openat,openat2,open,pread64,preadv2"
SLOW_MICROS = 2_000_000
# All that the thread of the loop may call: lines, bytes that are in memory, attributes of open
# files, itself. Anything that may wait for a disk is not among them.
LOOP_CALLS = {
    "accept4", "brk", "clock_gettime", "close", "epoll_ctl", "epoll_wait", "fstat", "fstatfs",
    "futex", "getrandom", "getpeername", "getsockname", "getsockopt", "ioctl", "madvise", "mmap",
    "mprotect", "mremap", "munmap", "preadv2", "pwrite64", "read", "recvfrom", "sched_yield",
    "sendmsg", "sendto", "setsockopt", "shutdown", "write", "writev", "restart_syscall",
    "rt_sigprocmask", "statx", "fcntl",
}  # fmt: skip


def pings(bench):
    """p99 of `tow ping` on a server at rest, beside each load alone, and beside all of them."""
    count = 500 if bench.quick else 2000
    server = bench.servers.towd()
    folder = os.path.join(bench.root, "many")
    os.makedirs(folder)
    for number in range(NAMES):
        os.close(os.open(os.path.join(folder, f"name-{number:06}"), os.O_CREAT | os.O_WRONLY))
    prefix = os.path.join(bench.root, "prefix")
    with open(prefix, "wb") as out:
        out.truncate(PREFIX_BYTES)
    loads = {
        f"{STREAMS} streams": lambda: Load(bench, server, STREAMS // 2, STREAMS // 2),
        "a prefix check of 10 GiB": lambda: PrefixCheck(server, prefix),
        f"a listing of {NAMES:,} names": lambda: Listing(server),
    }
    if shutil.which("strace"):
        loads["a disk that takes 2 s for each call"] = lambda: SlowDisk(bench, server)
    else:
        bench.add("ping beside a slow disk", "there is no strace here", "measured", False)
    _ping(bench, server, "at rest", count)
    for name, load in loads.items():
        with load():
            _ping(bench, server, f"beside {name}", count)
    with contextlib.ExitStack() as all_at_once:
        for load in loads.values():
            all_at_once.enter_context(load())
        _ping(bench, server, "beside all of these at once", count)
    if shutil.which("strace"):
        with contextlib.ExitStack() as all_at_once:
            for load in list(loads.values())[:3]:
                all_at_once.enter_context(load())
            _calls_of_the_loop(bench, server)
    processes.stop(server.process)
    shutil.rmtree(folder)
    os.remove(prefix)


def _ping(bench, server, beside, count):
    command = [bench.programs["tow"], "ping", "--quiet", "-c", str(count), "-i", "0.003"]
    command.append(f"tow://{lines.HOST}:{server.port}/")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = done.stdout.strip()
    p99 = float(re.search(r"p99 ([\d.]+) ms", told)[1])
    measured = told.partition(": ")[2]
    bench.add(f"ping {beside}", measured, f"p99 ≤ {BOUND_MILLIS:g} ms", p99 <= BOUND_MILLIS)


class InTurns:
    """Something that a thread does again and again, over a connection of its own each time."""

    def __init__(self, server):
        self._server, self._line = server, None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self):
        self._thread.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self._ends.set()
        self._line.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _go_on(self):
        while not self._ends.is_set():
            with lines.Line(self._server.port) as self._line:
                try:
                    self._line.reply("220")
                    self.once(self._line)
                except (processes.Failed, OSError):
                    if not self._ends.is_set():
                        raise


class Listing(InTurns):
    """All names of a folder, page by page."""

    def once(self, line):
        start = "0"
        while start:
            line.socket.sendall(f"ls /many from={start}\n".encode())
            last = line.reply("150", "200")
            while last.startswith("150"):
                last = line.reply("150", "200")
            start = raw.field(last, "next")


class PrefixCheck(InTurns):
    """A client that has all but the last leaf of a file: the server hashes all of it."""

    def __init__(self, server, path):
        super().__init__(server)
        self._path = path

    def once(self, line):
        # Another version each time, whose digests nobody knows.
        os.utime(self._path)
        tag = raw.field(line.ask("get /prefix", "203"), "tag")
        line.ask(f"000 offset={PREFIX_BYTES - LEAF} tag={tag}", "426")
        while raw.frame(line) != b"E":
            pass


class SlowDisk:
    """strace delays every call of the disk thread that may wait for a disk, and of no other; and
    clients make it busy: one opens files, one puts."""

    def __init__(self, bench, server):
        self._thread = disk_thread(server.pid)
        self._bench, self._server = bench, server

    def __enter__(self):
        delay = f"inject={SLOW_CALLS}:delay_enter={SLOW_MICROS}"
        command = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={SLOW_CALLS}", "-e", delay]
        self._strace = processes.start([*command, "-p", str(self._thread)])
        processes.wait_until(lambda: is_traced(self._thread), "strace is attached")
        self._lines = [raw.greeted(self._server) for _ in range(8)]
        for number, line in enumerate(self._lines):
            line.socket.sendall(f"get /{self._bench.names[number]}\n".encode())
        return self

    def __exit__(self, *_):
        for line in self._lines:
            line.close()
        # It lets go of the thread when it is told to end.
        self._strace.send_signal(signal.SIGINT)
        processes.stop(self._strace)
        processes.wait_until(lambda: not is_traced(self._thread), "strace lets go")


def disk_thread(pid):
    """The thread that does what may wait for a disk."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/comm", encoding="ascii") as name:
            if name.read().strip() == "disk":
                return int(thread)
    raise processes.Failed("there is no disk thread")


def is_traced(thread):
    """Whether a debugger is attached."""
    with open(f"/proc/{thread}/status", encoding="ascii") as status:
        return not re.search(r"^TracerPid:\s+0$", status.read(), re.MULTILINE)


def _calls_of_the_loop(bench, server):
    """Which calls the thread of the loop makes under all the load: none that may wait for a disk,
    and no read of a file without RWF_NOWAIT."""
    log = os.path.join(bench.work, "calls")
    strace = processes.start(["strace", "-qq", "-o", log, "-p", str(server.pid)])
    processes.wait_until(lambda: is_traced(server.pid), "strace is attached")
    with raw.greeted(server) as line:
        for _ in range(20):
            line.ask("noop", "200")
    time.sleep(3)
    strace.send_signal(signal.SIGINT)
    processes.stop(strace)
    calls, others = {}, set()
    with open(log, encoding="utf-8", errors="replace") as told:
        for call in told:
            name = call.partition("(")[0]
            if name.isidentifier():
                calls[name] = calls.get(name, 0) + 1
                if name not in LOOP_CALLS or name == "preadv2" and "RWF_NOWAIT" not in call:
                    others.add(name)
    most = sorted(calls, key=calls.get, reverse=True)
    listed = ", ".join(f"{name} {calls[name]}" for name in most)
    kept = not others and len(calls) > 3
    measured = f"beside: {', '.join(sorted(others))}; " if others else ""
    bench.add("calls of the loop's thread", measured + listed, "none that waits for a disk", kept)
