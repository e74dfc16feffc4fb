"""Finds the tokens that have expired where they are read, and tells of each once. It only reads.

Failures that repeat are summed up, so the last line about a token may be long ago when its readers meet the end of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Expired
from aca_tokend.rotation.standing import readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from aca_tokend.core.outcome import Failure
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.managed import ManagedToken

# Told of when it began: such a server's tokens expire before their time comes, each of them.
_EXPECTED = frozenset({"token_reused", "lifetime_too_short"})
# While every token is fresh, they are looked over this often, since an attempt may find that one is not.
CALM_SECONDS = 10.0


class Expiries:
    """What has expired and was told of."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, ...]] = {}
        self._look_at = -math.inf

    def news(self, tokens: Iterable[ManagedToken], monotonic: float, wall: float) -> Iterator[Expired]:
        """The tokens of which something has expired in a sink since the last call."""
        if monotonic < self._look_at:
            return
        self._look_at = monotonic + CALM_SECONDS
        told: dict[str, tuple[str, ...]] = {}
        for token in tokens:
            facts = token.facts
            behind = any(place.failures or place.busy for place in facts.places)
            if facts.expires_at > monotonic and not behind:
                self._look_at = min(self._look_at, facts.expires_at)
                continue
            self._look_at = monotonic
            expired = _expired_places(token, facts, wall)
            if not expired or not facts.tried_once or _expected(facts):
                continue
            names = told[facts.name] = tuple(expired)
            if not set(names) <= set(self._told.get(facts.name, ())):
                why = _why(token, facts, names)
                yield Expired(facts.name, names, max(expired.values()), why, facts.waits_for)
        self._told = told


def _expired_places(token: ManagedToken, facts: Facts, wall: float) -> dict[str, datetime]:
    """When what they hold expired. A reload may come in between, so there may be no place for each sink."""
    sinks = token.wiring.sinks[: len(facts.places)]
    held = {sink.name: readable(facts, number) for number, sink in enumerate(sinks)}
    return {name: it.expires_at for name, it in held.items() if it and it.expires_at.timestamp() <= wall}


def _expected(facts: Facts) -> bool:
    failing = facts.trouble is not None or any(place.failures for place in facts.places)
    return not failing and bool(facts.noticed & _EXPECTED)


def _why(token: ManagedToken, facts: Facts, names: tuple[str, ...]) -> Failure | None:
    """What keeps it from being replaced, as far as anything failed."""
    if (why := facts.suspension or facts.trouble) is not None:
        return why.failure
    places = zip(token.wiring.sinks, facts.places, strict=False)
    return next((place.failure for sink, place in places if sink.name in names and place.failure), None)
