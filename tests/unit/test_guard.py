"""The lockout guard: at most two refused attempts for one unchanged credential, over all restarts and replicas."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.errors import GrantError, PublishError
from aca_tokend.core.guard import (
    PROVEN_SECONDS,
    SEND_WITHIN_SECONDS,
    AttemptRecord,
    Attempts,
    Claim,
    Denied,
    Rules,
    SeenRecord,
    Times,
    claim,
    given_back,
    parse_record,
    proof_ends,
    refused,
    refused_elsewhere,
    succeeded,
)
from aca_tokend.core.outcome import Failed, Reason, Resumed, Skipped, Suspended
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document, NotADocumentError
from aca_tokend.rotation.admission import NEXT_TO_TRY
from aca_tokend.rotation.attempts import AttemptRecords, Book, Page
from aca_tokend.rotation.credentials import Resolved, Resolver
from aca_tokend.rotation.decide import POLL_VAULT_SECONDS
from aca_tokend.rotation.lockout import CLAIMED_AGAIN_SECONDS
from aca_tokend.rotation.managed import ManagedToken, Woken
from tests.changed import replace
from tests.fakes import Bench, Crowd, FakeClock, FakeSecrets, MemorySink, at, drive, token_config

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LAPSED = NOW - timedelta(hours=1)
RULES = Rules(max_rejections=2, retry_rejected_seconds=0.0, lease_seconds=11.0)
HOURLY = replace(RULES, retry_rejected_seconds=3600.0)
PROVEN = Attempts("f", True, 0, False, None, NOW)
REFUSED_ONCE = Attempts("f", False, 1, False, Reason.INVALID_GRANT, NOW)
REFUSED_TWICE = replace(REFUSED_ONCE, spent=2)
ENTRY = {
    "proven": False,
    "spent": 1,
    "reserved": False,
    "reason": "invalid_grant",
    "changed_at": "2026-11-24T00:00:00Z",
}
WRONG = GrantError(Reason.INVALID_GRANT, "acaengine main: invalid_grant")
DOWN = GrantError(Reason.UNAVAILABLE, "acaengine main: 503")
FOREVER = token_config(retry_rejected="0s")


def entries(sink: MemorySink) -> tuple[Attempts, ...]:
    return parse_record(sink.records["attempts"][1]).entries


def recorded(bench: Bench) -> tuple[Attempts, ...]:
    return entries(bench.sinks[0])


def known(token: ManagedToken, bench: Bench | Crowd) -> Resolved:
    """The credential of a token as it is now."""
    return drive(Resolver(bench.secrets).resolve(token.wiring.config, bench.endpoint, 0.0))


def times(known: Attempts | None, after: float, lapses: datetime = LAPSED) -> Times:
    """So long after NOW, by one clock."""
    now = NOW + timedelta(seconds=after)
    return Times(now, max((now - known.changed_at).total_seconds(), 0.0) if known else 0.0, lapses)


def allowed(known: Attempts | None, rules: Rules = RULES, after: float = 0.0) -> Attempts:
    decision = claim(known, "f", times(known, after), rules)
    assert isinstance(decision, Claim)
    return decision.attempts


def denied(known: Attempts, rules: Rules = RULES, after: float = 0.0) -> Denied:
    decision = claim(known, "f", times(known, after), rules)
    assert isinstance(decision, Denied)
    return decision


# ── the decisions ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_claims_and_no_more() -> None:
    """An unknown credential has two attempts; each is counted as it is claimed."""
    first = allowed(None)
    second = allowed(first)

    assert (first.spent, second.spent) == (1, 2)
    assert denied(second, after=1.0).claimed, "they may be under way"
    assert denied(second, after=11.1).wait_seconds is None


def test_takeover_counts_the_attempt_that_nobody_saw() -> None:
    """Who takes over a proven credential leaves room for one attempt that its holder may have made unseen."""
    taken = allowed(PROVEN)

    assert (taken.spent, taken.reserved, taken.proven) == (2, True, False)
    taken = allowed(PROVEN, replace(RULES, max_rejections=1))
    assert (taken.spent, taken.reserved) == (1, False), "there is no room for it"


def test_claim_of_a_process_that_died_runs_out_if_nobody_was_refused() -> None:
    """A taken-over claim whose process died blocks the others for no longer than a request may take."""
    taken = allowed(PROVEN)

    assert denied(taken, after=10.0).wait_seconds == pytest.approx(1.0, abs=0.01)
    assert allowed(taken, after=11.1).spent == 2


def test_lease_outlasts_a_request_that_was_sent_as_late_as_it_may_be() -> None:
    """Nobody takes a claim for one of a process that died while its request may still be under way."""
    rules = Rules.of(token_config().rotation, timeout=10.0)

    assert rules.lease_seconds > SEND_WITHIN_SECONDS + 10.0


def test_reserve_is_kept_until_the_proof_lapses() -> None:
    """What is reserved for the process that proved the credential stays so until its proof lapses and its request ends.

    Else that process, which asks without a claim until then, could make the attempt too that another was given.
    """
    taken, lapses = allowed(PROVEN), NOW + timedelta(seconds=600)

    decision = claim(taken, "f", times(taken, 60.0, lapses), RULES)
    assert decision == Denied(None, 540.0 + RULES.lease_seconds, claimed=True)
    assert isinstance(claim(taken, "f", times(taken, 611.0, lapses), RULES), Claim)


def test_proof_lapses_between_rotation_point_and_expiry() -> None:
    """A proof lapses after the rotation point, so that it saves claims, and before expiry, so that others have time."""
    hour = timedelta(hours=1)
    document = Document(Secret("t"), NOW, NOW + 2 * hour, NOW + hour, 7200, "public", "u", "a", "account")

    assert proof_ends(document) == NOW + 1.75 * hour
    brief = replace(document, refresh_after=NOW + timedelta(seconds=5), expires_at=NOW + timedelta(seconds=10))
    assert proof_ends(brief) == NOW + timedelta(seconds=PROVEN_SECONDS), "no claim for each token of some seconds"
    assert proof_ends(None) < NOW, "who holds no token claims"


def test_what_replaces_an_entry_is_later() -> None:
    """Whatever the clock says, an entry is later than what it replaced: places are compared by that."""
    ahead = replace(REFUSED_ONCE, changed_at=NOW + timedelta(days=1))

    for entry in (
        allowed(ahead),
        allowed(replace(ahead, proven=True, spent=0)),
        refused(ahead, "f", Reason.INVALID_GRANT, NOW, claimed=True),
        refused_elsewhere(ahead, "f", 2, Reason.INVALID_GRANT, NOW),
        succeeded(ahead, "f", NOW),
    ):
        assert entry is not None
        assert entry.changed_at > ahead.changed_at


def test_processes_that_go_on_dying_come_to_an_end() -> None:
    """A taken-over claim runs out once; a second process that dies unseen leaves no further attempt."""
    again = allowed(allowed(PROVEN), after=11.1)

    assert denied(again, after=22.2).wait_seconds is None


def test_claims_that_were_never_proven_do_not_run_out() -> None:
    """A process that dies in each attempt cannot spend more than two on a credential that never worked."""
    assert denied(allowed(allowed(None)), after=1e6).wait_seconds is None


def test_one_cautious_attempt_a_period() -> None:
    """With retry_rejected one attempt is allowed when the period has passed, and it begins anew with it."""
    assert denied(REFUSED_TWICE, HOURLY, after=3599.0) == Denied(Reason.INVALID_GRANT, 1.0)
    assert denied(REFUSED_TWICE, after=1.0) == Denied(Reason.INVALID_GRANT, None), "it is no claim that runs out"
    again = allowed(REFUSED_TWICE, HOURLY, after=3600.0)
    assert again.spent == 2
    assert isinstance(claim(again, "f", times(again, 3601.0), HOURLY), Denied)


def test_success_proves() -> None:
    """A success makes the count start anew, and a credential proven already costs no write."""
    proven = succeeded(REFUSED_ONCE, "f", NOW)

    assert proven is not None
    assert (proven.proven, proven.spent) == (True, 0)
    assert succeeded(proven, "f", NOW) is None


def test_refusal_of_a_proven_credential_is_the_first() -> None:
    """A proven credential that is refused has one refusal behind it; a claimed attempt is not counted twice."""
    first = refused(PROVEN, "f", Reason.INVALID_GRANT, NOW, claimed=False)
    assert replace(first, changed_at=NOW) == REFUSED_ONCE
    assert refused(allowed(None), "f", Reason.INVALID_GRANT, NOW, claimed=True).spent == 1
    second = refused(REFUSED_ONCE, "f", Reason.UNAUTHORIZED, NOW, claimed=False)
    assert (second.spent, second.reason) == (2, Reason.UNAUTHORIZED)


def claimed(known: Attempts | None) -> Claim:
    decision = claim(known, "f", times(known, 0.0), RULES)
    assert isinstance(decision, Claim)
    return decision


def test_attempt_without_a_verdict_is_given_back() -> None:
    """A claim is given back after a failure that says nothing of the credential, also beside other claims."""
    mine = claimed(None)
    for there, left in ((mine.attempts, 0), (allowed(mine.attempts), 1)):
        back = given_back(there, mine, NOW)
        assert back is not None
        assert back.spent == left
        assert back.changed_at > there.changed_at

    takeover = claimed(PROVEN)
    assert given_back(takeover.attempts, takeover, NOW) == PROVEN


def test_attempt_of_another_is_not_given_back() -> None:
    """Where the record was cleared or proven meanwhile, giving a claim back takes none from who claimed since."""
    mine = claimed(None)
    another = replace(mine.attempts, changed_at=NOW + timedelta(seconds=1))

    assert given_back(another, mine, NOW) is None
    assert given_back(None, mine, NOW) is None
    assert given_back(PROVEN, mine, NOW) is None


def test_record_is_read_back() -> None:
    """What is written is read back, latest first, and only the latest eight credentials are remembered."""
    record = AttemptRecord()
    for number in range(12):
        record = record.put(replace(REFUSED_ONCE, credential=f"f{number}"))

    assert parse_record(record.fields()) == record
    assert [entry.credential for entry in record.entries] == [f"f{number}" for number in range(11, 3, -1)]
    assert record.of("f11") is not None
    assert record.of("f0") is None
    (by_hand,) = parse_record({"f": ENTRY | {"changed_at": "2026-11-24T00:00:00"}}).entries
    assert by_hand.changed_at.tzinfo is UTC, "it can be compared"


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "text",
        {},
        {"proven": 1},
        ENTRY | {"spent": -1},
        ENTRY | {"spent": 10**4299},
        ENTRY | {"reason": "surely"},
        ENTRY | {"changed_at": "9999-12-31T23:59:59.999999Z"},
        ENTRY | {"changed_at": "0001-01-01T00:00:00Z"},
        ENTRY | {"changed_at": "0001-01-01T00:00:00+01:00"},
    ],
)
def test_what_is_no_record_is_refused(entry: object) -> None:
    """Anything else in the record's place is an error: no attempt can be allowed by it."""
    with pytest.raises(NotADocumentError):
        parse_record({"f": entry})


# ── over restarts and replicas ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reason", [Reason.INVALID_GRANT, Reason.INVALID_SCOPE])
def test_restarts_spend_no_further_attempt(reason: Reason) -> None:
    """However often a daemon with a wrong password or scope is restarted, two attempts are made in all."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = GrantError(reason, "refused")
    for _ in range(10):
        bench.attempt()
        bench.clock.advance(100)
        bench.restart()

    assert len(bench.endpoint.asked) == 2
    assert bench.told(Suspended)[-1].failure.reason is reason


def test_restart_does_not_put_off_the_cautious_attempt() -> None:
    """The wait counts from the refusal that the record tells of."""
    bench = Bench(config=token_config(retry_rejected="1h"))
    bench.endpoint.broken = WRONG
    bench.attempt()
    bench.run_for(1800)
    bench.restart()
    bench.attempt()
    assert len(bench.endpoint.asked) == 2
    assert bench.facts.suspension is not None
    assert bench.facts.suspension.refused_at == pytest.approx(bench.clock.now - 1800.0, abs=10.0)

    bench.endpoint.broken = None
    bench.run_for(1900)
    assert bench.sinks[0].content is not None


def test_killed_between_claim_and_answer() -> None:
    """A process killed after each request, before it could note the answer, spends two attempts and no third."""
    bench = Bench(config=FOREVER)

    def killed() -> None:
        raise KeyboardInterrupt

    bench.endpoint.before_answer = killed
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            bench.attempt()
        bench.clock.advance(100)
        bench.restart()
        if len(bench.endpoint.asked) == 2:
            break
    bench.attempt()

    assert len(bench.endpoint.asked) == 2
    assert bench.told(Suspended)[-1].failure.reason is Reason.ATTEMPTS_SPENT


def test_three_replicas_spend_two_attempts() -> None:
    """Three replicas whose proven password stops working are refused twice in all."""
    sinks = [MemorySink()]
    first = Bench(config=FOREVER, sinks=sinks)
    replicas = [first, *(Bench(clock=first.clock, config=FOREVER, sinks=sinks, suffix=f"-{n}") for n in range(2))]
    for replica in replicas:
        replica.attempt()
        replica.endpoint.broken = WRONG
    first.clock.advance(5000)
    for _ in range(5):
        for replica in replicas:
            replica.attempt()
        first.clock.advance(100)

    assert sum(len(replica.endpoint.asked) for replica in replicas) == 1 + 2


def test_proven_credential_costs_no_record() -> None:
    """Once proven, a rotation neither reads nor writes the attempt record."""
    bench = Bench()
    bench.attempt()
    requests = bench.sinks[0].record_requests
    bench.run_for(7200 * 5)

    assert len(bench.endpoint.asked) > 5
    assert bench.sinks[0].record_requests == requests


def test_note_that_failed_is_made_by_the_next_rotation() -> None:
    """A success that could not be noted is noted by the next rotation: it reads the record and writes it, once."""
    bench = Bench()
    bench.endpoint.before_answer = lambda: bench.sinks[0].record_errors.append(Reason.PERMISSION_DENIED)
    bench.attempt()
    assert [(it.proven, it.spent) for it in recorded(bench)] == [(False, 1)]

    bench.endpoint.before_answer = None
    requests = bench.sinks[0].record_requests
    bench.run_for(7200 * 3)
    assert [(it.proven, it.spent) for it in recorded(bench)] == [(True, 0)]
    assert bench.sinks[0].record_requests == requests + 2


def test_outage_leaves_a_credential_proven() -> None:
    """Failures that say nothing of a proven credential leave it proven: the grant after them costs no record either."""
    bench = Bench()
    bench.attempt()
    requests = bench.sinks[0].record_requests
    bench.clock.now = bench.next_at
    bench.endpoint.broken = DOWN
    bench.run_for(600)
    asked = len(bench.endpoint.asked)
    bench.endpoint.broken = None
    bench.run_for(7200)

    assert asked > 5
    assert len(bench.endpoint.asked) > asked
    assert bench.sinks[0].record_requests == requests


def test_late_request_is_claimed() -> None:
    """Once its proof has lapsed a request is claimed; where that fails it is sent all the same: readers come first."""
    bench = Bench()
    bench.attempt()
    assert bench.document is not None
    bench.clock.now += (proof_ends(bench.document) - bench.document.issued_at).total_seconds() + 1.0
    bench.endpoint.before_answer = lambda: claims.append(recorded(bench)[0].spent)
    claims: list[int] = []
    bench.attempt()
    assert claims == [2], "one of its own, and one for a process that may have taken over"
    assert [(it.proven, it.spent) for it in recorded(bench)] == [(True, 0)]

    bench.clock.now += 6900.0
    bench.sinks[0].record_errors.extend([Reason.PERMISSION_DENIED] * 10)
    bench.attempt()
    assert len(bench.endpoint.asked) == 3


def test_claim_of_another_process_is_waited_for_no_longer_than_it_lasts() -> None:
    """It rarely takes longer than a request: who meets one looks again soon, and the log says when by the rules."""
    first = Bench(config=token_config(max_rejections=1))
    second = Bench(clock=first.clock, sinks=first.sinks, config=first.config)
    first.endpoint.before_answer = lambda: waits.append(second.attempt()) if not waits else None
    waits: list[float] = []
    first.attempt()

    (skipped,) = second.told(Skipped)
    assert (skipped.why, skipped.next_attempt_seconds) == ("claimed_elsewhere", waits[0])
    assert waits[0] <= CLAIMED_AGAIN_SECONDS
    second.run_for(CLAIMED_AGAIN_SECONDS)
    assert second.document == first.document
    assert not second.endpoint.asked


def test_record_that_cannot_be_read() -> None:
    """While its record cannot be read an unproven credential waits; a proven one goes on."""
    bench = Bench()
    bench.sinks[0].record_errors.extend([Reason.PERMISSION_DENIED] * 2)
    bench.attempt()
    assert bench.endpoint.asked == []
    assert bench.told(Failed)[0].failure.reason is Reason.PERMISSION_DENIED

    bench.run_for(120)
    assert len(bench.endpoint.asked) == 1
    bench.sinks[0].record_errors.extend([Reason.PERMISSION_DENIED] * 1000)
    bench.run_for(7200)
    assert len(bench.endpoint.asked) == 2


def test_what_is_no_record_lets_nobody_through() -> None:
    """Where something else stands in the place of a record, an unproven credential waits, until that is cleared."""
    bench = Bench()
    bench.sinks[0].records["attempts"] = (1, {"mine": "notes"})
    bench.attempt()
    bench.run_for(300)
    assert bench.endpoint.asked == []
    assert {event.failure.reason for event in bench.told(Failed)} == {Reason.FOREIGN_DOCUMENT}
    assert bench.sinks[0].records["attempts"] == (1, {"mine": "notes"}), "it is left alone"

    bench.sinks[0].records["attempts"] = (2, {})
    bench.run_for(61)
    assert bench.sinks[0].content is not None


def test_transient_failures_spend_nothing() -> None:
    """An outage at the start, however long and however often restarted, spends no attempt."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = DOWN
    for _ in range(10):
        bench.attempt()
        bench.run_for(300)
        bench.restart()
    bench.endpoint.broken = None
    bench.attempt()
    bench.run_for(60)

    assert bench.sinks[0].content is not None
    assert not bench.told(Suspended)


def test_two_passwords_are_told_apart() -> None:
    """Replicas with an old and a new password do not make each other forget what was refused."""
    old = Bench(config=FOREVER)
    old.endpoint.broken = WRONG
    new = Bench(
        clock=old.clock,
        config=FOREVER,
        sinks=old.sinks,
        suffix="-new",
        secrets=FakeSecrets({"PASSWORD": "new", "CLIENT_SECRET": "s"}),
    )
    new.endpoint.broken = WRONG
    for _ in range(20):
        old.attempt()
        new.attempt()
        old.clock.advance(100)

    assert (len(old.endpoint.asked), len(new.endpoint.asked)) == (2, 2)


def test_refusals_at_once_are_all_counted() -> None:
    """A refusal that is noted while another process notes one counts beside that, and takes no claim away."""
    sink, records = MemorySink(), AttemptRecords(FakeClock(), 2.0)
    read = drive(records.read([sink]))
    one, book = drive(records.claim(read, "f", claimed))
    two, other = drive(records.claim(read, "f", claimed))  # which is out of date
    assert [it.attempts.spent for it in (one, two) if isinstance(it, Claim)] == [1, 2]

    for before in (book, other):  # the first one's is out of date
        told, _ = drive(records.note(before, "f", lambda it: refused(it, "f", Reason.INVALID_GRANT, NOW, claimed=True)))
        assert told is not None

    assert [(it.spent, it.reason) for it in entries(sink)] == [(2, Reason.INVALID_GRANT)]


def test_places_that_tell_the_same() -> None:
    """A refusal is counted once for all places, and one that another process has written later since is left there."""
    sinks, records = [MemorySink(f"vault:{name}") for name in "abcd"], AttemptRecords(FakeClock(), 2.0)
    sinks[0].record_errors.append(Reason.PERMISSION_DENIED)
    book = drive(records.read(sinks))
    later = replace(REFUSED_TWICE, changed_at=NOW + timedelta(seconds=9))
    sinks[3].write_record("attempts", AttemptRecord((later,)).fields(), 0)

    told, _ = drive(
        records.note(book, "f", lambda it: refused(it, "f", Reason.INVALID_GRANT, NOW, claimed=False), everywhere=True)
    )

    assert told == REFUSED_ONCE
    assert sinks[0].record_requests == 1, "what could not be read is not written"
    assert [entries(sink) for sink in sinks[1:]] == [(REFUSED_ONCE,), (REFUSED_ONCE,), (later,)]


def test_success_is_noted_at_the_first_place_if_none_tells() -> None:
    """So that a process that takes over leaves room for the one that proved the credential."""
    sinks, records = [MemorySink(f"vault:{name}") for name in "ab"], AttemptRecords(FakeClock(), 2.0)
    drive(records.note(drive(records.read(sinks)), "f", lambda it: succeeded(it, "f", NOW)))

    assert [entries(sink) for sink in sinks if sink.records] == [(PROVEN,)]


def test_claim_at_the_second_place_is_given_back_there() -> None:
    """Where the first place could not be written, what it tells is as it was before, and the second is set back."""
    sinks, records = [MemorySink(f"vault:{name}") for name in "ab"], AttemptRecords(FakeClock(), 2.0)
    for sink in sinks:
        sink.write_record("attempts", AttemptRecord((PROVEN,)).fields(), 0)
    book = drive(records.read(sinks))
    sinks[0].record_errors.append(Reason.PERMISSION_DENIED)
    mine, _ = drive(records.claim(book, "f", claimed))
    assert isinstance(mine, Claim)

    drive(records.note(drive(records.read(sinks)), "f", lambda it: given_back(it, mine, NOW)))
    assert [entries(sink) for sink in sinks] == [(PROVEN,), (PROVEN,)]


def test_of_one_moment_the_more_cautious_counts() -> None:
    """Where two places tell of the same moment, a refusal outranks a success, and more of them fewer."""
    pages = [Page(MemorySink(), AttemptRecord((it,)), 1) for it in (PROVEN, REFUSED_ONCE, REFUSED_TWICE)]
    for order in (pages, pages[::-1]):
        assert Book(tuple(order)).known("f") == REFUSED_TWICE
        assert Book(tuple(it for it in order if it is not pages[2])).known("f") == REFUSED_ONCE


def test_operator_resumes() -> None:
    """When its attempt records are cleared, at each place that can be read, a token goes on within a minute."""
    bench = Bench(sinks=[MemorySink(f"vault:{name}") for name in "abc"], config=FOREVER)
    bench.endpoint.broken = WRONG
    bench.attempt()
    bench.run_for(300)
    bench.sinks[0].records["attempts"] = (9, {})
    requests = bench.sinks[0].record_requests
    bench.run_for(300)
    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].record_requests - requests <= 300 / POLL_VAULT_SECONDS, "in a Vault that is a request"

    bench.endpoint.broken = None
    bench.sinks[1].records["attempts"] = (9, {})
    bench.sinks[2].record_errors.extend([Reason.PERMISSION_DENIED] * 1000)
    bench.run_for(66)

    assert bench.sinks[0].content is not None
    assert bench.told(Resumed)


def test_record_tells_nothing() -> None:
    """The record holds no part of the credential, and no fingerprint that is not keyed by the client secret."""
    secrets = FakeSecrets({"PASSWORD": "canary-password", "CLIENT_SECRET": "canary-secret"})
    bench = Bench(config=FOREVER, secrets=secrets)
    other = Bench(config=FOREVER, secrets=FakeSecrets({"PASSWORD": "canary-password", "CLIENT_SECRET": "another"}))
    bench.attempt()
    other.attempt()

    written = repr(bench.sinks[0].records)
    assert "canary" not in written
    assert "svc-bookings" not in written
    assert not set(bench.sinks[0].records["attempts"][1]) & set(other.sinks[0].records["attempts"][1])


def test_nothing_is_claimed_while_the_endpoint_is_held() -> None:
    """While the breaker is open, unproven credentials wait without writing claims and taking them back."""
    crowd = Crowd(20)
    crowd.endpoint.broken = DOWN
    crowd.run_for(30)
    before = sum(sink.record_requests for sink in crowd.sinks)
    crowd.run_for(600)
    probes = len(crowd.endpoint.asked)

    assert sum(sink.record_requests for sink in crowd.sinks) - before < 4 * probes


def test_cautious_attempts_of_replicas_are_told_once() -> None:
    """Of two replicas one makes the cautious attempt of the hour; the other does not resume only to be suspended."""
    first = Bench(config=token_config(retry_rejected="1h"))
    second = Bench(config=first.config, clock=first.clock, sinks=first.sinks, suffix="-second")
    for bench in (first, second):
        bench.endpoint.broken = WRONG
        bench.attempt()
    for _ in range(2 * 3600):
        first.clock.advance(5)
        for bench in (first, second):
            if bench.next_at <= bench.clock.now:
                bench.attempt()

    resumed = [*first.told(Resumed), *second.told(Resumed)]
    assert len(first.endpoint.asked) + len(second.endpoint.asked) == 2 + len(resumed)
    assert 8 <= len(resumed) <= 10


def test_client_secret_that_stops_working_under_three_replicas() -> None:
    """When a proven client secret stops working, no process sends more than two requests that meet that."""
    first = Crowd(6)
    first.run_for(5)
    crowds = [first, *(Crowd(6, clock=first.clock, sinks=first.sinks, seed=seed) for seed in (8, 9))]
    Crowd.run_together(crowds, 7200 * 3)  # each leads some of the tokens by now, and has proven the client
    assert all(crowd.endpoint.asked for crowd in crowds)
    for crowd in crowds:
        crowd.endpoint.broken = GrantError(Reason.INVALID_CLIENT, "acaengine main: invalid_client")
        crowd.endpoint.asked.clear()
    Crowd.run_together(crowds, 3000)

    assert [len(crowd.endpoint.asked) for crowd in crowds if crowd.endpoint.asked]
    assert max(len(crowd.endpoint.asked) for crowd in crowds) <= 2


@pytest.mark.parametrize(
    ("reason", "proves"),
    [
        (Reason.INVALID_GRANT, True),
        (Reason.UNAUTHORIZED, False),
        (Reason.UNSUPPORTED_GRANT_TYPE, False),
        (Reason.INVALID_REQUEST, False),
    ],
)
def test_what_refusals_say_of_the_client(reason: Reason, proves: bool) -> None:
    """A refused user proves the client, which is looked at first; a refusal that may come before that does not."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = GrantError(reason, "refused")
    bench.attempt()

    assert bench.shared.known(known(bench.token, bench)).client.proven() is proves


def test_wrong_client_secret_spends_two_attempts_for_all_its_users() -> None:
    """One wrong client secret is tried twice by a process, not twice for each of its users, and by the same user."""
    crowd = Crowd(20)
    crowd.endpoint.broken = GrantError(Reason.INVALID_CLIENT, "acaengine main: invalid_client")
    for _ in range(3):
        crowd.run_for(600)
        crowd.restart()
    crowd.run_for(600)

    assert len(crowd.endpoint.asked) <= 4
    assert max(Counter(it.username for it in crowd.endpoint.asked).values()) <= 2
    crowd.endpoint.broken = None
    crowd.secrets.values["CLIENT_SECRET"] = "fixed"
    crowd.run_for(60)
    assert all(sink.content for sink in crowd.sinks)


# ── tokens of one user ────────────────────────────────────────────────────────────────────────────────────────────────


def test_four_tokens_of_one_user_share_two_attempts() -> None:
    """A wrong password is refused twice, not twice for each of its user's tokens, also where their scopes differ."""
    crowd = Crowd(4, users=1)
    asks_for(crowd, "t1", "admin")
    crowd.endpoint.broken = WRONG
    crowd.run_for(600)
    assert len(crowd.endpoint.asked) == 2
    assert all(token.facts.suspension for token in crowd.tokens.values())

    for _ in range(3):
        crowd.restart()
        crowd.run_for(300)
    assert len(crowd.endpoint.asked) == 2
    assert all(entries(sink)[0].spent == 2 for sink in crowd.sinks), "each token's own record tells"


def asks_for(crowd: Crowd, name: str, scope: str) -> None:
    """Gives a token another scope."""
    token = crowd.tokens[name]
    config = token.wiring.config.model_copy(update={"scope": scope})
    crowd.tokens[name] = ManagedToken(replace(token.wiring, config=config), replace(token.facts, config=config))


def test_tokens_that_cannot_use_their_turn_hold_up_nobody() -> None:
    """Where those that were woken cannot record an attempt, the turn comes to the next within moments."""
    crowd = Crowd(NEXT_TO_TRY + 4, users=1)
    credential = crowd.tokens["t0"].wiring.shared.known(known(crowd.tokens["t0"], crowd))
    credential.client.answered(object(), crowd.tokens["t0"].wiring.rules, crowd.clock.now, True)
    permit = object()
    credential.user.enter(crowd.tokens["t0"].facts, crowd.tokens["t0"].wiring.rules, crowd.clock.now, permit)
    crowd.run_for(0.1)
    assert {token.facts.waiting and token.facts.waiting.why for token in crowd.tokens.values()} == {"user_unproven"}

    for sink in crowd.sinks[:NEXT_TO_TRY]:
        sink.record_errors.extend([Reason.PERMISSION_DENIED] * 99)
    for wake in credential.user.answered(permit, crowd.tokens["t0"].wiring.rules, crowd.clock.now, None):
        crowd.wake(wake)
    crowd.run_for(1.0)

    assert all(sink.content for sink in crowd.sinks[NEXT_TO_TRY:])


def test_first_token_tries_its_client_first() -> None:
    """After a start the same token tries the client first, whichever comes first: the others wait some seconds."""
    crowd = Crowd(3)
    crowd.due["t0"] += 2.0
    crowd.run_for(1.0)
    assert crowd.endpoint.asked == []

    crowd.run_for(1.5)
    assert [it.username for it in crowd.endpoint.asked] == ["svc-0", "svc-1", "svc-2"]


def test_others_go_on_as_soon_as_the_first_is_done() -> None:
    """Once it has its answer, before that is published; or once it turned out that it needs none."""
    crowd = Crowd(2)
    crowd.sinks[0].before_publish = lambda: due.append(crowd.due["t1"] <= crowd.clock.now)
    due: list[bool] = []
    crowd.due["t0"] += 1.0
    crowd.run_for(1.5)
    assert due == [True]

    crowd.sinks[1].put(None)
    crowd.restart()
    crowd.due["t0"] += 1.0
    crowd.run_for(1.5)
    assert crowd.sinks[1].content is not None


def test_room_for_a_claim_is_left() -> None:
    """Who finds none keeps its place; an attempt that cannot be recorded leaves it, and an answer does at once."""
    bench = Bench()
    claims = bench.token.wiring.gate.claims
    claims.most = 1
    assert claims.enter("other", 0.0)
    bench.attempt()
    assert bench.facts.waits_for == "endpoint_busy"
    (wake,) = claims.passed("other", bench.clock.now)
    assert wake.token == bench.token.name

    bench.token.inbox.append(Woken(wake.at))
    bench.sinks[0].record_errors.append(Reason.PERMISSION_DENIED)
    bench.attempt()
    assert bench.told(Failed)
    assert claims.enter("other", 0.0)
    claims.passed("other", bench.clock.now)

    bench.sinks[0].before_publish = lambda: left.append(claims.enter("other", 0.0))
    left: list[bool] = []
    bench.run_for(60.0)
    assert left == [True]


def test_operator_resumes_the_tokens_of_a_user_once() -> None:
    """When the records of an account are cleared, its password has two more attempts, not two for each token."""
    crowd = Crowd(4, users=1)
    crowd.endpoint.broken = WRONG
    crowd.run_for(300)
    for sink in crowd.sinks:
        sink.records["attempts"] = (99, {})
    crowd.run_for(900)
    assert len(crowd.endpoint.asked) == 2 + 2

    crowd.endpoint.broken = None
    for sink in crowd.sinks:
        sink.records["attempts"] = (999, {})
    crowd.run_for(300)
    assert all(sink.content for sink in crowd.sinks)


def test_success_of_one_token_is_noted_by_the_others() -> None:
    """A token that was suspended goes on once its password works for another, and its own record tells so."""
    crowd = Crowd(3, users=1)
    crowd.run_for(5)
    crowd.endpoint.broken = WRONG
    crowd.run_for(5000)  # late enough for each to ask, and not so late that it would claim
    assert all(token.facts.suspension for token in crowd.tokens.values())

    crowd.endpoint.broken = None
    crowd.sinks[1].records["attempts"] = (99, {})
    crowd.run_for(300)

    assert not any(token.facts.suspension for token in crowd.tokens.values())
    assert {event.why for event in crowd.events if isinstance(event, Resumed)} == {
        "the attempt record allows it again",
        "the credential was accepted for another token",
    }
    assert [entries(sink)[0].proven for sink in crowd.sinks] == [True] * 3
    crowd.restart()
    crowd.run_for(7300)
    assert not any(token.facts.suspension for token in crowd.tokens.values())


def test_refused_scope_concerns_the_tokens_that_ask_for_it() -> None:
    """A scope that is refused is asked for twice; the user's other tokens are rotated all the same."""
    crowd = Crowd(2, users=1)
    asks_for(crowd, "t1", "admin")
    crowd.endpoint.before_answer = lambda: refuse_scope(crowd, "admin")
    crowd.run_for(7300)

    assert [it.scope for it in crowd.endpoint.asked].count("admin") == 2
    assert [it.scope for it in crowd.endpoint.asked].count("public") == 2
    suspension = crowd.tokens["t1"].facts.suspension
    assert suspension is not None
    assert suspension.failure.reason is Reason.INVALID_SCOPE


def test_refused_scope_after_a_restart() -> None:
    """That the user's other scope is accepted since says nothing of the one that was refused."""
    crowd = Crowd(2, users=1)
    crowd.endpoint.before_answer = lambda: refuse_scope(crowd, "admin")
    for _ in range(3):
        asks_for(crowd, "t1", "admin")
        crowd.due["t1"] += 2.0
        crowd.run_for(300)
        crowd.sinks[0].put(None)
        crowd.restart()

    assert [it.scope for it in crowd.endpoint.asked].count("admin") == 2


def test_refused_scope_without_a_record() -> None:
    """A scope that is refused is asked for twice by a process, though that cannot be noted."""
    bench = Bench(config=FOREVER)
    bench.attempt()
    bench.endpoint.broken = GrantError(Reason.INVALID_SCOPE, "refused")
    bench.sinks[0].record_errors.extend([Reason.PERMISSION_DENIED] * 1000)
    bench.run_for(20_000)

    assert len(bench.endpoint.asked) == 1 + 2


def test_refused_scope_beside_a_record_that_was_cleared_before() -> None:
    """A record that an operator cleared before the refusals, and that cannot be written, allows none after them."""
    bench = Bench(config=FOREVER)
    bench.attempt()
    bench.sinks[0].records["attempts"] = (9, {})
    bench.sinks[0].write_record = refusing  # type: ignore[method-assign]  # planted
    bench.endpoint.broken = GrantError(Reason.INVALID_SCOPE, "refused")
    bench.run_for(20_000)

    assert len(bench.endpoint.asked) == 1 + 2


def refusing(name: str, fields: Mapping[str, object], stamp: object) -> object:
    """A place whose records can be read alone."""
    raise PublishError(Reason.PERMISSION_DENIED, f"{name} {len(fields)} {stamp}")


def refuse_scope(crowd: Crowd, scope: str) -> None:
    """Refuses what is asked for now if it is for that scope."""
    if crowd.endpoint.asked[-1].scope == scope:
        raise GrantError(Reason.INVALID_SCOPE, "refused")


# ── what became of a record ───────────────────────────────────────────────────────────────────────────────────────────


def test_record_that_is_gone_is_no_permission() -> None:
    """A suspended token makes no attempt because its record vanished, or was restored from before."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = WRONG
    bench.attempt()
    first = bench.sinks[0].records["attempts"][1]
    bench.run_for(300)
    for records in ({}, {"attempts": (99, first)}, {"attempts": (100, None)}):
        bench.sinks[0].records = dict(records)
        bench.run_for(600)

    assert len(bench.endpoint.asked) == 2
    assert not bench.told(Resumed)


def test_success_of_another_process_resumes() -> None:
    """A suspended token goes on when its record tells that the credential was accepted since it was refused."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = WRONG
    bench.attempt()
    bench.run_for(300)
    (entry,) = recorded(bench)
    older = replace(entry, proven=True, spent=0, reason=None, changed_at=entry.changed_at - timedelta(seconds=1))
    bench.sinks[0].records["attempts"] = (9, AttemptRecord((older,)).fields())
    bench.endpoint.broken = None
    bench.run_for(300)
    assert len(bench.endpoint.asked) == 2, "what was restored from before is no success"

    newer = replace(older, changed_at=entry.changed_at + timedelta(seconds=1))
    bench.sinks[0].records["attempts"] = (10, AttemptRecord((newer,)).fields())
    bench.run_for(66)
    assert bench.sinks[0].content is not None


@pytest.mark.parametrize(("ago", "asked"), [(150.0, 0), (50.0, 1), (-50.0, 0)])
def test_success_that_the_process_has_not_seen(ago: float, asked: int) -> None:
    """Where its record tells of a success after the refusals that a process knows of, and not ahead, a token asks."""
    bench = Bench(config=FOREVER)
    resolved = known(bench.token, bench)
    bench.shared.known(resolved).user.recorded(Reason.INVALID_GRANT, 2, bench.clock.now - 100.0)
    entry = Attempts(resolved.credential, True, 0, False, None, at(bench.clock.wall() - ago))
    bench.sinks[0].records["attempts"] = (1, AttemptRecord((entry,)).fields())
    bench.attempt()

    assert len(bench.endpoint.asked) == asked


def test_attempts_that_one_record_tells_are_spent_for_all() -> None:
    """A token whose own record tells nothing makes no attempt where that of another token of its user has none left."""
    crowd = Crowd(2, users=1)
    spent = Attempts(known(crowd.tokens["t0"], crowd).credential, False, 2, False, None, at(crowd.clock.wall() - 60.0))
    crowd.sinks[0].records["attempts"] = (1, AttemptRecord((spent,)).fields())
    crowd.run_for(300)

    assert crowd.endpoint.asked == []


def test_adopted_token_is_no_proof() -> None:
    """Late and without a record only the process asks that was granted the token in use: another may ask unclaimed."""
    first = Bench(config=FOREVER)
    first.attempt()
    second = Bench(config=FOREVER, clock=first.clock, sinks=first.sinks, suffix="-second")
    first.clock.now += 5000.0
    second.attempt()
    first.attempt()
    assert first.document == second.document
    assert (len(first.endpoint.asked), len(second.endpoint.asked)) == (1, 1)

    first.sinks[0].record_errors.extend([Reason.PERMISSION_DENIED] * 1000)
    first.clock.now = first.next_at
    first.run_for(2300)
    assert len(first.endpoint.asked) == 1


def test_record_from_the_future_ages() -> None:
    """What a clock that runs a day ahead left behind is as old as since it was first seen, also for two tokens."""
    crowd = Crowd(2, users=1)
    crowd.restart()
    ahead = datetime.fromtimestamp(crowd.clock.wall(), UTC) + timedelta(days=1)
    fingerprint = known(crowd.tokens["t0"], crowd).credential
    for seconds, sink in enumerate(crowd.sinks):
        entry = Attempts(fingerprint, False, 2, True, None, ahead + timedelta(seconds=seconds))
        sink.records["attempts"] = (1, AttemptRecord((entry,)).fields())
    crowd.run_for(300)

    assert all(sink.content for sink in crowd.sinks)


def test_claims_go_on_after_the_clock_was_set_back() -> None:
    """Where the clock is behind the record, a claim that has the time of the one before can be sent all the same."""
    bench = Bench(config=FOREVER)
    bench.attempt()
    bench.step_clock(-7200.0)
    bench.restart()
    bench.sinks[0].put(None)
    bench.endpoint.broken = DOWN
    bench.attempt()
    bench.run_for(120.0)
    bench.endpoint.broken = None
    bench.run_for(60.0)

    assert bench.sinks[0].content is not None


def test_claim_that_may_have_been_recorded_is_recognised() -> None:
    """A claim whose write failed and was recorded all the same is taken for our own, and costs no attempt."""
    bench = Bench(sinks=[Forgetful()], config=FOREVER)
    bench.attempt()
    assert bench.endpoint.asked == []
    assert [entry.spent for entry in recorded(bench)] == [1]

    bench.sinks[0].record_errors.append(Reason.PERMISSION_DENIED)  # and forgotten by no attempt that fails before
    bench.run_for(60)
    assert bench.sinks[0].content is not None
    assert bench.sinks[0].most == 1  # type: ignore[attr-defined]


def test_claim_that_could_not_be_given_back_is_recognised() -> None:
    """An attempt without a verdict costs none, though its claim stays in the record for now."""
    bench, spent = Bench(config=FOREVER), list[int]()
    bench.endpoint.broken = DOWN
    bench.endpoint.before_answer = lambda: bench.sinks[0].record_errors.append(Reason.PERMISSION_DENIED)
    bench.attempt()
    bench.endpoint.broken, bench.endpoint.before_answer = None, lambda: spent.append(recorded(bench)[0].spent)
    bench.run_for(60)

    assert spent == [1]


class Forgetful(MemorySink):
    """A place that records the first claim and then says that it did not."""

    most: int = 0
    failed: bool = False

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        stamp = super().write_record(name, fields, stamp)
        self.most = max(self.most, *(it.spent for it in parse_record(fields).entries))
        if not self.failed:
            self.failed = True
            raise PublishError(Reason.TIMEOUT, "no answer")
        return stamp


class Slow(MemorySink):
    """A place whose records take their time."""

    clock: FakeClock
    seconds: float = 0.0

    def read_record(self, name: str) -> SeenRecord:
        self.clock.advance(self.seconds)
        return super().read_record(name)

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        self.clock.advance(self.seconds)
        return super().write_record(name, fields, stamp)


@pytest.mark.parametrize(("seconds", "asked"), [(29.0, 1), (31.0, 0)])
def test_claim_that_is_sent_too_late_is_claimed_anew(seconds: float, asked: int) -> None:
    """Between a claim and its request lie thirty seconds at most; a record that is read slowly costs none of them."""
    bench = Bench(sinks=[Slow()], config=FOREVER)
    bench.sinks[0].clock, bench.sinks[0].seconds = bench.clock, seconds  # type: ignore[attr-defined]
    bench.attempt()

    assert len(bench.endpoint.asked) == asked
    assert [entry.spent for entry in recorded(bench)] == [0], "what was not sent was given back"


def test_place_that_cannot_be_written_is_passed_over() -> None:
    """An attempt is recorded at the first place that can be written, and a refusal at each."""
    bench = Bench(sinks=[MemorySink("vault:a"), MemorySink("vault:b")], config=FOREVER)
    bench.endpoint.broken = WRONG
    bench.sinks[0].record_errors.extend([Reason.PERMISSION_DENIED])
    bench.attempt()
    assert "attempts" not in bench.sinks[0].records
    assert [entry.spent for entry in entries(bench.sinks[1])] == [1]

    bench.run_for(60)
    assert [[entry.spent for entry in entries(sink)] for sink in bench.sinks] == [[2], [2]]


def test_refusal_is_noted_at_each_place() -> None:
    """After a restart without the first place the second tells of the refusals, though no claim was ever made there."""
    bench = Bench(sinks=[MemorySink("vault:a"), MemorySink("vault:b")], config=FOREVER)
    bench.endpoint.broken = WRONG
    bench.run_for(60)
    assert len(bench.endpoint.asked) == 2
    assert [[entry.spent for entry in entries(sink)] for sink in bench.sinks] == [[2], [2]]

    bench.sinks[0].look_errors.extend([Reason.UNAVAILABLE] * 100)
    bench.sinks[0].records.clear()
    bench.restart()
    bench.run_for(60)

    assert len(bench.endpoint.asked) == 2


# ── processes that die ────────────────────────────────────────────────────────────────────────────────────────────────


def test_crash_of_who_took_over_costs_no_third_refusal() -> None:
    """Where who took over dies in its attempt, what is reserved waits until the leader must have asked.

    It does not wait for long: the token is not suspended, and goes on before readers meet an expired one.
    """
    leader = Bench(config=FOREVER)
    leader.attempt()
    other = Bench(config=FOREVER, clock=leader.clock, sinks=leader.sinks, suffix="-other")
    other.attempt()
    leader.clock.now += 5000.0
    for bench in (leader, other):
        bench.endpoint.broken = WRONG

    def killed() -> None:
        raise KeyboardInterrupt

    other.endpoint.before_answer = killed
    with pytest.raises(KeyboardInterrupt):
        other.attempt()
    other.endpoint.before_answer = None
    other.restart()
    for _ in range(60):
        other.run_for(10)
    assert len(other.endpoint.asked) == 1
    assert not other.told(Suspended)

    leader.attempt()
    for _ in range(40):
        leader.run_for(30)
        other.attempt()
    assert len(leader.endpoint.asked) - 1 + len(other.endpoint.asked) == 2


def test_crash_of_who_took_over_is_harmless() -> None:
    """Where the credential works, a crash of the process that took over costs neither a suspension nor an outage."""
    bench = Bench(config=FOREVER)
    bench.attempt()
    bench.clock.now += 5000.0
    bench.restart()

    def killed() -> None:
        raise KeyboardInterrupt

    bench.endpoint.before_answer = killed
    with pytest.raises(KeyboardInterrupt):
        bench.attempt()
    bench.endpoint.before_answer = None
    bench.restart()
    bench.next_at = bench.clock.now
    bench.run_for(2000)

    assert not bench.told(Suspended)
    assert bench.document is not None
    assert bench.document.issued_at.timestamp() > bench.clock.wall() - 2000.0
