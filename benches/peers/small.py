"""Figures of small things: many small files, log-ins, commands beside bulk load."""

import os
import statistics
import subprocess
import tempfile
import time

import lines
import processes
import servers
from bulk import FTP, SINK, SSH, TREE, XXH
from compare import Candidate, compare

SMALL_BYTES = 2048
BULK_CLIENTS = 16
# Pauses between two small commands, so that they meet the server at all points of its turn.
PAUSE_SECONDS = 0.003
# CPU time of the server from which on the bulk load is there.
WARM_SECONDS = 0.05


def files(bench):
    """A folder of small files over one connection."""
    count = len(os.listdir(bench.small))
    what = f"{count:,} files of 2 KiB, one connection"
    bench.tell(what)
    tow, rsync, sftp = map(bench.servers.get, ("towpath", "rsync", "sftp"))
    source = os.path.join(bench.sources_folder, "small")
    arrived = os.path.join(bench.uploads, "small")
    local = os.path.join(bench.downloads, "small")

    def expect(folder):
        if len(os.listdir(folder)) != count:
            raise processes.Failed("not all files are there")

    def put_aside(folder):
        """Not removed: ext4 passes over the inodes of files that were removed in the last minutes,
        one by one, for each file that is made. That took ten times as long as all the rest."""
        if os.path.exists(folder):
            os.rename(folder, os.path.join(tempfile.mkdtemp(dir=bench.work), "small"))

    def ways(get, server, command, who, verified):
        folder = local if get else arrived
        return Candidate(
            who,
            server,
            [[command]],
            verified,
            prepare=lambda: put_aside(folder),
            check=lambda: expect(folder),
        )

    for way in ("get", "put"):
        get, candidates = way == "get", []
        ours = tow.get("small", bench.downloads, "-r") if get else tow.put(source, "up/", "-r")
        candidates.append(ways(get, tow, ours, f"tow {way} -r", TREE))
        if rsync:
            for who, more in (("rsync -Wr", []), ("rsync -Wr --fsync", ["--fsync"])):
                theirs = (
                    rsync.get("small", bench.downloads, "-r", *more)
                    if get
                    else rsync.put(source, "up/", "-r", *more)
                )
                candidates.append(ways(get, rsync, theirs, who, XXH))
        if sftp:
            theirs = (
                sftp.get("small", bench.downloads, "-r") if get else sftp.put(source, "up/", "-r")
            )
            candidates.append(ways(get, sftp, theirs, f"sftp {way} -r", SSH))
        figure = f"{way}, {what}"
        compare(bench, figure, candidates, count * SMALL_BYTES, unit="seconds")


def logins(bench):
    """Connections that log in and say goodbye, one after the other."""
    bench.tell("log-ins")
    users = os.path.join(bench.servers.root, ".tow", "bench-users")
    towd = [bench.servers.programs["towd"], "--root", bench.servers.root, "--users", users]
    secret = dict(os.environ, TOW_PASSWORD=servers.PASSWORD + "-long-enough")
    subprocess.run([*towd, "user", "add", servers.USER], env=secret, check=True)
    tow = bench.servers.towd("towpath-login", ["--users", users])
    tow.user = servers.USER
    rates = {}
    subjects = [("tow, SCRAM-SHA-256", tow, secret["TOW_PASSWORD"])]
    subjects += [(server.name, server, servers.PASSWORD) for server in bench.servers.started(*FTP)]
    for _ in range(bench.rounds):
        for who, server, secret in subjects:
            try:
                rates.setdefault(who, []).append(_logins_per_second(bench, server, secret))
            except (processes.Failed, OSError) as reason:
                rates[who] = str(reason)
                subjects = [subject for subject in subjects if subject[0] != who]
    ours = rates[subjects[0][0]]
    for who, found in rates.items():
        if isinstance(found, str):
            bench.table.add("log-ins, one after the other", who, f"failed: {found}")
            continue
        ratio = None
        if found is not ours and not isinstance(ours, str):
            ratio = statistics.median(our / their for our, their in zip(ours, found))
        rate = f"{statistics.median(found):,.0f} per s"
        bench.table.add("log-ins, one after the other", who, rate, ratio=ratio)
    processes.stop(tow.process)


def _logins_per_second(bench, server, password):
    """So many as fit into a while."""
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < bench.login_seconds:
        with lines.logged_in(server, password) as line:
            line.ask("quit", "221")
        count += 1
    return count / passed


def beside(bench):
    """How long a small command takes while others download."""
    figure = f"NOOP beside {BULK_CLIENTS} downloads"
    bench.tell(figure)
    subjects, found = bench.servers.started("towpath", *FTP), {}
    for _ in range(bench.rounds):
        for server in list(subjects):
            try:
                found.setdefault(server, []).append(_beside(bench, server))
            except (processes.Failed, OSError) as reason:
                bench.table.add(figure, server.name, f"failed: {reason}")
                subjects.remove(server)
    ours = found.get(bench.servers.get("towpath"))
    for server in subjects:
        rounds = found[server]
        medians, tails = zip(*rounds)
        ratio = None
        if ours and rounds is not ours:
            ratio = statistics.median(their[1] / our[1] for their, our in zip(rounds, ours))
        median, tail = (1000 * statistics.median(values) for values in (medians, tails))
        measured = f"p99 {tail:.2f} ms, median {median:.2f} ms"
        bench.table.add(figure, server.name, measured, ratio=ratio)


def _beside(bench, server):
    """Median and p99 of a small command, in seconds, beside clients that download all the while."""
    command, times, clients = server.get("one", SINK), [], []

    def keep_going():
        for number, client in enumerate(clients):
            if client.poll() is not None:
                processes.finish([client])
                clients[number] = processes.start_client(command)

    def sends():
        keep_going()
        return processes.cpu_seconds(server.pid) > before + WARM_SECONDS

    server.quiet()
    with lines.logged_in(server, servers.PASSWORD) as line:
        try:
            before = processes.cpu_seconds(server.pid)
            clients.extend(processes.start_client(command) for _ in range(BULK_CLIENTS))
            processes.wait_until(sends, "the downloads begin")
            while len(times) < bench.pings:
                started = time.perf_counter()
                line.ask("noop", "200")
                times.append(time.perf_counter() - started)
                time.sleep(PAUSE_SECONDS)
                keep_going()
        finally:
            for client in clients:
                processes.stop(client)
    times.sort()
    return statistics.median(times), times[len(times) * 99 // 100]
