"""Starts and asks the processes of `load.py`."""

import itertools
import json
import os
import sys
import time
from subprocess import PIPE

import processes

_numbers = itertools.count()
PUT_BYTES = 128 << 20


class Load:
    """Transfers that go on until `stop`. They move once this is made."""

    def __init__(self, bench, server, gets=0, puts=0, put_bytes=PUT_BYTES):
        script = os.path.join(os.path.dirname(__file__), "load.py")
        uploads = f"up/load-{next(_numbers)}"
        numbers = map(str, (server.port, gets, puts, put_bytes))
        command = [sys.executable, script, *numbers, ",".join(bench.names), uploads]
        self._process = processes.start(command, stdin=PIPE, stdout=PIPE)
        if self._answer() != "ready":
            raise processes.Failed("the load does not start")

    def _answer(self):
        line = self._process.stdout.readline().decode().strip()
        if not line:
            raise processes.Failed(f"the load ended: {processes.last_words(self._process)}")
        return line

    def moved(self):
        """Bytes of each stream since they were begun, downloads first; and when that was asked."""
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return json.loads(self._answer()), time.monotonic()

    def rates(self, seconds):
        """Bytes per second of each stream in a window of so long."""
        before, began = self.moved()
        time.sleep(seconds)
        after, ended = self.moved()
        return [(now - then) / (ended - began) for then, now in zip(before, after)]

    def stop(self):
        """Breaks all its lines off."""
        processes.stop(self._process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
