"""Makes a scenario that breaks an invariant as small as it gets while it still breaks the same one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.simulation.scenario import Outcome, Scenario, run

if TYPE_CHECKING:
    from collections.abc import Iterator

# So many runs at most.
BUDGET = 150
# Of so many last lines of the trace those about the token concerned are told, the last of them.
KEPT_LINES = 5000
TOLD_LINES = 40
WIDTH = 180


def shrink(outcome: Outcome) -> Outcome:
    """The smallest failing run that was found, with its trace."""
    assert outcome.violated is not None
    name, best, left = outcome.violated.name, outcome, BUDGET
    again = True
    while again and left > 0:
        again = False
        for smaller in _smaller(best):
            left -= 1
            tried = run(smaller)
            if tried.violated is not None and tried.violated.name == name:
                best, again = tried, True
                break
            if left <= 0:
                break
    return run(best.scenario, trace=True, lines=KEPT_LINES)


def _smaller(outcome: Outcome) -> Iterator[Scenario]:
    """Less time, fewer faults, fewer replicas: the greatest steps first."""
    scenario, faults = outcome.scenario, outcome.scenario.faults
    end = outcome.ended_at
    if end < scenario.seconds:
        yield replace(scenario, seconds=end, faults=tuple(fault for fault in faults if fault.at < end))
    for share in (2, 4):
        size = max(len(faults) // share, 1)
        if size < len(faults):
            for start in range(0, len(faults), size):
                yield replace(scenario, faults=faults[:start] + faults[start + size :])
    for number in range(len(faults) if len(faults) <= 8 else 0):
        yield replace(scenario, faults=faults[:number] + faults[number + 1 :])
    if scenario.replicas > 1 and not scenario.skews:
        fewer = scenario.replicas - 1
        kept = tuple(fault for fault in faults if fault.kind not in _OF_REPLICAS or fault.target < fewer)
        yield replace(scenario, replicas=fewer, faults=kept)


_OF_REPLICAS = frozenset({"kill", "kill amid", "crash loop", "freeze", "step", "sink", "hook", "api of one"})


def told(outcome: Outcome) -> str:
    """What a person needs to see why: the command, the scenario, the last that happened."""
    scenario = outcome.scenario
    size = f"{scenario.tokens} tokens, {scenario.replicas} replicas, {scenario.seconds:.0f} s, {scenario.profile}"
    lines = [
        f"{outcome.violated}",
        f"replay: python -m tests.simulation.replay --seed {scenario.seed}",
        f"smallest: {size}, faults:",
        *(f"  {fault}" for fault in scenario.faults),
        "the last that happened:",
        *_last(outcome),
    ]
    return "\n".join(lines)


def _last(outcome: Outcome) -> list[str]:
    """The last lines about the token or tokens that the finding names; all tokens where it names none."""
    concerned = re.findall(r"\bt[0-9]+\b", str(outcome.violated))
    lines = [
        f"  {when:14.3f} {who}: {what}"[:WIDTH]
        for when, who, what in outcome.trace
        if not who.startswith("replica") or not concerned or any(f"'{name}'" in what for name in concerned)
    ]
    return lines[-TOLD_LINES:]
