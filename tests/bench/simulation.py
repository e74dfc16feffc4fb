"""Measures how fast the simulation is, every invariant checked. It prints figures and asserts nothing."""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import replace

from tests.simulation.profiles import drawn
from tests.simulation.scenario import DAY, Scenario, run
from tests.simulation.test_simulation import SEEDS

RUNS = 5
TARGET = 5_000


def main() -> None:
    """Tokens of two hours on quiet days, by the number of replicas; then all of a test run."""
    print(f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, one core")
    for replicas in (1, 3):
        scenario = replace(Scenario(1, "quiet"), tokens=50, replicas=replicas, seconds=10 * DAY)
        rates = [rate(scenario) for _ in range(RUNS)]
        print(
            f"{replicas} replica{'s' * (replicas != 1)}: {statistics.median(rates):8,.0f} token-hours a second "
            f"(median of {RUNS}, {min(rates):,.0f} to {max(rates):,.0f}; target {TARGET:,})"
        )
    began, days = time.process_time(), 0.0
    for seed in SEEDS:
        scenario = drawn(seed)
        run(scenario)
        days += scenario.token_days
    print(f"a test run: {days:,.0f} token-days in {time.process_time() - began:.0f} s of one core")


def rate(scenario: Scenario) -> float:
    """Token-hours a second of one core; those of a token count once, however many replicas keep it."""
    began = time.process_time()
    outcome = run(scenario)
    assert outcome.violated is None
    return scenario.token_days * 24 / (time.process_time() - began)


if __name__ == "__main__":
    main()
