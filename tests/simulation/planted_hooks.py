"""Faults planted in what is run after a write."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aca_tokend.rotation.hook_runner import Hooker
from aca_tokend.rotation.look import Looker
from aca_tokend.rotation.standing import published
from tests.simulation.faults import Fault
from tests.simulation.planting import plant, rotator

if TYPE_CHECKING:
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.hook_runner import HookState
    from aca_tokend.rotation.managed import ManagedToken

HOUR = 3600.0


class HookGivesUp(Hooker):
    """A hook that failed is not run again before the next write."""

    async def attempt(self, state: HookState) -> float:
        next_at = await super().attempt(state)
        state.waiting = {}
        return math.inf if state.failures else next_at


plant("hook_not_retried", ["hook_follows_write"], "hooks", {"hooker": HookGivesUp}, tokens=1)


class HookTakesAll(Hooker):
    """A run counts for what was written while it was under way too."""

    async def attempt(self, state: HookState) -> float:
        next_at = await super().attempt(state)
        if not state.failures:
            state.asked.clear()
        return next_at


plant("hook_counts_for_later_writes", ["hook_follows_write"], "hooks", {"hooker": HookTakesAll}, tokens=40)


class HookWithoutSpacing(Hooker):
    """Runs follow each other at once."""

    async def attempt(self, state: HookState) -> float:
        next_at = await super().attempt(state)
        state.not_before = 0.0
        return next_at


plant("hook_without_spacing", ["hooks_keep_distance"], "hooks", {"hooker": HookWithoutSpacing}, tokens=40)


class TrustsTheProcessBefore(Looker):
    """What is found at the first look is taken to have had its hook."""

    async def look(self, token: ManagedToken, numbers: tuple[int, ...]) -> Facts:
        first = token.facts.held is None
        facts = await super().look(token, numbers)
        for number in numbers if first else ():
            facts = facts.with_place(number, hooked=published(facts, number))
        return facts


# One rotation in two hours is cut off, a little later each time: some between the write and the run of the hook.
CUT_OFF = tuple(Fault("kill amid", 2 * HOUR * number, 10.0, how="t0", value=0.05 * number) for number in range(1, 24))
plant(
    "hook_lost_with_its_process",
    ["hook_follows_write"],
    "hooks",
    rotator(looker=TrustsTheProcessBefore),
    tokens=1,
    replicas=1,
    seconds=48 * HOUR,
    faults=CUT_OFF,
)
