"""One rotation, step by step, on a clock moved by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.config import EnvReference, VaultReference
from aca_tokend.core.errors import GrantError, VerifyError
from aca_tokend.core.outcome import (
    Adopted,
    Failed,
    Granted,
    Noticed,
    Published,
    PublishResult,
    Reason,
    Resumed,
    Rotated,
    Skipped,
    Step,
    Suspended,
    Unexpected,
)
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Seen
from aca_tokend.rotation.decide import POLL_SECONDS, POLL_VAULT_SECONDS, poll_seconds
from aca_tokend.rotation.facts import Asked
from aca_tokend.rotation.managed import Woken
from tests.changed import replace as changed
from tests.fakes import Bench, Crowd, FakeSecrets, MemorySink, at, drive, token_config

if TYPE_CHECKING:
    from aca_tokend.core.steps import Call

DOWN = GrantError(Reason.UNAVAILABLE, "acaengine main: 503")
WRONG = GrantError(Reason.INVALID_GRANT, "acaengine main: invalid_grant")
WRONG_CLIENT = GrantError(Reason.INVALID_CLIENT, "acaengine main: invalid_client")


def two_sinks() -> list[MemorySink]:
    return [MemorySink(), MemorySink(name="file:/run/aca/bookings.json", kind="file", pool="file")]


def test_first_rotation_publishes() -> None:
    """With nothing published, the first attempt grants and publishes, and the next is due at the rotation point."""
    bench = Bench()
    began = bench.clock.wall()

    wait = bench.attempt()

    document = bench.sinks[0].content
    assert document.access_token == Secret("token-1")
    assert document.issued_at == at(began)
    assert document.expires_at == at(began + 7200)
    assert document.refresh_after == at(began + 7200 * 0.667)
    assert wait == pytest.approx(7200 * 0.667)
    assert [event.sinks for event in bench.told(Rotated)] == [("vault:secret/aca/bookings",)]
    assert bench.facts.asked == Asked(bench.clock.now, document.account), "from which min_interval counts"


def test_life_counts_from_before_the_request() -> None:
    """A slow answer shortens what is left of the token: its life is counted from before the request was sent."""
    bench = Bench()
    bench.endpoint.latency = 30.0
    began = bench.clock.wall()

    wait = bench.attempt()

    assert bench.sinks[0].content.expires_at == at(began + 7200)
    assert wait == pytest.approx(7200 * 0.667 - 30)


def test_restart_adopts() -> None:
    """After a restart the valid published token is adopted: no grant is made, and nothing is written."""
    bench = Bench()
    bench.attempt()
    bench.clock.advance(100)
    bench.restart()

    wait = bench.attempt()

    assert len(bench.endpoint.asked) == 1
    assert bench.sinks[0].writes == 1
    assert wait == pytest.approx(7200 * 0.667 - 100)
    assert len(bench.told(Adopted)) == 1
    assert [event.result for event in bench.told(Published)] == [PublishResult.WRITTEN, PublishResult.UNCHANGED]


def test_upgrade_from_before_the_name_while_the_endpoint_is_down() -> None:
    """What a version before the name published is adopted and left as it is; the next token is written with the name.

    A roll back finds the account there, by which that version goes.
    """
    bench = Bench()
    bench.attempt()
    before = changed(bench.sinks[0].content, token="")
    bench.sinks[0].put(before)
    bench.endpoint.broken = DOWN
    bench.clock.advance(100)
    bench.restart()

    wait = bench.attempt()

    assert wait == pytest.approx(7200 * 0.667 - 100)
    assert len(bench.endpoint.asked) == 1, "no grant for the upgrade"
    assert bench.sinks[0].content == before
    bench.clock.advance(wait)
    bench.attempt()
    assert bench.sinks[0].content == before, "readers keep what there is"
    bench.endpoint.broken = None
    bench.clock.advance(600)
    bench.attempt()
    published = bench.sinks[0].content
    assert (published.token, published.account) == (bench.facts.name, before.account)
    assert published.access_token != before.access_token


def test_restart_past_the_rotation_point_rotates() -> None:
    """A published token that is past its rotation point is rotated, not adopted."""
    bench = Bench()
    bench.attempt()
    bench.clock.advance(5000)
    bench.restart()

    bench.attempt()

    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].content.access_token == Secret("token-2")


def test_fresher_token_of_a_replica_is_adopted_before_a_grant() -> None:
    """At the rotation point, a later token that a replica published meanwhile is adopted instead of a grant."""
    bench = Bench()
    bench.attempt()
    replica = Bench(clock=bench.clock, sinks=bench.sinks, draw=1.0, suffix="-replica")
    bench.clock.advance(4500)
    replica.attempt()
    bench.clock.advance(400)

    bench.attempt()

    assert len(bench.endpoint.asked) == 1
    assert bench.document == bench.sinks[0].content
    assert bench.told(Adopted)


def test_adopted_token_ends_what_failed() -> None:
    """Once a replica's token is adopted nothing is told to be failing any more."""
    bench = Bench()
    bench.attempt()
    bench.clock.now = bench.next_at
    bench.endpoint.broken = DOWN
    bench.attempt()
    assert bench.failures == 1
    replica = Bench(clock=bench.clock, sinks=bench.sinks, suffix="-replica")
    replica.attempt()

    bench.run_for(61.0)
    assert bench.document == replica.document
    assert bench.failures == 0


def test_bug_while_a_suspended_token_is_looked_after_is_told() -> None:
    """It is not taken for a reference that cannot be read, and the token stays suspended."""
    bench = Bench()
    bench.endpoint.broken = WRONG
    bench.run_for(60.0)
    bench.secrets.values.clear()
    bench.secrets.pool = lambda _: "vault.main"  # type: ignore[method-assign,assignment]  # planted
    bench.secrets.resolve = bench.secrets.values.__getitem__  # type: ignore[method-assign,assignment]  # planted
    bench.run_for(60.0)

    assert {event.kind for event in bench.told(Unexpected)} == {"KeyError"}
    assert bench.facts.suspension


def test_latest_token_is_brought_to_the_other_sinks() -> None:
    """A pod with an empty file adopts the token from Vault and fills its file, without a grant."""
    sinks = two_sinks()
    Bench(sinks=sinks[:1]).attempt()
    bench = Bench(sinks=sinks)

    bench.attempt()

    assert bench.endpoint.asked == []
    assert sinks[1].content == sinks[0].content


def test_failed_sink_is_retried_alone() -> None:
    """A sink that fails is tried again without a new grant, and without writing to the sinks that are well."""
    bench = Bench(sinks=two_sinks())
    bench.sinks[1].publish_errors.extend([Reason.DISK_FULL, Reason.DISK_FULL])

    bench.attempt()
    bench.run_for(60)

    assert len(bench.endpoint.asked) == 1
    assert bench.sinks[0].writes == 1
    assert bench.sinks[1].content == bench.sinks[0].content
    results = [event.result for event in bench.told(Published) if event.kind == "file"]
    assert results[:3] == [PublishResult.FAILED, PublishResult.FAILED, PublishResult.WRITTEN]
    assert [event.recovered for event in bench.told(Published) if event.kind == "file"][2]


def test_minted_but_not_delivered_is_a_failure() -> None:
    """A token that reached no sink is told of as a failure of the step publish, and is kept for the next try."""
    bench = Bench()
    bench.sinks[0].publish_errors.append(Reason.VAULT_SEALED)

    wait = bench.attempt()

    (failed,) = bench.told(Failed)
    assert (failed.failure.step, failed.failure.reason) == (Step.PUBLISH, Reason.VAULT_SEALED)
    assert not bench.told(Rotated)
    assert 0 < wait <= 60

    bench.run_for(60)
    assert bench.sinks[0].content.access_token == Secret("token-1")
    assert len(bench.endpoint.asked) == 1


def test_endpoint_down_keeps_the_published_token_and_tries_again() -> None:
    """While the endpoint is down the last good token stays, attempts go on, and the first answer ends it."""
    bench = Bench()
    bench.attempt()
    good = bench.sinks[0].content
    bench.endpoint.broken = DOWN
    bench.run_for(5000)

    assert bench.sinks[0].content == good
    assert bench.failures > 2
    assert bench.told(Failed)[0].failure.reason is Reason.UNAVAILABLE

    bench.endpoint.broken = None
    bench.run_for(61)
    assert bench.sinks[0].content.access_token != good.access_token
    assert bench.failures == 0


def test_outage_until_shortly_before_expiry_is_survived() -> None:
    """An endpoint that answers again two seconds before expiry leads to a published token before expiry."""
    bench = Bench()
    bench.attempt()
    bench.endpoint.broken = DOWN
    bench.run_for(7200 - 2)
    bench.endpoint.broken = None
    bench.run_for(1.9)

    assert bench.sinks[0].content.access_token != Secret("token-1")


def test_two_rejections_suspend() -> None:
    """After two refused attempts with one credential, no further one is made, and the published token stays."""
    bench = Bench(config=token_config(retry_rejected="0s"))
    bench.attempt()
    bench.endpoint.broken = WRONG
    bench.run_for(7200 * 5)

    assert len(bench.endpoint.asked) == 1 + 2
    assert bench.sinks[0].content.access_token == Secret("token-1")
    (suspended,) = bench.told(Suspended)
    assert suspended.failure.reason is Reason.INVALID_GRANT


@pytest.mark.parametrize(
    ("refusal", "changed"),
    [
        (WRONG, "PASSWORD"),
        (WRONG, "USERNAME"),
        (WRONG, "CLIENT_ID"),
        (WRONG, "CLIENT_SECRET"),
        (WRONG_CLIENT, "CLIENT_ID"),
        (WRONG_CLIENT, "CLIENT_SECRET"),
    ],
)
def test_changed_credential_resumes(refusal: GrantError, changed: str) -> None:
    """A suspended token resumes within 5 seconds of any part of its credential changing, and publishes."""
    references = {"username": EnvReference(env="USERNAME"), "client_id": EnvReference(env="CLIENT_ID")}
    bench = Bench(config=token_config(retry_rejected="0s").model_copy(update=references))
    bench.secrets.values |= {"USERNAME": "svc-bookings", "CLIENT_ID": "client-1"}
    bench.endpoint.broken = refusal
    bench.attempt()
    bench.run_for(600)
    assert len(bench.endpoint.asked) == 2

    bench.endpoint.broken = None
    bench.run_for(607)
    assert len(bench.endpoint.asked) == 2

    bench.secrets.values[changed] = "mended"
    bench.run_for(5)
    assert bench.sinks[0].content is not None
    assert [event.why for event in bench.told(Resumed)] == ["the credential changed"]


def test_cautious_attempts_while_suspended() -> None:
    """With retry_rejected set, exactly one attempt is made each period, and a success resumes the token."""
    bench = Bench(config=token_config(retry_rejected="1h"))
    bench.endpoint.broken = WRONG
    bench.attempt()
    bench.run_for(600)
    assert len(bench.endpoint.asked) == 2

    bench.run_for(3 * 3600)
    assert len(bench.endpoint.asked) == 2 + 3

    bench.endpoint.broken = None
    bench.run_for(3700)
    assert bench.sinks[0].content is not None
    assert bench.facts.suspension is None


def test_rejections_of_a_changed_credential_count_anew() -> None:
    """Rejections are counted for one unchanged credential: another one has its own two attempts."""
    bench = Bench(config=token_config(retry_rejected="0s"))
    bench.endpoint.broken = WRONG
    bench.attempt()
    bench.secrets.values["PASSWORD"] = "also wrong"
    bench.run_for(600)

    assert len(bench.endpoint.asked) == 1 + 2


def test_transient_failures_never_suspend() -> None:
    """However often the endpoint is down, limits or fails, the token is not suspended."""
    bench = Bench()
    bench.endpoint.broken = GrantError(Reason.RATE_LIMITED, "429", retry_after_seconds=30.0)
    bench.attempt()
    bench.run_for(3600)

    assert not bench.told(Suspended)
    assert 40 < len(bench.endpoint.asked) < 130  # 30 seconds apart at least


def test_suspended_token_adopts_what_a_replica_publishes() -> None:
    """A suspended token still looks: what a replica with the right password published is adopted."""
    bench = Bench(config=token_config(retry_rejected="0s"))
    bench.endpoint.broken = WRONG
    bench.attempt()
    bench.run_for(600)
    mended = FakeSecrets({"PASSWORD": "mended", "CLIENT_SECRET": "s"})
    replica = Bench(clock=bench.clock, sinks=bench.sinks, secrets=mended, suffix="-replica")
    replica.attempt()
    bench.run_for(120)

    assert bench.document == bench.sinks[0].content
    assert bench.told(Adopted)

    bench.run_for(86400)
    assert len(bench.endpoint.asked) == 2, "adopting does not prove the credential that was refused"


def test_nothing_is_granted_while_no_sink_can_be_read_at_start() -> None:
    """At start, with no sink readable, what is published may be good: no grant is made until a look succeeds."""
    bench = Bench()
    bench.sinks[0].look_errors.extend([Reason.VAULT_SEALED] * 3)

    bench.attempt()
    assert bench.endpoint.asked == []
    assert bench.told(Failed)[0].failure.step is Step.LOOK

    bench.run_for(60)
    assert len(bench.endpoint.asked) == 1


def test_vault_down_at_the_rotation_point_does_not_stop_the_grant() -> None:
    """At the rotation point the grant is made though Vault is down: it may be the last to be had before expiry."""
    bench = Bench()
    bench.attempt()
    bench.sinks[0].look_errors.extend([Reason.CONNECT_FAILED] * 5)
    bench.run_for(7200 * 0.667)
    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].content.access_token == Secret("token-1")

    bench.endpoint.broken = DOWN
    bench.run_for(120)
    assert bench.sinks[0].content.access_token == Secret("token-2")


@pytest.mark.parametrize("foreign", ["somebody's", "other account", "other name"])
def test_foreign_document_is_reported_and_kept(foreign: str) -> None:
    """What somebody else wrote is never adopted nor replaced: it is reported, and no token is minted for nowhere."""
    bench = Bench()
    if foreign.startswith("other"):
        other = Bench(sinks=bench.sinks, config=token_config().model_copy(update={"name": "other"}))
        other.endpoint.host = "other.example.com" if foreign == "other account" else other.endpoint.host
        other.attempt()
    else:
        bench.sinks[0].put({"password": "somebody's"})
    before = bench.sinks[0].content

    bench.attempt()
    bench.run_for(600)

    assert bench.endpoint.asked == []
    assert bench.sinks[0].content is before
    assert bench.told(Failed)[0].failure.reason is Reason.FOREIGN_DOCUMENT


def test_rival_under_the_same_name_is_told() -> None:
    """A later token that another daemon publishes under our name for another account stays, and is told."""
    bench = Bench()
    bench.attempt()
    config = token_config().model_copy(update={"username": "another"})
    rival = Bench(clock=bench.clock, sinks=bench.sinks, config=config, suffix="-rival")
    bench.clock.now = bench.next_at - 60.0
    rival.attempt()
    bench.run_for(60.0)
    assert bench.sinks[0].content == rival.document
    failure = bench.told(Published)[-1].failure
    assert failure is not None
    assert failure.reason is Reason.CONFLICT


def test_foreign_document_is_replaced_where_the_place_is_ours() -> None:
    """With replace_foreign the first grant replaces what somebody else wrote."""
    bench = Bench(sinks=[MemorySink(replace_foreign=True)])
    bench.sinks[0].put({"password": "somebody's"})

    bench.attempt()

    assert bench.sinks[0].content.access_token == Secret("token-1")


def test_foreign_document_in_one_sink_does_not_stop_the_other() -> None:
    """A sink that holds something foreign is reported; the other sinks are served."""
    bench = Bench(sinks=two_sinks())
    bench.sinks[0].put("somebody's")

    bench.attempt()

    assert bench.sinks[1].content.access_token == Secret("token-1")
    failures = [event.failure for event in bench.told(Published) if event.failure]
    assert [failure.reason for failure in failures] == [Reason.FOREIGN_DOCUMENT]


def test_deleted_document_is_published_again() -> None:
    """A document that somebody deleted is published again at the next look, without a grant while it is fresh."""
    bench = Bench()
    bench.attempt()
    bench.sinks[0].put(None)
    bench.restart()
    bench.attempt()

    assert bench.sinks[0].content is not None


@pytest.mark.parametrize("failures", [0, 2])
def test_document_in_another_form_is_written_anew(failures: int) -> None:
    """What is held in another form than now configured is written anew after a start, there alone, without a grant."""
    bench = Bench(sinks=two_sinks())
    bench.attempt()
    document = bench.sinks[1].content
    bench.sinks[1].outdated = True
    bench.sinks[1].publish_errors.extend([Reason.NOT_RENDERED] * failures)
    bench.restart()

    bench.attempt()
    bench.run_for(60)

    assert [sink.writes for sink in bench.sinks] == [1, 2]
    assert [sink.content for sink in bench.sinks] == [document, document]
    assert len(bench.endpoint.asked) == 1
    results = [event.result for event in bench.told(Published) if event.sink == bench.sinks[1].name]
    assert results == [PublishResult.WRITTEN] + [PublishResult.FAILED] * failures + [PublishResult.WRITTEN]


def test_race_lost_is_adopted() -> None:
    """A replica that published between our look and our publish wins if it was issued later: we adopt its token."""
    bench = Bench(sinks=two_sinks())
    rival = Bench(clock=bench.clock, sinks=bench.sinks[:1], suffix="-rival")
    rival.endpoint.name = "main"

    def overtake() -> None:
        bench.sinks[0].before_publish = None
        bench.clock.advance(1)
        rival.attempt()

    bench.sinks[0].before_publish = overtake
    bench.attempt()

    assert bench.sinks[0].content == rival.document
    assert bench.document == rival.document
    assert bench.sinks[1].content == rival.document
    results = [event.result for event in bench.told(Published) if event.kind == "vault"]
    assert results == [PublishResult.FENCED]


def test_later_token_replaces_an_earlier_one_that_came_between() -> None:
    """A token issued earlier than ours that was published after our look is replaced by ours."""
    bench = Bench()
    rival = Bench(clock=bench.clock, suffix="-rival")
    rival.attempt()
    bench.clock.advance(10)

    def late_arrival() -> None:
        bench.sinks[0].before_publish = None
        bench.sinks[0].put(rival.document)

    bench.sinks[0].before_publish = late_arrival
    bench.attempt()

    assert bench.sinks[0].content.access_token == Secret("token-1")
    assert bench.sinks[0].content == bench.document
    assert bench.document != rival.document


def test_clock_set_back_does_not_fence_our_own_next_token() -> None:
    """After the wall clock is set back the next token is published: what we read before the grant is older."""
    bench = Bench()
    bench.attempt()
    bench.clock.step(-6000)
    bench.run_for(7200 * 0.667 + 1)

    assert bench.sinks[0].content.access_token == Secret("token-2")


def test_token_that_is_refused_is_not_published() -> None:
    """With verify, a new token that the server's API refuses is not published, and the old one stays."""
    bench = Bench(config=token_config().model_copy(update={"verify": verify_config()}))
    bench.attempt()
    assert bench.endpoint.verified == 1
    bench.endpoint.verify_error = VerifyError(Reason.TOKEN_REFUSED, "401")
    bench.run_for(5000)

    assert bench.sinks[0].content.access_token == Secret("token-1")
    assert bench.told(Failed)[0].failure.step is Step.VERIFY


def test_lifetime_left_out_is_assumed() -> None:
    """Where the server names no lifetime, the configured one is assumed."""
    bench = Bench(config=token_config(assumed_lifetime="30m"))
    bench.endpoint.lifetime = None

    bench.attempt()

    document = bench.sinks[0].content
    assert (document.expires_at - document.issued_at).total_seconds() == 1800
    assert document.expires_in is None


def test_missing_secret_is_told_and_tried_again() -> None:
    """A reference that does not resolve fails the grant by name, and its appearance is taken up."""
    bench = Bench()
    password = bench.secrets.values.pop("PASSWORD")
    bench.attempt()
    assert bench.endpoint.asked == []
    assert bench.told(Failed)[0].failure.reason is Reason.SECRET_MISSING

    bench.secrets.values["PASSWORD"] = password
    bench.run_for(60)
    assert bench.sinks[0].content is not None


def test_a_rotation_costs_one_look_one_grant_one_write() -> None:
    """A rotation of a healthy token makes one look, one grant and one write, and nothing more."""
    bench = Bench()
    bench.attempt()
    looks = bench.sinks[0].looks
    bench.run_for(7200 * 0.667)

    assert bench.sinks[0].looks - looks == 1
    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].writes == 2


def test_token_dead_on_arrival_is_a_failure() -> None:
    """A token that expired before its answer was read is a failed grant, not a token."""
    bench = Bench()
    bench.endpoint.lifetime, bench.endpoint.latency = 5.0, 6.0

    bench.attempt()

    assert bench.told(Failed)[0].failure.reason is Reason.INVALID_EXPIRES_IN
    assert bench.sinks[0].content is None


def test_document_dated_in_the_future_is_replaced_by_the_next_token() -> None:
    """What a replica with a clock far ahead published is not adopted, and gives way to a token granted after it."""
    bench = Bench()
    rival = Bench(sinks=bench.sinks, suffix="-rival")
    rival.clock.step(3600)

    def overtake() -> None:
        bench.sinks[0].before_publish = None
        bench.clock.advance(1)
        rival.attempt()

    bench.sinks[0].before_publish = overtake
    bench.attempt()
    assert bench.sinks[0].content == rival.document
    assert bench.document != rival.document

    bench.run_for(7200 * 0.667 + 1)
    assert bench.sinks[0].content.access_token == Secret("token-2")


def test_older_token_never_replaces_a_newer_one_dated_in_the_future() -> None:
    """While no grant can be had, a newer token dated in the future is left alone by whoever holds an older one."""
    bench = Bench()
    bench.attempt()
    rival = Bench(clock=bench.clock, sinks=bench.sinks, suffix="-rival")
    bench.clock.advance(7200 * 0.667)
    bench.clock.step(7200)
    rival.attempt()
    bench.clock.step(-7200)
    newer = bench.sinks[0].content
    bench.endpoint.broken = DOWN
    bench.attempt()
    bench.run_for(60)

    assert newer.access_token == Secret("token-1-rival")
    assert bench.sinks[0].content == newer


def test_life_of_a_token_dated_in_the_future_counts_from_when_it_was_seen() -> None:
    """A token that a clock an hour ahead dated is adopted once plausible, with a life from when we first saw it."""
    sinks = [MemorySink()]
    ahead = Bench(sinks=sinks, suffix="-ahead")
    ahead.clock.step(3600)
    bench = Bench(sinks=sinks, clock=ahead.clock)
    ahead.attempt()
    ahead.clock.step(-3600)
    bench.endpoint.broken = DOWN
    bench.attempt()
    bench.run_for(3400)

    assert bench.document == sinks[0].content
    assert bench.facts.life is not None
    assert bench.facts.life.expires == pytest.approx(1000.0 + 7200)


def test_dead_token_gives_way_to_one_that_could_not_be_tried() -> None:
    """While the API fails, a new token that cannot be tried is published in place of one that is known to be dead."""
    bench = canary()
    bench.endpoint.verify_error = REFUSED
    bench.endpoint.broken = DOWN
    bench.clock.advance(60)
    bench.attempt()
    bench.endpoint.broken, bench.endpoint.verify_error = None, API_DOWN
    bench.run_for(5)

    assert bench.sinks[0].content.access_token != Secret("token-1")


def test_expired_sink_does_not_slow_one_that_can_be_saved() -> None:
    """Of two failed sinks the one that still holds a valid token sets the pace, not the one that expired long ago."""
    bench = Bench(sinks=two_sinks())
    bench.attempt()
    bench.sinks[1].publish_errors.extend([Reason.DISK_FULL] * 100_000)
    bench.run_for(7200 * 2)
    bench.sinks[0].publish_errors.extend([Reason.CONNECT_FAILED] * 100_000)
    expires = bench.sinks[0].content.expires_at
    bench.run_for((expires - at(bench.clock.wall())).total_seconds() - 2)
    bench.sinks[0].publish_errors.clear()
    bench.run_for(1.9)

    assert bench.sinks[0].content.expires_at > expires


def test_waiting_for_an_endpoint_spares_the_sinks() -> None:
    """Tokens that wait behind the breaker come to ask often as expiry nears, without a look each time."""
    crowd = Crowd(50)
    crowd.run_for(30)
    crowd.endpoint.broken = DOWN
    crowd.run_for(7100)
    looks = sum(sink.looks for sink in crowd.sinks)
    crowd.run_for(60)

    assert sum(sink.looks for sink in crowd.sinks) - looks < 50 * 8


def test_probe_that_nobody_was_told_to_send_is_not_waited_past() -> None:
    """Where those whose turn it was need no token any more, the next that is due probes the endpoint in their place."""
    bench = Bench()
    gate, now = bench.token.wiring.gate, bench.clock.now
    for name in ("a", "b", "c"):
        gate.failed(name, now + 3600.0, now, None, 0.5)
    for name in ("a", "b", "c"):
        gate.passed(name, now)

    wait = bench.attempt()

    assert bench.facts.waits_for == "endpoint_held"
    assert bench.endpoint.asked == []
    assert wait == pytest.approx(gate.breaker.probe_at - bench.clock.now, abs=0.5)
    assert wait < 5.0, "it would have waited for a minute to be woken"


def test_stray_wake_makes_no_grant() -> None:
    """A token that is woken though it has a fresh one makes no grant, and does not come again and again."""
    bench = Bench()
    wait = bench.attempt()
    bench.token.inbox.append(Woken(bench.clock.now))

    assert bench.attempt() == pytest.approx(wait)
    assert len(bench.endpoint.asked) == 1


def test_look_that_a_granted_token_needs_is_made_while_stopping() -> None:
    """A stop drops nothing that follows a grant, also after a conflict: what was granted would be lost."""
    bench = Bench()
    bench.sinks[0].publish_errors.append(Reason.CONFLICT)
    made: list[tuple[bool, bool]] = []

    def make(call: Call[object]) -> bool:
        made.append((bool(bench.endpoint.asked), call.finish))
        return False

    drive(bench.rotator.attempt(bench.token), make)

    assert made[0] == (False, False), "the first look"
    assert [finish for granted, finish in made if granted] == [True] * 4, "a note, a publish, a look, a publish"
    assert bench.sinks[0].writes == 1


def waiting_for_the_endpoint() -> Bench:
    """A token that is due while its endpoint is down for others, and has been told to ask next, before them."""
    bench = Bench()
    bench.attempt()
    bench.clock.advance(6000.0)
    gate, now = bench.token.wiring.gate, bench.clock.now
    for name in ("a", "b", "c"):
        gate.failed(name, now + 1000.0, now, None, 0.0)
    assert gate.breaker.admit("a", now + 1000.0, now + 1.0)
    bench.attempt()
    assert bench.facts.waits_for == "endpoint_held"
    bench.clock.advance(1.0)
    wake, *_ = gate.failed("a", now + 1000.0, bench.clock.now, None, 0.0)
    assert wake.token == bench.token.name
    bench.token.inbox.append(Woken(wake.at))
    bench.next_at = wake.at
    return bench


def test_turn_that_cannot_be_used_is_passed_on() -> None:
    """A token that waits for its endpoint, and by its turn has no place that could take a token, lets another ask."""
    bench = waiting_for_the_endpoint()
    stranger = Seen(None, "theirs", foreign="access_token is missing")
    bench.token.facts = bench.facts.with_place(0, seen=stranger, looked_at=bench.clock.now)
    bench.woken.clear()

    bench.run_for(bench.next_at - bench.clock.now)

    assert len(bench.endpoint.asked) == 1
    assert {wake.token for wake in bench.woken} == {"a", "b", "c"}


def test_endless_conflicts_are_a_failed_publish() -> None:
    """A sink that another writer changes each time is told of as failed, and tried again later."""
    bench = Bench()
    bench.sinks[0].publish_errors.extend([Reason.CONFLICT] * 5)

    wait = bench.attempt()

    assert [event.result for event in bench.told(Published)] == [PublishResult.FAILED]
    assert bench.told(Failed)[0].failure.reason is Reason.CONFLICT
    assert wait <= 60

    bench.run_for(60)
    assert bench.sinks[0].content == bench.document
    assert [event.result for event in bench.told(Published)] == [PublishResult.FAILED, PublishResult.WRITTEN]
    assert len(bench.told(Rotated)) == 1, "told once the token has reached a sink"


def test_grant_goes_on_where_one_sink_is_foreign_and_the_other_down() -> None:
    """At the rotation point a sink that cannot be read may have readers, though the other place is not ours."""
    bench = Bench(sinks=two_sinks())
    bench.attempt()
    bench.sinks[1].put("somebody's")
    bench.sinks[0].look_errors.append(Reason.CONNECT_FAILED)

    bench.run_for(7200 * 0.667 + 1)

    assert len(bench.endpoint.asked) == 2


def test_well_sinks_are_not_told_of_again() -> None:
    """While one sink is tried again, nothing is told of the sinks that are well."""
    bench = Bench(sinks=two_sinks())
    bench.sinks[1].publish_errors.extend([Reason.DISK_FULL] * 3)
    bench.attempt()
    bench.run_for(600)

    assert [event.result for event in bench.told(Published) if event.kind == "vault"] == [PublishResult.WRITTEN]


def test_changed_account_replaces_what_we_wrote_ourselves() -> None:
    """When the referenced user name changes, the document that this very process wrote is replaced, not refused."""
    config = token_config().model_copy(update={"username": EnvReference(env="USERNAME")})
    secrets = FakeSecrets({"USERNAME": "svc-1", "PASSWORD": "p", "CLIENT_SECRET": "s"})
    bench = Bench(config=config, secrets=secrets)
    bench.attempt()
    bench.secrets.values["USERNAME"] = "svc-2"

    bench.run_for(7200 * 0.667 + 1)

    assert bench.sinks[0].content.username == "svc-2"


def test_vault_that_asks_for_a_pause_gets_it() -> None:
    """A sink's Retry-After lengthens the wait before it is tried again."""
    bench = Bench()
    bench.sinks[0].publish_errors.append(Reason.RATE_LIMITED)
    bench.sinks[0].retry_after_seconds = 30.0

    assert bench.attempt() == 30.0


def test_suspended_failure_names_no_next_attempt() -> None:
    """The failure that suspends a token for good promises no further attempt, and says until when readers are safe."""
    bench = Bench(config=token_config(retry_rejected="0s"))
    bench.attempt()
    bench.endpoint.broken = WRONG
    bench.run_for(7200)

    failed = bench.told(Failed)
    assert [math.isinf(event.next_attempt_seconds) for event in failed] == [False, True]
    assert {event.expires_at for event in failed} == {bench.sinks[0].content.expires_at}


def verify_config(every: float = 0.0) -> object:
    from aca_tokend.core.config import VerifyConfig

    return VerifyConfig(path="/api/engine/v2/users/current", every=every)


def canary(every: float = 60.0) -> Bench:
    """A token with a canary, published and well."""
    bench = Bench(config=token_config().model_copy(update={"verify": verify_config(every)}))
    bench.attempt()
    return bench


REFUSED = VerifyError(Reason.TOKEN_REFUSED, "401")
API_DOWN = VerifyError(Reason.UNAVAILABLE, "503")


def test_token_of_the_second_of_a_log_out_is_asked_for_again_in_another() -> None:
    """A new token that is refused at once is asked for again over a second later, outside the second of a log-out."""
    bench = Bench(config=token_config().model_copy(update={"verify": verify_config()}))
    bench.endpoint.verify_error = REFUSED
    wait = bench.attempt()
    assert wait > 1.0

    bench.endpoint.verify_error = None
    bench.run_for(5)
    assert bench.sinks[0].content.access_token == Secret("token-2")


def test_new_tokens_that_are_all_refused_are_no_storm() -> None:
    """While the API refuses every new token, grants are at least min_interval apart but for the first repetition."""
    often = token_config(backoff={"initial": "1s", "cap": "2s"})
    bench = Bench(config=often.model_copy(update={"verify": verify_config()}))
    bench.endpoint.verify_error = REFUSED
    bench.attempt()
    bench.run_for(600)

    assert len(bench.endpoint.asked) <= 2 + 600 / 10
    assert bench.sinks[0].content is None


def test_token_that_could_not_be_tried_is_tried_again_without_a_grant() -> None:
    """While the API is down the new token waits to be tried: no further grant is made for it."""
    bench = Bench(config=token_config().model_copy(update={"verify": verify_config()}))
    bench.attempt()
    bench.endpoint.verify_error = API_DOWN
    bench.run_for(5000)
    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].content.access_token == Secret("token-1")

    bench.endpoint.verify_error = None
    bench.run_for(61)
    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].content.access_token == Secret("token-2")


def test_token_that_could_not_be_tried_is_published_before_readers_suffer() -> None:
    """When the published token is about to expire, one that could not be tried is published, and that is told once."""
    bench = Bench(config=token_config().model_copy(update={"verify": verify_config()}))
    bench.attempt()
    bench.endpoint.verify_error = API_DOWN
    bench.run_for(7199)

    assert bench.sinks[0].content.access_token == Secret("token-2")
    assert [event.what for event in bench.told(Noticed)] == ["published_untried"]


def test_canary_replaces_a_token_that_died_early() -> None:
    """A token in use that is refused is replaced at once, long before its rotation point."""
    bench = canary()
    assert bench.endpoint.verified == 1, "a new token is not tried again at once"
    bench.endpoint.verify_error = REFUSED
    bench.endpoint.verify_errors_of = {Secret("token-1")}
    bench.run_for(61)

    assert bench.sinks[0].content.access_token == Secret("token-2")
    assert bench.told(Failed)[0].failure.reason is Reason.TOKEN_REFUSED
    bench.run_for(61)
    assert bench.facts.revocations == 0, "one that works ends the row"


def test_token_that_expires_while_it_is_tried_is_not_revoked() -> None:
    """A refusal that comes once the token has expired says nothing: the outage that kept it in use is not hidden."""
    bench = canary()
    bench.attempt()
    bench.endpoint.broken = DOWN
    bench.clock.advance(bench.facts.expires_at - bench.clock.now - 0.5)

    def slow(path: str, access_token: Secret) -> None:  # noqa: ARG001 -- in the place of a method
        bench.clock.advance(1.0)
        raise REFUSED

    bench.endpoint.verify = slow  # type: ignore[method-assign]  # planted
    bench.attempt()

    assert bench.facts.current is not None
    assert bench.facts.current.checked_at == pytest.approx(bench.clock.now, abs=1.0), "it was tried"
    assert not bench.facts.revoked
    assert Reason.TOKEN_REFUSED not in {event.failure.reason for event in bench.told(Failed)}


def test_requests_are_told_by_their_ids() -> None:
    """What is told of a request has the id that the server gave it: a grant, its rotation, a token found dead."""
    bench = canary()
    bench.endpoint.verify_error = VerifyError(Reason.TOKEN_REFUSED, "acaengine main: 401", request_id="request-9")
    bench.endpoint.verify_errors_of = {Secret("token-1")}
    bench.run_for(61)

    assert [event.request_id for event in bench.told(Granted)] == ["request-1"] * 2
    assert [event.request_id for event in bench.told(Rotated)] == ["request-1"] * 2
    assert [event.failure.request_id for event in bench.told(Failed)] == ["request-9"]


def test_bug_in_a_canary_is_told() -> None:
    """It says nothing of the token, and is not taken for an API that is down."""
    bench = canary()

    def bug(path: str, access_token: Secret) -> None:
        raise KeyError(path, access_token)

    bench.endpoint.verify = bug  # type: ignore[method-assign]  # planted
    bench.clock.advance(60.0)
    bench.attempt()

    assert [event.kind for event in bench.told(Unexpected)] == ["KeyError"]
    assert not bench.facts.revoked


def test_canary_brings_no_retry_forward() -> None:
    """Where a new token was refused in the second of a log-out, the dead one in use hastens no attempt in it."""
    bench = canary()
    bench.endpoint.verify_error = REFUSED
    life, held = bench.facts.life, bench.facts.held
    assert life is not None
    assert held is not None
    bench.clock.now = bench.next_at = life.rotate
    bench.token.facts = bench.facts._replace(held=held._replace(checked_at=life.rotate - 59.8))
    bench.attempt()
    asked, refused_at = len(bench.endpoint.asked), bench.clock.now
    assert bench.failures == 1

    bench.run_for(0.5)
    assert bench.facts.revoked, "the canary told"
    assert len(bench.endpoint.asked) == asked
    bench.endpoint.verify_error = None
    bench.run_for(3.0)
    assert bench.endpoint.asked[asked:]
    assert bench.facts.held is not None
    assert (bench.facts.held.asked_at or 0.0) > refused_at + 1.0


def test_who_waited_for_the_client_looks_once() -> None:
    """Tokens that start at once and wait for one to prove their client do not read their places twice."""
    crowd = Crowd(20)

    def meanwhile() -> None:
        crowd.endpoint.before_answer = None
        for _ in range(19):
            crowd.attempt()

    crowd.endpoint.before_answer = meanwhile
    crowd.run_for(0.5)

    assert [event.why for event in crowd.events if isinstance(event, Skipped)] == ["client_unproven"] * 19
    assert len(crowd.endpoint.asked) == 20
    assert [sink.looks for sink in crowd.sinks] == [1] * 20


def test_who_waits_for_a_client_that_stays_unproven_is_not_woken_each_time() -> None:
    """While attempts with a client fail without a verdict, each wakes a few of its tokens, not all that wait."""
    crowd = Crowd(100)
    crowd.endpoint.broken = GrantError(Reason.FORBIDDEN, "the gateway answered 403")

    def meanwhile() -> None:
        while crowd.next_due <= crowd.clock.now:  # while this request is out, whoever is due comes, and waits
            crowd.attempt()

    crowd.endpoint.before_answer = meanwhile
    crowd.run_for(20.0)

    skipped = [event for event in crowd.events if isinstance(event, Skipped)]
    assert len(crowd.endpoint.asked) > 5
    assert len(skipped) < 99 + 5 * len(crowd.endpoint.asked)

    crowd.endpoint.broken = crowd.endpoint.before_answer = None
    crowd.run_for(90.0)
    assert all(token.facts.current is not None for token in crowd.tokens.values())


def test_api_that_fails_is_no_dead_token() -> None:
    """A 5xx or a time-out of the API says nothing of the token: no grant is made."""
    bench = canary()
    bench.endpoint.verify_error = API_DOWN
    bench.run_for(3600)

    assert len(bench.endpoint.asked) == 1


def test_broken_api_causes_no_grant_storm() -> None:
    """An API that refuses every token in use, though it accepts each new one, gets grants further and further apart."""
    bench = canary(every=1.0)
    bench.endpoint.verify_error = REFUSED
    bench.endpoint.accepts_first_use = True
    bench.run_for(3600)

    assert 3 < len(bench.endpoint.asked) < 15


def test_reused_token_is_no_tight_loop_and_never_stale() -> None:
    """A server that hands out the same token until it expires is asked a few times, and at once after expiry."""
    bench = Bench()
    bench.endpoint.reuse = True
    bench.attempt()
    bench.run_for(7200 - 1)
    assert len(bench.endpoint.asked) < 12
    assert bench.sinks[0].writes == 1, "the same token is no changed document"

    bench.run_for(1.5)
    assert bench.sinks[0].content.access_token != Secret("token-1")
    bench.run_for(7200 * 5)
    assert [event.what for event in bench.told(Noticed)] == ["token_reused"]
    assert bench.sinks[0].content.expires_at > at(bench.clock.wall())


@pytest.mark.parametrize(
    ("after", "left", "counted"), [(4900.0, 100.0, 100.0), (4900.0, 2301.0, 2300.0), (7300.0, 9.0, 9.0)]
)
def test_what_the_server_says_of_a_reused_token(after: float, left: float, counted: float) -> None:
    """That the token we hold expires counts where it is sooner by more than a second, or after it should have."""
    bench = Bench()
    bench.endpoint.reuse = True
    bench.attempt()
    bench.clock.advance(after)
    bench.endpoint.reusable = (Secret("token-1"), bench.clock.now + left)
    bench.attempt()

    assert bench.facts.expires_at == pytest.approx(bench.clock.now + counted, abs=0.1)


def test_reused_token_that_was_refused_stays_so() -> None:
    """A server that hands out a refused token again has no other yet, whatever it says of its life."""
    bench = Bench(config=token_config().model_copy(update={"verify": verify_config(60.0)}))
    bench.endpoint.reuse = True
    bench.attempt()
    bench.endpoint.verify_error = REFUSED
    bench.clock.advance(60.0)
    bench.endpoint.reusable = (Secret("token-1"), bench.clock.now + 100.0)
    bench.attempt()

    assert len(bench.endpoint.asked) == 2
    assert bench.facts.revoked
    assert bench.facts.revocations == 2


def test_reused_token_for_another_scope_is_no_tight_loop() -> None:
    """A server that hands out the same token for another scope is asked again when that is due, not at once."""
    bench = Bench()
    bench.endpoint.reuse = True
    bench.attempt()
    bench.clock.advance(60.0)
    bench.token.facts = changed(bench.facts, config=bench.facts.config.model_copy(update={"scope": "admin"}))
    bench.next_at = bench.clock.now
    bench.run_for(600.0)

    assert len(bench.endpoint.asked) == 2


@pytest.mark.parametrize("lifetime", [3.0, 12.0, 14 * 86400.0, 366 * 86400.0])
def test_odd_lifetimes(lifetime: float) -> None:
    """Lives shorter than min_interval and lives of a year are rotated without a tight loop."""
    bench = Bench()
    bench.endpoint.lifetime = lifetime
    bench.attempt()
    bench.run_for(lifetime * 3 + 30)

    grants = len(bench.endpoint.asked)
    assert 1 + 3 <= grants <= 2 + (lifetime * 3 + 30) / min(max(lifetime * 0.6, 10.0), 1e9)
    assert bool(bench.told(Noticed)) == (lifetime <= 10 or lifetime > 31 * 86400)


def test_shrinking_lifetime() -> None:
    """Each token is rotated by its own life, also where lives shrink."""
    bench = Bench()
    bench.attempt()
    for lifetime in (3600.0, 600.0, 60.0):
        bench.endpoint.lifetime = lifetime
        bench.run_for(bench.next_at - bench.clock.now)
        assert bench.sinks[0].content.expires_at == at(bench.clock.wall() + lifetime)


@pytest.mark.parametrize(("step", "sooner"), [(3000.0, 3000.0), (-3600.0, 0.0)])
def test_clock_step_redraws_what_was_adopted(step: float, sooner: float) -> None:
    """After the wall clock was set, the sooner reckoning counts of when an adopted token expires."""
    bench = Bench()
    bench.attempt()
    bench.clock.advance(1000.0)
    bench.restart()
    bench.attempt()
    bench.step_clock(step)
    wait = bench.attempt()

    assert wait == pytest.approx(7200 * 0.667 - 1000.0 - sooner)


def test_clock_steps_do_not_move_the_deadlines_of_our_own_tokens() -> None:
    """A token that was granted to us keeps its monotonic deadlines, however the wall clock is stepped."""
    for step in (3600, -3600):
        bench = Bench()
        wait = bench.attempt()
        bench.step_clock(0.9)
        assert bench.attempt() == pytest.approx(wait)
        assert bench.sinks[0].writes == 1, "not for a moment"
        bench.step_clock(step)

        assert bench.attempt() == pytest.approx(wait)
        told = bench.sinks[0].content.expires_at.timestamp() - bench.clock.wall()
        assert told == pytest.approx(7200, abs=10.0), "readers are told when it expires by the new clock"
        bench.run_for(20_000)
        assert len(bench.endpoint.asked) == 5


def test_expired_token_is_never_written() -> None:
    """A token that reached no sink before it expired is written nowhere when the sink is back: only a new one is."""
    bench = Bench()
    bench.sinks[0].publish_errors.extend([Reason.CONNECT_FAILED] * 10_000)
    bench.attempt()
    bench.endpoint.broken = DOWN
    bench.run_for(7300)
    bench.sinks[0].publish_errors.clear()
    bench.run_for(300)
    assert bench.sinks[0].writes == 0

    bench.endpoint.broken = None
    bench.run_for(61)
    assert bench.sinks[0].writes == 1


@pytest.mark.parametrize("step", ["look", "publish"])
def test_published_soon_where_a_sink_holds_less_life_than_the_token(step: str) -> None:
    """A sink that failed is tried again by what it still holds, not by the life of the token that waits for it."""
    bench = Bench()
    bench.attempt()
    bench.run_for(7200 * 0.667 - 1)
    errors = bench.sinks[0].look_errors if step == "look" else bench.sinks[0].publish_errors
    errors.extend([Reason.CONNECT_FAILED] * 10_000)
    bench.run_for(7200 * 0.333 - 2)
    errors.clear()
    bench.run_for(2.5)

    assert bench.sinks[0].content.access_token == Secret("token-2")


@pytest.mark.parametrize("step", ["look", "publish"])
def test_vault_is_back(step: str) -> None:
    """What failed while nobody could log in to a Vault is tried at once when somebody can, however long its wait."""
    sink = MemorySink(retry_after_seconds=3600.0)
    bench = Bench(sinks=[sink])
    (sink.look_errors if step == "look" else sink.publish_errors).append(Reason.VAULT_LOGIN_FAILED)
    assert bench.attempt() > 0.1
    bench.vault_is_back()

    bench.attempt()

    assert bench.facts.everywhere
    assert len(bench.endpoint.asked) == 1


def test_vault_is_back_and_the_credential_is_refused() -> None:
    """A token whose own credential was refused is not tried sooner because a Vault can be logged in to again."""
    bench = Bench()
    bench.endpoint.answers.append(WRONG)
    bench.attempt()
    due = bench.next_at
    bench.vault_is_back()

    bench.attempt()

    assert bench.next_at == due


def test_suspended_token_looks_for_its_credential_by_where_it_is() -> None:
    """While a token is suspended, a credential that Vault holds is looked for less often: each look is a request."""
    in_vault = {"password": VaultReference(vault="secret/aca#password")}

    assert poll_seconds(token_config()) == POLL_SECONDS
    assert poll_seconds(token_config().model_copy(update=in_vault)) == POLL_VAULT_SECONDS
