"""Starts each server over the same folder, and knows what its usual client is called with."""

import dataclasses
import grp
import os
import pwd
import shlex
import socket
import subprocess
import sys

import lines
import processes
from lines import HOST
from packages import Missing

USER = PASSWORD = "bench"
# crypt(3) of PASSWORD: 5,000 rounds of SHA-512, as usual.
CRYPTED = (
    "$6$towpath$"
    "yeWaeXFDZZKQKZ2aYgSh3rN/wiNqKu5n/NpgvIU4KeX1iPiJWyIXN5lEMKaVaJkiaqTfqFcb2NSzGva3gY6wX/"
)


# What says that a server can't be had.
UNAVAILABLE = (Missing, processes.Failed, OSError, subprocess.SubprocessError)


def _account():
    """Name, user and group of what the servers' sessions run as: of ourselves, or if that is root
    of somebody who is not, and has a home since vsftpd insists on it."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid()
    for entry in pwd.getpwall():
        if entry.pw_uid != 0 and os.path.isdir(entry.pw_dir):
            return entry.pw_name, entry.pw_uid, entry.pw_gid
    raise Missing("there is no account but root")


ACCOUNT = _account()


@dataclasses.dataclass(eq=False)
class Server:
    """A server that runs, and the commands of its client. `get` and `put` make one from a name
    below the served folder and a local path; `/dev/stdout` as a local path means a sink."""

    name: str
    process: object
    port: int
    get: object
    put: object
    speaks: str
    user: str = USER
    # How long it has to be left alone after a session before it can be measured.
    rest_seconds: float = 0

    @property
    def pid(self):
        return self.process.pid

    def quiet(self):
        """Waits until all sessions have ended."""

        def alone():
            processes.orphans_seconds()
            return len(processes.tree(self.pid)) == 1 and not processes.orphans()

        processes.wait_until(alone, f"{self.name} ends its sessions")


class Servers:
    """Starts servers on demand, each once; one that can't be had is named in `missing`."""

    def __init__(self, packages, programs, work, root):
        self.packages, self.programs, self.work, self.root = packages, programs, work, root
        self.missing = {}
        self._running = {}

    def get(self, name):
        """The server of this name, or None if it is missing."""
        if name not in self._running and name not in self.missing:
            try:
                self._running[name] = getattr(self, "_" + name.replace("-", "_"))()
            except UNAVAILABLE as reason:
                self.missing[name] = str(reason)
        return self._running.get(name)

    def afresh(self, name):
        """The server of this name, started anew: what it took for earlier work is given back."""
        if name in self._running:
            processes.stop(self._running.pop(name).process)
        return self.get(name)

    def started(self, *names):
        """Those of these servers that can be had."""
        return [server for server in map(self.get, names) if server]

    def _launch(self, name, command, port, **options):
        process = processes.start(command, cwd=self.work, **options)

        def listens():
            if process.poll() is not None:
                raise processes.Failed(f"does not start: {processes.last_words(process)}")
            with socket.socket() as probe:
                return probe.connect_ex((HOST, port)) == 0

        try:
            processes.wait_until(listens, f"{name} listens on port {port}")
            return process
        except processes.Failed:
            processes.stop(process)
            raise

    def _write(self, name, text, mode=0o644):
        path = os.path.join(self.work, name)
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(path, mode)
        return path

    # As many connections from one address as the figures need; and open to everybody, but for the
    # figure that is about logins.
    OPEN = ("--no-login", "--max-per-address", "16000")

    def towd(self, name="towpath", flags=OPEN):
        """Our own server."""
        port = free_port()
        command = [self.programs["towd"], "--quiet", "--root", self.root]
        process = self._launch(name, [*command, "--listen", f"{HOST}:{port}", *flags], port)
        tow, url = self.programs["tow"], f"tow://{HOST}:{port}/"

        def get(remote, local, *more):
            local = "-" if local == "/dev/stdout" else local
            return [tow, "--quiet", "get", *more, url + remote, local]

        def put(local, remote, *more):
            return [tow, "--quiet", "put", *more, local, url + remote]

        return Server(name, process, port, get, put, "tow")

    def _towpath(self):
        return self.towd()

    def _ftp(self, name, process, port, user=USER):
        curl = self.packages.program("curl", "curl")
        url = f"ftp://{user}:{PASSWORD}@{HOST}:{port}/"

        def get(remote, local):
            return [curl, "-sS", "-o", "-" if local == "/dev/stdout" else local, url + remote]

        def put(local, remote):
            return [curl, "-sS", "-T", local, url + remote]

        server = Server(name, process, port, get, put, "ftp", user)
        # One that lets nobody in is as good as missing.
        lines.logged_in(server, PASSWORD).close()
        return server

    def _vsftpd(self):
        program, port = self.packages.program("vsftpd", "vsftpd"), free_port()
        empty = os.path.join(self.work, "vsftpd-empty")
        os.makedirs(empty, mode=0o555, exist_ok=True)
        root = os.geteuid() == 0
        ourselves = "NO" if root else "YES"
        config = self._write(
            "vsftpd.conf",
            f"""listen=YES
listen_address={HOST}
listen_port={port}
background=NO
run_as_launching_user={ourselves}
ftp_username={ACCOUNT[0]}
anonymous_enable=YES
local_enable=NO
anon_root={self.root}
anon_umask=022
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_world_readable_only=NO
secure_chroot_dir={empty}
xferlog_enable=NO
max_clients=0
max_per_ip=0
""",
        )
        process = self._launch("vsftpd", [program, config], port)
        return self._ftp("vsftpd", process, port, "anonymous")

    def _pure_ftpd(self):
        program = self.packages.program("pure-ftpd", "pure-ftpd")
        pure_pw = self.packages.program("pure-pw", "pure-ftpd")
        if os.geteuid() != 0:
            raise Missing("runs as root only")
        port, (_, uid, gid) = free_port(), ACCOUNT
        # Not by pure-pw: it makes a password that takes a second or more to check.
        user = f"{USER}:{CRYPTED}:{uid}:{gid}::{self.root}/./" + 12 * ":"
        users = self._write("pureftpd.passwd", user + "\n")
        database = os.path.join(self.work, "pureftpd.pdb")
        subprocess.run([pure_pw, "mkdb", database, "-f", users], check=True)
        pid_file = os.path.join(self.work, "pure-ftpd.pid")
        command = [program, "-S", f"{HOST},{port}", "-l", f"puredb:{database}", "-g", pid_file]
        # -H: no look-ups of names; -c, -C: as many sessions as we ask for; -E: no anonymous ones.
        command += ["-H", "-E", "-c", "2000", "-C", "2000"]
        process = self._launch("pure-ftpd", command, port)
        return self._ftp("pure-ftpd", process, port)

    def _proftpd(self):
        program, port = self.packages.program("proftpd", "proftpd-core"), free_port()
        name, uid, gid = ACCOUNT
        users = self._write(
            "proftpd.passwd", f"{USER}:{CRYPTED}:{uid}:{gid}::{self.root}:/bin/sh\n", mode=0o600
        )
        groups = self._write("proftpd.group", f"{USER}:x:{gid}:\n", mode=0o600)
        group = grp.getgrgid(gid).gr_name
        root = f"DefaultRoot {self.root}" if os.geteuid() == 0 else f"DefaultChdir {self.root}"
        config = self._write(
            "proftpd.conf",
            f"""ServerType standalone
DefaultAddress {HOST}
Port {port}
UseIPv6 off
User {name}
Group {group}
UseReverseDNS off
MaxInstances none
{root}
AuthUserFile {users}
AuthGroupFile {groups}
AuthOrder mod_auth_file.c
RequireValidShell off
AllowOverwrite on
WtmpLog off
TransferLog none
SystemLog none
PidFile {self.work}/proftpd.pid
ScoreboardFile none
# It would make every log-in take equally long, on purpose.
<IfModule mod_delay.c>
  DelayEngine off
</IfModule>
""",
        )
        command = [program, "--nodaemon", "--quiet", "--config", config]
        process = self._launch("proftpd", command, port)
        server = self._ftp("proftpd", process, port)
        # It sleeps up to twice 0.2 s when a session has ended, and takes no new one meanwhile.
        server.rest_seconds = 0.5
        return server

    def _pyftpdlib(self):
        folder, port = self.packages.pypi("pyftpdlib"), free_port()
        script = self._write(
            "serve_pyftpdlib.py",
            f"""import logging
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
logging.basicConfig(level=logging.WARNING)
FTPHandler.authorizer = DummyAuthorizer()
FTPHandler.authorizer.add_user({USER!r}, {PASSWORD!r}, {self.root!r}, perm="elradfmwMT")
server = FTPServer(({HOST!r}, {port}), FTPHandler)
server.max_cons = 0
server.serve_forever()
""",
        )
        process = self._launch(
            "pyftpdlib", [sys.executable, script], port, env={**os.environ, "PYTHONPATH": folder}
        )
        return self._ftp("pyftpdlib", process, port)

    def _rsync(self):
        program, port = self.packages.program("rsync", "rsync"), free_port()
        identity = "uid = root\ngid = root\n" if os.geteuid() == 0 else ""
        config = self._write(
            "rsyncd.conf",
            f"{identity}use chroot = no\n[bench]\npath = {self.root}\nread only = no\n",
        )
        command = [program, "--daemon", "--no-detach", f"--address={HOST}", f"--port={port}"]
        process = self._launch("rsync", [*command, f"--config={config}"], port)
        url = f"rsync://{HOST}:{port}/bench/"

        # -W: whole files, no search for what is the same.
        def get(remote, local, *more):
            return [program, "-W", *more, url + remote, local]

        def put(local, remote, *more):
            return [program, "-W", *more, local, url + remote]

        return Server("rsync", process, port, get, put, "rsync")

    def _sftp(self):
        """OpenSSH's sshd with keys that are thrown away. It does not run as root: for that it
        wants an account of its own."""
        sshd = self.packages.program("sshd", "openssh-server")
        sftp = self.packages.program("sftp", "openssh-client")
        keygen = self.packages.program("ssh-keygen", "openssh-client")
        port, keys = free_port(), os.path.join(self.work, "ssh")
        os.makedirs(keys, mode=0o755, exist_ok=True)
        for name in ("host", "user"):
            path = os.path.join(keys, name)
            if not os.path.exists(path):
                making = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", path]
                subprocess.run(making, check=True, stdin=subprocess.DEVNULL)
        root, (account, uid, gid) = os.geteuid() == 0, ACCOUNT
        if root:
            os.chown(os.path.join(keys, "host"), uid, gid)
        config = self._write(
            "sshd_config",
            f"""ListenAddress {HOST}:{port}
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM yes
MaxStartups 1000
Subsystem sftp internal-sftp
ForceCommand internal-sftp -d {self.root}
""",
        )
        as_nobody = {"user": uid, "group": gid, "extra_groups": []} if root else {}
        process = self._launch("sftp", [sshd, "-D", "-e", "-f", config], port, **as_nobody)
        options = [f"IdentityFile={keys}/user", "IdentitiesOnly=yes", "StrictHostKeyChecking=no"]
        options += ["UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"]
        base = [sftp, "-q", "-F", "none", "-P", str(port)]
        base += [argument for option in options for argument in ("-o", option)]
        target = f"{account}@{HOST}"

        def batch(line):
            command = " ".join(map(shlex.quote, [*base, "-b", "-", target]))
            return ["sh", "-c", f"printf '%s\\n' {shlex.quote(line)} | {command}"]

        def get(remote, local, *more):
            local = "/dev/null" if local == "/dev/stdout" else local
            return batch(f"get {' '.join(more)} {remote} {local}")

        def put(local, remote, *more):
            return batch(f"put {' '.join(more)} {local} {remote}")

        return Server("sftp", process, port, get, put, "ssh")


def free_port():
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
