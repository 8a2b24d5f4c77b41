"""What stands around the table: the machine, the versions, and who is missing."""

import os
import platform
import subprocess
import time

import table as tables

def report(bench, options):
    """The whole text that a run prints."""
    quick = " --quick" if options.quick else ""
    parts = [
        f"Measured {time.strftime('%Y-%m-%d', time.gmtime())} by `benches/peers.sh{quick}`"
        f"{_commit()}: {tables.size(bench.size)}, the median of {bench.rounds} rounds.",
        _machine(bench),
    ]
    versions = sorted(bench.servers.packages.versions.items())
    if versions:
        parts.append("With " + ", ".join(f"{name} {version}" for name, version in versions) + ".")
    parts += [f"**Missing: {name}**, {why}." for name, why in bench.servers.missing.items()]
    return "\n\n".join([*parts, bench.table.markdown()])


def _commit():
    """Which state of this project it was."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f" at commit {done.stdout.strip()}" if done.returncode == 0 else ""


def _machine(bench):
    cpu = _after("/proc/cpuinfo", "model name") or platform.machine()
    memory_kib = int((_after("/proc/meminfo", "MemTotal") or "0 kB").split()[0])
    # Without what a distribution, or whoever built it, adds.
    kernel = platform.release().partition("-")[0]
    return (
        f"Machine: {cpu}, {os.cpu_count()} processors, {tables.size(memory_kib * 1024)} of memory, "
        f"Linux {kernel}, files on {_file_system(bench.work)}, over loopback."
    )


def _after(path, name):
    """The value of the first line of this name in a file of `name : value`."""
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return None


def _file_system(folder):
    # `stat -f` can't tell ext4 from its ancestors.
    done = subprocess.run(
        ["findmnt", "-n", "-o", "FSTYPE", "-T", folder], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "an unknown file system"
