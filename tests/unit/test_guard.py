"""The lockout guard: at most two refused attempts for one unchanged credential, over all restarts and replicas."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aca_tokend.core.errors import GrantRejected, GrantUnavailable
from aca_tokend.core.grant import Credentials
from aca_tokend.core.guard import (
    AttemptRecord,
    Attempts,
    Claim,
    Denied,
    Rules,
    claim,
    given_back,
    parse_record,
    proof_ends,
    refused,
    succeeded,
)
from aca_tokend.core.outcome import Failed, Reason, Resumed, Suspended
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document, NotADocumentError
from aca_tokend.rotation.attempts import AttemptRecords
from aca_tokend.rotation.credentials import Resolved
from aca_tokend.rotation.shared import Known
from tests.fakes import Bench, Crowd, FakeSecrets, MemorySink, drive, token_config

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
WRONG = GrantRejected(Reason.INVALID_GRANT, "acaengine main: invalid_grant")
DOWN = GrantUnavailable(Reason.UNAVAILABLE, "acaengine main: 503")
FOREVER = token_config(retry_rejected="0s")


def entries(sink: MemorySink) -> tuple[Attempts, ...]:
    return parse_record(sink.records["attempts"][1]).entries


def recorded(bench: Bench) -> tuple[Attempts, ...]:
    return entries(bench.sinks[0])


def known(bench: Bench) -> Known:
    """What the process knows of the credential of its token."""
    config, values = bench.token.wiring.config, bench.secrets.values
    assert isinstance(config.username, str) and isinstance(config.client_id, str)  # noqa: PT018 -- for mypy
    secrets = (Secret(values["PASSWORD"]), config.authority, config.client_id, Secret(values["CLIENT_SECRET"]))
    credentials = Credentials(config.username, *secrets, config.scope)
    return bench.shared.known(Resolved.of(credentials, bench.endpoint.host))


def allowed(known: Attempts | None, rules: Rules = RULES, after: float = 0.0) -> Attempts:
    decision = claim(known, "f", NOW + timedelta(seconds=after), rules, LAPSED)
    assert isinstance(decision, Claim)
    return decision.attempts


def denied(known: Attempts, rules: Rules = RULES, after: float = 0.0) -> Denied:
    decision = claim(known, "f", NOW + timedelta(seconds=after), rules, LAPSED)
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


def test_claim_of_a_process_that_died_runs_out_if_nobody_was_refused() -> None:
    """A taken-over claim whose process died blocks the others for no longer than a request may take."""
    taken = allowed(PROVEN)

    assert denied(taken, after=10.0).wait_seconds == pytest.approx(1.0, abs=0.01)
    assert allowed(taken, after=11.1).spent == 2


def test_reserve_is_kept_until_the_proof_lapses() -> None:
    """What is reserved for the process that proved the credential stays so until its proof lapses and its request ends.

    Else that process, which asks without a claim until then, could make the attempt too that another was given.
    """
    taken, lapses = allowed(PROVEN), NOW + timedelta(seconds=600)

    decision = claim(taken, "f", NOW + timedelta(seconds=60), RULES, lapses)
    assert decision == Denied(None, 540.0 + RULES.lease_seconds, claimed=True)
    assert isinstance(claim(taken, "f", lapses + timedelta(seconds=11), RULES, lapses), Claim)


def test_proof_lapses_between_rotation_point_and_expiry() -> None:
    """A proof lapses after the rotation point, so that it saves claims, and before expiry, so that others have time."""
    hour = timedelta(hours=1)
    document = Document(Secret("t"), NOW, NOW + 2 * hour, NOW + hour, 7200, "public", "u", "a", "account")

    assert proof_ends(document) == NOW + 1.5 * hour
    assert proof_ends(None) < NOW, "who holds no token claims"


def test_what_replaces_an_entry_is_later() -> None:
    """Whatever the clock says, an entry is later than what it replaced: places are compared by that."""
    ahead = replace(REFUSED_ONCE, changed_at=NOW + timedelta(days=1))

    for entry in (
        allowed(ahead),
        allowed(replace(ahead, proven=True, spent=0)),
        refused(ahead, "f", Reason.INVALID_GRANT, NOW, claimed=True),
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
    again = allowed(REFUSED_TWICE, HOURLY, after=3600.0)
    assert again.spent == 2
    assert isinstance(claim(again, "f", NOW + timedelta(seconds=3601), HOURLY, LAPSED), Denied)


def test_success_proves() -> None:
    """A success makes the count start anew, and a credential proven already costs no write."""
    proven = succeeded(REFUSED_ONCE, "f", NOW)

    assert proven is not None
    assert (proven.proven, proven.spent) == (True, 0)
    assert succeeded(proven, "f", NOW) is None


def test_refusal_of_a_proven_credential_is_the_first() -> None:
    """A proven credential that is refused has one refusal behind it; a claimed attempt is not counted twice."""
    assert refused(PROVEN, "f", Reason.INVALID_GRANT, NOW, claimed=False).spent == 1
    assert refused(allowed(None), "f", Reason.INVALID_GRANT, NOW, claimed=True).spent == 1
    assert refused(REFUSED_ONCE, "f", Reason.INVALID_GRANT, NOW, claimed=False).spent == 2


def claimed(known: Attempts | None) -> Claim:
    decision = claim(known, "f", NOW, RULES, LAPSED)
    assert isinstance(decision, Claim)
    return decision


def test_attempt_without_a_verdict_is_given_back() -> None:
    """A claim is given back after a failure that says nothing of the credential, also beside other claims."""
    mine = claimed(None)
    back = given_back(mine.attempts, mine, NOW)
    assert back is not None
    assert back.spent == 0

    back = given_back(allowed(mine.attempts), mine, NOW)
    assert back is not None
    assert back.spent == 1

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


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "text",
        {},
        {"proven": 1},
        ENTRY | {"reason": "surely"},
        ENTRY | {"changed_at": "9999-12-31T23:59:59.999999Z"},
        ENTRY | {"changed_at": "0001-01-01T00:00:00Z"},
    ],
)
def test_what_is_no_record_is_refused(entry: object) -> None:
    """Anything else in the record's place is an error: no attempt can be allowed by it."""
    with pytest.raises(NotADocumentError):
        parse_record({"f": entry})


# ── over restarts and replicas ────────────────────────────────────────────────────────────────────────────────────


def test_restarts_spend_no_further_attempt() -> None:
    """However often a daemon with a wrong password is restarted, two attempts are made in all."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = WRONG
    for _ in range(10):
        bench.attempt()
        bench.clock.advance(100)
        bench.restart()

    assert len(bench.endpoint.asked) == 2
    assert bench.told(Suspended)[-1].failure.reason is Reason.INVALID_GRANT


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
    """Once its proof has lapsed a request is claimed; one that cannot be is sent all the same, before readers suffer."""
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
    bench, sink = Bench(), MemorySink()
    records = AttemptRecords(bench.clock, 2.0)
    book = drive(records.read([sink], 0.0))
    one, book = drive(records.claim(book, "f", claimed, 0.0))
    assert isinstance(one, Claim)
    two, other = drive(records.claim(drive(records.read([sink], 0.0)), "f", claimed, 0.0))
    assert isinstance(two, Claim)

    for before in (book, other):  # the first one's is out of date
        drive(records.note(before, "f", lambda it: refused(it, "f", Reason.INVALID_GRANT, NOW, claimed=True), 0.0))

    assert [(it.spent, it.reason) for it in entries(sink)] == [(2, Reason.INVALID_GRANT)]


def test_operator_resumes() -> None:
    """When the attempt record is cleared, a suspended token goes on by itself within a minute."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = WRONG
    bench.attempt()
    bench.run_for(300)
    assert len(bench.endpoint.asked) == 2

    bench.endpoint.broken = None
    bench.sinks[0].records["attempts"] = (9, {})
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

    assert sum(sink.record_requests for sink in crowd.sinks) - before < 7 * probes


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
        crowd.endpoint.broken = GrantRejected(Reason.INVALID_CLIENT, "acaengine main: invalid_client")
        crowd.endpoint.asked.clear()
    Crowd.run_together(crowds, 3000)

    assert [len(crowd.endpoint.asked) for crowd in crowds if crowd.endpoint.asked]
    assert max(len(crowd.endpoint.asked) for crowd in crowds) <= 2


@pytest.mark.parametrize("reason", [Reason.UNAUTHORIZED, Reason.UNSUPPORTED_GRANT_TYPE, Reason.INVALID_REQUEST])
def test_refusals_that_say_nothing_of_the_client(reason: Reason) -> None:
    """A refusal that may come before the client is looked at does not prove the client."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = GrantRejected(reason, "refused")
    bench.attempt()

    assert not known(bench).client.proven()


def test_wrong_client_secret_spends_two_attempts_for_all_its_users() -> None:
    """One wrong client secret is tried twice by a process, not twice for each of its users, and by the same user."""
    crowd = Crowd(20)
    crowd.endpoint.broken = GrantRejected(Reason.INVALID_CLIENT, "acaengine main: invalid_client")
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
