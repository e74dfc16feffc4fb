"""The cheap pass over all tokens that the status begins with: how each is, and what they have in common.

Attempts change the states meanwhile and are never held up: no lock is taken, and what may become None is read once.
What the signs mean is decided in core/condition.py.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from aca_tokend.core.condition import NEVER, Signs
from aca_tokend.core.status import State
from aca_tokend.core.token import moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aca_tokend.core.config import Config
    from aca_tokend.core.errors import Problem
    from aca_tokend.core.outcome import Failure
    from aca_tokend.core.status import Query
    from aca_tokend.parts import Parts
    from aca_tokend.state import HookState, TokenState
    from aca_tokend.watched import Watched

_TROUBLED = frozenset({State.EXPIRED, State.SUSPENDED, State.FAILING})
_ORDER = itemgetter(0, 1, 2)
RANK = {state: number for number, state in enumerate(State)}


@dataclass(frozen=True, slots=True)
class Subject:
    """What the status is told of, at one moment. `wall` and `monotonic` are that moment, in seconds.

    Attributes:
        config: in effect, with the tokens of this shard.
        everywhere: the names of the tokens of all shards, looked through only for one that is not here.
        unhealthy: what a restart would mend.
        rejected: what is wrong with the files of the configuration by now.
    """

    config: Config
    parts: Parts
    states: Mapping[str, TokenState]
    watched: Watched
    wall: float
    monotonic: float
    shard: int = 0
    everywhere: Iterable[str] = ()
    unhealthy: tuple[str, ...] = ()
    rejected: tuple[Problem, ...] = ()

    @property
    def now(self) -> datetime:
        """The moment."""
        return datetime.fromtimestamp(self.wall, UTC)

    def at(self, monotonic: float | None) -> datetime | None:
        """The wall time of a monotonic one; None for never."""
        return moment(None if monotonic is None else monotonic - self.monotonic + self.wall)


class Glance(NamedTuple):
    """One token in the cheap pass. Sorts worst first, then by what expires soonest, then by name."""

    rank: int
    valid_for: float
    name: str
    state: TokenState
    signs: Signs


@dataclass(slots=True)
class Overview:
    """What the pass over all tokens found."""

    glances: list[Glance] = field(default_factory=list)
    counts: Counter[State] = field(default_factory=Counter)
    need_a_person: int = 0
    endpoints: Counter[str] = field(default_factory=Counter)
    failed_sinks: dict[str, dict[str, Failure]] = field(default_factory=dict)  # by pool, then by token

    @classmethod
    def of(cls, subject: Subject) -> Overview:
        """Looks at every token once."""
        found = cls()
        offset = subject.wall - subject.monotonic
        for state in list(subject.states.values()):
            signs = signs_of(state, subject.monotonic, offset)
            how = signs.state
            found.glances.append(Glance(RANK[how], signs.valid_for, state.name, state, signs))
            found.counts[how] += 1
            if how in _TROUBLED:
                found.need_a_person += signs.needs_a_person
            found.endpoints[state.endpoint.name] += 1
            if signs.failure is not None:
                found.note_sinks(state)
        return found

    def note_sinks(self, state: TokenState) -> None:
        """Notes which pools the failed sinks of this token belong to."""
        for sink in state.sinks:
            if (failure := sink.failure or sink.told) is not None:
                self.failed_sinks.setdefault(sink.sink.pool, {})[state.name] = failure

    def matching(self, query: Query) -> list[Glance]:
        """What the query asks for, in order."""
        search = query.search.lower()
        wanted = query.states or frozenset(State)
        ranks = {RANK[state] for state in wanted}
        return sorted((it for it in self.glances if it.rank in ranks and search in it.name.lower()), key=_ORDER)


def signs_of(state: TokenState, now: float, offset: float) -> Signs:
    """What tells how a token is; `now` in monotonic seconds, `offset` is the wall clock minus the monotonic one."""
    life, document = state.life, state.document
    valid_for, failure, unread = math.inf, None, False
    for sink in state.sinks:
        trouble = sink.failure or sink.told
        failure = failure or trouble
        held = sink.published
        if held is None:
            left = NEVER
            unread = unread or (trouble is not None and sink.seen is None)
        elif life is not None and document is not None and held.expires_at == document.expires_at:
            left = life.expires - now
        else:
            left = held.expires_at.timestamp() - offset - now
        valid_for = min(valid_for, left)
    if state.failures and state.failure is not None:
        failure = state.failure
    hook = _failing_hook(state)
    held_up = state.waits_for == "endpoint_held" and state.needs_a_token(now)
    suspended = state.suspended
    known = document is not None or failure is not None or suspended is not None or held_up
    return Signs(
        tried=state.settled and known,
        valid_for=valid_for,
        tolerance=life.outage_tolerance if life is not None else 0.0,
        suspended=suspended,
        failure=failure,
        hook=hook.failure if hook else None,
        hook_failures=hook.failures if hook else 0,
        held=held_up,
        dead=state.dead,
        unread=unread,
    )


def _failing_hook(state: TokenState) -> HookState | None:
    for sink in state.sinks:
        hook = sink.hook
        if hook is not None and hook.failure is not None and state.name in hook.failing:
            return hook
    return None
