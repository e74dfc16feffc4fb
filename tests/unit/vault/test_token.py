"""Our own Vault token: log-in, log-in again, renewal, what is done after a refusal, and what is revoked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import AppRoleAuth, EnvReference
from aca_tokend.core.errors import PublishError, VaultLoginError
from aca_tokend.core.login import LoggedIn, LoginFailed, OwnToken, RenewalFailed, Renewed
from aca_tokend.core.outcome import Reason
from tests.unit.scripted_server import response
from tests.unit.vault.bench import FIRST, HELD, LOGIN, LONG, PATH, SECOND, SECRET, SECRET_ID, assert_hidden, bench
from tests.unit.vault.stub import CAPABILITIES, DENIED, LOOKUP, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.vault.bench import Bench
    from tests.unit.vault.stub import Asked, VaultStub

RENEW = "/v1/auth/token/renew-self"
REVOKE = "/v1/auth/token/revoke-self"


@pytest.fixture
def by_approle(stub: VaultStub) -> Iterator[Bench]:
    """A session that logs in by approle, and gets tokens that live for 90 seconds."""
    stub.always(LOGIN, granted())
    with bench(stub.address, AppRoleAuth(role_id="role-1", secret_id=EnvReference(env="SECRET_ID"))) as made:
        yield made


def granted(token: str = SECOND, seconds: int = 90, **more: Any) -> bytes:  # noqa: ANN401  # anything that is JSON
    """The answer to a log-in or a renewal."""
    return answer(200, {"auth": {"client_token": token, "lease_duration": seconds, "renewable": True, **more}})


def only_for(token: str) -> Any:  # noqa: ANN401  # a rule of the stub
    """A rule: the held secret for this token, 403 for any other."""
    return lambda asked: HELD if asked.token == token else answer(403, DENIED)


# Log-in


def test_log_in_when_first_used(stub: VaultStub, by_token: Bench) -> None:
    """Nothing is asked of Vault or of the secrets before the first call; after it the token is known to live."""
    assert (stub.asked, by_token.keeper.resolved, by_token.session.expires_at) == ([], [], None)
    assert by_token.read().fields == {"password": SECRET, "pin": 7}
    by_token.read()
    assert [asked.path for asked in stub.asked] == [LOOKUP, PATH, PATH]
    assert {asked.token for asked in stub.asked} == {FIRST}
    assert by_token.session.expires_at == by_token.clock.wall() + 3600
    assert by_token.logins == [("succeeded", 3600)]


def test_token_that_never_expires(stub: VaultStub, by_token: Bench) -> None:
    """A token without an end, which Vault says as 0, has no expiry here either."""
    stub.always(LOOKUP, answer(200, {"data": {"ttl": 0}}))
    by_token.read()
    assert by_token.session.expires_at is None
    assert by_token.logins == [("succeeded", None)]


def test_dead_token_is_read_again(stub: VaultStub, by_token: Bench) -> None:
    """Once our token is dead the reference is resolved again, and the call goes through with what it gives now."""
    by_token.read()
    stub.rules[PATH] = only_for(SECOND)
    stub.rules[LOOKUP] = lambda asked: (
        answer(200, {"data": {"ttl": 60}}) if asked.token == SECOND else answer(403, DENIED)
    )
    by_token.keeper.values["VAULT_TOKEN"] = SECOND
    assert by_token.read().version == 3
    assert [asked.path for asked in stub.asked[2:]] == [PATH, CAPABILITIES, LOOKUP, PATH]
    assert by_token.logins[-1] == ("succeeded", 60)


def test_dead_token_and_nothing_better(stub: VaultStub, by_token: Bench) -> None:
    """A token that is dead and was not replaced fails the log-in; it is asked about again once the hold-off is over."""
    by_token.read()
    stub.always(PATH, answer(403, DENIED))
    stub.always(LOOKUP, answer(403, DENIED))
    for _ in range(2):
        error = by_token.failure()
        assert error.reason is Reason.VAULT_LOGIN_FAILED
        assert str(error) == (
            "vault main: log-in by token: permission denied (HTTP 403); it is expired, revoked or of another Vault or "
            "namespace; put a valid one where the reference points"
        )
        by_token.clock.advance(60)
    assert [result for result, _ in by_token.logins] == ["succeeded", "failed", "failed"]
    assert by_token.session.expires_at is None


def test_token_that_looks_dead_serves_until_there_is_another(stub: VaultStub, by_approle: Bench) -> None:
    """A policy without `default` makes a token look dead at one path: it is kept alive until a log-in succeeds.

    Else a secret id that is used up would fail every token of the Vault, while the one that we hold still works.
    """
    stub.always(RENEW, granted())
    by_approle.read()
    forbidden = stub.rules.pop(PATH)
    stub.always(PATH, answer(403, DENIED))
    stub.always(LOOKUP, answer(403, DENIED))
    stub.always(LOGIN, answer(400, {"errors": ["invalid secret id"]}))
    assert by_approle.failure().reason is Reason.VAULT_LOGIN_FAILED
    assert not by_approle.session.logged_in

    stub.rules[PATH] = forbidden  # a path that is allowed
    assert by_approle.read().version == 3
    by_approle.keep_until(600)
    assert by_approle.read().version == 3
    assert stub.count(RENEW) > 5

    stub.always(REVOKE, answer(204))
    stub.always(LOGIN, granted("canary-vault-token-3"))
    by_approle.keeper.values["SECRET_ID"] = "canary-secret-id-2"
    by_approle.keep_until(10)
    by_approle.read()
    assert stub.asked[-1].token == "canary-vault-token-3"
    assert [asked.token for asked in stub.asked if asked.path == REVOKE] == [SECOND], "what was superseded is revoked"


def test_live_token_that_policy_denies(stub: VaultStub, by_approle: Bench) -> None:
    """A 403 with a token that lives comes from the policy: no log-in is made."""
    stub.always(PATH, answer(403, DENIED))
    assert by_approle.failure().reason is Reason.PERMISSION_DENIED
    with pytest.raises(PublishError) as caught:
        by_approle.session.write_kv("secret", "aca/bookings", {"password": SECRET}, 0)
    assert_hidden(caught.value)
    assert stub.count(LOGIN) == 1


def test_denied_after_a_new_log_in_too(stub: VaultStub, by_approle: Bench) -> None:
    """A call is sent again only once: denied with a brand-new token, it is denied."""
    stub.always(PATH, answer(403, DENIED))
    stub.always(LOOKUP, answer(403, DENIED))
    assert by_approle.failure().reason is Reason.PERMISSION_DENIED
    assert (stub.count(LOGIN), stub.count(PATH)) == (2, 2)

    for _ in range(5):
        assert "the policy default would let Vault say what is missing" in str(by_approle.failure())
    assert (stub.count(LOGIN), stub.count(PATH)) == (2, 7), "no further token is asked for"
    by_approle.clock.now += 61
    by_approle.failure()
    assert stub.count(LOGIN) == 3


def test_approle(stub: VaultStub, by_approle: Bench) -> None:
    """An approle log-in sends role and secret id without a token, and uses the token it gets until it expires."""
    by_approle.read()
    login, read = stub.asked
    assert (login.method, login.path, login.token) == ("POST", LOGIN, None)
    assert login.body == {"role_id": "role-1", "secret_id": SECRET_ID}
    assert read.token == SECOND
    assert by_approle.logins == [("succeeded", 90)]
    assert by_approle.session.expires_at == by_approle.clock.wall() + 90


def test_approle_elsewhere(stub: VaultStub) -> None:
    """The role id may be a reference, the method may be mounted elsewhere, and all goes into the namespace."""
    stub.always("/v1/auth/team/approle/login", granted(seconds=0))
    auth = AppRoleAuth(
        role_id=EnvReference(env="ROLE_ID"), secret_id=EnvReference(env="SECRET_ID"), mount="team/approle"
    )
    with bench(stub.address, auth, namespace="team-a") as made:
        made.read()
        assert made.session.expires_at is None
    assert stub.asked[0].body["role_id"] == "role-1"
    assert {asked.headers["x-vault-namespace"] for asked in stub.asked} == {"team-a"}


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, {"errors": ["invalid role or secret ID"]}, Reason.VAULT_LOGIN_FAILED),
        (403, DENIED, Reason.VAULT_LOGIN_FAILED),
        (
            404,
            {"errors": ['no handler for route "auth/approle/login". route entry not found.']},
            Reason.VAULT_LOGIN_FAILED,
        ),
        (200, {"auth": None}, Reason.VAULT_LOGIN_FAILED),
        (200, {"auth": {"client_token": f"{SECOND}\r\nX-Evil: 1", "lease_duration": 1}}, Reason.VAULT_LOGIN_FAILED),
        (204, None, Reason.VAULT_LOGIN_FAILED),
        (429, {"errors": ["slow down"]}, Reason.RATE_LIMITED),
        (500, {"errors": [SECRET_ID]}, Reason.SERVER_ERROR),
        (503, {"errors": ["Vault is sealed"]}, Reason.VAULT_SEALED),
    ],
)
def test_log_in_is_refused(stub: VaultStub, by_approle: Bench, status: int, body: object, reason: Reason) -> None:
    """A log-in that fails says so, tells a refusal from a Vault that cannot answer, and leaves no token."""
    stub.always(LOGIN, answer(status, body))
    error = by_approle.failure()
    assert error.reason is reason
    assert str(error).startswith("vault main: log-in by approle at auth/approle: ")
    assert by_approle.logins == [("failed", None)]
    assert stub.count(PATH) == 0


def test_log_in_without_its_secret(stub: VaultStub, by_approle: Bench) -> None:
    """Where the reference does not resolve the log-in fails with the reference's reason, and Vault is not asked."""
    del by_approle.keeper.values["SECRET_ID"]
    error = by_approle.failure()
    assert error.reason is Reason.SECRET_MISSING
    assert str(error) == "vault main: log-in by approle at auth/approle: env SECRET_ID is not set"
    assert stub.asked == []


@pytest.mark.parametrize("token", ["", "canary\n", "canary token", "canary\u20ac", "canary\x00"])
def test_token_that_cannot_be_one(stub: VaultStub, by_token: Bench, token: str) -> None:
    """What cannot be a token is never put into a header: an error about the header would show it."""
    by_token.keeper.values["VAULT_TOKEN"] = token
    error = by_token.failure()
    assert error.reason is Reason.VAULT_LOGIN_FAILED
    assert stub.asked == []


def test_threads_that_meet_a_dead_token_log_in_once(stub: VaultStub, by_approle: Bench) -> None:
    """However many threads find the token dead at the same moment, there is one log-in, and every call goes through."""
    threads = 6
    by_approle.read()
    tokens = iter(["canary-vault-token-3", "canary-vault-token-4"])
    together = threading.Barrier(threads)

    def denied_together(asked: Asked) -> bytes:
        if asked.token == SECOND:
            together.wait(LONG)
            return answer(403, DENIED)
        return HELD

    stub.rules[PATH] = denied_together
    stub.rules[LOOKUP] = lambda asked: (
        answer(403, DENIED) if asked.token == SECOND else answer(200, {"data": {"ttl": 1}})
    )
    stub.rules[LOGIN] = lambda _: answer(200, {"auth": {"client_token": next(tokens), "lease_duration": 90}})
    with ThreadPoolExecutor(threads) as pool:
        reads = [pool.submit(by_approle.read) for _ in range(threads)]
        assert {read.result().version for read in reads} == {3}
    assert stub.count(LOGIN) == 2


def test_threads_share_a_failed_log_in(stub: VaultStub, by_approle: Bench) -> None:
    """A Vault that refuses the log-in is asked once for all threads that wait for it, each of which fails by itself."""
    threads = 6
    by_approle.read()
    together = threading.Barrier(threads)

    def denied_together(_: Asked) -> bytes:
        together.wait(LONG)
        return answer(403, DENIED)

    stub.rules[PATH] = denied_together
    stub.always(LOOKUP, answer(403, DENIED))
    stub.always(LOGIN, answer(503, {"errors": []}))
    with ThreadPoolExecutor(threads) as pool:
        errors = list(pool.map(lambda _: by_approle.failure(), range(threads)))
    assert {error.reason for error in errors} == {Reason.UNAVAILABLE}
    assert len({id(error.__cause__) for error in errors}) == threads
    assert stub.count(LOGIN) == 2


# Renewal


def test_renewed_at_two_thirds(stub: VaultStub, by_approle: Bench) -> None:
    """Our token is renewed at about two thirds of its life, again and again, and no log-in is needed."""
    stub.always(RENEW, granted())
    by_approle.read()
    by_approle.keep_until(300)
    assert stub.count(LOGIN) == 1
    assert stub.count(RENEW) == 5
    renewed = [event for event in by_approle.told if isinstance(event, Renewed)]
    assert len(renewed) == 5
    assert {asked.token for asked in stub.asked if asked.path == RENEW} == {SECOND}
    assert by_approle.session.expires_at is not None
    assert by_approle.session.expires_at > by_approle.clock.wall() + 20


def test_nothing_to_keep(stub: VaultStub, by_approle: Bench) -> None:
    """A Vault that nobody has used yet is not logged in to."""
    assert by_approle.session.keep() == float("inf")
    assert stub.asked == []


@pytest.mark.parametrize("renewal", [granted(seconds=33), answer(400, {"errors": ["canary"]}), answer(403, DENIED)])
def test_renewal_that_does_not_help(stub: VaultStub, by_approle: Bench, renewal: bytes) -> None:
    """A renewal that is refused, or meets the longest life, is followed by a log-in while the old token serves."""
    stub.always(RENEW, renewal)
    by_approle.read()
    began = by_approle.clock.now
    stub.always(LOGIN, granted("canary-vault-token-3"))
    by_approle.keep_until(85)
    assert (stub.count(RENEW), stub.count(LOGIN)) == (1, 2)
    logged_in = [event for event in by_approle.told if isinstance(event, LoggedIn)]
    assert logged_in[1].keep_at - began < 150
    by_approle.read()
    assert stub.asked[-1].token == "canary-vault-token-3"


@pytest.mark.parametrize("more", [{"renewable": False}, {"renewable": False, "token_type": "batch"}])
def test_token_that_cannot_be_renewed(stub: VaultStub, by_approle: Bench, more: dict[str, Any]) -> None:
    """A token that cannot be renewed, as a batch token cannot, is replaced at two thirds of its life by a log-in."""
    stub.always(LOGIN, granted(**more))
    by_approle.read()
    by_approle.keep_until(85)
    assert (stub.count(RENEW), stub.count(LOGIN)) == (0, 2)


def test_renewal_without_an_answer(stub: VaultStub, by_approle: Bench) -> None:
    """While renewals get no answer the live token serves on, it is told of once, and one that succeeds ends it."""
    stub.always(RENEW, answer(503, {"errors": []}))
    by_approle.read()
    by_approle.keep_until(80)
    by_approle.read()
    assert stub.count(LOGIN) == 1
    (failed,) = [event for event in by_approle.told if isinstance(event, RenewalFailed)]
    assert stub.count(RENEW) > 2
    assert (failed.reason, failed.message) == (
        Reason.UNAVAILABLE,
        "vault main: renewal of our token: not available (HTTP 503)",
    )
    stub.always(RENEW, granted())
    by_approle.keep_until(9)
    assert isinstance(by_approle.told[-1], Renewed)


def test_renewal_fails_until_the_end(stub: VaultStub, by_approle: Bench) -> None:
    """A token that expires because it could not be renewed is replaced by a log-in."""
    stub.always(RENEW, answer(503, {"errors": []}))
    by_approle.read()
    by_approle.keep_until(91)
    assert stub.count(LOGIN) == 2


def test_log_in_again_fails(stub: VaultStub, by_approle: Bench) -> None:
    """Where the log-in that should replace our token fails, the token serves on, and the log-in is tried again."""
    stub.always(LOGIN, granted(renewable=False))
    by_approle.read()
    stub.always(LOGIN, answer(503, {"errors": []}))
    by_approle.keep_until(80)
    by_approle.read()
    assert stub.asked[-1].token == SECOND
    assert stub.count(LOGIN) > 5
    stub.always(LOGIN, granted("canary-vault-token-3"))
    by_approle.keep_until(5)
    by_approle.read()
    assert stub.asked[-1].token == "canary-vault-token-3"
    recovered = [event for event in by_approle.told if isinstance(event, LoggedIn)][-1]
    assert recovered.recovered


# A token that is given to us


def test_given_token_is_renewed(stub: VaultStub, by_token: Bench) -> None:
    """A periodic token that was given to us is renewed, and so lives for ever."""
    stub.always(LOOKUP, answer(200, {"data": {"ttl": 90, "renewable": True, "expire_time": "2026"}}))
    stub.always(RENEW, granted(FIRST))
    by_token.read()
    by_token.keep_until(600)
    assert stub.count(LOOKUP) == 1
    assert 9 < stub.count(RENEW) < 13


def test_given_token_is_replaced(stub: VaultStub, by_token: Bench) -> None:
    """Where the reference holds another token by the time of a renewal, that one is used."""
    stub.always(LOOKUP, answer(200, {"data": {"ttl": 90, "renewable": True, "expire_time": "2026"}}))
    stub.always(RENEW, granted(SECOND))
    by_token.read()
    by_token.keeper.values["VAULT_TOKEN"] = SECOND
    by_token.keep_until(65)
    by_token.read()
    assert stub.asked[-1].token == SECOND
    assert stub.count(RENEW) == 0


def test_given_token_that_cannot_be_renewed(stub: VaultStub, by_token: Bench) -> None:
    """One that cannot be renewed is told of once, and another is taken up within seconds, before the first expires."""
    stub.always(LOOKUP, answer(200, {"data": {"ttl": 90, "renewable": False, "expire_time": "2026"}}))
    by_token.read()
    by_token.keep_until(80)
    (told,) = [event for event in by_token.told if isinstance(event, RenewalFailed)]
    assert "put another one where the reference points" in told.message
    assert stub.count(RENEW) == 0
    by_token.keeper.values["VAULT_TOKEN"] = SECOND
    by_token.keep_until(5)
    by_token.read()
    assert stub.asked[-1].token == SECOND


def test_given_token_expires_within_the_second(stub: VaultStub, by_token: Bench) -> None:
    """A lifetime of 0 is only that of a token without an end where Vault names no end."""
    stub.always(LOOKUP, answer(200, {"data": {"ttl": 0, "expire_time": "2026-11-24T10:00:00Z"}}))
    by_token.read()
    assert by_token.logins == [("succeeded", 0)]


# After a failure


def test_held_off(stub: VaultStub, by_approle: Bench) -> None:
    """For a while after a failed log-in every caller gets its error at once, with when to come again; none is made."""
    stub.always(LOGIN, answer(503, {"errors": []}))
    first, second = by_approle.failure(), by_approle.failure()
    assert stub.count(LOGIN) == 1
    assert (first.reason, first.message) == (second.reason, second.message)
    assert second.retry_after_seconds is not None
    assert 0 < second.retry_after_seconds <= 0.5
    by_approle.clock.advance(0.6)
    stub.always(LOGIN, granted())
    assert by_approle.read().version == 3


def test_vault_that_is_back(stub: VaultStub, by_approle: Bench) -> None:
    """After an outage of minutes the log-in succeeds within two seconds, though nobody asks for it."""
    stub.always(LOGIN, answer(503, {"errors": []}))
    by_approle.failure()
    by_approle.keep_until(300)
    asked = stub.count(LOGIN)
    stub.always(LOGIN, granted())
    by_approle.keep_until(2)
    assert stub.count(LOGIN) == asked + 1
    assert isinstance(by_approle.told[-1], LoggedIn)
    assert by_approle.told[-1].recovered


def refuse(stub: VaultStub) -> None:
    """From now on Vault refuses the secret id."""
    stub.rules[LOGIN] = lambda asked: (
        answer(400, {"errors": ["invalid role or secret ID"]})
        if asked.body["secret_id"] == SECRET_ID
        else granted("canary-vault-token-3")
    )


def test_refused_twice(stub: VaultStub, by_approle: Bench) -> None:
    """A wrong secret id is sent twice in an hour, whoever asks; a changed one is taken up within five seconds."""
    refuse(stub)
    by_approle.failure()
    by_approle.keep_until(3000)
    error = by_approle.failure()
    assert error.reason is Reason.VAULT_LOGIN_FAILED
    assert "is not sent again before it changes" in error.message
    assert error.retry_after_seconds is not None
    assert error.retry_after_seconds > 500
    assert stub.count(LOGIN) == 2
    failed = [event for event in by_approle.told if isinstance(event, LoginFailed)]
    assert [event.suspended for event in failed] == [False, True]
    by_approle.keeper.values["SECRET_ID"] = "canary-secret-id-2"
    by_approle.keep_until(5)
    assert by_approle.read().version == 3
    assert stub.count(LOGIN) == 3


def test_refused_by_something_before_vault(stub: VaultStub, by_approle: Bench) -> None:
    """A refusal of a proxy says nothing of the secret id: the log-in is tried again soon."""
    stub.always(LOGIN, response(400, b"<html>Bad Request"))
    assert by_approle.failure().reason is Reason.UNEXPECTED_STATUS
    by_approle.keep_until(300)
    assert stub.count(LOGIN) > 100
    assert not any(event.suspended for event in by_approle.told if isinstance(event, LoginFailed))


def test_refused_an_hour_ago(stub: VaultStub, by_approle: Bench) -> None:
    """After an hour one attempt more is made with the same secret id."""
    refuse(stub)
    by_approle.failure()
    by_approle.keep_until(3590)
    assert stub.count(LOGIN) == 2
    by_approle.keep_until(20)
    assert stub.count(LOGIN) == 3
    by_approle.keep_until(3590)
    assert stub.count(LOGIN) == 3


def test_refused_and_asked_to_retry(stub: VaultStub, by_approle: Bench) -> None:
    """Who reloads by hand has mended something: the same secret id is tried again at once."""
    refuse(stub)
    by_approle.failure()
    by_approle.keep_until(60)
    stub.always(LOGIN, granted())
    by_approle.session.retry()
    by_approle.session.keep()
    assert by_approle.read().version == 3


def test_refused_and_out_of_reach(stub: VaultStub, by_approle: Bench) -> None:
    """A refused secret id that vanishes for a while and comes back the same is not sent a third time."""
    refuse(stub)
    by_approle.failure()
    by_approle.keep_until(60)
    secret_id = by_approle.keeper.values.pop("SECRET_ID")
    by_approle.keep_until(60)
    by_approle.keeper.values["SECRET_ID"] = secret_id
    by_approle.keep_until(60)
    assert stub.count(LOGIN) == 2
    assert "is not sent again before it changes" in by_approle.failure().message


def test_refused_while_the_old_token_serves(stub: VaultStub, by_approle: Bench) -> None:
    """A secret id that was refused twice while our token still served is not sent again when that one expires."""
    stub.always(LOGIN, granted(renewable=False))
    by_approle.read()
    refuse(stub)
    by_approle.keep_until(3000)
    assert stub.count(LOGIN) == 3
    assert "is not sent again before it changes" in by_approle.failure().message


# What Vault says of it, and its end


def test_own_token(stub: VaultStub, by_approle: Bench) -> None:
    """What Vault says of our token is told in one request, beside the log-in."""
    data = {"ttl": 80, "renewable": True, "type": "service", "policies": ["default", "aca"], "expire_time": "2026"}
    stub.always(LOOKUP, answer(200, {"data": data}))
    expected = OwnToken(80, True, "service", ("default", "aca"), by_approle.clock.wall() + 80)
    assert by_approle.session.own_token() == expected
    assert [asked.path for asked in stub.asked] == [LOGIN, LOOKUP]
    stub.always(LOOKUP, answer(200, {"data": {"ttl": 0, "type": "batch"}}))
    assert by_approle.session.own_token() == OwnToken(None, False, "batch", (), None)
    stub.always(LOOKUP, answer(503, {"errors": ["Vault is sealed"]}))
    with pytest.raises(VaultLoginError) as caught:
        by_approle.session.own_token()
    assert caught.value.reason is Reason.VAULT_SEALED
    assert_hidden(caught.value)


def test_revoked_at_the_end(stub: VaultStub, by_approle: Bench) -> None:
    """A session that is closed revokes the token it logged in for, once, and logs in no more."""
    stub.always(REVOKE, answer(204))
    by_approle.read()
    by_approle.session.close()
    by_approle.session.close()
    assert [asked.token for asked in stub.asked if asked.path == REVOKE] == [SECOND]
    assert by_approle.failure().reason is Reason.VAULT_LOGIN_FAILED
    assert stub.count(LOGIN) == 1
    assert by_approle.session.keep() == float("inf")


def test_not_ours_to_revoke(stub: VaultStub, by_token: Bench, by_approle: Bench) -> None:
    """Neither a token that was given to us nor a batch token is revoked, nor anything where there was no log-in."""
    stub.always(LOGIN, granted(token_type="batch"))
    by_token.read()
    by_approle.read()
    by_token.session.close()
    by_approle.session.close()
    with bench(stub.address):
        pass
    assert stub.count(REVOKE) == 0
