"""Starting and ending processes, and reading what a server and its children cost."""

import ctypes
import os
import subprocess
import tempfile
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# How long a server may take to listen, to reap a session, or to end.
PATIENCE_SECONDS = 10

# From <sys/prctl.h>.
PR_SET_CHILD_SUBREAPER = 36

_running = []
_orphans_seconds = 0.0


class Failed(Exception):
    """A program did not do what it was started for."""


def start(command, **options):
    """Starts a server; `stop` or `stop_all` ends it. What it prints goes to a file of its own."""
    log = tempfile.TemporaryFile()
    process = subprocess.Popen(
        command,
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=options.pop("stdout", log),
        stderr=log,
        **options,
    )
    process.log = log
    _running.append(process)
    return process


def stop(process):
    """Ends one process, by its own id."""
    if process in _running:
        _running.remove(process)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def stop_all():
    """Ends everything that was started and is still there."""
    while _running:
        stop(_running[-1])


def last_words(process):
    """The end of what a process printed, in one line."""
    process.log.seek(0)
    return " ".join(process.log.read()[-300:].decode(errors="replace").split())


def run_all(commands):
    """Runs clients at the same time, and returns when all are done."""
    finish([start_client(command) for command in commands])


def start_client(command):
    """Starts a client, whose standard output is the sink."""
    return start(command, stdout=subprocess.DEVNULL)


def finish(clients):
    """Waits for clients, all of which have to succeed."""
    failed = None
    for client in clients:
        if client.wait() != 0 and failed is None:
            name = os.path.basename(client.args[0])
            failed = last_words(client) or f"{name}: exit status {client.returncode}"
        _running.remove(client)
        client.log.close()
    if failed:
        raise Failed(failed)


def adopt_orphans():
    """Makes a server's grandchild ours when its parent ends first, as vsftpd's do. Otherwise its
    time would be lost."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphans_seconds():
    """CPU time of all that were adopted and have ended, so far."""
    global _orphans_seconds
    for pid in orphans():
        ended, _, used = os.wait4(pid, os.WNOHANG)
        if ended:
            _orphans_seconds += used.ru_utime + used.ru_stime
    return _orphans_seconds


def orphans():
    """Children of ours that we have not started."""
    started = {process.pid for process in _running}
    return [pid for pid in _children().get(os.getpid(), []) if pid not in started]


def wait_until(condition, what):
    """Looks again and again, without end only for so long."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {PATIENCE_SECONDS} s")
        time.sleep(0.005)


def tree(pid):
    """A process and all that descend from it."""
    children, found = _children(), [pid]
    for one in found:
        found.extend(children.get(one, []))
    return found


def _children():
    """Who has which children."""
    found = {}
    for name in os.listdir("/proc"):
        fields = _stat(name) if name.isdigit() else None
        if fields:
            found.setdefault(int(fields[1]), []).append(int(name))
    return found


def stolen_seconds():
    """Processor time that this machine would have used and its host gave to others, so far."""
    with open("/proc/stat", encoding="ascii") as stat:
        return int(stat.readline().split()[8]) / TICKS_PER_SECOND


def cpu_seconds(pid):
    """User and system time of a process, of what descends from it, and of what that waited for."""
    ticks = 0
    for one in tree(pid):
        fields = _stat(one)
        if fields:
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS_PER_SECOND


def memory_bytes(pid):
    """Resident memory of a process; of several the proportional one, in which a page that they
    share counts once."""
    family = tree(pid)
    if len(family) == 1:
        return resident_bytes(pid)
    kib = 0
    for one in family:
        try:
            with open(f"/proc/{one}/smaps_rollup", encoding="ascii") as lines:
                kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except OSError:
            pass
    return kib * 1024


def resident_bytes(pid):
    """Resident memory of one process, as `ps` shows it."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as line:
        return int(line.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _stat(pid):
    """The fields of /proc/PID/stat from the state on: the name before it may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as line:
            return line.read().rpartition(")")[2].split()
    except OSError:
        return None
