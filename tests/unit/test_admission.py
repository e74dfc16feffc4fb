"""Whose request goes first: what a process knows of a credential, and who is woken after whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aca_tokend.core.guard import Rules
from aca_tokend.core.outcome import Reason
from aca_tokend.rotation.admission import NEXT_TO_TRY, Claims, Client, Credential
from aca_tokend.rotation.facts import Facts, Held, Identity
from aca_tokend.rotation.shared import Known, Shared
from tests.fakes import token_config
from tests.properties.facts import AUTHORITY, OURS, USER, held

RULES = Rules(max_rejections=2, retry_rejected_seconds=0.0, lease_seconds=11.0)
WRONG = Reason.INVALID_GRANT


def token(name: str, in_use: Held | None = None) -> Facts:
    """A token that nothing is known of but, at most, the one in use."""
    identity = Identity(OURS, USER, AUTHORITY, 0.0)
    return Facts(token_config().model_copy(update={"name": name}), 0.0, identity, (), in_use)


def entered(credential: Credential, name: str, now: float = 0.0) -> object:
    """The permit of a request that is under way."""
    permit = object()
    assert credential.enter(token(name), RULES, now, permit) is True
    return permit


def proven() -> Credential:
    """A credential that was accepted."""
    credential = Credential()
    credential.answered(object(), RULES, 0.0, True)
    assert credential.proven()
    return credential


def test_one_unproven_request_at_a_time() -> None:
    """While a credential is not proven, one request is under way; who waits is woken when it ends."""
    credential = Credential()
    first = entered(credential, "a")

    assert not credential.enter(token("b"), RULES, 1.0)
    assert [wake.token for wake in credential.answered(first, RULES, 2.0, None)] == ["b"]
    assert credential.enter(token("b"), RULES, 2.0) is True


def test_who_comes_by_itself_waits_no_more() -> None:
    """It is not woken after its own request."""
    credential = Credential()
    first = entered(credential, "a")
    for number in range(NEXT_TO_TRY + 1):
        assert not credential.enter(token(f"t{number}"), RULES, 1.0)
    credential.answered(first, RULES, 2.0, None)
    last = entered(credential, f"t{NEXT_TO_TRY}", 3.0)

    assert credential.answered(last, RULES, 4.0, None) == []


def test_proven_credential_is_sent_no_more_often_at_once_than_it_may_be_refused() -> None:
    """Where a proven password stops working, the requests under way at that moment are no more than the bound."""
    credential = proven()
    one, two = entered(credential, "a"), entered(credential, "b")
    assert not credential.enter(token("c"), RULES, 1.0, object())

    assert credential.answered(one, RULES, 2.0, WRONG) == []
    assert not credential.enter(token("c"), RULES, 2.0, object()), "the other may be refused too"
    credential.answered(two, RULES, 3.0, WRONG)
    assert not credential.enter(token("c"), RULES, 3.0, object())
    assert credential.wait(RULES, 3.0) > 1e9


def test_who_waits_with_a_proven_credential_goes_on_when_one_is_done() -> None:
    """The most urgent first, though another's request is still under way."""
    credential = proven()
    one, _ = entered(credential, "a"), entered(credential, "b")
    lifetimes = {f"t{seconds}": float(seconds) for seconds in (60, 50, 40, 30, 20)}
    for name, lifetime in lifetimes.items():
        assert not credential.enter(token(name, held(lifetime=lifetime)), RULES, 1.0)

    assert [wake.token for wake in credential.answered(one, RULES, 2.0, None)] == ["t20", "t30", "t40", "t50"]


def test_acceptance_makes_the_count_start_anew() -> None:
    """What is accepted was right when it was sent, whatever was refused before; a record of fewer refusals is old."""
    credential = Credential()
    credential.answered(entered(credential, "a", 1.0), RULES, 2.0, WRONG)
    credential.answered(entered(credential, "a", 3.0), RULES, 5.0, True)
    assert credential.proven(3.0)
    assert not credential.proven(4.0)

    for now in (6.0, 7.0):
        assert credential.wait(RULES, now) == 0.0
        credential.answered(entered(credential, "a", now), RULES, now, WRONG)
    credential.recorded(WRONG, 1, 8.0)
    assert credential.wait(RULES, 9.0) > 1e9


def test_request_that_was_permitted_before_the_last_refusal() -> None:
    """A request that was permitted and waited is not sent once no attempt is left."""
    credential = Credential()
    credential.answered(entered(credential, "a"), RULES, 1.0, WRONG)
    assert credential.enter(token("b"), RULES, 1.0) is True
    credential.answered(entered(credential, "a"), RULES, 2.0, WRONG)

    assert not credential.enter(token("b"), RULES, 3.0, object())


def test_acceptance_that_was_overtaken_by_a_refusal_proves_nothing() -> None:
    """Of an acceptance and a refusal whose requests overlapped, nobody knows which came later: the refusal counts."""
    credential = proven()
    slow, quick = entered(credential, "a", 1.0), entered(credential, "b", 2.0)
    credential.answered(quick, RULES, 3.0, WRONG)

    credential.answered(slow, RULES, 4.0, True)

    assert not credential.proven()
    assert credential.refusals == 1


def test_permit_is_given_back_once() -> None:
    """A request that was never sent, or is settled twice, ends no other token's turn."""
    credential = Credential()
    first = entered(credential, "a")
    credential.answered(object(), RULES, 1.0, None)
    assert not credential.enter(token("b"), RULES, 1.0)

    credential.answered(first, RULES, 2.0, None)
    second = entered(credential, "b")
    credential.answered(first, RULES, 3.0, None)
    assert not credential.enter(token("c"), RULES, 3.0)
    credential.answered(second, RULES, 4.0, None)


def test_turn_is_passed_on() -> None:
    """However many of those that were woken need no request, the turn comes to the next that waits."""
    credential = Credential()
    permit = entered(credential, "first")
    names = {f"t{number}" for number in range(NEXT_TO_TRY * 3)}
    for name in names:
        assert not credential.enter(token(name), RULES, 0.0)

    woken = [wake.token for wake in credential.answered(permit, RULES, 1.0, None)]
    for name in woken:
        woken += [wake.token for wake in credential.passed(name, 2.0)]

    assert set(woken) == names
    assert len(woken) == len(names), "each was woken once"


def test_token_that_waits_with_another_credential_passes_its_turn() -> None:
    """A token that a reload gave another credential while it waited holds up nobody who waits with the one before."""
    shared = Shared(0.0)
    before, after = (Known(Credential(), Credential(), Credential()) for _ in range(2))
    permit = entered(before.user, "first")
    names = ["moved", *(f"t{number}" for number in range(NEXT_TO_TRY))]
    for name in names:
        assert not before.user.enter(token(name), RULES, 0.0)
    assert shared.queue("moved", before, 0.0) == []
    assert "moved" in {wake.token for wake in before.user.answered(permit, RULES, 1.0, None)}

    assert [wake.token for wake in shared.queue("moved", after, 2.0)] == [names[-1]]
    assert shared.passed("moved", 3.0) == []


def test_all_are_woken_by_a_verdict() -> None:
    """Once it is proven, or no attempt is left, every token that waits is woken."""
    for verdicts in ([True], [WRONG, WRONG]):
        credential = Credential()
        for verdict in verdicts:
            permit = entered(credential, "first")
            for number in range(20):
                credential.enter(token(f"t{number}"), RULES, 0.0)
            woken = credential.answered(permit, RULES, 1.0, verdict)
        assert len(woken) == 20


def test_cleared_once_for_all() -> None:
    """What an operator cleared is cleared once, though every suspended token sees it for itself."""
    credential = Credential()
    for now in (1.0, 2.0):
        credential.answered(entered(credential, "a"), RULES, now, WRONG)
    credential.cleared(10.0, since=2.0)
    for now in (11.0, 12.0):
        credential.answered(entered(credential, "a"), RULES, now, WRONG)

    credential.cleared(13.0, since=2.0)
    assert credential.wait(RULES, 13.0) > 0.0
    credential.cleared(20.0, since=12.0)
    assert credential.wait(RULES, 20.0) == 0.0


def test_cautious_attempt_after_a_while() -> None:
    """With retry_rejected one more request may be sent when that has passed since the last refusal."""
    rules, credential = replace(RULES, retry_rejected_seconds=3600.0), Credential()
    for now in (1.0, 2.0):
        credential.answered(entered(credential, "a"), RULES, now, WRONG)

    assert credential.wait(rules, 3.0) == pytest.approx(3599.0)
    assert credential.wait(rules, 3602.0) == 0.0
    credential.answered(object(), rules, 3603.0, WRONG)
    assert credential.wait(rules, 3604.0) == pytest.approx(3599.0)


def test_first_token_after_a_start() -> None:
    """After a start the others wait for the first token of a client, for some seconds at most."""
    client = Client("a", 5.0)
    assert client.before("a", 0.0) == 0.0
    assert client.before("b", 1.0) == 4.0
    assert client.passed("b", 1.0) == []

    assert [wake.token for wake in client.passed("a", 2.0)] == ["b"]
    assert client.before("c", 2.0) == 0.0


def test_first_token_that_hangs() -> None:
    """Where the first token of a client does not come, the others go on after some seconds, by themselves."""
    client = Client("a", 5.0)
    assert client.before("b", 1.0) == 4.0
    assert client.before("b", 5.0) == 0.0
    assert [wake.token for wake in client.passed("c", 6.0)] == ["b"]


def test_few_are_claimed_at_a_time() -> None:
    """Whoever finds no room is woken by one that is done, the most urgent first, and no other is."""
    claims = Claims(2)
    assert [claims.enter(name, 0.0) for name in ("a", "b", "a")] == [True] * 3, "who is inside stays inside"
    assert not claims.enter("c", 9.0)
    assert not claims.enter("d", 5.0)

    assert [wake.token for wake in claims.passed("a", 1.0)] == ["d"]
    assert claims.passed("a", 1.0) == [], "it was done already"
    assert claims.enter("d", 5.0)
    assert not claims.enter("e", 1.0)
    assert [wake.token for wake in claims.passed("b", 2.0)] == ["e"]


def test_woken_in_vain_for_a_claim() -> None:
    """A woken token that needs no claim any more wakes another; one whose room was taken waits on."""
    claims = Claims(1)
    assert claims.enter("a", 0.0)
    for name in ("b", "c", "d"):
        claims.enter(name, 0.0)

    assert [wake.token for wake in claims.passed("a", 1.0)] == ["b"]
    assert [wake.token for wake in claims.passed("b", 1.0)] == ["c"]
    assert claims.passed("b", 1.0) == [], "it did so already"
    assert claims.enter("z", 2.0), "it came by itself"
    assert not claims.enter("c", 2.0)
    assert [wake.token for wake in claims.passed("z", 3.0)] == ["d"]


def test_nobody_is_woken_for_a_claim_without_room() -> None:
    """A woken token whose room was taken wakes no other, and one that came by itself is not woken any more."""
    claims = Claims(1)
    assert claims.enter("a", 0.0)
    for name in ("b", "c", "d"):
        claims.enter(name, 0.0)
    assert [wake.token for wake in claims.passed("a", 1.0)] == ["b"]
    assert claims.enter("z", 1.0)
    assert claims.passed("b", 1.0) == [], "there is no room"

    claims.most = 2
    assert claims.enter("d", 2.0), "it came by itself"
    assert [wake.token for wake in claims.passed("z", 3.0)] == ["c"]
    assert claims.enter("c", 3.0)
    assert claims.passed("c", 4.0) == [], "nobody waits any more"


def test_token_that_left_is_not_woken_for_a_claim() -> None:
    """A token that waits no more gets no turn."""
    claims = Claims(1)
    assert claims.enter("a", 0.0)
    claims.enter("b", 0.0)
    claims.enter("c", 1.0)
    claims.passed("b", 1.0)

    assert [wake.token for wake in claims.passed("a", 1.0)] == ["c"]
