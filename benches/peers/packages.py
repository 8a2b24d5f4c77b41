"""Finds the peers' programs: on the machine, or unpacked from packages into a folder of ours."""

import os
import shutil
import subprocess
import sys
import urllib.parse


class Missing(Exception):
    """A peer can't be had here."""


class Packages:
    """Programs, and the folder that those are unpacked into which the machine does not have."""

    def __init__(self, folder):
        self.folder = folder
        self.versions = {}

    def program(self, name, package):
        """The command that runs a program, and the environment that its libraries need."""
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        installed = shutil.which(name, path=path)
        if installed:
            query = ["dpkg-query", "--show", "--showformat=${Version}", package]
            self.versions[package] = _output(query) or "of an unknown version"
            return installed
        root = self._debian(package)
        for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
            found = os.path.join(root, folder, name)
            if os.path.exists(found):
                return self._with_libraries(root, found)
        raise Missing(f"the package {package} has no {name}")

    def _debian(self, package):
        """Unpacks a package with what it needs beyond what is installed, without installing it:
        Debian's FTP servers exclude one another as packages, but not as folders."""
        root = os.path.join(self.folder, package)
        version = os.path.join(root, "version")
        if os.path.isdir(root):
            with open(version, encoding="utf-8") as text:
                self.versions[package] = text.read()
            return root
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise Missing("neither installed, nor is this a Debian to take a package from")
        plan = _output(["apt-get", "-s", "--no-install-recommends", "install", package])
        if plan is None:
            raise Missing(f"apt-get knows no package {package}: an 'apt-get update' may help")
        names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
        unpacked = root + ".new"
        shutil.rmtree(unpacked, ignore_errors=True)
        os.makedirs(unpacked)
        if not names or _output(["apt-get", "download", *names], cwd=unpacked) is None:
            raise Missing(f"{package} can't be downloaded: an 'apt-get update' may help")
        for archive in [name for name in os.listdir(unpacked) if name.endswith(".deb")]:
            if _output(["dpkg", "-x", archive, "."], cwd=unpacked) is None:
                raise Missing(f"{archive} can't be unpacked")
            if archive.startswith(package + "_"):
                self.versions[package] = urllib.parse.unquote(archive.split("_")[1])
            os.remove(os.path.join(unpacked, archive))
        with open(os.path.join(unpacked, "version"), "w", encoding="utf-8") as text:
            text.write(self.versions.get(package, "of an unknown version"))
        os.rename(unpacked, root)
        return root

    def _with_libraries(self, root, program):
        """A small script that starts the program with the libraries beside it: the search path
        is for that program only, not for what we start otherwise."""
        machine = f"{os.uname().machine}-linux-gnu"
        libraries = [f"{root}/{lib}/{machine}" for lib in ("usr/lib", "lib")]
        script = os.path.join(root, "run-" + os.path.basename(program))
        with open(script, "w", encoding="utf-8") as out:
            out.write(f'#!/bin/sh\nLD_LIBRARY_PATH={":".join(libraries)} exec {program} "$@"\n')
        os.chmod(script, 0o755)
        return script

    def pypi(self, package):
        """The folder in which a package from PyPI can be imported."""
        folder = os.path.join(self.folder, "pypi-" + package)
        if not os.path.isdir(os.path.join(folder, package)):
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder]
            if _output([*install, package]) is None:
                raise Missing(f"pip can't install {package}")
        for name in os.listdir(folder):
            if name.startswith(package + "-") and name.endswith(".dist-info"):
                self.versions[package] = name[len(package) + 1 : -len(".dist-info")]
        return folder


def _output(command, cwd=None):
    """What a command prints, or nothing if it fails or is not there."""
    try:
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
