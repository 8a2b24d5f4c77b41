#!/usr/bin/env python3
"""Power cuts on a real ext4: what was acknowledged is there, what has a name is whole, and an
upload goes on.

    sudo python3 tests/power_cut.py [--rounds N] [--no-sync]

The file system is in a file below the build directory. The power is cut by EXT4_IOC_SHUTDOWN
without a flush of the journal: what no sync has brought to the disk is gone. Each restart has
another boot identity, as after a real cut. All of it happens in a mount namespace of its own, which
ends with this program. With --no-sync, strace keeps every sync of the server from happening: then
this has to fail.

Needs root, mkfs.ext4, loop devices, and the programs built by `cargo build --release`."""

import argparse
import contextlib
import fcntl
import filecmp
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid

# linux/fs/ext4/ext4.h: EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH.
SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2
BOOT_ID = "/proc/sys/kernel/random/boot_id"
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(os.path.dirname(__file__), "..", "target"))
PROGRAMS = os.path.abspath(os.path.join(TARGET, "release"))
SYNCS = "fsync,fdatasync,syncfs"
SMALL_FILES, LARGE_MIB, DISK_MIB = 1500, 300, 1536
DEADLINE = 60


class Wrong(Exception):
    """A claim does not hold."""


class Machine:
    """A server on a disk of its own, whose power can be cut."""

    def __init__(self, folder, no_sync):
        self.folder, self.no_sync, self.server = folder, no_sync, None
        self.image, self.disk = os.path.join(folder, "image"), os.path.join(folder, "disk")
        self.root = os.path.join(self.disk, "root")
        os.mkdir(self.disk)
        run("truncate", "-s", f"{DISK_MIB}M", self.image)
        run("mkfs.ext4", "-q", "-N", "65536", self.image)
        run("mount", "-o", "loop", self.image, self.disk)
        os.mkdir(self.root)
        os.sync()

    def start(self):
        """Another boot."""
        boot = os.path.join(self.folder, "boot_id")
        with open(boot, "w", encoding="ascii") as out:
            out.write(f"{uuid.UUID(int=random.getrandbits(128))}\n")
        run("mount", "--bind", boot, BOOT_ID)
        command = [os.path.join(PROGRAMS, "towd"), "--no-login", "--root", self.root]
        if self.no_sync:
            inject = f"inject={SYNCS}:retval=0"
            strace = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={SYNCS}", "-e", inject]
            command = [*strace, *command]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command += ["--listen", f"127.0.0.1:{self.port}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.server = subprocess.Popen(command, **quiet, start_new_session=True)
        until = time.monotonic() + DEADLINE
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            if self.server.poll() is not None or time.monotonic() > until:
                raise Wrong("the server does not start")
            time.sleep(0.01)

    def tow(self, *words, **more):
        """A client that is under way."""
        words = [word.replace("tow:", f"tow://127.0.0.1:{self.port}") for word in words]
        more = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **more}
        return subprocess.Popen([os.path.join(PROGRAMS, "tow"), *words], **more)

    def cut(self):
        """What was not synced is gone; and the machine is on again, without its server."""
        disk = os.open(self.disk, os.O_RDONLY)
        fcntl.ioctl(disk, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        os.close(disk)
        self.stop()
        run("umount", self.disk)
        run("mount", "-o", "loop", self.image, self.disk)

    def stop(self):
        if self.server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.server.pid, 9)
            self.server.wait()
            self.server = None
            run("umount", BOOT_ID)


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def done(client):
    if client.wait(DEADLINE) != 0:
        raise Wrong("the client failed")


def stopped(client):
    client.kill()
    client.wait()


def same(first, second):
    return filecmp.cmp(first, second, shallow=False)


def acknowledged_files(machine, source):
    """Small files that were acknowledged, in a folder that was made for them."""
    machine.start()
    done(machine.tow("put", "-r", source, "tow:/acknowledged"))
    machine.cut()
    there = os.path.join(machine.root, "acknowledged", os.path.basename(source))
    names = os.listdir(source)
    lost = [name for name in names if not os.path.exists(os.path.join(there, name))]
    if lost:
        raise Wrong(f"{len(lost)} of {len(names)} acknowledged files are gone")
    if not all(same(os.path.join(source, name), os.path.join(there, name)) for name in names):
        raise Wrong("an acknowledged file has other bytes")
    return f"{len(names)} acknowledged files are there"


def half_a_tree(machine, source):
    """The cut comes while small files are stored: each is whole, or is not there."""
    machine.start()
    client = machine.tow("put", "-r", source, "tow:/half")
    time.sleep(random.uniform(0.02, 0.25))
    machine.cut()
    stopped(client)
    there = os.path.join(machine.root, "half", os.path.basename(source))
    names = os.listdir(there) if os.path.isdir(there) else []
    if not all(same(os.path.join(source, name), os.path.join(there, name)) for name in names):
        raise Wrong("a file with a name is not whole")
    return f"{len(names)} files had their names, all whole"


def half_an_upload(machine, source):
    """The cut comes within a large file. It goes on, and what comes out is the file."""
    machine.start()
    client = machine.tow("put", "--limit-rate", "200M", source, "tow:/large")
    time.sleep(random.uniform(0.4, 1.3))
    machine.cut()
    stopped(client)
    if os.path.exists(os.path.join(machine.root, "large")):
        raise Wrong("a file that was not acknowledged yet has its name")
    machine.start()
    again = machine.tow("put", source, "tow:/large", stderr=subprocess.PIPE, text=True)
    told = again.stderr.read().strip()
    done(again)
    machine.cut()
    if not same(source, os.path.join(machine.root, "large")):
        raise Wrong("an upload that went on came to other bytes")
    return f"an upload went on and is whole: {told}"


def main():
    raw = argparse.RawTextHelpFormatter
    words = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--no-sync", action="store_true")
    words = words.parse_args()
    if os.geteuid() != 0:
        sys.exit("power_cut.py: needs root, for a file system of its own")
    if "POWER_CUT_ALONE" not in os.environ:
        os.environ["POWER_CUT_ALONE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    folder = tempfile.mkdtemp(prefix="power-cut-", dir=os.path.dirname(PROGRAMS))
    machine = None
    try:
        small, large = os.path.join(folder, "small"), os.path.join(folder, "large")
        os.mkdir(small)
        for number in range(SMALL_FILES):
            with open(os.path.join(small, f"{number:04}"), "wb") as out:
                out.write(os.urandom(1 + 3 * number))
        with open(large, "wb") as out:
            for _ in range(LARGE_MIB):
                out.write(os.urandom(1 << 20))
        machine = Machine(folder, words.no_sync)
        for number in range(1, words.rounds + 1):
            for claim, source in (
                (acknowledged_files, small),
                (half_a_tree, small),
                (half_an_upload, large),
            ):
                print(f"{number}: {claim(machine, source)}", flush=True)
            for name in os.listdir(machine.root):
                path = os.path.join(machine.root, name)
                if name != ".tow":
                    os.remove(path) if os.path.isfile(path) else shutil.rmtree(path)
            os.sync()
    except Wrong as reason:
        sys.exit(f"power_cut.py: {reason}")
    finally:
        if machine is not None:
            machine.stop()
            subprocess.run(["umount", machine.disk], check=False)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
