"""How the process is, for probes and for the service manager: what a restart would fix, who was not looked at yet.

A restart cannot fix an endpoint, a Vault or a mount that fails or hangs: only the status line says anything of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aca_tokend.core.health import Check
from aca_tokend.core.saying import tokens
from aca_tokend.core.status import State
from aca_tokend.survey import Overview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.scheduling.scheduler import RotationScheduler
    from aca_tokend.survey import Subject


def checks(scheduler: RotationScheduler, who: Callable[[str], str], *, bug: bool) -> list[Check]:
    """What a restart would fix. `who` is a name on the schedule as people are told it."""
    overdue = tuple(map(who, scheduler.overdue()))
    return [
        Check("process", "a bug ended its work" if bug else ""),
        Check("scheduler", "its thread has ended, and no attempt begins any more" if scheduler.dead() else ""),
        Check("attempts", f"{len(overdue)} overdue that did not begin" if overdue else "", overdue),
    ]


def readiness(tokens: Iterable[ManagedToken]) -> list[Check]:
    """Whether each token was looked at, and rotated or honestly failed."""
    every = list(tokens)
    missing = tuple(token.name for token in every if not token.facts.tried_once)
    return [Check("tokens", f"{len(missing)} of {len(every)} not looked at yet" if missing else "", missing)]


def status_line(subject: Subject) -> str:
    """How the tokens are, in one line."""
    overview = Overview.of(subject)
    shown = [
        state for state in State if overview.counts[state] or state in {State.READY, State.SUSPENDED, State.FAILING}
    ]
    parts = ", ".join(f"{overview.counts[state]} {state}" for state in reversed(shown))
    line = f"{tokens(len(overview.glances))}: {parts}"
    ahead = [it.valid_for for it in overview.glances if 0.0 < it.valid_for < math.inf]
    soonest = subject.at(subject.monotonic + min(ahead)) if ahead else None
    return f"{line}; next expiry {soonest:%Y-%m-%dT%H:%M:%SZ}" if soonest else line
