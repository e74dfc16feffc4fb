"""The cheap pass over all tokens that the status begins with: how each is, and what they have in common.

The facts of a token are one frozen value, read once: no attempt is held up, and no lock is taken. What the signs mean
is decided in core/condition.py.
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
from aca_tokend.rotation.standing import readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aca_tokend.core.config import Config
    from aca_tokend.core.errors import Problem
    from aca_tokend.core.outcome import Failure
    from aca_tokend.core.status import Query
    from aca_tokend.parts import Parts
    from aca_tokend.rotation.managed import ManagedToken
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
        unhealthy: what a restart would fix.
        rejected: what is wrong with the files of the configuration by now.
    """

    config: Config
    parts: Parts
    tokens: Mapping[str, ManagedToken]
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
    token: ManagedToken
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
        for token in list(subject.tokens.values()):
            signs = signs_of(token, subject.monotonic, offset)
            how = signs.state
            found.glances.append(Glance(RANK[how], signs.valid_for, token.name, token, signs))
            found.counts[how] += 1
            if how in _TROUBLED:
                found.need_a_person += signs.needs_a_person
            found.endpoints[token.wiring.endpoint.name] += 1
            if signs.failure is not None:
                found.note_sinks(token)
        return found

    def note_sinks(self, token: ManagedToken) -> None:
        """Notes which pools the failed sinks of this token belong to."""
        for sink, place in zip(token.wiring.sinks, token.facts.places, strict=False):
            if (failure := place.failure) is not None:
                self.failed_sinks.setdefault(sink.pool, {})[token.name] = failure

    def matching(self, query: Query) -> list[Glance]:
        """What the query asks for, in order."""
        search = query.search.lower()
        wanted = query.states or frozenset(State)
        ranks = {RANK[state] for state in wanted}
        return sorted((it for it in self.glances if it.rank in ranks and search in it.name.lower()), key=_ORDER)


def signs_of(token: ManagedToken, now: float, offset: float) -> Signs:
    """What tells how a token is; `now` in monotonic seconds, `offset` is the wall clock minus the monotonic one."""
    facts = token.facts
    held, life = facts.current, facts.life
    valid_for, failure, unread, former = math.inf, None, False, False
    for number, place in enumerate(facts.places):
        failure = failure or place.failure
        document = readable(facts, number)
        if document is None:
            left = NEVER
            unread = unread or (place.failure is not None and place.last is None)
        elif held is not None and document.expires_at == held.document.expires_at:
            left = held.expires_at - now
        else:
            left = document.expires_at.timestamp() - offset - now
            former = former or (facts.identity is not None and document.account != facts.identity.account)
        valid_for = min(valid_for, left)
    if facts.trouble is not None:
        failure = facts.trouble.failure
    hook = next(iter(token.failing_hooks), None)
    held_up = facts.waits_for == "endpoint_held" and (life is None or now >= life.rotate or facts.revoked)
    suspension = facts.suspension
    known = held is not None or failure is not None or suspension is not None or held_up or former
    return Signs(
        tried=facts.tried_once and known,
        valid_for=valid_for,
        tolerance=life.outage_tolerance if life is not None else 0.0,
        suspended=suspension.failure if suspension else None,
        failure=failure,
        hook=hook.failure if hook else None,
        hook_failures=hook.failures if hook else 0,
        held=held_up,
        revoked=facts.revoked,
        unread=unread,
        former=former,
    )
