"""Measures what an operator waits for: `make bench`. It prints figures and asserts nothing.

`--help`, start to the first published token, and how long it takes until 1,000 tokens are first published, with the
look-alike, a real OpenBao with raft storage and the daemon on one machine.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aca_tokend.demo.stage import Settings, Stage, wait_until

RUNS = 5
MANY = 1000


def main() -> None:
    """Runs every measurement in turn."""
    print(f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, {RUNS} runs: median")
    show("aca-tokend --help", [timed_help() for _ in range(RUNS)], 0.3)
    show("start to first published token", [timed_first() for _ in range(RUNS)], 1.0)
    show(f"{MANY} tokens first published", [timed_many()], 15.0)


def show(what: str, seconds: list[float], target: float) -> None:
    """One row of the table."""
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
    print(f"{what:<34} {statistics.median(seconds):6.2f} s   ({spread}; target {target:g} s)", flush=True)


def timed_help() -> float:
    """From start to end of `aca-tokend --help`."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "aca_tokend", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def timed_first() -> float:
    """From the start of the daemon's process until its first token is in OpenBao, with the servers up."""
    with tempfile.TemporaryDirectory() as directory, Stage(Path(directory), lifetime=600.0, raft=True) as stage:
        config = stage.config(["bookings"])
        began = time.monotonic()
        daemon = stage.daemon(config)
        daemon.wait_for("token_rotated")
        return time.monotonic() - began


def timed_many() -> float:
    """The same until 1,000 tokens are there."""
    with tempfile.TemporaryDirectory() as directory, Stage(Path(directory), lifetime=3600.0, raft=True) as stage:
        config = stage.config([f"svc-{number}" for number in range(MANY)], Settings(files=False))
        began = time.monotonic()
        daemon = stage.daemon(config)
        wait_until(lambda: daemon.text.count('"token_rotated"') == MANY, f"{MANY} tokens", 300.0)
        return time.monotonic() - began


if __name__ == "__main__":
    main()
