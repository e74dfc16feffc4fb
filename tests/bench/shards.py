"""`make bench-shards`: a million tokens over 64 shards, on paper: balance, movement, and what would give out first.

Which shard keeps which token is computed for every one of them. What they ask for is arithmetic with the rates that
`make bench` measured on this machine (`bench.json`), or else those of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import math
from multiprocessing import Pool
from pathlib import Path

from aca_tokend.core.shards import shard_of

TOKENS = 1_000_000
SHARDS = 64
LIFETIME_SECONDS = 7200.0
ROTATED_AT = 0.667 * 0.95  # the fraction, and half of the jitter
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
    demand = TOKENS / (LIFETIME_SECONDS * ROTATED_AT)
    print(f"tokens of two hours: {demand:.0f} grants, Vault reads and Vault writes a second each, in all")
    print(f"with the rates of {arguments.bench}:")
    raw = json.loads(arguments.bench.read_text())["raw"]
    each_ms, writes = raw["steady"]["ours_cpu_ms"], raw["ceiling_writes_per_second"]
    cores = demand * each_ms / 1000
    print(f"the daemons: {cores:.2f} cores at {each_ms:.2f} ms a rotation, so {math.ceil(cores / 0.6)} shards at 60 %")
    print(f"Vault: {100 * demand / writes:.0f} % of the {writes:.0f} writes a second that wrk gets out of it here")


if __name__ == "__main__":
    main()
