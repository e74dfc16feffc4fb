"""When our own Vault token is renewed and replaced, and how long no log-in is made after one failed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from aca_tokend.core.login import (
    MAX_REJECTIONS,
    POLL_SECONDS,
    RETRY_REJECTED_SECONDS,
    Fault,
    HoldOff,
    TokenLife,
    Verdict,
    hold_off,
)

WRONG = Fault(Verdict.REJECTED, "wrong")
AWAY = Fault(Verdict.UNAVAILABLE, "wrong")
UNREAD = Fault(Verdict.UNAVAILABLE, "")


def after(*faults: Fault, draw: float = 1.0) -> HoldOff:
    """The hold-off after these log-ins running, each made when the one before allowed it."""
    held, now = None, 0.0
    for fault in faults:
        held = hold_off(held, fault, now, draw)
        now = held.until
    assert held is not None
    return held


@pytest.mark.parametrize(("draw", "due"), [(0.0, 1060.0), (1.0, 1054.0), (0.5, 1057.0)])
def test_renewed_at_two_thirds(draw: float, due: float) -> None:
    """A token is due at two thirds of its life, up to a tenth of that earlier, counted from before the request."""
    assert TokenLife(1000.0, 90.0, renewable=True).due_at(draw) == pytest.approx(due)


def test_token_without_an_end() -> None:
    """A token that never expires is never due."""
    life = TokenLife(1000.0, None, renewable=False)
    assert (life.expires_at, life.due_at(0.5)) == (math.inf, math.inf)


def test_shortest_life() -> None:
    """However short a token lives, nothing is done for it more often than twice a second."""
    assert TokenLife(1000.0, 0.0, renewable=True).due_at(1.0) == 1000.5


@pytest.mark.parametrize(("given", "capped"), [(90.0, False), (50.0, False), (31.0, True), (30.0, True), (10.0, False)])
def test_longest_life(given: float, capped: bool) -> None:
    """A renewal that does not move the end has met the longest life; one with less life by a changed period has not."""
    life = TokenLife(1000.0, 90.0, renewable=True)
    renewed = life.renewed(TokenLife(1060.0, given, renewable=True))
    assert renewed == TokenLife(1060.0, given, renewable=True, capped=capped)


def test_failing_renewals_come_closer() -> None:
    """Renewals without an answer are tried again before the token expires, closer together as that comes near."""
    life, now, tries = TokenLife(0.0, 90.0, renewable=True), 60.0, []
    while now < life.expires_at:
        tries.append(now)
        now = life.retry_at(len(tries), now, draw=1.0)
    assert len(tries) > 8
    gaps = [later - sooner for sooner, later in pairwise(tries)]
    assert max(gaps) <= 7.5
    assert min(gaps) >= 0.5
    assert life.expires_at - tries[-1] <= 0.5


def test_two_refusals_and_no_more() -> None:
    """After two refusals of a credential that can be locked out it rests for an hour; another one is looked for."""
    held = after(WRONG)
    assert not held.suspended
    assert held.until <= 1.0
    held = after(*[WRONG] * MAX_REJECTIONS)
    assert held.suspended
    began = held.until - RETRY_REJECTED_SECONDS
    assert held.look_at(began) == began + POLL_SECONDS


def test_refused_again_after_an_hour() -> None:
    """The one attempt an hour later, refused again, is followed by another hour."""
    second, third = after(WRONG, WRONG), after(WRONG, WRONG, WRONG)
    assert third.until == second.until + RETRY_REJECTED_SECONDS
    assert third.suspended


def test_another_credential_counts_anew() -> None:
    """Another credential has its own two attempts."""
    held = after(WRONG, WRONG, Fault(Verdict.REJECTED, "also wrong"))
    assert (held.credential, held.rejections, held.suspended) == ("also wrong", 1, False)


@pytest.mark.parametrize("between", [AWAY, UNREAD])
def test_outages_do_not_forgive(between: Fault) -> None:
    """An outage, or a file that is away for a while, between two refusals changes nothing in their count."""
    assert after(WRONG, between, between, WRONG).suspended


def test_vault_that_is_away() -> None:
    """A Vault that does not answer is asked again within two seconds, however long it is away."""
    assert all(after(*[AWAY] * count).until - after(*[AWAY] * (count - 1)).until <= 2.0 for count in range(2, 40))
    assert after(*[AWAY] * 5, draw=0.0).until < after(*[AWAY] * 5, draw=1.0).until


def test_other_refusals_back_off() -> None:
    """A refusal that locks nobody out is asked again ever more rarely, at least once a minute."""
    refused = Fault(Verdict.REFUSED, "wrong")
    waits = [after(*[refused] * count).until - after(*[refused] * (count - 1)).until for count in range(2, 12)]
    assert waits == sorted(waits)
    assert waits[-1] == 60.0
    assert not after(*[refused] * 12).suspended


@pytest.mark.parametrize(("wish", "wait"), [(7.0, 7.0), (900.0, 60.0), (0.0, 0.5)])
def test_wish_of_the_server(wish: float, wait: float) -> None:
    """What Vault asks for is kept to, up to a minute."""
    assert hold_off(None, Fault(Verdict.UNAVAILABLE, "", wish), 0.0, 1.0).until == wait
