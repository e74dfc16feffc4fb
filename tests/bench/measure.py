"""How the benchmark measures: whole processes, their CPU time and memory, and the daemon's own page."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.demo.stage import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    # A histogram at two moments: by upper bound, how many were at most that.
    Lags = tuple[Mapping[float, float], Mapping[float, float]]

ROOT = Path(__file__).parents[2]
# The share of its life after which a token is rotated on average: the default fraction, less half of the jitter.
ROTATED_AT = 0.667 * 0.95


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a whole process: seconds it took, CPU seconds it used, rotations it made."""

    seconds: float
    cpu: float
    rotations: int

    @property
    def rate(self) -> float:
        """Rotations a second."""
        return self.rotations / self.seconds

    @property
    def cpu_each(self) -> float:
        """CPU seconds a rotation."""
        return self.cpu / self.rotations


def run(command: Sequence[str], rotations: int, environment: Mapping[str, str] | None = None) -> Run:
    """Runs a program to its end. Raises CalledProcessError where it fails."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(time.monotonic() - began, usage.ru_utime + usage.ru_stime, rotations)


def run_peer(name: str, *arguments: str) -> Run:
    """Runs a Python peer that tells its own time, without that of starting Python."""
    command = [sys.executable, "-m", f"tests.bench.peers.{name}", *arguments]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return Run(**json.loads(told))


def of_version(checkout: Path | None) -> Mapping[str, str] | None:
    """The environment in which `python -m aca_tokend` is that of a checkout; None for this one."""
    return None if checkout is None else {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(checkout)}


def cold_start(config: Path, count: int, checkout: Path | None = None) -> Run:
    """A new deployment: `aca-tokend run --once` from the start of the process to its end."""
    command = [sys.executable, "-m", "aca_tokend", "run", "--once", "--config", str(config), "--log-format", "json"]
    return run(command, count, of_version(checkout))


class Watched:
    """A running daemon, watched through /proc and its own page."""

    def __init__(self, config: Path, log: Path, checkout: Path | None = None) -> None:
        self.began = time.monotonic()
        self.daemon = DaemonProcess.start(config, log, environment=of_version(checkout))
        self.port = self.daemon.admin_port

    def page(self) -> str:
        """The metrics."""
        return gzip.decompress(self.scrape()).decode()

    def scrape(self) -> bytes:
        """The metrics as Prometheus gets them, compressed."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        asked = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(asked, timeout=120) as answer:  # noqa: S310 -- our own listener
            compressed: bytes = answer.read()
        return compressed

    def wait_for_rotations(self, count: int, seconds: float) -> None:
        """Waits until it has rotated so many times, however many tokens that were.

        By the log: a page of ten thousand tokens every few seconds would be work for what is to be measured. Its lines
        are counted, not parsed, and seldom where they are many: that is work on the same cores.
        """
        deadline = time.monotonic() + seconds
        while self.daemon.text.count('"token_rotated"') < count:
            if not self.daemon.running or time.monotonic() > deadline:
                message = f"{count} rotations did not come about, the daemon wrote:\n{self.daemon.text[-4000:]}"
                raise TimeoutError(message)
            time.sleep(min(2.0, count / 1000))

    def cpu(self) -> float:
        """The CPU seconds that it has used, by its own clock, which clock_getcpuclockid(3) numbers like this."""
        return time.clock_gettime((~self.daemon.process.pid << 3) | 2)

    def resident(self) -> float:
        """Its resident memory in bytes."""
        return resident(self.daemon.process.pid)

    def rotate_for(self, seconds: float) -> tuple[Run, Lags]:
        """What it does in so many seconds, and its scheduler's lags before and after."""
        before, began, cpu = self.page(), time.monotonic(), self.cpu()
        time.sleep(seconds)
        took, used, after = time.monotonic() - began, self.cpu() - cpu, self.page()
        lags = buckets(before, "scheduler_lag_seconds"), buckets(after, "scheduler_lag_seconds")
        return Run(took, used, int(rotations(after) - rotations(before))), lags

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nothing of it runs meanwhile."""
        os.kill(self.daemon.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.daemon.process.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def bound(self) -> Iterator[None]:
        """All its threads run on one core meanwhile."""
        cores = os.sched_getaffinity(self.daemon.process.pid)
        self._bind({min(cores)})
        try:
            yield
        finally:
            self._bind(cores)

    def _bind(self, cores: set[int]) -> None:
        for thread in Path(f"/proc/{self.daemon.process.pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it ended; one that begins is bound like its maker
                os.sched_setaffinity(int(thread.name), cores)

    def stop(self) -> None:
        """Ends it."""
        self.daemon.terminate()


def resident(pid: int) -> float:
    """The resident memory of a process in bytes."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def rotations(page: str) -> float:
    """How many rotations a page tells of."""
    return sum(
        float(value)
        for value in re.findall(r'^aca_tokend_rotations_total\{.*result="rotated"\} (\S+)', page, re.MULTILINE)
    )


def buckets(page: str, name: str) -> dict[float, float]:
    """A histogram without labels: how many were at most so long."""
    found = re.findall(rf'^aca_tokend_{name}_bucket\{{le="([^"]+)"\}} (\S+)', page, re.MULTILINE)
    return {float(bound): float(count) for bound, count in found}


def quantile(share: float, before: Mapping[float, float], after: Mapping[float, float]) -> float:
    """The bound that this share of what came between two pages stays within."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in after}
    total = max(counts.values())
    return next(bound for bound, count in sorted(counts.items()) if count >= share * total)
