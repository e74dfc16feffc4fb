"""What a soak reads of the daemon, again and again: from /proc and from its own page; and the table of the lines."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from tests.bench.machine import machine
from tests.bench.measure import buckets, rotations
from tests.bench.trend import Trend, fit, interpolated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.measure import Watched
    from tests.bench.strikes import Strike

MB = 1e6
# After a fault what waited is made up for, and a reading looks back at what came since the one before.
AFTERMATH_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class Series:
    """What is sampled.

    Attributes:
        unit: of it, and of the slope an hour that is tolerated.
        fails: more than that fails the run.
        calm: only readings count that no fault has a part in, because what it holds up for seconds says nothing else.
    """

    title: str
    unit: str
    tolerance: float
    fails: bool = False
    calm: bool = False


# A small object that is kept of each rotation, 56 bytes, makes 5 MB an hour of a thousand tokens of a minute; a thread
# or a descriptor that is kept of each fault makes 60.
SERIES: Mapping[str, Series] = {
    "resident": Series("resident memory", "MB", 5.0, fails=True),
    "anonymous": Series("of it anonymous", "MB", 5.0, fails=True),
    "threads": Series("threads", "", 5.0, fails=True),
    "descriptors": Series("descriptors", "", 10.0, fails=True),
    "cpu": Series("CPU", "% of a core", 5.0),
    "lag_p50": Series("scheduler lag, median", "ms", 50.0, calm=True),
    "lag_p99": Series("scheduler lag, 99th percentile", "ms", 500.0, calm=True),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the process and its page, so many seconds after all tokens were there."""

    at: float
    values: Mapping[str, float]
    cpu_seconds: float
    lags: Mapping[float, float]
    rotations: float
    unavailable_seconds: float
    healthy: bool

    def calm(self, faults: Sequence[Strike]) -> bool:
        """Whether no fault was on since the reading before it, or had just ended."""
        return all(self.at < it.at or it.at + it.seconds + AFTERMATH_SECONDS < self.at for it in faults)


def read(watched: Watched, at: float, before: Reading | None) -> Reading:
    """Reads it now, `at` so many seconds; what is a rate is that since the reading before."""
    values, cpu, page = process(watched.daemon.process.pid), watched.cpu(), watched.page()
    lags = buckets(page, "scheduler_lag_seconds")
    gone = re.findall(r"^aca_tokend_token_unavailable_seconds_total\{[^}]*\} (\S+)", page, re.MULTILINE)
    if before is not None:
        values["cpu"] = 100.0 * (cpu - before.cpu_seconds) / (at - before.at)
        for name, share in (("lag_p50", 0.5), ("lag_p99", 0.99)):
            lag = interpolated(share, before.lags, lags)
            if lag is not None:
                values[name] = 1000.0 * lag
    return Reading(at, values, cpu, lags, rotations(page), sum(map(float, gone)), healthy(watched.port))


def healthy(port: int) -> bool:
    """Whether the daemon says that nothing of it is stuck or lost."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/-/healthy", timeout=60).close()
    except urllib.error.HTTPError:
        return False
    return True


def process(pid: int) -> dict[str, float]:
    """What /proc tells of a process; how many descriptors it has only where we may read it.

    Anonymous memory is what is of no file. Private memory would be less steady: a library that is shared with another
    process becomes private when that one ends.
    """
    proc = Path(f"/proc/{pid}")
    status = proc.joinpath("status").read_text()
    values = {"resident": _megabytes(status, "VmRSS"), "anonymous": _megabytes(status, "RssAnon")}
    with suppress(OSError):  # a process may keep these to itself
        values["descriptors"] = float(sum(1 for _ in (proc / "fd").iterdir()))
    values["threads"] = float(status.partition("\nThreads:")[2].split()[0])
    return values


def _megabytes(text: str, name: str) -> float:
    """Reads a line such as `VmRSS:  12 kB`."""
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found, name
    return int(found[1]) * 1024 / MB


def trends(readings: Sequence[Reading], faults: Sequence[Strike], warm_up: float) -> dict[str, Trend]:
    """The line of each series after the warm-up."""
    found = {}
    for name, series in SERIES.items():
        counts = [it for it in readings if it.at >= warm_up and name in it.values]
        if series.calm:
            counts = [it for it in counts if it.calm(faults)]
        if counts:
            found[name] = fit([(it.at, it.values[name]) for it in counts])
    return found


def unavailable(readings: Sequence[Reading]) -> float:
    """For how many seconds tokens were not there, all together, since the first reading.

    The series of a token that leaves at a reload takes its seconds along.
    """
    totals = [it.unavailable_seconds for it in readings]
    return sum(max(later - earlier, 0.0) for earlier, later in pairwise(totals))


def table(found: Mapping[str, Trend]) -> Table:
    """The lines as they are printed."""
    shown = Table(title=machine(), caption="slope with its standard error; within: 95 % confidence")
    for heading in ("series", "mean", "slope an hour", "within", "zero in it", "tolerated", ""):
        shown.add_column(heading)
    for name, trend in found.items():
        series, (low, high), verdict = SERIES[name], trend.interval, trend.verdict(SERIES[name].tolerance)
        colour = {"flat": "green", "growing": "red"}.get(verdict, "yellow")
        shown.add_row(
            series.title,
            f"{trend.mean:.1f} {series.unit}",
            f"{trend.slope:+.2f} ± {trend.error:.2f}",
            f"{low:+.2f} to {high:+.2f}",
            "yes" if trend.holds_zero else "no",
            f"{series.tolerance:g}",
            f"[{colour}]{verdict}[/]",
        )
    return shown
