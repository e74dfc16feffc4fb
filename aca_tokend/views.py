"""What tokens look like to those who watch: for metrics, and for reckoning whether endpoints keep up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.metrics import SinkView, TokenView
from aca_tokend.rotation.standing import readable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aca_tokend.core.ports import Sink
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.managed import ManagedToken


def token_view(token: ManagedToken, offset: float) -> TokenView:
    """One token; `offset` is the wall clock minus the monotonic one."""
    facts, wiring = token.facts, token.wiring
    held, life, suspension = facts.current, facts.life, facts.suspension
    return TokenView(
        token=facts.name,
        document=held.document if held else None,
        rotate_at=life.rotate + offset if life else 0.0,
        expires_at=life.expires + offset if life else 0.0,
        suspended=suspension.failure.reason if suspension else None,
        consecutive_failures=token.failures,
        sinks=tuple(_sink_view(facts, number, sink) for number, sink in enumerate(wiring.sinks)),
        settled=facts.tried_once,
    )


def _sink_view(facts: Facts, number: int, sink: Sink) -> SinkView:
    held = readable(facts, number) if number < len(facts.places) else None  # a reload may come in between
    return SinkView(sink.name, sink.kind, held.issued_at if held else None, held.expires_at if held else None)


def due_per_second(tokens: Iterable[ManagedToken]) -> dict[str, float]:
    """How many grants the tokens of each endpoint need in the long run."""
    due: dict[str, float] = {}
    for token in tokens:
        facts, endpoint = token.facts, token.wiring.endpoint.name
        if (life := facts.life) is not None:
            each = max(life.rotate - life.issued, facts.config.rotation.min_interval)
            due[endpoint] = due.get(endpoint, 0.0) + 1.0 / each
    return due
