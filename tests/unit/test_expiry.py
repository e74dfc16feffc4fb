"""Tokens that have expired where they are read are found, and told of once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aca_tokend.core.errors import GrantError
from aca_tokend.core.outcome import Expired, Reason, Step
from aca_tokend.expiry import Expiries
from tests.fakes import Bench, MemorySink, token_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.rotation.managed import ManagedToken


def rotated(*sinks: MemorySink) -> Bench:
    """A token of two hours that was just published to these sinks."""
    bench = Bench(sinks=list(sinks) or [MemorySink()])
    bench.attempt()
    return bench


def news(bench: Bench, expiries: Expiries) -> list[Expired]:
    return list(expiries.news([bench.token], bench.clock.monotonic(), bench.clock.wall()))


def test_token_that_expires() -> None:
    """A token that has expired is told of once, with what keeps it from being replaced, and again after a success."""
    bench, expiries = rotated(), Expiries()
    document = bench.document
    assert document is not None
    bench.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine.main: 503")
    bench.run_for(7199.0)
    assert news(bench, expiries) == []

    bench.run_for(1.0)
    (expired,) = news(bench, expiries)
    assert (expired.token, expired.sinks) == ("bookings", ("vault:secret/aca/bookings",))
    assert expired.expires_at == document.expires_at
    assert expired.failure is not None
    assert (expired.failure.step, expired.failure.reason) == (Step.GRANT, Reason.UNAVAILABLE)
    bench.run_for(600.0)
    assert news(bench, expiries) == []

    bench.endpoint.broken = None
    bench.run_for(600.0)
    assert news(bench, expiries) == []
    bench.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine.main: 503")
    bench.run_for(7200.0)
    assert len(news(bench, expiries)) == 1


def test_sink_that_is_left_behind() -> None:
    """A sink that could not be written is told of when what it holds has expired, though the other is served."""
    behind, served = MemorySink(name="vault:secret/aca/bookings"), MemorySink(name="file:/run/aca/bookings.json")
    bench, expiries = rotated(behind, served), Expiries()
    behind.look_errors.extend([Reason.VAULT_SEALED] * 10_000)
    bench.run_for(7100.0)
    assert news(bench, expiries) == []

    bench.run_for(200.0)
    (expired,) = news(bench, expiries)
    assert expired.sinks == ("vault:secret/aca/bookings",)
    assert expired.failure is not None
    assert expired.failure.reason is Reason.VAULT_SEALED


def test_places_are_told_of_once_each() -> None:
    """While one place of two is served again and the other is not, nothing new is told; if it expires again, it is."""
    places = [MemorySink(), MemorySink(name="file:/run/aca/bookings.json", kind="file", pool="file")]
    bench, expiries = rotated(*places), Expiries()
    bench.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine.main: 503")
    bench.run_for(7200.0)
    assert [it.sinks for it in news(bench, expiries)] == [(places[0].name, places[1].name)]

    bench.endpoint.broken = None
    places[1].publish_errors.extend([Reason.IO_ERROR] * 10_000)
    bench.run_for(100.0)
    assert places[0].writes == 2
    assert news(bench, expiries) == []
    bench.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine.main: 503")
    bench.run_for(7200.0)
    assert [it.sinks for it in news(bench, expiries)] == [(places[0].name, places[1].name)]


def test_token_of_the_account_from_before() -> None:
    """A token of the account that was configured before is told of too when it expires where it is read."""
    before, expiries = rotated(), Expiries()
    config = token_config().model_copy(update={"username": "svc-other"})
    bench = Bench(clock=before.clock, sinks=before.sinks, config=config)
    bench.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine.main: 503")
    bench.run_for(7100.0)
    assert news(bench, expiries) == []

    bench.run_for(100.0)
    (expired,) = news(bench, expiries)
    assert expired.sinks == (before.sinks[0].name,)


def test_what_is_not_told() -> None:
    """Nothing is told of a token that was never published, nor of one whose server lets it expire each time."""
    bench, expiries = Bench(), Expiries()
    bench.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine.main: 503")
    bench.run_for(60.0)
    assert news(bench, expiries) == []

    short = Bench()
    short.endpoint.lifetime = 5.0
    for _ in range(60):
        short.run_for(1.0)
        assert news(short, expiries) == []
    short.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine.main: 503")
    short.run_for(20.0)
    assert len(news(short, expiries)) == 1, "but where it fails besides"


def test_adopted_token_that_has_expired_before_the_start() -> None:
    """What had expired before the process began is told of too, once its first attempt has ended."""
    before = rotated()
    before.clock.advance(9000.0)
    bench = Bench(clock=before.clock, sinks=before.sinks)
    bench.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine.main: 503")
    expiries = Expiries()
    assert news(bench, expiries) == []

    assert bench.attempt() < math.inf
    (expired,) = news(bench, expiries)
    assert expired.failure is not None


def test_fresh_tokens_are_seldom_looked_over() -> None:
    """While every token is fresh they are looked over when the first of them expires, and now and then before."""
    bench, expiries = rotated(), Expiries()
    looks: list[float] = []

    def tokens(now: float) -> Iterator[ManagedToken]:
        looks.append(now)
        yield bench.token

    expires_at, began = bench.token.facts.expires_at, bench.clock.monotonic()
    for now in (began, began + 9.0, began + 10.0, expires_at - 1.0, expires_at - 0.5, expires_at, expires_at + 1.0):
        list(expiries.news(tokens(now), now, bench.clock.wall()))

    assert looks == [began, began + 10.0, expires_at - 1.0, expires_at, expires_at + 1.0]
