"""`aca-tokend resume NAME`: clears the attempt records of an account, for the operator who fixed the server's side.

A running daemon notices by itself: within seconds where a token is published to files alone, else within a minute.
Nothing is asked of the endpoint here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.clock import SystemClock
from aca_tokend.core.errors import ReasonedError
from aca_tokend.core.guard import RECORD
from aca_tokend.parts import Parts

if TYPE_CHECKING:
    from aca_tokend.core.config import Config, TokenConfig
    from aca_tokend.core.ports import Sink


def resume(config: Config, token: TokenConfig) -> tuple[list[str], list[str]]:
    """Clears the records of a token, and of the others of its account: at every place, and however many fail.

    Returns, for people, what was cleared and what could not be.
    """
    parts = Parts(config, SystemClock(), lambda _told: None)
    cleared, problems = [], []
    try:
        for sink in (sink for it in config.tokens if _account(it) == _account(token) for sink in parts.wire(it).sinks):
            try:
                cleared.append(_clear(sink))
            except ReasonedError as error:
                problems.append(f"{sink.name}: {RECORD} not cleared: {error.message}")
        return cleared, problems
    finally:
        parts.close()


def _account(token: TokenConfig) -> tuple[object, ...]:
    return (token.acaengine, token.authority, token.username, token.client_id)


def _clear(sink: Sink) -> str:
    """Leaves an empty record: one that is not there tells nothing, and would be no permission."""
    seen = sink.read_record(RECORD)
    if seen.fields is None or seen.fields:
        sink.write_record(RECORD, {}, seen.stamp)
    return f"{sink.name}: {RECORD} cleared" if seen.fields else f"{sink.name}: {RECORD} was clear already"
