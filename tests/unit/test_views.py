"""What metrics, and the reckoning whether endpoints keep up, see of tokens."""

from __future__ import annotations

from aca_tokend.core.errors import GrantError
from aca_tokend.core.outcome import Reason
from aca_tokend.rotation.hook_runner import HookState
from aca_tokend.views import due_per_second, token_view
from tests.fakes import Bench, FakeHook, MemorySink, at, token_config


def test_view_of_what_readers_find() -> None:
    """A place holds what it was last found to hold, also a token of the account from before; not a stranger's."""
    before = Bench()
    before.attempt()
    ends = at(before.clock.wall() + 7200)
    assert token_view(before.token, 0.0).sinks[0].expires_at == ends
    before.sinks[0].look_errors.extend([Reason.VAULT_SEALED] * 100)
    before.run_for(5000)
    assert token_view(before.token, 0.0).sinks[0].expires_at == ends
    assert token_view(before.token, 0.0).consecutive_failures > 1

    before.sinks[0].look_errors.clear()
    config = token_config().model_copy(update={"username": "svc-other"})
    another = Bench(clock=before.clock, sinks=before.sinks, config=config)
    another.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine.main: 503")
    another.attempt()
    seen = token_view(another.token, 0.0)
    assert (seen.document, seen.sinks[0].expires_at) == (None, ends)

    stranger = Bench(clock=before.clock, sinks=before.sinks, config=config.model_copy(update={"name": "other"}))
    stranger.attempt()
    assert token_view(stranger.token, 0.0).sinks[0].expires_at is None


def test_view_while_a_reload_comes_in_between() -> None:
    """A token whose places are fewer than its sinks for a moment is no error."""
    bench = Bench(sinks=[MemorySink(), MemorySink(name="file:/run/aca/x.json", kind="file", pool="file")])
    bench.attempt()
    bench.token.facts = bench.facts._replace(places=bench.facts.places[:1])
    assert [sink.expires_at is None for sink in token_view(bench.token, 0.0).sinks] == [False, True]


def test_view_counts_the_failures_of_its_hooks() -> None:
    """A token that waits for a failing hook shows how often that failed; one of another token's shows nothing."""
    backoff = token_config().rotation.backoff
    hook = HookState("hook 1", FakeHook(), backoff, failures=3, failing=frozenset({"bookings"}))
    bench = Bench(hooks=[hook])
    assert token_view(bench.token, 0.0).consecutive_failures == 3
    hook.failing = frozenset({"signage"})
    assert token_view(bench.token, 0.0).consecutive_failures == 0


def test_what_is_due_goes_by_the_rotation_points() -> None:
    """A token needs a grant each time from its issue to its rotation point; one without a token is not counted."""
    bench = Bench()
    assert due_per_second([bench.token]) == {}
    bench.attempt()
    (rate,) = due_per_second([bench.token, bench.token]).values()
    assert round(2 / rate) == round(7200 * 0.667)
