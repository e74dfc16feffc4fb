"""What the states of tokens look like to those who watch: for metrics, and for reckoning whether endpoints keep up.

Attempts change the states meanwhile: what may become None is read once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.metrics import SinkView, TokenView

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aca_tokend.state import SinkState, TokenState


def token_view(state: TokenState, offset: float) -> TokenView:
    """One token; `offset` is the wall clock minus the monotonic one."""
    life, suspended = state.life, state.suspended
    hooks = (sink.hook for sink in state.sinks if sink.hook is not None)
    hook_failures = (hook.failures for hook in hooks if state.name in hook.failing)
    return TokenView(
        token=state.name,
        document=state.document,
        rotate_at=life.rotate + offset if life else None,
        expires_at=life.expires + offset if life else None,
        suspended=suspended.reason if suspended else None,
        consecutive_failures=max(state.failures, state.publish_failures, *hook_failures),
        sinks=tuple(map(_sink_view, state.sinks)),
        settled=state.settled,
    )


def _sink_view(sink: SinkState) -> SinkView:
    held = sink.published
    return SinkView(sink.sink.name, sink.sink.kind, held.issued_at if held else None, held.expires_at if held else None)


def due_per_second(states: Iterable[TokenState]) -> dict[str, float]:
    """How many grants the tokens of each endpoint need in the long run."""
    due: dict[str, float] = {}
    for state in states:
        if (life := state.life) is not None:
            each = max(life.rotate - life.issued, state.config.rotation.min_interval)
            due[state.endpoint.name] = due.get(state.endpoint.name, 0.0) + 1.0 / each
    return due
