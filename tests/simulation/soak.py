"""`make soak-simulation`: seed after seed, on every core, until the time is over or something breaks."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from itertools import count

from tests.simulation.profiles import drawn
from tests.simulation.scenario import run
from tests.simulation.shrink import shrink, told

# The seeds below this are those of the test run.
FIRST_SEED = 1000


def one(seed: int) -> tuple[float, str | None]:
    """Runs a seed. Returns its token-days, and what it broke."""
    outcome = run(drawn(seed))
    return outcome.scenario.token_days, told(shrink(outcome)) if outcome.violated else None


def main() -> int:
    """0 if nothing broke, else 1."""
    parser = argparse.ArgumentParser(prog="make soak-simulation", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="the first seed")
    asked = parser.parse_args()
    end = time.monotonic() + asked.minutes * 60
    runs, days, broken = 0, 0.0, 0
    with multiprocessing.Pool() as pool:
        for token_days, what in pool.imap_unordered(one, count(asked.first)):
            runs, days = runs + 1, days + token_days
            if what is not None:
                broken += 1
                print(what, flush=True)
            if time.monotonic() > end:
                pool.terminate()
                break
    print(f"{runs} runs, {days:,.0f} token-days, {broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
