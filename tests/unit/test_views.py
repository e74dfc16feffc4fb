"""What others see of the states of tokens, while attempts change them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aca_tokend.core.outcome import Failure, Reason, Step
from aca_tokend.state import HookState
from aca_tokend.views import due_per_second, token_view
from tests.fakes import Bench, FakeHook, at

if TYPE_CHECKING:
    from aca_tokend.state import TokenState

SUSPENDED = Failure(Step.GRANT, Reason.INVALID_GRANT, "acaengine main: invalid_grant")


class Changing:
    """A field that an attempt clears as soon as it was read."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __get__(self, *_: object) -> object:
        value, self._value = self._value, None
        return value


def changing(state: TokenState) -> Any:  # noqa: ANN401 -- it looks like a state
    """The same, but for what an attempt may clear."""
    same = {name: getattr(state, name) for name in ("name", "config", "endpoint", "document", "failures")}
    held = state.sinks[0]
    sink = type("Sink", (), {"published": Changing(held.published), "sink": held.sink, "hook": None})()
    changes = {
        "suspended": Changing(SUSPENDED),
        "life": Changing(state.life),
        "publish_failures": 0,
        "sinks": (sink,),
        "settled": True,
    }
    return type("Token", (), same | changes)()


def test_state_that_changes() -> None:
    """What an attempt clears while it is looked at is seen as it was, or not at all, and is no error."""
    bench = Bench()
    bench.attempt()

    seen = token_view(changing(bench.state), 0.0)

    assert seen.suspended is Reason.INVALID_GRANT
    assert seen.sinks[0].expires_at == at(bench.clock.wall() + 7200)
    assert seen.rotate_at is not None
    assert due_per_second([changing(bench.state)]).keys() == {"main"}


def test_view_counts_the_failures_of_its_hooks() -> None:
    """A token that waits for a failing hook shows how often that failed; one of another token's shows nothing."""
    bench = Bench()
    hook = HookState("hook 1", FakeHook(), bench.config.rotation.backoff, failures=3, failing=frozenset({"bookings"}))
    bench.state.sinks[0].hook = hook
    assert token_view(bench.state, 0.0).consecutive_failures == 3
    hook.failing = frozenset({"signage"})
    assert token_view(bench.state, 0.0).consecutive_failures == 0


def test_what_is_due_goes_by_the_rotation_points() -> None:
    """A token needs a grant each time from its issue to its rotation point; one without a token is not counted."""
    bench = Bench()
    assert due_per_second([bench.state]) == {}
    bench.attempt()
    (rate,) = due_per_second([bench.state, bench.state]).values()
    assert round(2 / rate) == round(7200 * 0.667)
