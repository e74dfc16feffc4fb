"""The endpoint breaker: one probe at a time while an endpoint fails, and an ordered recovery."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from aca_tokend.core.breaker import (
    RELEASE_SPACING_SECONDS,
    SUBSTITUTE_SECONDS,
    SUBSTITUTES,
    THRESHOLD,
    URGENT_PROBE_SECONDS,
    Breaker,
    Outage,
    Wake,
)
from aca_tokend.core.errors import GrantError
from aca_tokend.core.outcome import EndpointDown, EndpointRecovered, Reason
from aca_tokend.rotation.decide import SAME_LOOK_SECONDS
from tests.fakes import Crowd

FAR = 10_000.0


def opened(expires: float = FAR) -> Breaker:
    """A breaker that has just opened at time 0, with its next probe told to token t2."""
    breaker = Breaker(probe_lost_seconds=25.0)
    for number in range(THRESHOLD):
        assert breaker.admit(f"t{number}", expires, 0.0)
    for number in range(THRESHOLD):
        breaker.failed(f"t{number}", expires + number, 0.0, None, 1.0)
    assert breaker.open
    return breaker


def test_closed_lets_everybody_go() -> None:
    """Fewer failures than the threshold let every token go, and an answer between them starts the count anew."""
    breaker = Breaker(probe_lost_seconds=25.0)
    for _ in range(10):
        for number in range(THRESHOLD - 1):
            assert breaker.failed(f"t{number}", FAR, 0.0, None, 1.0) == []
        assert breaker.answered("t0", 1.0) == [Wake("t1", 1.0)], "who failed before may go on at once"

    assert breaker.admit("t1", FAR, 0.0)


def test_who_failed_just_now_is_not_woken_at_once() -> None:
    """An answer to another token of the endpoint does not send a token again half a second after its own failure."""
    breaker = Breaker(probe_lost_seconds=25.0)
    breaker.failed("just", FAR, 9.9, None, 1.0)
    breaker.failed("before", FAR, 9.0, None, 1.0)

    assert breaker.answered("well", 10.0) == [
        Wake("just", 9.9 + URGENT_PROBE_SECONDS),
        Wake("before", 10.0 + RELEASE_SPACING_SECONDS),
    ]


def test_who_asks_by_itself_is_not_woken() -> None:
    """A token whose next attempt is under way is not sent again by an answer to another."""
    breaker = Breaker(probe_lost_seconds=25.0)
    breaker.failed("slow", FAR, 0.0, None, 1.0)
    assert breaker.admit("slow", FAR, 5.0)

    assert breaker.answered("well", 6.0) == []


def test_open_lets_one_probe_go() -> None:
    """Once open one token goes at the time of the probe, and the others wait."""
    breaker = opened()

    assert not breaker.admit("t1", FAR, 0.5)
    assert breaker.admit("t2", FAR, 1.0)
    assert not breaker.admit("t1", FAR, 1.0)
    assert not breaker.admit("t3", FAR, 2.0)


def test_failed_probe_names_the_next() -> None:
    """After a failed probe the most urgent of the waiting is told when to probe, later each time up to a cap."""
    breaker = opened()
    now, waits = 1.0, []
    for _ in range(8):
        assert breaker.admit("t2", FAR + 2, now)
        wake, *_ = breaker.failed("t2", FAR + 2, now, None, 1.0)
        assert wake.token == "t0"
        waits.append(wake.at - now)
        now = wake.at

    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(4.0)


def test_probes_go_by_turns() -> None:
    """A token whose failure is its own does not keep the others waiting: each that waits has its turn."""
    breaker = opened()
    assert not breaker.admit("well", FAR + 9, 0.5)
    now = 1.0
    probed: list[str] = []
    for _ in range(8):
        token = "t0" if not probed else probed[-1]
        assert breaker.admit(token, FAR, now)
        wake, *_ = breaker.failed(token, FAR, now, None, 1.0)
        probed.append(wake.token)
        now = wake.at

    assert "well" in probed[:2]


def test_substitutes_are_woken_beside_the_one_whose_turn_it_is() -> None:
    """An attempt that takes long to come holds nobody up: a few others are woken one by one, and the first asks."""
    breaker = opened()
    for name in ("well", "other", "third", "last"):
        assert not breaker.admit(name, FAR + 9, 0.5)
    assert breaker.admit("t2", FAR, 1.0)

    wakes = breaker.failed("t2", FAR, 1.0, None, 1.0)

    assert len(wakes) == 1 + SUBSTITUTES
    assert [wake.at - breaker.probe_at for wake in wakes] == [n * SUBSTITUTE_SECONDS for n in range(1 + SUBSTITUTES)]
    first, second, *_ = wakes
    assert (breaker.turn_at(first.token), breaker.turn_at(second.token)) == (breaker.probe_at, math.inf)
    assert breaker.admit(second.token, FAR, second.at)
    assert not breaker.admit(first.token, FAR, second.at), "one probe at a time"


def test_token_that_waits_for_something_else_is_still_failing() -> None:
    """One that failed and then waits for its attempt record counts with the others; one that adopted does not."""
    for failing in (True, False):
        breaker = Breaker(probe_lost_seconds=25.0)
        breaker.failed("t0", FAR, 0.0, None, 0.0)
        breaker.passed("t0", 0.5, failing=failing)
        for name in ("t1", "t2"):
            breaker.failed(name, FAR, 1.0, None, 0.0)

        assert breaker.open is failing


def test_turn_is_passed_on() -> None:
    """A token whose turn it is and that makes no request, for instance because it adopted one, passes it on."""
    breaker = opened()
    assert breaker.admit("t2", FAR, 1.0)
    wake, *_ = breaker.failed("t2", FAR, 1.0, None, 1.0)

    following, *_ = breaker.passed(wake.token, wake.at)
    assert following.token != wake.token
    assert following.at == wake.at
    assert breaker.passed("somebody", wake.at) == []
    last, *others = breaker.passed(following.token, wake.at)
    assert others == []
    assert breaker.passed(last.token, wake.at) == [], "nobody waits any more"


def test_what_can_be_saved_goes_before_what_has_expired() -> None:
    """Of those that failed equally often the next to expire has its turn first, and what has expired comes last."""
    breaker = opened()
    for name, expires in (("expired", 0.5), ("later", 500.0), ("soon", 50.0)):
        assert not breaker.admit(name, expires, 0.6)

    wakes = breaker.passed("t0", 1.0)

    assert [wake.token for wake in wakes] == ["soon", "later", "expired"]


def test_probe_that_is_given_up_passes_its_turn_on() -> None:
    """A token that became the probe and then left lets another ask at once."""
    breaker = opened()
    assert breaker.admit("t2", FAR, 1.0)

    wake, *_ = breaker.passed("t2", 1.5)

    assert (wake.token, wake.at) == ("t0", 1.5)
    assert breaker.admit(wake.token, FAR, 1.5)


def test_turn_that_nobody_took_is_free_again() -> None:
    """Once the last that waits has passed its turn nobody is told to probe, and the next to come need not wait."""
    breaker = opened()
    for number in range(THRESHOLD):
        breaker.passed(f"t{number}", 0.5)

    assert breaker.turn_at("new") == breaker.probe_at
    assert breaker.admit("new", FAR, breaker.probe_at)
    assert breaker.turn_at("another") == math.inf, "it is out"


def test_replica_that_recovers_by_adopting_is_fresh_at_once() -> None:
    """After an outage, a replica whose tokens another one renewed adopts them all within seconds."""
    first = Crowd(50)
    first.run_for(30)
    second = Crowd(50, clock=first.clock, sinks=first.sinks)
    second.run_for(5)
    for crowd in (first, second):
        crowd.endpoint.broken = GrantError(Reason.UNAVAILABLE, "503")
    Crowd.run_together([first, second], 6500)
    for crowd in (first, second):
        crowd.endpoint.broken = None
    Crowd.run_together([first, second], 10)

    asked_twice = 0
    for crowd in (first, second):
        for token, sink in zip(crowd.tokens.values(), crowd.sinks, strict=True):
            held, life = token.facts.current, token.facts.life
            assert held is not None
            assert life is not None
            assert life.rotate > crowd.clock.now
            # where both asked before either could have seen the other's, each keeps its own
            assert sink.content.issued_at - held.document.issued_at <= timedelta(seconds=SAME_LOOK_SECONDS)
            asked_twice += held.document != sink.content
    assert asked_twice <= 5


def test_one_token_alone_opens_nothing() -> None:
    """A token that fails again and again opens the breaker for nobody else."""
    breaker = Breaker(probe_lost_seconds=25.0)
    for _ in range(20):
        breaker.failed("bad", FAR, 0.0, None, 1.0)

    assert not breaker.open
    assert breaker.admit("well", FAR, 0.0)


def test_urgent_token_brings_the_probe_forward() -> None:
    """The nearer the expiry of a token that waits, the sooner the next probe, down to half a second."""
    breaker = opened(expires=10.0)
    breaker.admit("t0", 10.0, 6.0)
    wake, *_ = breaker.failed("t0", 10.0, 6.0, None, 1.0)
    assert wake.at <= 7.0
    breaker.admit("t0", 10.0, 9.5)
    wake, *_ = breaker.failed("t0", 10.0, 9.5, None, 1.0)
    assert wake.at == 9.5 + URGENT_PROBE_SECONDS


def test_hurry_of_those_who_come_later() -> None:
    """A token that comes to wait in a greater hurry brings the probe forward; those already expired hurry nobody."""
    breaker = opened(expires=-100.0)
    assert breaker.probe_at == 1.0
    for now in (1.0, 2.5, 4.75):
        assert breaker.admit("t0", -100.0, now)
        breaker.failed("t0", -100.0, now, None, 1.0)
    assert breaker.probe_at > 8.0

    assert not breaker.admit("urgent", 7.0, 5.0)
    assert breaker.probe_at == 5.0 + 0.5
    assert breaker.admit("urgent", 7.0, 5.5)


def test_recovery_lets_the_waiting_go_in_order() -> None:
    """The first answer closes the breaker and lets those who wait go, most urgent first, a little apart."""
    breaker = opened()
    for name, expires in (("c", 300.0), ("a", 100.0), ("b", 200.0)):
        assert not breaker.admit(name, expires, 0.5)
    assert breaker.admit("a", 100.0, 1.0)

    wakes = breaker.answered("a", 1.0)

    assert [wake.token for wake in wakes[:2]] == ["b", "c"]
    assert [wake.at for wake in wakes] == [1.0 + number * RELEASE_SPACING_SECONDS for number in range(len(wakes))]
    assert breaker.admit("anyone", FAR, 1.0)


@pytest.mark.parametrize("count", [200, 10_000])
def test_recovery_saves_what_can_be_saved(count: int) -> None:
    """However many wait, each is let go well before it expires, and the last within seconds."""
    breaker = opened()
    for number in range(count):
        breaker.admit(f"n{number}", 3.0 if number % 2 else FAR, 0.5)
    wakes = breaker.answered("t0", 1.0)

    late = {wake.token: wake.at for wake in wakes}
    assert max(late[f"n{number}"] for number in range(count) if number % 2) <= 1.5
    assert max(late.values()) <= 1.0 + 5.0


def test_retry_after_holds_for_the_endpoint() -> None:
    """A Retry-After of one answer holds for every token of the endpoint, but never until one of them is dead."""
    breaker = Breaker(probe_lost_seconds=25.0)
    assert breaker.failed("t0", FAR, 0.0, 60.0, 1.0) == [Wake("t0", 60.0)]
    assert not breaker.admit("t1", FAR, 59.0)
    assert breaker.admit("t1", FAR, 60.0)

    urgent = Breaker(probe_lost_seconds=25.0).failed("t0", 40.0, 0.0, 60.0, 1.0)
    assert urgent == [Wake("t0", 30.0)]


def test_lost_probe_is_replaced() -> None:
    """A probe that never comes back does not keep the others waiting for ever."""
    breaker = opened()
    assert breaker.admit("t2", FAR, 1.0)

    assert not breaker.admit("t1", FAR, 25.0)
    assert breaker.admit("t1", FAR, 26.0)


def test_late_failures_do_not_disturb_the_probe() -> None:
    """Answers to requests sent before the breaker opened neither end nor double the probe that is out."""
    breaker = opened()
    assert breaker.admit("t2", FAR, 1.0)

    assert breaker.failed("late", FAR, 1.5, None, 1.0) == []
    assert not breaker.admit("t1", FAR, 2.0)


def test_outage_of_a_crowd() -> None:
    """Through a long outage an endpoint of 200 tokens gets a request every few seconds, and recovers within seconds."""
    crowd = Crowd(200)
    crowd.run_for(30)
    before = len(crowd.endpoint.asked)
    assert before == 200
    crowd.endpoint.broken = GrantError(Reason.UNAVAILABLE, "503")
    crowd.run_for(6000)
    during = len(crowd.endpoint.asked) - before
    assert during < 2000, "30 a minute at the most, beside those that opened the breaker"

    crowd.endpoint.broken = None
    documents = [sink.content for sink in crowd.sinks]
    crowd.run_for(10)
    assert all(sink.content != old for sink, old in zip(crowd.sinks, documents, strict=True))
    assert len(crowd.endpoint.asked) - before - during == 200


def test_outage_tells_who_waits() -> None:
    """While it is open it tells how many tokens wait, how many of them have expired, and when the next of them does."""
    assert Breaker(probe_lost_seconds=25.0).outage(0.0) is None
    breaker = opened()
    breaker.admit("expired", 0.0, 0.1)
    breaker.admit("soon", 50.0, 0.1)

    assert breaker.outage(10.0) == Outage(THRESHOLD + 2, 1, 40.0)
    assert breaker.outage(FAR * 2) == Outage(THRESHOLD + 2, THRESHOLD + 2, math.inf)
    breaker.answered("t0", 11.0)
    assert breaker.outage(11.0) is None


@pytest.mark.parametrize("answer", [None, GrantError(Reason.INVALID_GRANT, "acaengine.main: invalid_grant")])
def test_endpoint_tells_of_itself(answer: GrantError | None) -> None:
    """Each request that fails while it is open tells how many wait; the next answer, or refusal, how many go on."""
    crowd = Crowd(10)
    crowd.endpoint.broken = GrantError(Reason.CONNECT_FAILED, "acaengine.main: no connection")
    crowd.run_for(30.0)
    down = [event for event in crowd.events if isinstance(event, EndpointDown)]
    assert (down[0].endpoint, down[0].waiting, down[0].expired) == ("main", THRESHOLD, THRESHOLD)
    assert down[0].failure.reason is Reason.CONNECT_FAILED
    assert (down[-1].waiting, down[-1].expired, down[-1].expires_seconds) == (10, 10, math.inf)

    crowd.endpoint.broken = answer
    crowd.run_for(30.0)
    (up,) = [event for event in crowd.events if isinstance(event, EndpointRecovered)]
    assert (up.endpoint, up.waiting) == ("main", 9)
