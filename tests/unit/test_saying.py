"""The plain words: a sentence for each reason, and times as people say them."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aca_tokend.core.condition import HOOK_FAILURES, NEVER, PASSING, PASSING_HOOK, VAULT_WIDE, Signs
from aca_tokend.core.outcome import REJECTED, Failure, Reason, Step
from aca_tokend.core.saying import CLAUSES, clause, clock, readers, relative, sentence, span, tokens, troubles
from aca_tokend.core.status import State

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def valid_for(seconds: float) -> Signs:
    """A token that the first reader meets expired in so many seconds."""
    return Signs(tried=True, valid_for=seconds, tolerance=0.0)


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_a_sentence(reason: Reason) -> None:
    """Every reason, at whichever step, gives one whole sentence that says until when readers are safe."""
    for step in Step:
        said = sentence(clause(Failure(step, reason, "acaengine.main (…): it failed")), readers(valid_for(8000.0), NOW))
        assert said[0].isupper()
        assert said.endswith("; readers are safe for 2 h 13 min, until 05:13 UTC.")
        assert said.count(".") == 1
        assert "{" not in said


def test_no_two_reasons_are_said_alike() -> None:
    """Each reason is told apart by its words."""
    assert len(set(CLAUSES.values())) == len(CLAUSES) == len(Reason)


def test_clauses_go_on() -> None:
    """A clause begins small, unless with a name, and ends without a full stop, so that others can follow it."""
    for text in CLAUSES.values():
        assert text[0].islower() or text.startswith(("{who}", "Vault"))
        assert not text.endswith(".")


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            Failure(Step.GRANT, Reason.TIMEOUT, "acaengine.main (…): no whole answer"),
            "the server gave no answer in time",
        ),
        (
            Failure(Step.GRANT, Reason.TIMEOUT, "vault main: secret/data/x: timeout"),
            "a secret in Vault cannot be had: Vault gave no answer in time",
        ),
        (
            Failure(Step.GRANT, Reason.SECRET_MISSING, "vault main: there is no secret at secret/x"),
            "a secret that the configuration refers to is missing",
        ),
        (
            Failure(Step.GRANT, Reason.VAULT_SEALED, "no attempt without its record: vault main: sealed"),
            "the attempt record cannot be used, so nothing is tried: Vault is sealed",
        ),
        (
            Failure(Step.VERIFY, Reason.TIMEOUT, "acaengine.main (…): no whole answer"),
            "the new token could not be tried: the server gave no answer in time",
        ),
        (
            Failure(Step.VERIFY, Reason.TOKEN_REFUSED, "acaengine.main (…): 401"),
            "the server's API refuses the token that the server granted",
        ),
        (
            Failure(Step.PUBLISH, Reason.CONNECT_FAILED, "vault main: …", sink="vault:secret/aca/x"),
            "vault:secret/aca/x: Vault cannot be reached",
        ),
        (
            Failure(Step.LOOK, Reason.DISK_FULL, "file: …", sink="file:/run/aca/x.json"),
            "file:/run/aca/x.json: the disk is full",
        ),
        (
            Failure(Step.LOOK, Reason.TIMEOUT, "file: …", sink="file:/run/aca/x.json"),
            "file:/run/aca/x.json: the file system gave no answer in time",
        ),
    ],
)
def test_who_failed(failure: Failure, said: str) -> None:
    """A clause tells the server from Vault, a secret and a record from the endpoint, and names the place of a sink."""
    assert clause(failure) == said


def test_a_sentence_keeps_the_name_of_a_place() -> None:
    """A sentence begins with a capital, but for the name of a place."""
    assert (
        sentence("vault:secret/x: Vault is sealed", "readers are safe")
        == "vault:secret/x: Vault is sealed; readers are safe."
    )
    assert sentence("the disk is full") == "The disk is full."


def test_readers() -> None:
    """What is said of readers: safe until when, without since when, refused, with nothing, or not known."""
    assert readers(valid_for(60.5), NOW) == "readers are safe for 1 min, until 03:01:00 UTC"
    assert readers(valid_for(-3725.0), NOW) == "readers have had no valid token for 1 h 2 min"
    assert readers(valid_for(0.0), NOW) == "readers have had no valid token for 0 s"
    assert readers(valid_for(NEVER), NOW) == "readers find no valid token"
    assert readers(replace(valid_for(NEVER), unread=True), NOW) == "nobody knows what its readers find"
    assert readers(replace(valid_for(500.0), revoked=True), NOW) == "readers are refused"
    former = replace(valid_for(60.5), former=True)
    assert readers(former, NOW) == "readers are safe with the former account's token for 1 min, until 03:01:00 UTC"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1.0, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60.0, "1 min"),
        (90.0, "1 min 30 s"),
        (3600.0, "1 h"),
        (3601.0, "1 h"),
        (8000.0, "2 h 13 min"),
        (86_400.0, "1 d"),
        (90_000.0, "1 d 1 h"),
        (8_640_000.0, "100 d"),
    ],
)
def test_span(seconds: float, said: str) -> None:
    """A length of time has its two largest units and never says more than there is."""
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (timedelta(seconds=30), "03:00:30 UTC"),
        (timedelta(hours=2), "05:00 UTC"),
        (timedelta(hours=23), "25 Nov 02:00 UTC"),
        (timedelta(days=40), "3 Jan 2027 03:00 UTC"),
    ],
)
def test_clock(ahead: timedelta, said: str) -> None:
    """A moment has as much of a date as is needed to know it, and seconds where it is near."""
    assert clock(NOW + ahead, NOW) == said


def test_moment_is_told_in_utc() -> None:
    """Whatever zone a moment came in, it is told in UTC."""
    from datetime import timezone

    assert clock((NOW + timedelta(hours=2)).astimezone(timezone(timedelta(hours=9))), NOW) == "05:00 UTC"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "now"),
        (-0.9, "now"),
        (45, "in 45 s"),
        (-61, "1 min 1 s ago"),
        (8_000, "in 2 h 13 min"),
        (-90_000, "1 d 1 h ago"),
    ],
)
def test_relative(seconds: float, said: str) -> None:
    """Times are told from now, in two units at most."""
    assert relative(NOW + timedelta(seconds=seconds), NOW) == said


def test_tokens() -> None:
    """So many tokens, in thousands that can be read."""
    assert [tokens(count) for count in (0, 1, 2, 10_000)] == ["0 tokens", "1 token", "2 tokens", "10,000 tokens"]


# ── conditions ────────────────────────────────────────────────────────────────────────────────────────────────────────

FULL = Failure(Step.PUBLISH, Reason.DISK_FULL, "file: full", sink="file:/x")


def test_what_passes_is_none_of_what_does_not() -> None:
    """What may pass by itself is neither a refused credential nor a certificate; a sealed Vault is one for all."""
    assert not PASSING & REJECTED
    assert Reason.TLS_FAILED not in PASSING
    assert not PASSING_HOOK & PASSING
    assert {Reason.VAULT_SEALED, Reason.TIMEOUT} <= VAULT_WIDE


@pytest.mark.parametrize("reason", Reason)
def test_every_failure_has_a_state_and_a_runbook(reason: Reason) -> None:
    """Each reason, wherever it is met, makes a token failing, with a runbook, and is told."""
    for signs in (
        Signs(tried=True, valid_for=90.0, tolerance=100.0, failure=Failure(Step.GRANT, reason, "acaengine.main: …")),
        Signs(tried=True, valid_for=90.0, tolerance=100.0, failure=Failure(Step.PUBLISH, reason, "…", sink="file:/x")),
        Signs(tried=True, valid_for=90.0, tolerance=100.0, hook=Failure(Step.HOOK, reason, "…"), hook_failures=1),
    ):
        assert signs.state is State.FAILING
        assert signs.runbook
        assert troubles(signs)
        passing = PASSING_HOOK if signs.hook else PASSING
        assert signs.needs_a_person is (reason not in passing)


def test_the_worst_state_counts() -> None:
    """Expired is worse than suspended, suspended than failing; what was not tried is starting, whatever it holds."""
    refused = Failure(Step.GRANT, Reason.INVALID_GRANT, "acaengine.main: …")
    every = {"suspended": refused, "failure": FULL, "held": True}
    assert Signs(tried=True, valid_for=-1.0, tolerance=9.0, **every).state is State.EXPIRED  # type: ignore[arg-type]  # as named
    assert Signs(tried=True, valid_for=1.0, tolerance=9.0, **every).state is State.SUSPENDED  # type: ignore[arg-type]  # as above
    assert Signs(tried=True, valid_for=1.0, tolerance=9.0, failure=FULL).state is State.FAILING
    assert Signs(tried=False, valid_for=NEVER, tolerance=0.0).state is State.STARTING
    assert Signs(tried=True, valid_for=1.0, tolerance=9.0, revoked=True).state is State.EXPIRED


def test_a_hook_passes_only_so_often() -> None:
    """A hook that fails again and again needs a person, though one failure of it would pass."""
    failure = Failure(Step.HOOK, Reason.COMMAND_TIMEOUT, "command reload: …")
    for count in (1, HOOK_FAILURES):
        signs = Signs(tried=True, valid_for=math.inf, tolerance=9.0, hook=failure, hook_failures=count)
        assert signs.needs_a_person is (count == HOOK_FAILURES)


def test_a_token_that_is_held_needs_a_person_late() -> None:
    """A token that waits for its endpoint needs a person once less than 70 % of its tolerance is left."""
    assert not Signs(tried=True, valid_for=71.0, tolerance=100.0, held=True).needs_a_person
    assert Signs(tried=True, valid_for=69.0, tolerance=100.0, held=True).needs_a_person
