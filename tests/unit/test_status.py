"""The status that people and programs are told: each state, what it is told by, and in which words."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.config import FileReference
from aca_tokend.core.demand import Load
from aca_tokend.core.errors import GrantError, Problem, VerifyError
from aca_tokend.core.login import LoggedIn, LoginFailed, RenewalFailed
from aca_tokend.core.outcome import ADVICE, Failure, Published, Reason, Step
from aca_tokend.core.secret import Secret
from aca_tokend.core.status import STATUS, TOKEN, ApiError, Circuit, Query, Result, State
from aca_tokend.rotation.decide import need_at
from aca_tokend.rotation.hook_runner import HookState
from aca_tokend.status import token_page
from tests.fakes import Bench, FakeHook, MemorySink, at, token_config
from tests.unit.status_bench import NAME, Seen, configured

if TYPE_CHECKING:
    from aca_tokend.core.status import TokenPage

CANARY = "canary-status-51d0"
REFUSED = GrantError(Reason.INVALID_GRANT, "acaengine.main (…) answered 400 invalid_grant", request_id="r-9")
DOWN = GrantError(Reason.CONNECT_FAILED, "acaengine.main (…): no connection")


def rotated() -> Seen:
    """A token that was rotated a moment ago and lives for two hours."""
    seen = Seen()
    seen.bench.attempt()
    return seen


def due(seen: Seen) -> Seen:
    """The same at its rotation point."""
    seen.bench.clock.now = max(seen.bench.next_at, seen.bench.clock.now)
    return seen


# ── each state ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_starting() -> None:
    """A token whose first attempt has not ended is starting, and needs nobody."""
    token = Seen().token
    assert (token.state, token.needs_a_person, token.runbook, token.last) == (State.STARTING, False, None, None)
    assert token.summary == "Not looked at yet."
    assert token.issued_at is token.expires_at is token.safe_until is None
    assert token.outage_tolerance_seconds is None


def test_starting_while_another_tries_their_client() -> None:
    """A token that only waits for another to prove their client has not been tried, and says for what it waits."""
    seen = Seen()
    seen.bench.shared.client_of(seen.bench.config).first = "another"
    seen.bench.attempt()
    assert seen.token.state is State.STARTING
    assert seen.token.summary == "Not looked at yet; another token tries their client secret first."


def test_ready() -> None:
    """A token that was rotated is ready and says when it rotates next and until when readers are safe."""
    seen = rotated()
    token, wall = seen.token, seen.bench.clock.wall()
    assert (token.state, token.needs_a_person, token.runbook) == (State.READY, False, None)
    assert token.summary == "Rotates in 1 h 20 min; readers are safe for 2 h, until 10:00 UTC."
    assert (token.issued_at, token.expires_at, token.safe_until) == (at(wall), at(wall + 7200), at(wall + 7200))
    assert token.rotate_at == token.next_attempt_at == at(wall + 7200 * 0.667)
    assert token.outage_tolerance_seconds == pytest.approx(7200 * 0.333)
    assert token.last is not None
    assert (token.last.at, token.last.result, token.last.request_id) == (at(wall), Result.ROTATED, "request-1")
    assert (token.username, token.authority, token.endpoint, token.scope) == (
        "svc-bookings",
        "authority-1",
        "main",
        "public",
    )
    (sink,) = token.sinks
    assert (sink.name, sink.kind, sink.ok, sink.reason) == ("vault:secret/aca/bookings", "vault", True, None)
    assert (sink.issued_at, sink.expires_at) == (token.issued_at, token.expires_at)


def test_adopted() -> None:
    """A token that a restart adopted says so."""
    seen = rotated()
    seen.bench.restart()
    seen.bench.attempt()
    assert seen.token.state is State.READY
    assert seen.token.last is not None
    assert seen.token.last.result is Result.ADOPTED


def test_suspended_until_somebody_mends_it() -> None:
    """A refused credential suspends: a person is needed though readers are safe, and is told what would resume it."""
    seen = due(rotated())
    seen.bench.endpoint.broken = REFUSED
    seen.bench.run_for(30)
    token = seen.token
    assert (token.state, token.needs_a_person, token.runbook) == (State.SUSPENDED, True, "ACACredentialsRejected")
    assert token.summary == (
        "The server refused the username and password; readers are safe for 39 min 27 s, until 10:00 UTC."
    )
    assert token.suspended is not None
    assert token.suspended.reason is Reason.INVALID_GRANT
    assert token.suspended.advice == ADVICE[Reason.INVALID_GRANT]
    assert token.suspended.resumes == (
        "A changed credential is noticed within 5 seconds, in a variable of the environment only after a restart. "
        f"After the server's side was mended call `aca-tokend resume {NAME}`. "
        "By itself one cautious attempt is made at 10:20 UTC."
    )
    assert seen.bench.facts.suspension is not None
    assert token.next_attempt_at == at(
        seen.bench.clock.offset + seen.bench.facts.suspension.cautious_at(seen.bench.config)
    )
    assert token.last is not None
    assert (token.last.result, token.last.step, token.last.reason) == (
        Result.SUSPENDED,
        Step.GRANT,
        Reason.INVALID_GRANT,
    )
    assert (token.last.message, token.last.request_id) == (REFUSED.message, "r-9")


def test_changed_credential_in_files() -> None:
    """Where no variable of the environment is referred to, none is spoken of."""
    seen = due(rotated())
    seen.bench.endpoint.broken = REFUSED
    seen.bench.run_for(30)
    file = FileReference(file="/run/secrets/aca/secret")
    in_files = seen.bench.config.model_copy(update={"password": file, "client_secret": file})
    seen.bench.token.facts = seen.bench.facts._replace(config=in_files)
    assert seen.token.suspended is not None
    assert seen.token.suspended.resumes.startswith("A changed credential is noticed within 5 seconds. After ")


def test_suspended_for_good() -> None:
    """Where no cautious attempt is allowed, none is announced; where no credential helps, none is asked for."""
    seen = Seen(Bench(config=token_config(retry_rejected="0s")))
    seen.bench.endpoint.broken = GrantError(Reason.UNSUPPORTED_GRANT_TYPE, "acaengine.main: unsupported_grant_type")
    seen.bench.run_for(60)
    token = seen.token
    assert token.suspended is not None
    assert token.suspended.resumes == (
        "No other credential would help. Once the server offers the password grant again call "
        f"`aca-tokend resume {NAME}`. By itself no attempt is made."
    )
    assert token.next_attempt_at is None
    assert token.runbook == "ACAPasswordGrantDisabled"


def test_expired_while_suspended() -> None:
    """Once readers find an expired token the state is expired, and why it came to that is still said."""
    seen = due(rotated())
    seen.bench.endpoint.broken = REFUSED
    seen.bench.run_for(3000)
    token = seen.token
    assert (token.state, token.needs_a_person, token.runbook) == (State.EXPIRED, True, "ACACredentialsRejected")
    assert token.suspended is not None
    assert token.summary.startswith("The server refused the username and password; readers have had no valid token ")


def test_failing_needs_a_person_late() -> None:
    """A server that is down needs nobody as long as 70 % of the outage tolerance is left, and somebody from then on."""
    seen = due(rotated())
    seen.bench.endpoint.broken = DOWN
    seen.bench.attempt()
    token = seen.token
    assert (token.state, token.needs_a_person, token.runbook) == (State.FAILING, False, "ACAEndpointDown")
    assert token.summary == "The server cannot be reached; readers are safe for 39 min 57 s, until 10:00 UTC."
    assert token.consecutive_failures == 1
    tolerance = token.outage_tolerance_seconds or 0.0
    seen.bench.clock.advance(tolerance * 0.31)
    assert seen.token.needs_a_person
    seen.bench.clock.advance(tolerance)
    assert (seen.token.state, seen.token.runbook) == (State.EXPIRED, "ACATokenExpired")


def test_never_published() -> None:
    """A token that was never granted leaves readers with nothing, and says so."""
    seen = Seen()
    seen.bench.endpoint.broken = DOWN
    seen.bench.attempt()
    token = seen.token
    assert (token.state, token.needs_a_person, token.safe_until) == (State.EXPIRED, True, None)
    assert token.summary == "The server cannot be reached; readers find no valid token."


def test_what_a_person_alone_can_mend() -> None:
    """A failure that no attempt mends, such as a missing secret, needs a person at once."""
    seen = due(rotated())
    del seen.bench.secrets.values["PASSWORD"]
    seen.bench.attempt()
    token = seen.token
    assert (token.state, token.needs_a_person, token.runbook) == (State.FAILING, True, "ACATokenRotationFailing")
    assert token.summary.startswith("A secret that the configuration refers to is missing; readers are safe for ")


def test_sink_that_fails() -> None:
    """A place that cannot be written is named, and readers are safe as long as what it holds is valid."""
    seen = Seen(Bench(sinks=[MemorySink(), MemorySink(name="file:/run/aca/x.json", kind="file", pool="file")]))
    seen.bench.attempt()
    due(seen)
    seen.bench.sinks[1].publish_errors.extend([Reason.DISK_FULL] * 3)
    before = seen.token.expires_at
    seen.bench.attempt()
    token = seen.token
    assert (token.state, token.needs_a_person, token.runbook) == (State.FAILING, True, "ACATokenPublishStale")
    assert token.summary.startswith("file:/run/aca/x.json: the disk is full; readers are safe for 39 min ")
    assert token.safe_until == before
    well, full = token.sinks
    assert well.ok
    assert (full.ok, full.step, full.reason, full.expires_at) == (False, Step.PUBLISH, Reason.DISK_FULL, before)
    assert (full.message, full.advice) == ("file:/run/aca/x.json: disk_full", ADVICE[Reason.DISK_FULL])


def test_sink_that_is_tried_again_is_not_well_meanwhile() -> None:
    """While a failed sink is tried again it stays a failed one, until it was written."""
    seen = Seen(Bench(sinks=[MemorySink(), MemorySink(name="file:/run/aca/x.json", kind="file", pool="file")]))
    sink = seen.bench.sinks[1]
    sink.publish_errors.extend([Reason.DISK_FULL] * 3)
    seen.bench.attempt()
    during: list[bool] = []
    sink.publish_errors.clear()
    sink.before_publish = lambda: during.append(seen.token.sinks[1].ok)
    seen.bench.run_for(5)
    assert during == [False]
    assert seen.token.sinks[1].ok


def test_sink_that_was_never_read() -> None:
    """Where a sink could never be read nobody knows what its readers find, and that is what is said."""
    seen = Seen(Bench(sinks=[MemorySink(), MemorySink(name="file:/run/aca/x.json", kind="file", pool="file")]))
    seen.bench.sinks[1].look_errors.extend([Reason.IO_ERROR] * 3)
    seen.bench.attempt()
    token = seen.token
    assert token.state is State.EXPIRED
    assert token.summary == "file:/run/aca/x.json: reading or writing failed; nobody knows what its readers find."


def test_hook_that_fails() -> None:
    """A hook that fails is told of; its third failure running needs a person, or a reason that does not pass."""
    hook = HookState("hook 1", FakeHook(), token_config().rotation.backoff)
    seen = Seen(Bench(hooks=[hook]))
    seen.bench.attempt()
    failure = Failure(Step.HOOK, Reason.COMMAND_FAILED, "command reload: exit code 1")
    hook.failures, hook.failing, hook.failure = 2, frozenset({NAME}), failure
    token = seen.token
    assert (token.state, token.needs_a_person, token.runbook) == (State.FAILING, False, "ACATokenRotationFailing")
    assert token.summary.startswith("What is run after a write failed: the command failed; readers are safe for ")
    (told,) = token.hooks
    assert (told.name, told.failures, told.reason) == ("reload", 2, Reason.COMMAND_FAILED)
    hook.failures = 3
    assert seen.token.needs_a_person
    hook.failing = frozenset({"signage"})
    assert (seen.token.state, seen.token.hooks) == (State.READY, [])


def test_token_that_died_early() -> None:
    """A token in use that the API refuses is expired for readers, whatever its times say."""
    verify = {"path": "/api", "every": 60.0}
    from aca_tokend.core.config import VerifyConfig

    config = token_config().model_copy(update={"verify": VerifyConfig(**verify)})  # type: ignore[arg-type]  # as written
    seen = Seen(Bench(config=config))
    seen.bench.attempt()
    seen.bench.endpoint.verify_error = VerifyError(Reason.TOKEN_REFUSED, "acaengine.main: 401")
    seen.bench.clock.advance(60)
    seen.bench.endpoint.broken = DOWN
    seen.bench.attempt()
    token = seen.token
    assert (token.state, token.needs_a_person) == (State.EXPIRED, True)
    assert token.summary == "The token in use is refused before its time; readers are refused."


def test_skipped_attempts_hide_no_failure() -> None:
    """An attempt that made no request does not take the place of the failure before it; after a success it is told."""
    seen = due(rotated())
    seen.bench.endpoint.broken = DOWN
    seen.bench.attempt()
    gate = seen.bench.token.wiring.gate
    for name in ("a", "b", "c"):
        gate.failed(name, seen.bench.clock.now + 100, seen.bench.clock.now, None, 0.5)
    seen.bench.run_for(1)
    assert seen.token.last is not None
    assert seen.token.last.result is Result.FAILED
    fresh = due(rotated())
    for name in ("a", "b", "c"):
        fresh.bench.token.wiring.gate.failed(name, fresh.bench.clock.now + 100, fresh.bench.clock.now, None, 0.5)
    fresh.bench.attempt()
    token = fresh.token
    assert token.last is not None
    assert (token.last.result, token.last.message) == (
        Result.SKIPPED,
        "its endpoint does not work, and one token asks for all",
    )
    assert (token.state, token.runbook) == (State.FAILING, "ACAEndpointDown")


def test_short_lives() -> None:
    """A token that expires before it may be replaced says why, though nothing failed."""
    seen = Seen(Bench(config=token_config(min_interval="1m")))
    seen.bench.endpoint.lifetime = 30.0
    seen.bench.attempt()
    seen.bench.clock.advance(40)
    token = seen.token
    assert token.state is State.EXPIRED
    assert token.summary.startswith("The server's tokens live no longer than min_interval lets them be replaced; ")


def another_account() -> Seen:
    """A restart with another username, while what was published before is valid for two hours."""
    before = rotated()
    config = token_config().model_copy(update={"username": "svc-other"})
    return Seen(Bench(clock=before.bench.clock, sinks=before.bench.sinks, config=config, suffix="-other"))


def test_former_account_while_the_new_one_fails() -> None:
    """While a valid token of the account from before lies there, the state is that of the new one, and says whose."""
    seen = another_account()
    seen.bench.endpoint.broken = DOWN
    seen.bench.attempt()
    token, ends = seen.token, at(seen.bench.clock.wall() + 7200)
    assert (token.state, token.needs_a_person, token.runbook) == (State.FAILING, False, "ACAEndpointDown")
    assert token.summary == (
        "The server cannot be reached; readers are safe with the former account's token for 2 h, until 10:00 UTC."
    )
    assert (token.issued_at, token.safe_until, token.sinks[0].expires_at) == (None, ends, ends)
    seen.bench.clock.advance(7200)
    assert (seen.token.state, seen.token.runbook) == (State.EXPIRED, "ACATokenExpired")
    seen.bench.endpoint.broken = None
    seen.bench.run_for(60)
    assert seen.token.state is State.READY
    assert "former" not in seen.token.summary


def test_former_account_while_the_new_one_is_refused() -> None:
    """A refused credential of the new account suspends, and says that readers have the token of the one before."""
    seen = another_account()
    seen.bench.endpoint.broken = REFUSED
    seen.bench.attempt()
    seen.bench.run_for(60)
    assert (seen.token.state, seen.token.runbook) == (State.SUSPENDED, "ACACredentialsRejected")
    assert "readers are safe with the former account's token for 1 h 59 min" in seen.token.summary


def test_former_account_while_the_new_one_waits() -> None:
    """A token of a new account that waits for another's attempt was looked at: it says for what it waits."""
    seen = another_account()
    seen.bench.shared.client_of(seen.bench.config).first = "another"
    seen.bench.attempt()
    assert seen.token.state is State.READY
    assert seen.token.summary == (
        "Another token tries their client secret first; "
        "readers are safe with the former account's token for 2 h, until 10:00 UTC."
    )


def test_stranger_is_no_former_account() -> None:
    """A valid token that another entry published there is none that readers of this one are safe with."""
    other = Seen(Bench(config=token_config().model_copy(update={"name": "other", "username": "svc-other"})))
    other.bench.attempt()
    seen = Seen(Bench(clock=other.bench.clock, sinks=other.bench.sinks))
    seen.bench.attempt()
    assert (seen.token.state, seen.token.safe_until) == (State.EXPIRED, None)
    assert seen.token.sinks[0].expires_at is None


def test_place_that_cannot_be_read_any_more() -> None:
    """Readers are as safe as what a place held when it was last read, however often it could not be read since."""
    seen = rotated()
    seen.bench.sinks[0].look_errors.extend([Reason.VAULT_SEALED] * 10_000)
    seen.bench.run_for(6000)
    token = seen.token
    assert (token.state, token.runbook) == (State.FAILING, "ACATokenPublishStale")
    assert token.summary.endswith(": Vault is sealed; readers are safe for 20 min, until 10:00 UTC.")
    seen.bench.run_for(1200)
    assert seen.token.state is State.EXPIRED


@pytest.mark.parametrize("step", [Step.LOOK, Step.PUBLISH])
def test_place_that_hangs(step: Step) -> None:
    """A place that does not answer fails until it holds what it should; that is told once, and holds up no other."""
    seen = Seen(Bench(sinks=[MemorySink(), MemorySink(name="file:/run/aca/x.json", kind="file", pool="file")]))
    seen.bench.attempt()
    due(seen)
    if step is Step.LOOK:
        seen.bench.hanging = "file"
    else:
        seen.bench.sinks[0].before_publish = lambda: setattr(seen.bench, "hanging", "file")
    before = seen.token.expires_at
    seen.bench.run_for(300)
    token = seen.token
    assert (token.state, token.runbook, token.safe_until) == (State.FAILING, "ACATokenPublishStale", before)
    assert token.summary.startswith("file:/run/aca/x.json: the file system gave no answer in time; readers are safe ")
    well, hung = token.sinks
    assert well.ok
    assert (hung.ok, hung.step, hung.reason, hung.expires_at) == (False, step, Reason.TIMEOUT, before)
    assert [told.sink for told in seen.bench.told(Published) if told.failure] == ["file:/run/aca/x.json"]

    seen.bench.answer_late()
    seen.bench.attempt()
    assert seen.token.state is State.READY
    assert seen.bench.sinks[1].content == seen.bench.sinks[0].content
    assert [told.recovered for told in seen.bench.told(Published)][-1]


def test_next_attempt_before_a_grant_can_be_due() -> None:
    """Where a reference of the account fails, or the API that tries a token, that is what is tried next."""
    from aca_tokend.core.config import EnvReference, VerifyConfig

    named = Seen(Bench(config=token_config().model_copy(update={"username": EnvReference(env="NAME")})))
    verify = VerifyConfig(path="/api")
    pending = Seen(Bench(config=token_config().model_copy(update={"verify": verify})))
    pending.bench.attempt()
    due(pending)
    pending.bench.endpoint.verify_error = VerifyError(Reason.UNAVAILABLE, "acaengine.main: 503")
    for seen in (named, pending):
        seen.bench.attempt()
        assert seen.bench.facts.trouble is not None
        again = seen.bench.facts.trouble.again_at(seen.bench.config)
        assert seen.token.next_attempt_at == at(seen.bench.clock.offset + again)

    facts, now = pending.bench.facts, pending.bench.clock.now
    assert facts.held is not None
    replicas = facts.held._replace(issued_at=now - 1000.0, lifetime=1600.0)  # adopted since, issued before it
    pending.bench.token.facts = facts._replace(held=replicas, trouble=None)
    assert pending.token.next_attempt_at == at(pending.bench.clock.offset + need_at(pending.bench.facts))


# ── endpoints, Vaults, the daemon ─────────────────────────────────────────────────────────────────────────────────────


def test_endpoint_that_is_down() -> None:
    """An endpoint tells that it is down, how its breaker is, who waits, and that attempts may mend it."""
    seen = due(rotated())
    seen.bench.endpoint.broken = DOWN
    seen.bench.attempt()
    gate, now = seen.bench.token.wiring.gate, seen.bench.clock.now
    for name in ("a", "b"):
        gate.failed(name, now + 100, now, None, 0.5)
    (endpoint,) = seen.page().endpoints
    assert (endpoint.up, endpoint.reason, endpoint.runbook) == (False, Reason.CONNECT_FAILED, "ACAEndpointDown")
    assert endpoint.summary == "The server cannot be reached; 3 tokens wait for it."
    assert (endpoint.breaker, endpoint.waiting, endpoint.tokens) == (Circuit.OPEN, 3, 1)
    assert endpoint.held_until is not None
    assert not endpoint.needs_a_person
    gate.admit("a", now + 100, now + 50)
    (endpoint,) = seen.page(monotonic=now + 50, wall=seen.bench.clock.wall() + 50).endpoints
    assert (endpoint.breaker, endpoint.held_until) == (Circuit.PROBING, None)
    seen.bench.endpoint.broken = None
    gate.answered("a", now)
    seen.bench.clock.advance(60)
    seen.bench.attempt()
    (endpoint,) = seen.page().endpoints
    assert (endpoint.up, endpoint.summary, endpoint.breaker) == (True, None, Circuit.CLOSED)


def test_endpoint_that_attempts_do_not_mend() -> None:
    """An endpoint whose certificate does not hold needs a person; a refused credential says nothing against it."""
    seen = due(rotated())
    seen.bench.endpoint.broken = GrantError(Reason.TLS_FAILED, "acaengine.main: TLS failed")
    seen.bench.attempt()
    page = seen.page()
    assert page.endpoints[0].needs_a_person
    assert page.needs_a_person
    refused = due(rotated())
    refused.bench.endpoint.broken = REFUSED
    refused.bench.run_for(60)
    assert refused.page().endpoints[0].summary is None


def test_secret_in_a_vault_is_not_the_fault_of_the_endpoint() -> None:
    """An attempt record that cannot be written says nothing against the endpoint."""
    seen = Seen()
    seen.bench.sinks[0].record_errors.extend([Reason.VAULT_SEALED] * 9)
    seen.bench.attempt()
    assert seen.page().endpoints[0].summary is None
    assert seen.token.summary == (
        "The attempt record cannot be used, so nothing is tried: Vault is sealed; readers find no valid token."
    )


@pytest.mark.parametrize(("skew", "way"), [(300.0, "ahead of"), (-300.0, "behind")])
def test_clock_that_is_wrong(skew: float, way: str) -> None:
    """Clocks that are half a minute apart need a person."""
    seen = rotated()
    seen.watched.skew["main"] = skew
    (endpoint,) = seen.page().endpoints
    assert (endpoint.needs_a_person, endpoint.runbook, endpoint.clock_skew_seconds) == (True, "ACAClockSkew", skew)
    assert endpoint.summary == f"Its clock is 5 min {way} ours."


def test_endpoint_that_is_too_slow() -> None:
    """An endpoint that falls behind says how much is due and how much it gives."""
    seen = rotated()
    seen.watched.loads["main"] = Load(due_per_second=3.0, seconds_each=4.0, at_once=8, busy=1.0)
    (endpoint,) = seen.page().endpoints
    assert (endpoint.demand_ratio, endpoint.needs_a_person) == (1.5, True)
    assert endpoint.summary == "It gives 2.0 tokens a second, and 3.0 are due."


def test_vault_that_refuses_the_log_in() -> None:
    """A refused log-in needs a person; one that is not answered does not by itself; a success ends both."""
    seen = rotated()
    (vault,) = seen.page().vaults
    assert (vault.name, vault.method, vault.logged_in, vault.summary) == ("main", "token", False, None)
    seen.watched.observe_login(LoginFailed("main", "token", Reason.VAULT_LOGIN_FAILED, "vault main: log-in", 1.0, 1.0))
    (vault,) = seen.page().vaults
    assert (vault.needs_a_person, vault.runbook, vault.summary) == (
        True,
        "ACAVaultLoginFailing",
        "Vault refuses our log-in.",
    )
    seen.watched.observe_login(LoginFailed("main", "token", Reason.TIMEOUT, "vault main: log-in", 1.0, 1.0))
    assert not seen.page().vaults[0].needs_a_person
    seen.watched.observe_login(LoggedIn("main", "token", None, 1.0))
    assert seen.page().vaults[0].summary is None


def test_vault_token_that_is_not_renewed() -> None:
    """Our own token that cannot be renewed says until when it lasts."""
    seen = rotated()
    ends = seen.bench.clock.wall() + 3600
    seen.watched.observe_login(RenewalFailed("main", Reason.VAULT_LOGIN_FAILED, "vault main: our token", ends))
    (vault,) = seen.page().vaults
    assert vault.summary == "Our own token was not renewed, and expires at 09:00 UTC."
    assert vault.needs_a_person


def test_vault_that_is_sealed() -> None:
    """A Vault that is sealed while we hold a token there is told by the places that cannot be written."""
    seen = due(rotated())
    seen.bench.sinks[0].publish_errors.extend([Reason.VAULT_SEALED] * 3)
    seen.bench.attempt()
    (vault,) = seen.page().vaults
    assert (vault.failing, vault.reason, vault.needs_a_person) == (1, Reason.VAULT_SEALED, True)
    assert vault.summary == "Vault is sealed; 1 token cannot be published there."


def test_daemon_and_configuration() -> None:
    """What a restart would mend, and a configuration that was rejected, need a person though every token is well."""
    seen = rotated()
    page = seen.page()
    assert (page.needs_a_person, page.need_a_person) == (False, 0)
    assert (page.daemon.tokens, page.daemon.not_ready, page.daemon.config.ok) == (1, 0, True)
    assert page.daemon.started_at == page.daemon.config.loaded_at == at(seen.bench.clock.wall())
    ill = seen.page(unhealthy=("calls: 1 pools",))
    assert (ill.needs_a_person, ill.daemon.problems) == (True, ["calls: 1 pools"])
    rejected = seen.page(rejected=(Problem("c.toml", "tokens[0].name", "missing", "add name"),))
    assert rejected.needs_a_person
    assert rejected.daemon.config.problems == ["c.toml: tokens[0].name: missing; add name"]
    assert rejected.daemon.config.runbook == "ACAConfigReloadFailed"
    seen.bench.clock.advance(5)
    seen.watched.observe_reload(False)
    seen.watched.observe_reload(True)
    assert seen.page().daemon.config.loaded_at == at(seen.bench.clock.wall())


def test_what_left_is_forgotten() -> None:
    """What was known of an endpoint or a Vault says nothing of another that bears its name."""
    seen = due(rotated())
    seen.bench.endpoint.broken = DOWN
    seen.bench.attempt()
    seen.watched.observe_login(LoginFailed("main", "token", Reason.TIMEOUT, "vault main: log-in", 1.0, 1.0))
    assert seen.token.last is not None
    seen.watched.follow(["main"], ["main"], [NAME])
    page = seen.page()
    assert page.tokens[0].last is None
    assert (page.endpoints[0].up, page.endpoints[0].summary) == (None, None)
    assert page.vaults[0].summary is None


def test_late_answer_of_an_endpoint_that_changed() -> None:
    """What an attempt tells that began before a reload says nothing of the endpoint that bears that name by now."""
    seen = due(rotated())
    seen.bench.shared.forget_endpoint("main")
    seen.watched.follow(["main"], [], [])
    seen.bench.endpoint.broken = DOWN
    seen.bench.attempt()
    (endpoint,) = seen.page().endpoints
    assert (endpoint.up, endpoint.summary, endpoint.clock_skew_seconds) == (None, None, None)
    assert seen.token.last is not None
    assert seen.token.last.result == "failed", "of the token it is told"


# ── what is asked for ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_user_names_are_hidden() -> None:
    """With `admin.show_usernames = false` no answer holds a user name."""
    seen = Seen(config=configured(admin={"show_usernames": False}))
    seen.bench.attempt()
    page = token_page(seen.subject(), NAME)
    assert seen.token.username is None
    assert b"svc-bookings" not in STATUS.dump_json(seen.page()) + TOKEN.dump_json(page)  # type: ignore[arg-type]


def test_user_name_by_reference() -> None:
    """A user name that stands elsewhere is known from the token that was granted with it."""
    from aca_tokend.core.config import EnvReference

    config = token_config().model_copy(update={"username": EnvReference(env="NAME")})
    seen = Seen(Bench(config=config))
    seen.bench.secrets.values["NAME"] = "svc-elsewhere"
    assert seen.token.username is None
    seen.bench.attempt()
    assert seen.token.username == "svc-elsewhere"


def test_no_secret_is_told() -> None:
    """No answer holds the password, the client secret or the access token."""
    seen = Seen()
    seen.bench.secrets.values.update(PASSWORD=CANARY, CLIENT_SECRET=CANARY)
    seen.bench.attempt()
    document = seen.bench.document
    assert document is not None
    told = STATUS.dump_json(seen.page()).decode()
    assert CANARY not in told
    assert document.access_token.reveal() not in told
    assert Secret(CANARY).reveal() not in repr(seen.watched) + repr(seen.bench.facts)


def test_token_that_is_not_here() -> None:
    """A token of another shard is answered with that shard; an unknown one is unknown."""
    seen = rotated()
    assert token_page(seen.subject(), "nowhere") == ApiError(
        "name", "is no token of this configuration", "ask for all of them to see the names"
    )
    sharded = Seen(config=configured(shard={"count": 4, "index": 0}))
    found = token_page(sharded.subject(shard=0, everywhere=("signage", NAME)), "signage")
    assert found == ApiError("name", "is kept by shard 2 of 4, and this is shard 0", "ask the daemon of shard 2", 2)
    page = sharded.page(shard=3)
    assert (page.daemon.shard, page.daemon.shards, page.tokens[0].shard) == (3, 4, 3)


def test_token_whose_endpoint_is_about_to_change() -> None:
    """A token that has not taken up a reload that renamed its endpoint can still be asked for."""
    seen = rotated()
    renamed = configured(acaengine={"other": {"url": "https://aca.example.com"}})
    page = token_page(seen.subject(config=renamed), NAME)
    assert not isinstance(page, ApiError)
    assert (page.token.endpoint, page.endpoint.name) == ("main", "other")
    gone = renamed.model_copy(update={"tokens": ()})
    assert isinstance(token_page(seen.subject(config=gone), NAME), ApiError)


def test_token_page_has_what_it_depends_on() -> None:
    """The page of one token has its endpoint and the Vaults that it is published to."""
    page: TokenPage | ApiError = token_page(rotated().subject(), NAME)
    assert not isinstance(page, ApiError)
    assert (page.endpoint.name, [vault.name for vault in page.vaults]) == ("main", ["main"])


def test_search_and_states() -> None:
    """A query finds parts of names in either case, and states; the counts are of all tokens."""
    seen = rotated()
    other = Seen(Bench(config=token_config().model_copy(update={"name": "Signage-West"})))
    seen.more["Signage-West"] = other.bench.token
    found = seen.page(Query(search="WEST"))
    assert [token.name for token in found.tokens] == ["Signage-West"]
    assert (found.matching, found.counts[State.READY], found.counts[State.STARTING]) == (1, 1, 1)
    ready = seen.page(Query(states=frozenset({State.READY})))
    assert [token.name for token in ready.tokens] == [NAME]
    both = seen.page(Query(per_page=1, page=2))
    assert ([token.name for token in both.tokens], both.pages, both.matching) == ([NAME], 2, 2)
    assert seen.page(Query(page=9)).tokens == []


def test_sorted_worst_first() -> None:
    """Worse states come first, and within one what expires sooner."""
    seen = rotated()
    late = Seen(Bench(clock=seen.bench.clock, config=token_config().model_copy(update={"name": "a-later"})))
    seen.bench.clock.advance(10)
    late.bench.attempt()
    starting = Seen(Bench(clock=seen.bench.clock, config=token_config().model_copy(update={"name": "z-starting"})))
    seen.more = {"a-later": late.bench.token, "z-starting": starting.bench.token}
    assert [token.name for token in seen.page().tokens] == ["z-starting", NAME, "a-later"]


def test_times_are_of_the_clock_as_it_goes_now() -> None:
    """A clock that was stepped since a token was granted moves its rotation point and expiry with it."""
    seen = rotated()
    before = seen.token.expires_at
    seen.bench.clock.step(3600)
    assert before is not None
    assert seen.token.expires_at == seen.token.safe_until == before + timedelta(seconds=3600)
    assert seen.token.state is State.READY
