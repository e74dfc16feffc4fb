"""The lockout guard: at most two refused attempts for one unchanged credential, over all restarts and replicas."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from aca_tokend.records import Ledger, Records, Verdict

from aca_tokend.core.errors import GrantRejected, GrantUnavailable
from aca_tokend.core.guard import (
    AttemptRecord,
    Attempts,
    Claim,
    Denied,
    Rules,
    claim,
    given_back,
    parse_record,
    refused,
    succeeded,
)
from aca_tokend.core.outcome import Failed, Reason, Resumed, Suspended
from aca_tokend.core.token import NotADocumentError
from tests.fakes import Bench, Crowd, FakeClock, FakeSecrets, MemorySink, drive, token_config

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 11, 24, tzinfo=UTC)
RULES = Rules(max_rejections=2, retry_rejected_seconds=0.0, lease_seconds=11.0)
HOURLY = replace(RULES, retry_rejected_seconds=3600.0)
PROVEN = Attempts("f", True, 0, False, None, NOW)
REFUSED_ONCE = Attempts("f", False, 1, False, Reason.INVALID_GRANT, NOW)
REFUSED_TWICE = replace(REFUSED_ONCE, spent=2)
WRONG = GrantRejected(Reason.INVALID_GRANT, "acaengine main: invalid_grant")
DOWN = GrantUnavailable(Reason.UNAVAILABLE, "acaengine main: 503")
FOREVER = token_config(retry_rejected="0s")


def allowed(known: Attempts | None, rules: Rules = RULES, after: float = 0.0) -> Attempts:
    decision = claim(known, "f", NOW + timedelta(seconds=after), rules)
    assert isinstance(decision, Claim)
    return decision.attempts


def denied(known: Attempts, rules: Rules = RULES, after: float = 0.0) -> Denied:
    decision = claim(known, "f", NOW + timedelta(seconds=after), rules)
    assert isinstance(decision, Denied)
    return decision


# ── the decisions ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_claims_and_no_more() -> None:
    """An unknown credential has two attempts; each is counted as it is claimed."""
    first = allowed(None)
    second = allowed(first)

    assert (first.spent, second.spent) == (1, 2)
    assert denied(second) == Denied(None, RULES.lease_seconds), "they may be under way"
    assert denied(second, after=11.0).wait_seconds is None


def test_takeover_counts_the_attempt_that_nobody_saw() -> None:
    """Who takes over a proven credential leaves room for one attempt that its holder may have made unseen."""
    taken = allowed(PROVEN)

    assert (taken.spent, taken.reserved, taken.proven) == (2, True, False)


def test_claim_of_a_process_that_died_runs_out_if_nobody_was_refused() -> None:
    """A taken-over claim whose process died blocks the others for no longer than a request may take."""
    taken = allowed(PROVEN)

    assert denied(taken, after=10.0) == Denied(None, 1.0)
    assert allowed(taken, after=11.0).spent == 2


def test_processes_that_go_on_dying_come_to_an_end() -> None:
    """A taken-over claim runs out once; a second process that dies unseen leaves no further attempt."""
    again = allowed(allowed(PROVEN), after=11.0)

    assert denied(again, after=22.0).wait_seconds is None


def test_claims_that_were_never_proven_do_not_run_out() -> None:
    """A process that dies in each attempt cannot spend more than two on a credential that never worked."""
    assert denied(allowed(allowed(None)), after=1e6).wait_seconds is None
    assert allowed(allowed(allowed(None)), RULES.for_client, after=11.0).spent == 2, "a client locks no account"


def test_one_cautious_attempt_a_period() -> None:
    """With retry_rejected one attempt is allowed when the period has passed, and it begins anew with it."""
    assert denied(REFUSED_TWICE, HOURLY, after=3599.0) == Denied(Reason.INVALID_GRANT, 1.0)
    again = allowed(REFUSED_TWICE, HOURLY, after=3600.0)
    assert again.spent == 2
    assert isinstance(claim(again, "f", NOW + timedelta(seconds=3601), HOURLY), Denied)


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


def test_attempt_without_a_verdict_is_given_back() -> None:
    """A claim is given back after a failure that says nothing of the credential, also beside other claims."""
    mine = claim(None, "f", NOW, RULES)
    assert isinstance(mine, Claim)
    back = given_back(mine.attempts, mine, NOW)
    assert back is not None
    assert back.spent == 0

    both = allowed(mine.attempts)
    back = given_back(both, mine, NOW)
    assert back is not None
    assert back.spent == 1

    takeover = claim(PROVEN, "f", NOW, RULES)
    assert isinstance(takeover, Claim)
    assert given_back(takeover.attempts, takeover, NOW) == PROVEN


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
    [None, "text", {}, {"proven": 1}, {**AttemptRecord((REFUSED_ONCE,)).fields()["f"], "reason": "surely"}],  # type: ignore[dict-item]
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
    written = parse_record(bench.sinks[0].records["attempts"][1])
    assert [entry.proven for entry in written.entries] == [False]

    bench.endpoint.before_answer = None
    requests = bench.sinks[0].record_requests
    bench.run_for(7200 * 3)
    written = parse_record(bench.sinks[0].records["attempts"][1])
    assert [(entry.proven, entry.spent) for entry in written.entries] == [(True, 0)]
    assert bench.sinks[0].record_requests == requests + 2


def test_outage_leaves_a_credential_proven() -> None:
    """Failures that say nothing of a proven credential leave it proven: the grant after them costs no record either."""
    bench = Bench()
    bench.attempt()
    requests = bench.sinks[0].record_requests
    bench.endpoint.broken = DOWN
    bench.run_for(6000)
    asked = len(bench.endpoint.asked)
    bench.endpoint.broken = None
    bench.run_for(7200)

    assert asked > 5
    assert len(bench.endpoint.asked) > asked
    assert bench.sinks[0].record_requests == requests


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


@pytest.mark.parametrize("record", ["attempts", "client-attempts"])
def test_what_is_no_record_lets_nobody_through(record: str) -> None:
    """Where something else stands in the place of a record, an unproven credential waits, until that is cleared."""
    bench = Bench()
    bench.sinks[0].records[record] = (1, {"mine": "notes"})
    bench.attempt()
    bench.run_for(300)
    assert bench.endpoint.asked == []
    assert {event.failure.reason for event in bench.told(Failed)} == {Reason.FOREIGN_DOCUMENT}
    assert bench.sinks[0].records[record] == (1, {"mine": "notes"}), "it is left alone"

    bench.sinks[0].records[record] = (2, {})
    bench.run_for(61)
    assert bench.sinks[0].content is not None


def test_denied_token_gives_the_attempt_of_its_client_back() -> None:
    """A token without an attempt left takes none of its client's, however often its daemon is restarted."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = WRONG
    bench.attempt()
    bench.run_for(300)
    client = bench.sinks[0].records["client-attempts"][1]
    for _ in range(4):
        bench.restart()
        bench.attempt()
        bench.run_for(300)

    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].records["client-attempts"][1] == client
    assert all(entry["proven"] for entry in client.values()), "the server knew the client when it refused the user"


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


class Meanwhile(FakeClock):
    """A clock that lets something happen in another thread when it is next asked for the time."""

    happens: Callable[[], None] | None = None

    def wall(self) -> float:
        if happens := self.happens:
            self.happens = None
            happens()
        return super().wall()


def test_refusals_at_once_are_all_counted() -> None:
    """Two threads that note a refusal of one client at the same moment count two, whoever comes between the other's."""
    clock, sink = Meanwhile(), MemorySink()
    records, ledger, verdict = Records(clock), Ledger(sink, "client-attempts"), Verdict(refused=Reason.INVALID_CLIENT)
    clock.happens = lambda: drive(records.settle(ledger, "f", None, verdict, 0.0))

    drive(records.settle(ledger, "f", None, verdict, 0.0))

    assert [entry.spent for entry in parse_record(sink.records["client-attempts"][1]).entries] == [2]


def test_operator_resumes() -> None:
    """When the attempt record is cleared, a suspended token goes on by itself within a minute."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = WRONG
    bench.attempt()
    bench.run_for(300)
    assert len(bench.endpoint.asked) == 2

    bench.endpoint.broken = None
    bench.sinks[0].records.clear()
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
    """When a proven client secret stops working, no user's credential is sent more than twice by all replicas."""
    first = Crowd(6)
    first.run_for(5)
    crowds = [first, *(Crowd(6, clock=first.clock, sinks=first.sinks, seed=seed) for seed in (8, 9))]
    Crowd.run_together(crowds, 7200 * 3)  # each leads some of the tokens by now, and has proven the client
    assert all(crowd.endpoint.asked for crowd in crowds)
    for crowd in crowds:
        crowd.endpoint.broken = GrantRejected(Reason.INVALID_CLIENT, "acaengine main: invalid_client")
        crowd.endpoint.asked.clear()
    Crowd.run_together(crowds, 20_000)

    asked = [credentials.username for crowd in crowds for credentials in crowd.endpoint.asked]
    assert 2 <= len(asked) <= 2 + len(crowds)
    assert max(asked.count(name) for name in asked) <= 2


@pytest.mark.parametrize("reason", [Reason.UNAUTHORIZED, Reason.UNSUPPORTED_GRANT_TYPE, Reason.INVALID_REQUEST])
def test_refusals_that_say_nothing_of_the_client(reason: Reason) -> None:
    """A refusal that may come before the client is looked at does not prove the client."""
    bench = Bench(config=FOREVER)
    bench.endpoint.broken = GrantRejected(reason, "refused")
    bench.attempt()

    assert bench.state.client.ledger.proven == ""


def test_wrong_client_secret_spends_two_attempts_for_all_its_users() -> None:
    """One wrong client secret is tried twice in all, not twice for each of its users, also over restarts."""
    crowd = Crowd(20)
    crowd.endpoint.broken = GrantRejected(Reason.INVALID_CLIENT, "acaengine main: invalid_client")
    for _ in range(3):
        crowd.run_for(600)
        crowd.restart()
    crowd.run_for(600)

    assert len(crowd.endpoint.asked) == 2
    crowd.endpoint.broken = None
    crowd.secrets.values["CLIENT_SECRET"] = "mended"
    crowd.run_for(60)
    assert all(sink.content for sink in crowd.sinks)
