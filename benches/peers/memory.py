"""Figures of memory: a server with nothing to do, with idle connections, with stalled downloads."""

import os
import resource
import shutil
import subprocess

import lines
import processes
import servers
import table as tables
from bulk import FTP

# Descriptors that the client needs for itself.
SPARE_DESCRIPTORS = 200
STREAMS = 64


def memory(bench):
    """Resident memory; what the kernel keeps for sockets is not in it."""
    bench.tell("memory")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    towd = bench.servers.towd("towd")
    bench.table.add("memory at start", "towd", tables.size(processes.memory_bytes(towd.pid)))
    processes.stop(towd.process)
    ours = bench.idle_ours if hard < 0 else min(bench.idle_ours, hard - SPARE_DESCRIPTORS)
    idle = "memory per idle connection"
    _per_connection(bench, idle, (*FTP, "rsync"), (ours, bench.idle_peers), _idle)
    stalled = f"memory per download, {STREAMS} that stall"
    _per_connection(bench, stalled, FTP, (STREAMS, STREAMS), _stalled)


def _per_connection(bench, figure, peers, counts, open_one):
    """Servers that have done nothing yet, since one that has may hold memory that it can use again;
    `counts` are the connections of towd and of a peer."""
    towd, ours = bench.servers.towd("towd"), None
    subjects = [towd, *filter(None, map(bench.servers.afresh, peers))]
    for server, count in zip(subjects, (counts[0], *(counts[1] for _ in peers))):
        try:
            server.quiet()
            before = processes.memory_bytes(server.pid)
            after = _with_open(server, count, open_one)
        except (processes.Failed, OSError) as reason:
            bench.table.add(figure, f"{server.name}, {count:,}", f"failed: {reason}")
            continue
        each = max(after - before, 0) / count
        if server is towd:
            ours = each
        ratio = each / ours if ours and server is not towd else None
        measured = f"{tables.size(each)}; {tables.size(after)} in all"
        bench.table.add(figure, f"{server.name}, {count:,}", measured, ratio=ratio)
    processes.stop(towd.process)


def _with_open(server, count, open_one):
    """The server's memory with so many connections, which are closed then."""
    opened = []
    try:
        for _ in range(count):
            opened.extend(open_one(server))
        return processes.memory_bytes(server.pid)
    finally:
        for one in opened:
            one.close()
        server.quiet()


def _idle(server):
    return [lines.logged_in(server, servers.PASSWORD)]


def _stalled(server):
    line = lines.logged_in(server, servers.PASSWORD)
    return lines.begin_download(server, line, "one")


def binary(bench):
    """What has to be carried to another machine."""
    bench.tell("size")
    stripped = os.path.join(bench.work, "towd-stripped")
    shutil.copy(bench.servers.programs["towd"], stripped)
    if shutil.which("strip") is None:
        bench.table.add("size of the server", "towd", "there is no strip here")
        return
    subprocess.run(["strip", stripped], check=True)
    bench.table.add("size of the server", "towd, stripped", tables.size(os.path.getsize(stripped)))
