"""`python -m tests.simulation.replay --seed N`: one seed again, and the smallest run that breaks the same."""

from __future__ import annotations

import argparse
import sys

from tests.simulation.catalogue import PLANTED
from tests.simulation.profiles import drawn
from tests.simulation.scenario import run
from tests.simulation.shrink import shrink, told


def main() -> int:
    """0 if the seed breaks nothing, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.replay", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--planted", choices=sorted(PLANTED), help="with this fault planted in the engine")
    parser.add_argument("--whole", action="store_true", help="the whole run, not the smallest")
    asked = parser.parse_args()
    engine = PLANTED[asked.planted].engine if asked.planted else {}
    scenario = drawn(asked.seed, engine=engine)
    outcome = run(scenario, trace=True)
    if outcome.violated is None:
        print(f"seed {asked.seed}: {scenario.profile}, {scenario.token_days:.1f} token-days, nothing is broken")
        return 0
    print(told(outcome if asked.whole else shrink(outcome)))
    return 1


if __name__ == "__main__":
    sys.exit(main())
