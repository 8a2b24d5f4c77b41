"""Figures of large files: one stream and 64, both ways, and the server's CPU time for them."""

import os
import shlex
import statistics
import time

import counting
import processes
from compare import GIB, Candidate, compare

FTP = ("vsftpd", "pure-ftpd", "proftpd", "pyftpdlib")
SINK = "/dev/stdout"
# What changed less than two seconds ago may change again without a trace: towd does not remember it.
SETTLED_SECONDS = 2.1
# A virtual machine gives memory that has been free for some seconds back to its host, and waits when it
# takes it again: who writes a file behind a slow candidate pays for that, up to as much as for all else. So
# the run before the one that counts has filled as much memory in the same way.
RUNS_WRITING = 2
# How the bytes are known to be the right ones.
TREE, TREE_AND_MD5 = "md5-tree", "md5-tree, md5"
XXH, SSH, SUMS, UNVERIFIED = "xxh128", "MAC of the line", "md5sum", "no"


def sink(bench):
    """One file, one stream, to where nothing is written."""
    bench.tell("get, one stream, to a sink")
    tow, size, remote = bench.servers.get("towpath"), bench.size, bench.one

    def known():
        """Once off the clock, so that towd knows the digests."""
        time.sleep(SETTLED_SECONDS)
        processes.run_all([tow.get("one", SINK)])

    candidates = [
        Candidate("tow get", tow, [[tow.get("one", SINK)]], TREE, prepare=bench.touch),
        Candidate("tow get, again", tow, [[tow.get("one", SINK)]], TREE, prepare=known),
        Candidate(
            "tow get --digest md5",
            tow,
            [[tow.get("one", SINK, "--digest", "md5")]],
            TREE_AND_MD5,
            prepare=bench.touch,
        ),
    ]
    for server in bench.servers.started(*FTP):
        command = [[server.get("one", SINK)]]
        candidates.append(Candidate(f"curl, {server.name}", server, command, UNVERIFIED))
    for server in bench.servers.started("vsftpd"):
        pipe = shlex.join(server.get("one", SINK)) + " | md5sum"
        piped = ["bash", "-o", "pipefail", "-c", pipe]
        who = "curl piped into md5sum, vsftpd; md5sum there meanwhile"
        both = [[piped, ["md5sum", remote]]]
        candidates.append(Candidate(who, server, both, SUMS, own_cpu=False))
    for server in bench.servers.started("sftp"):
        candidates.append(Candidate("sftp", server, [[server.get("one", SINK)]], SSH))
    compare(bench, "get, one stream, to a sink", candidates, size)


def get(bench):
    """One file, one stream, to a file."""
    bench.tell("get, one stream, to a file")
    tow, rsync = bench.servers.get("towpath"), bench.servers.get("rsync")
    local = os.path.join(bench.downloads, "one")

    def fresh():
        bench.touch()
        bench.forget(local)

    def check():
        bench.expect(local, bench.size)

    def candidate(who, server, stages, verified, **more):
        more = {"prepare": fresh, "check": check, **more}
        return Candidate(who, server, stages, verified, **more)

    candidates = [candidate("tow get", tow, [[tow.get("one", local)]], TREE)]
    if rsync:
        candidates += [
            candidate("rsync -W", rsync, [[rsync.get("one", local)]], XXH),
            candidate("rsync -W --fsync", rsync, [[rsync.get("one", local, "--fsync")]], XXH),
        ]
    for server in bench.servers.started("vsftpd"):
        stages = [[server.get("one", local)]]
        candidates.append(candidate("curl, vsftpd", server, stages, UNVERIFIED))
        sums = [["md5sum", bench.one], ["md5sum", local]]
        who = "curl, vsftpd, then md5sum on both ends at once"
        candidates.append(candidate(who, server, [*stages, sums], SUMS, own_cpu=False))
    for server in bench.servers.started("sftp"):
        candidates.append(candidate("sftp", server, [[server.get("one", local)]], SSH))
    compare(bench, "get, one stream, to a file", candidates, bench.size, runs=RUNS_WRITING)


def put(bench):
    """One file, one stream, up."""
    bench.tell("put, one stream")
    tow, rsync = bench.servers.get("towpath"), bench.servers.get("rsync")
    arrived = os.path.join(bench.uploads, "one")

    def candidate(who, server, stages, verified, **more):
        return Candidate(
            who,
            server,
            stages,
            verified,
            prepare=lambda: bench.forget(arrived),
            check=lambda: bench.expect(arrived, bench.size),
            **more,
        )

    def to(server, *more):
        return [[server.put(bench.source, "up/one", *more)]]

    candidates = [
        candidate("tow put", tow, to(tow), TREE),
        candidate("tow put --digest md5", tow, to(tow, "--digest", "md5"), TREE_AND_MD5),
    ]
    if rsync:
        candidates += [
            candidate("rsync -W", rsync, to(rsync), XXH),
            candidate("rsync -W --fsync", rsync, to(rsync, "--fsync"), XXH),
        ]
    for server in bench.servers.started(*FTP):
        candidates.append(candidate(f"curl, {server.name}", server, to(server), UNVERIFIED))
    for server in bench.servers.started("vsftpd"):
        sums = [["md5sum", bench.source], ["md5sum", arrived]]
        who = "curl, vsftpd, then md5sum on both ends at once"
        candidates.append(candidate(who, server, [*to(server), sums], SUMS, own_cpu=False))
    for server in bench.servers.started("sftp"):
        candidates.append(candidate("sftp", server, to(server), SSH))
    compare(bench, "put, one stream", candidates, bench.size, runs=RUNS_WRITING)


def many(bench):
    """64 files by 64 clients at once, both ways."""
    streams, size = len(bench.parts), bench.size
    bench.tell(f"{streams} streams")
    tow = bench.servers.get("towpath")
    names = [os.path.basename(path) for path in bench.parts]
    arrived = [os.path.join(bench.uploads, name) for name in names]

    def getting(server, *more):
        return [[server.get(name, SINK, *more) for name in names]]

    def putting(server, *more):
        pairs = zip(bench.sources, names)
        return [[server.put(path, "up/" + name, *more) for path, name in pairs]]

    def forget():
        for path in arrived:
            bench.forget(path)

    def check():
        for path in arrived:
            bench.expect(path, size // streams)

    def a_get(who, server, verified, *more):
        gets.append(Candidate(who, server, getting(server, *more), verified, prepare=bench.touch))

    def a_put(who, server, verified, *more):
        stages = putting(server, *more)
        puts.append(Candidate(who, server, stages, verified, prepare=forget, check=check))

    gets, puts = [], []
    a_get("tow get", tow, TREE)
    a_get("tow get --digest md5", tow, TREE_AND_MD5, "--digest", "md5")
    a_put("tow put", tow, TREE)
    a_put("tow put --digest md5", tow, TREE_AND_MD5, "--digest", "md5")
    for server in bench.servers.started(*FTP):
        a_get(f"curl, {server.name}", server, UNVERIFIED)
        a_put(f"curl, {server.name}", server, UNVERIFIED)
    for server in bench.servers.started("rsync"):
        a_put("rsync -W", server, XXH)
    compare(bench, f"get, {streams} streams, to a sink", gets, size)
    compare(bench, f"put, {streams} streams", puts, size, runs=RUNS_WRITING)


def lanes(bench):
    """What one towd sends to many, in sum, against what it sends to one. The client only counts."""
    bench.tell("the server alone")
    tow, streams = bench.servers.get("towpath"), len(bench.parts)
    names = [os.path.basename(path) for path in bench.parts]
    for digest, md5 in (("md5-tree", False), ("md5-tree, md5", True)):
        rates, cpu = {1: [], streams: []}, {1: 0.0, streams: 0.0}
        for turn in bench.turns():
            for paths in (["one"], names):
                bench.touch()
                before = processes.cpu_seconds(tow.pid)
                seconds = counting.seconds(tow.port, paths, md5)
                if turn >= 0:
                    rates[len(paths)].append(bench.size / GIB / seconds)
                    cpu[len(paths)] += processes.cpu_seconds(tow.pid) - before
        bytes_sent = bench.size * bench.rounds
        figure = f"towd alone, {digest}; ×: in sum against one stream"
        for count, found in rates.items():
            who = "one stream" if count == 1 else f"{count} streams"
            ratio = statistics.median(many / one for many, one in zip(found, rates[1]))
            bench.table.add(
                figure,
                f"a client that only counts, {who}",
                f"{statistics.median(found):.2f} GiB/s",
                ratio=None if count == 1 else ratio,
                cpu=f"{cpu[count] * GIB / bytes_sent:.2f} s/GiB",
            )
