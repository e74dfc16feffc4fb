"""The parts of the daemon that need no server: the bell, and the end after a bug."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from aca_tokend.bell import Bell

if TYPE_CHECKING:
    from pathlib import Path

# Signals land on a thread that waits for the bell, thousands of times: with a lock in the handler this hangs for ever.
SIGNALS = """
import signal
from aca_tokend.bell import Bell

bell, count = Bell(), 0

def handle(number, frame):
    global count
    count += 1
    bell.ring_to_stop()

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
while count < 5000:
    bell.wait(0.001)
signal.setitimer(signal.ITIMER_REAL, 0)
print("done")
"""

BUG = """
import pathlib
import sys
from aca_tokend import daemon, log
from aca_tokend.core.config import parse

config = parse([("config.toml", {
    "admin": {"listen": ""},
    "acaengine": {"main": {"url": "http://127.0.0.1:9"}},
    "tokens": [{
        "name": "bookings", "authority": "a", "username": "u", "client_id": "c",
        "password": {"env": "NONE"}, "client_secret": {"env": "NONE"},
        "publish": [{"to": "file", "path": "/nonexistent/bookings.json"}],
    }],
})])

class Buggy(daemon.Daemon):
    def _observe(self, event):
        raise ZeroDivisionError("a bug")

log.configure("info", "json")
sys.exit(daemon.run(config, pathlib.Path("config.toml"), Buggy))
"""


HANGING = """
import os
import sys
import threading
from aca_tokend import daemon
from aca_tokend.core.config import parse

config = parse([("config.toml", {
    "admin": {"listen": ""},
    "acaengine": {"main": {"url": "http://127.0.0.1:9"}},
    "tokens": [{
        "name": "bookings", "authority": "a", "username": "u", "client_id": "c",
        "password": {"env": "NONE"}, "client_secret": {"env": "NONE"},
        "publish": [{"to": "file", "path": sys.argv[1] + "/bookings.json"}],
    }],
})])
reached = threading.Event()

def hang(event, arguments):
    if event == "os.listdir" and isinstance(arguments[0], int):
        reached.set()
        threading.Event().wait()

sys.addaudithook(hang)
hanging = daemon.Daemon(config)
hanging.start()
reached.wait()
while hanging.readiness()[0].problem:
    hanging.bell.wait(0.05)
print("done", flush=True)
os._exit(0)
"""


def test_bell_rung_by_a_signal_never_locks_up() -> None:
    """A signal handler may ring the bell at any moment of the main thread's waiting for it."""
    result = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True, timeout=120, check=True)

    assert result.stdout == "done\n"


def test_bell_wakes_a_waiting_thread() -> None:
    """A wait ends as soon as the bell was rung, before or during it."""
    bell = Bell()
    bell.ring_to_stop()

    bell.wait(3600.0)

    assert bell.stop


def test_hanging_directory_holds_up_no_start(tmp_path: Path) -> None:
    """Where a file system hangs as leftovers are looked for, the tokens are put on schedule and tried all the same."""
    command = [sys.executable, "-c", HANGING, str(tmp_path)]

    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)

    assert result.stdout.splitlines()[-1] == "done"


def test_a_bug_ends_the_process() -> None:
    """What nobody expected ends `run` with exit code 1 and one CRITICAL line, without local variables."""
    result = subprocess.run([sys.executable, "-c", BUG], capture_output=True, text=True, timeout=120, check=False)

    assert result.returncode == 1
    assert "a bug; please report it" in result.stderr
    assert "ZeroDivisionError" in result.stderr
