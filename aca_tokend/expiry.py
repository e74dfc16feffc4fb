"""Finds the tokens that have expired where they are read, and tells of each once. It only reads states.

Failures that repeat are summed up, so the last line about a token may be long ago when its readers meet the end of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Expired

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from aca_tokend.core.outcome import Failure
    from aca_tokend.state import TokenState

# Told of when it began: such a server's tokens expire before their time comes, each of them.
_EXPECTED = frozenset({"token_reused", "lifetime_too_short"})


class Expiries:
    """What has expired and was told of."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, ...]] = {}

    def news(self, states: Iterable[TokenState], monotonic: float, wall: float) -> Iterator[Expired]:
        """The tokens of which something has expired in a sink since the last call."""
        told: dict[str, tuple[str, ...]] = {}
        for state in states:
            life = state.life
            if life is not None and life.expires > monotonic and state.publish_at is None:
                continue
            expired = _expired_sinks(state, wall)
            if not expired or not state.settled or _expected(state):
                continue
            names = told[state.name] = tuple(expired)
            if not set(names) <= set(self._told.get(state.name, ())):
                yield Expired(state.name, names, max(expired.values()), _why(state, names), state.waits_for)
        self._told = told


def _expired_sinks(state: TokenState, wall: float) -> dict[str, datetime]:
    """When what they hold expired. Attempts change it meanwhile, so it is read once."""
    held = {sink.sink.name: sink.published for sink in state.sinks}
    return {name: it.expires_at for name, it in held.items() if it and it.expires_at.timestamp() <= wall}


def _expected(state: TokenState) -> bool:
    return not state.failures and state.publish_at is None and bool(state.noticed & _EXPECTED)


def _why(state: TokenState, names: tuple[str, ...]) -> Failure | None:
    """What keeps it from being replaced, as far as anything failed."""
    failures = [state.suspended, state.failure, *(sink.failure for sink in state.sinks if sink.sink.name in names)]
    return next((failure for failure in failures if failure is not None), None)
