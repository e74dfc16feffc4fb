"""What brings an attempt forward is done by that attempt, and what hands out the same token again by no busy loop."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

from aca_tokend.core.config import EnvReference, VerifyConfig
from aca_tokend.core.errors import GrantError, VerifyError
from aca_tokend.core.outcome import Reason
from aca_tokend.rotation.changes import Change
from aca_tokend.rotation.managed import Reconfigured, Woken
from tests.fakes import Bench, FakeClock, token_config, wired

LIMITED = GrantError(Reason.RATE_LIMITED, "acaengine main: 429", retry_after_seconds=3600.0)
DOWN = GrantError(Reason.UNAVAILABLE, "acaengine main: 503")
REFUSED = VerifyError(Reason.TOKEN_REFUSED, "401")


class TickingClock(FakeClock):
    """Time passes between any two looks at it, as it does for a real one."""

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now


def test_what_a_message_hastens_is_due_in_the_attempt_that_takes_it_in() -> None:
    """What failed is tried at once when its Vault is back, though the attempt began a moment before it was told."""
    bench = Bench(clock=TickingClock())
    bench.endpoint.broken = DOWN
    bench.attempt()
    bench.endpoint.broken = None

    bench.vault_is_back()
    bench.attempt()

    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].content is not None


def test_account_by_another_reference_waits_for_nobody() -> None:
    """A reload that has the account in another reference resolves it at once: no pause is for another account."""
    bench = Bench()
    bench.secrets.values["USERNAME"] = "svc-other"
    bench.endpoint.broken = LIMITED
    bench.attempt()
    bench.endpoint.broken = None
    config = bench.config.model_copy(update={"username": EnvReference(env="USERNAME")})
    wiring = wired(config, bench.endpoint, bench.sinks, bench.shared)

    bench.token.inbox.append(Reconfigured(wiring, Change(config, (0,), (True,), tried_anew=False)))
    bench.attempt()

    assert bench.facts.identity is not None
    assert bench.facts.identity.username == "svc-other"


def test_a_refused_token_that_is_handed_out_again_is_asked_for_less_and_less() -> None:
    """While a server hands out the token again that its API refuses, the pauses between requests grow."""
    verify = VerifyConfig(path="/api/me", every=60.0)
    bench = Bench(config=token_config().model_copy(update={"verify": verify}))
    bench.endpoint.reuse = True
    bench.attempt()
    bench.endpoint.verify_error = REFUSED

    bench.run_for(3600)

    assert bench.facts.revoked
    assert 5 < len(bench.endpoint.asked) < 12


def test_a_token_that_the_server_gives_longer_than_its_document_is_dated_anew() -> None:
    """Where another clock dated a token too early, the server that hands it out again is believed once it is over."""
    bench = Bench()
    bench.endpoint.reuse = True
    bench.attempt()
    early, document = timedelta(seconds=7170), bench.sinks[0].content
    times = ("issued_at", "expires_at", "refresh_after")
    bench.sinks[0].put(replace(document, **{name: getattr(document, name) - early for name in times}))
    bench.restart()
    bench.attempt()

    bench.run_for(120)

    assert bench.sinks[0].content.access_token == document.access_token
    assert bench.sinks[0].content.expires_at.timestamp() > bench.clock.wall() + 3600
    assert len(bench.endpoint.asked) < 8


def test_a_token_whose_turn_it_is_comes_though_it_was_woken_before() -> None:
    """Who is told to probe, and comes as a substitute of the last probe before that, is refused, but keeps its turn.

    Two wakes are as one, at the earlier moment. Those that wait beside it may adopt what a replica was granted, and
    then nobody but this token would ever find out that the endpoint is up again.
    """
    bench = Bench()
    bench.attempt()
    clock, gate = bench.clock, bench.token.wiring.gate
    clock.now = bench.next_at
    gate.failed("another", math.inf, clock.now, 1.0, 0.5)
    bench.attempt()
    clock.now = gate.breaker.probe_at
    assert gate.admit("another", math.inf, clock.now)
    told = gate.failed("another", math.inf, clock.now, 3.0, 0.5)[0]

    for at in (clock.now, told.at):
        bench.token.inbox.append(Woken(at))
    bench.attempt()

    assert bench.facts.waits_for == "endpoint_held"
    assert (told.token, told.at) == (bench.token.name, bench.next_at)
    bench.run_for(3.0)
    assert len(bench.endpoint.asked) == 2
