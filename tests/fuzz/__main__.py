"""`make fuzz`: the corpus, and both phases for half of the time each. A find ends it, with 1."""

from __future__ import annotations

import argparse
import resource
import secrets
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz import readers
from tests.fuzz.corpus import CORPUS
from tests.fuzz.sockets import Sockets
from tests.fuzz.target import Find, Tally, Target, problem_of, search

LARGEST_MB = 200


def main() -> int:
    """Runs both phases."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long, both phases together")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9), help="draws the same inputs again")
    options = parser.parse_args()
    rng = Random(options.seed)  # noqa: S311 -- the same seed draws the same inputs
    warnings.simplefilter("ignore")
    print(f"seed {options.seed}", flush=True)
    sockets, folder = Sockets(), tempfile.TemporaryDirectory(prefix="aca-tokend-fuzz-")
    try:
        for name, targets in (("readers", readers.targets(Path(folder.name))), ("sockets", sockets.targets())):
            tally, began = Tally(), time.monotonic()
            half = partial(_under_way, began + options.seconds / 2)
            find = known(targets, tally) or search(targets, rng, tally, half)
            took, memory = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"{name}: {tally.answers} answers in {took:.0f} s, {memory} MB at most,", end=" ")
            print(f"the slowest {-tally.latest:.2f} s before its limit", flush=True)
            if find is not None or memory > LARGEST_MB:
                print(f"found with seed {options.seed}:\n{find or 'too much memory'}")
                return 1
    finally:
        sockets.close()
        folder.cleanup()
    return 0


def _under_way(until: float) -> bool:
    return time.monotonic() < until


def known(targets: list[Target], tally: Tally) -> Find | None:
    """Tries the corpus; the first input of it that something still does not stand."""
    for name, case in CORPUS:
        for target in targets:
            if target.name == name and (problem := problem_of(target, case, tally)):
                return Find(name, case, problem)
    return None


if __name__ == "__main__":
    sys.exit(main())
