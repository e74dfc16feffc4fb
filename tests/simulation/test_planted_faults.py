"""The checker checked: each fault planted in the engine breaks the invariant that is there to notice it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.simulation.catalogue import PLANTED
from tests.simulation.profiles import PROFILES, drawn
from tests.simulation.scenario import run
from tests.simulation.test_simulation import FOUND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.planting import Planted
    from tests.simulation.scenario import Scenario

# So many worlds are tried at most, in each of which the engine without the fault breaks nothing.
WORLDS = 8
FEWEST = 15


def worlds(planted: Planted) -> Iterator[Scenario]:
    """The scenarios in which it may show."""
    first = list(PROFILES).index(planted.profile)
    for number in range(WORLDS):
        if first + number * len(PROFILES) not in FOUND:
            yield drawn(first + number * len(PROFILES), **planted.changed)


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_planted_fault_is_caught(name: str) -> None:
    """An engine with this fault breaks an invariant made for it, in a world in which the real engine breaks none."""
    planted = PLANTED[name]
    for scenario in worlds(planted):
        outcome = run(replace(scenario, engine=planted.engine))
        if outcome.violated is not None:
            assert outcome.violated.name in planted.caught_by, f"seed {scenario.seed}: {outcome.violated}"
            assert run(scenario).violated is None, "the real engine passes where the planted one does not"
            return
    pytest.fail(f"{name} was not noticed")


def test_enough_is_planted() -> None:
    """At least fifteen different faults are planted."""
    assert len(PLANTED) >= FEWEST
