"""`make bench-shards`: a million tokens over 64 shards, on paper: balance, movement, and what would give out first.

Which shard keeps which token is computed for every one of them. What they ask for is arithmetic with the rates that
`make bench` measured on this machine (`bench.json`), or else those of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from multiprocessing import Pool
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aca_tokend.core.shards import shard_of
from tests.bench.measure import ROTATED_AT

TOKENS = 1_000_000
SHARDS = 64
NUMBERS = (10_000, 100_000, TOKENS)
LIFETIME_SECONDS = 7200.0
CHUNK = 10_000
MEASURED = Path("bench.json")
PUBLISHED = Path("docs/performance/bench.json")


def count(begin: int) -> tuple[list[int], int]:
    """How many tokens of a chunk each shard keeps, and how many move when one shard is added."""
    held, moved = [0] * SHARDS, 0
    for number in range(begin, begin + CHUNK):
        name = f"token-{number}"
        shard = shard_of(name, SHARDS)
        held[shard] += 1
        moved += shard_of(name, SHARDS + 1) != shard
    return held, moved


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(prog="make bench-shards", description=__doc__)
    default = MEASURED if MEASURED.exists() else PUBLISHED
    parser.add_argument("--bench", type=Path, default=default, help="the figures of `make bench`")
    arguments = parser.parse_args()
    held, moved = [0] * SHARDS, 0
    with Pool() as pool:
        for part, left in pool.imap_unordered(count, range(0, TOKENS, CHUNK)):
            held = [a + b for a, b in zip(held, part, strict=True)]
            moved += left
    mean = TOKENS / SHARDS
    off = 100 * max(max(held) - mean, mean - min(held)) / mean
    print(f"{TOKENS:,} tokens over {SHARDS} shards: {min(held):,} to {max(held):,} each")
    print(f"at most {off:.1f} % off the mean (target 5 %)")
    print(f"one shard more moves {moved:,}: 1 in {TOKENS / moved:.1f} (1 in {SHARDS + 1} is the mean)")
    print(f"tokens of two hours, with the rates of {arguments.bench}:")
    Console().print(costs(json.loads(arguments.bench.read_text())["raw"]))


def costs(raw: dict[str, Any]) -> Table:
    """What so many tokens ask for, by what `make bench` measured."""
    each_ms, writes = raw["steady"]["ours_cpu_ms"], raw["ceiling_writes_per_second"]
    first = statistics.median(raw["cold"]["ours_per_second"])
    table = Table()
    for heading in (
        "tokens",
        "reads, grants and writes, of each a second",
        f"cores, at {each_ms:.1f} ms a rotation",
        f"of {writes:,.0f} writes a second of one OpenBao",
        f"one daemon brings all, at {first:.0f} a second, in",
    ):
        table.add_column(heading, justify="right")
    for tokens in NUMBERS:
        demand, minutes = tokens / (LIFETIME_SECONDS * ROTATED_AT), tokens / first / 60
        table.add_row(
            f"{tokens:,}",
            f"{demand:.1f}",
            f"{demand * each_ms / 1000:.2f}",
            f"{100 * demand / writes:.1f} %",
            f"{minutes:.0f} minutes",
        )
    return table


if __name__ == "__main__":
    main()
