"""`make bench-growth`: how cost grows with the number of tokens, as a table, and as plots for docs/performance.md."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.machine import machine
from tests.bench.measure import ROOT, Watched, buckets, quantile, rotations
from tests.bench.servers import Servers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COUNTS = (1, 10, 100, 1000, 10_000)
IDLE_SECONDS = 20.0
STEADY_SECONDS = 20.0
PLOTS = ROOT / "docs" / "performance"


@dataclass(frozen=True, slots=True)
class Cost:
    """What so many tokens cost; seconds, MB and ms as the names say."""

    tokens: int
    check_seconds: float
    start_seconds: float
    resident_mb: float
    idle_cpu_percent: float
    reload_seconds: float
    page_kb: float
    page_seconds: float
    rotation_cpu_ms: float
    lag_p50_seconds: float
    lag_p99_seconds: float


TITLES: Mapping[str, str] = {
    "check_seconds": "aca-tokend check, seconds",
    "start_seconds": "start until all are published, seconds",
    "resident_mb": "resident memory, MB",
    "idle_cpu_percent": "CPU when nothing is due, % of a core",
    "reload_seconds": "reload of a changed file, seconds",
    "page_kb": "/metrics, kB",
    "page_seconds": "/metrics, seconds",
    "rotation_cpu_ms": "CPU a rotation, ms",
    "lag_p50_seconds": "scheduler lag, median, seconds",
    "lag_p99_seconds": "scheduler lag, 99th percentile, seconds",
}


def main() -> None:
    """Measures, prints and draws."""
    parser = argparse.ArgumentParser(prog="make bench-growth", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    arguments = parser.parse_args()
    costs = []
    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        for count in arguments.counts:
            costs.append(measure(servers, count))
            print(json.dumps(asdict(costs[-1])), flush=True)
    PLOTS.mkdir(exist_ok=True)
    (PLOTS / "growth.json").write_text(
        json.dumps({"machine": machine(), "costs": [asdict(cost) for cost in costs]}, indent=1) + "\n"
    )
    for name, title in TITLES.items():
        points = [(cost.tokens, float(getattr(cost, name))) for cost in costs]
        (PLOTS / f"{name}.svg").write_text(plot(title, points))


def measure(servers: Servers, count: int) -> Cost:
    """One number of tokens: a daemon whose tokens live for a day, and one whose tokens rotate again and again."""
    prefix = servers.fresh_prefix()
    config = servers.config(prefix, count, 86400)
    began = time.monotonic()
    command = [sys.executable, "-m", "aca_tokend", "check", "--config", str(config)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    check = time.monotonic() - began
    watched = Watched(config, servers.directory / f"{prefix}.log")
    watched.wait_for_rotations(count, 600.0)
    start = time.monotonic() - watched.began
    time.sleep(2.0)
    began, cpu = time.monotonic(), watched.cpu()
    time.sleep(IDLE_SECONDS)
    idle = 100 * (watched.cpu() - cpu) / (time.monotonic() - began)
    memory = watched.resident() / 1e6
    began = time.monotonic()
    watched.scrape()
    page_seconds = time.monotonic() - began
    page = watched.page()
    fresh = config.with_suffix(".new")
    fresh.write_text(config.read_text().replace('min_interval = "1s"', 'min_interval = "2s"'))
    began = time.monotonic()
    fresh.rename(config)
    watched.daemon.wait_for("config_reloaded")
    reload = time.monotonic() - began
    watched.stop()
    each, p50, p99 = steady(servers, count, idle / 100)
    return Cost(count, check, start, memory, idle, reload, len(page) / 1000, page_seconds, each, p50, p99)


def steady(servers: Servers, count: int, idle: float) -> tuple[float, float, float]:
    """CPU of a rotation in ms, and the lag's percentiles in seconds, over a whole round of all tokens.

    More than 1,000 tokens rotate every minute, others every 19 seconds. `idle` is the share of a core that goes by when
    nothing is due.
    """
    prefix = servers.fresh_prefix()
    lifetime = 95 if count > 1000 else 30
    watched = Watched(servers.config(prefix, count, lifetime), servers.directory / f"{prefix}.log")
    watched.wait_for_rotations(2 * count, 600.0)
    page, cpu, began = watched.page(), watched.cpu(), time.monotonic()
    while True:
        time.sleep(STEADY_SECONDS)
        used, took, later = watched.cpu() - cpu, time.monotonic() - began, watched.page()
        made = rotations(later) - rotations(page)
        if made >= count:
            break
    watched.stop()
    lags = buckets(page, "scheduler_lag_seconds"), buckets(later, "scheduler_lag_seconds")
    return 1000 * (used - idle * took) / made, quantile(0.5, *lags), quantile(0.99, *lags)


WIDTH, HEIGHT, LEFT, TOP = 460, 260, 64, 34


def plot(title: str, points: Sequence[tuple[float, float]]) -> str:
    """A line through points, both axes logarithmic, as SVG that is readable on light and dark."""
    floor = min((y for _, y in points if y > 0), default=1.0) / 2
    xs = [math.log10(x) for x, _ in points]
    ys = [math.log10(max(y, floor)) for _, y in points]
    low, high = math.floor(min(ys)), max(math.ceil(max(ys)), math.floor(min(ys)) + 1)
    wide, tall = WIDTH - LEFT - 20, HEIGHT - TOP - 40

    def at(x: float, y: float) -> str:
        across = (x - xs[0]) / ((xs[-1] - xs[0]) or 1.0)
        return f"{LEFT + wide * across:.1f},{TOP + tall * (high - y) / (high - low):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
    ]
    for power in range(low, high + 1):
        x, y = at(xs[0], power).split(",")
        parts.append(f'<line x1="{x}" y1="{y}" x2="{LEFT + wide}" y2="{y}" stroke="#ccc"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for (count, _), log in zip(points, xs, strict=True):
        across = at(log, low).partition(",")[0]
        parts.append(f'<text x="{across}" y="{HEIGHT - 18}" text-anchor="middle">{count:,}</text>')
    places = [at(x, y) for x, y in zip(xs, ys, strict=True)]
    parts.append(f'<polyline points="{" ".join(places)}" fill="none" stroke="#0b5fa5" stroke-width="2"/>')
    for place, (_, value) in zip(places, points, strict=True):
        x, y = place.split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="#0b5fa5"/>')
        parts.append(f'<text x="{x}" y="{float(y) - 8:.1f}" text-anchor="middle">{value:.3g}</text>')
    parts.append(f'<text x="{WIDTH - 20}" y="{HEIGHT - 4}" text-anchor="end">tokens</text></svg>')
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
