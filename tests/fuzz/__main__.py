"""`make fuzz`: the corpus, and each phase for its share of the time. A find ends it, with 1."""

from __future__ import annotations

import argparse
import resource
import secrets
import sys
import tempfile
import time
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz import readers
from tests.fuzz.corpus import CORPUS
from tests.fuzz.daemon import Daemon
from tests.fuzz.sockets import Sockets
from tests.fuzz.target import Find, Tally, Target, problem_of, search

LARGEST_MB = 200
# How much of the time each phase has.
SHARES = {"readers": 0.3, "sockets": 0.55, "daemon": 0.15}


def main() -> int:
    """Runs the phases."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long, all phases together")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9), help="draws the same inputs again")
    options = parser.parse_args()
    rng = Random(options.seed)  # noqa: S311 -- the same seed draws the same inputs
    warnings.simplefilter("ignore")
    print(f"seed {options.seed}", flush=True)
    seconds = {phase: share * options.seconds for phase, share in SHARES.items()}
    with tempfile.TemporaryDirectory(prefix="aca-tokend-fuzz-") as folder:
        find = _tried("readers", readers.targets(Path(folder)), rng, seconds["readers"])
        if not find:
            with closing(Sockets()) as sockets:
                find = _tried("sockets", sockets.targets(), rng, seconds["sockets"])
        if not find:
            with closing(Daemon(Path(folder), rng)) as daemon:
                find = _watched(daemon, seconds["daemon"])
    if find:
        print(f"found with seed {options.seed}:\n{find}")
    return 1 if find else 0


def _tried(phase: str, targets: list[Target], rng: Random, seconds: float) -> str:
    """What a phase found in this process; empty where nothing."""
    tally, began = Tally(), time.monotonic()
    find = known(targets, tally) or search(targets, rng, tally, partial(_under_way, began + seconds))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    _tell(phase, tally.answers, began, memory, f"the slowest {-tally.latest:.2f} s before its limit")
    return str(find or ("too much memory" if memory > LARGEST_MB else ""))


def _watched(daemon: Daemon, seconds: float) -> str:
    """What the phase with a whole daemon found; empty where nothing."""
    began = time.monotonic()
    problem = daemon.problem(partial(_under_way, began + seconds))
    _tell("daemon", daemon.answers, began, daemon.memory_mb, f"the good token at least {daemon.tightest:.1f} s valid")
    return problem


def _tell(phase: str, answers: int, began: float, memory_mb: int, nearest: str) -> None:
    took = time.monotonic() - began
    print(f"{phase}: {answers} answers in {took:.0f} s, {memory_mb} MB at most, {nearest}", flush=True)


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
