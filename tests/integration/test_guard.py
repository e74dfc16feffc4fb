"""The lockout guard on real parts: two refused attempts in all, whoever is killed, restarted or started beside."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import urllib.parse
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Settings, Stage, wait_until
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, assert_nothing_leaked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aca_tokend.demo.stage import DaemonProcess

ROTATION = 'min_interval = "1s"\nassumed_lifetime = "60s"\nbackoff = { initial = "200ms", cap = "1s" }'
WRONG = Secret("canary-p&ss+w%rd=ü-wrong")
WRONG_CLIENT_SECRET = Secret("canary-client-secret-wrong")
NEW = Secret("canary-p&ss+w%rd=ü-new")
# A poll of what Vault holds comes once a minute.
RECORD_SECONDS = 150.0

KV = """[[tokens.publish]]
to = "vault"
mount = "secret"
path = "aca/bookings"
"""


def refused(stage: Stage) -> int:
    """How many attempts the server has refused, whoever they were for."""
    return sum(stage.lookalike.counts().refused.values())


def attempts(stage: Stage) -> int:
    """How many requests the token endpoint has seen."""
    return stage.lookalike.counts().requests.get("/auth/oauth/token", 0)


def record_in_vault(stage: Stage, path: str) -> Mapping[str, Any]:
    """The attempt record at a path beside a token."""
    kv = stage.bao.client().secrets.kv.v2
    data = kv.read_secret_version(f"aca/{path}", mount_point="secret", raise_on_deleted_version=True)
    record: Mapping[str, Any] = data["data"]["data"]
    return record


def assert_gives_nothing_away(record: object) -> None:
    """No secret that the daemon was given, wrong or right, stands in a record in any form."""
    text = json.dumps(record, ensure_ascii=False)
    for secret in (CANARY_PASSWORD, CANARY_CLIENT_SECRET, WRONG.reveal(), NEW.reveal(), WRONG_CLIENT_SECRET.reveal()):
        for form in (secret, urllib.parse.quote_plus(secret), secret.encode("unicode_escape").decode()):
            assert form not in text
    assert "bookings" not in text, "nor whose attempts they are"


def cannot_lock_out(stage: Stage, start: Callable[[], DaemonProcess], restarts: int, each: int = 0) -> DaemonProcess:
    """Kills and starts a daemon at random moments, and returns the last one, which is left running.

    Two refused attempts at most, and so many more for each further process.
    """
    rng = random.Random()  # noqa: S311 -- moments, not secrets
    daemon = start()
    for number in range(restarts):
        if number % 3 == 2:  # in order, once it is under way
            daemon.wait_for("daemon_started")
            assert daemon.terminate() == 0
        else:  # amid its start, its claim or its request: the moment itself, not a wait for something to happen
            threading.Event().wait(rng.uniform(0.3, 2.5))
            daemon.kill()
        assert refused(stage) <= 2 + each * number, f"after {number + 1} restarts"
        daemon = start()
    return daemon


def test_wrong_password_of_two_daemons(stage: Stage) -> None:
    """Two daemons with a wrong password, one restarted ten times: two refused attempts; mended, it is published."""
    stage.lookalike.levers(lifetime=600.0, latency=0.5)  # so that some are killed with a request under way
    configs = [stage.config(["bookings"], Settings(rotation=ROTATION, suffix=suffix)) for suffix in ("-1", "-2")]
    stage.write_secret("bookings.password", WRONG)
    steady = stage.daemon(configs[0], log="steady.log")

    restarted = cannot_lock_out(stage, lambda: stage.daemon(configs[1], log="restarted.log"), 10)

    for daemon in (steady, restarted):
        daemon.wait_for("token_suspended", token="bookings")
    assert refused(stage) <= 2
    assert attempts(stage) <= 2, "an attempt that nobody saw the end of counts as well"
    assert_gives_nothing_away(record_in_vault(stage, "bookings.attempts"))
    before = refused(stage)

    stage.lookalike.levers(latency=0.0)
    mended = time.monotonic()
    stage.write_secret("bookings.password", stage.passwords.password)
    reader = stage.vault_reader("bookings")
    wait_until(lambda: reader.accepted > 0, "a token that works")
    took = time.monotonic() - mended

    for daemon in (steady, restarted):
        daemon.wait_for("token_resumed", token="bookings", why="the credential changed")
        assert_nothing_leaked(stage, daemon)
        assert WRONG.reveal() not in daemon.text
    assert refused(stage) == before
    print(f"{before} refused attempts in all; published {took:.1f} s after the password was mended")


def test_changed_password_of_a_proven_credential(stage: Stage) -> None:
    """The server's password changes under three daemons that work: two refused attempts in all, over restarts."""
    settings = [Settings(rotation=ROTATION, suffix=suffix) for suffix in ("-1", "-2", "-3")]
    configs = [stage.config(["bookings"], each) for each in settings]
    daemons = [stage.daemon(configs[0], log="first.log")]
    daemons[0].wait_for("token_rotated", 2)
    daemons.append(stage.daemon(configs[1], log="second.log"))
    restarted = stage.daemon(configs[2], log="restarted.log")
    for daemon in (daemons[1], restarted):
        daemon.wait_for("token_adopted")
    stage.lookalike.levers(accounts={"bookings": {"password": NEW.reveal()}})
    wait_until(lambda: refused(stage) > 0, "the first refused attempt")
    restarted.kill()

    daemons.append(cannot_lock_out(stage, lambda: stage.daemon(configs[2], log="restarted.log"), 6))
    for daemon in daemons:
        daemon.wait_for("token_suspended", token="bookings")
    assert refused(stage) <= 2
    assert_gives_nothing_away(record_in_vault(stage, "bookings.attempts"))

    stage.write_secret("bookings.password", NEW)
    reader = stage.vault_reader("bookings")
    wait_until(lambda: reader.accepted > 0, "a token that works")
    assert refused(stage) <= 2


def test_one_cautious_attempt_a_period(stage: Stage) -> None:
    """With `retry_rejected` two daemons make one attempt a period between them, whatever they draw."""
    period = 4.0
    rotation = f'{ROTATION}\nretry_rejected = "{period:g}s"'
    configs = [stage.config(["bookings"], Settings(rotation=rotation, suffix=suffix)) for suffix in ("-1", "-2")]
    stage.write_secret("bookings.password", WRONG)
    for number, config in enumerate(configs):
        stage.daemon(config, log=f"{number}.log")

    wait_until(lambda: refused(stage) >= 5, "three cautious attempts")

    times = [seen.time for seen in stage.lookalike.requests() if seen.path == "/auth/oauth/token"]
    gaps = [later - sooner for sooner, later in pairwise(times[1:])]
    print(f"cautious attempts {', '.join(f'{gap:.1f}' for gap in gaps)} s apart")
    assert min(gaps) > period / 2, "each daemon by itself would ask again in the same moment"


def test_wrong_client_secret_of_many_users(stage: Stage) -> None:
    """One wrong client secret for thirty users costs a process two refused attempts; fixed, all are served."""
    names = [f"svc-{number}" for number in range(30)]
    stage.lookalike.levers(lifetime=600.0)
    config = stage.config(names, Settings(rotation=ROTATION, files=False))
    stage.write_secret("client-secret", WRONG_CLIENT_SECRET)

    daemon = cannot_lock_out(stage, lambda: stage.daemon(config), 5, each=2)

    daemon.wait_for("token_suspended", len(names), reason="invalid_client")
    assert_gives_nothing_away(record_in_vault(stage, "svc-0.attempts"))
    before, wrong = attempts(stage), refused(stage)
    assert wrong <= 2 * 6
    mended = time.monotonic()
    stage.write_secret("client-secret", stage.passwords.client_secret)
    daemon.wait_for("token_rotated", len(names))
    took = time.monotonic() - mended
    print(f"{refused(stage)} refused attempts in all; {len(names)} tokens within {took:.1f} s")
    assert refused(stage) == wrong
    assert attempts(stage) == before + len(names), "one attempt each, and none refused"
    assert_nothing_leaked(stage, daemon)


@pytest.mark.parametrize("first", ["vault", "file"])
@pytest.mark.timeout(360)
def test_resume_by_the_operator(stage: Stage, first: str) -> None:
    """A locked account that was unlocked on the server resumes through `aca-tokend resume`, and not before."""
    config = stage.config(["bookings"], Settings(rotation=ROTATION))
    if first == "file":
        config.write_text(config.read_text().replace(KV, ""))
    stage.lookalike.levers(accounts={"bookings": {"password": CANARY_PASSWORD, "locked": True}})
    daemon = stage.daemon(config)
    daemon.wait_for("token_suspended", token="bookings", reason="invalid_grant")
    stage.lookalike.levers(accounts={"bookings": {"password": CANARY_PASSWORD}})
    assert daemon.events("token_resumed") == []

    resumed = command("resume", "bookings", "--config", str(config))

    assert resumed.returncode == 0, resumed.stderr
    began = time.monotonic()
    wait_until(lambda: bool(daemon.events("token_rotated")), "a token after resume", RECORD_SECONDS)
    print(f"{first}: a token {time.monotonic() - began:.1f} s after resume")
    assert [event["why"] for event in daemon.events("token_resumed")] == ["the attempt record allows it again"]
    assert refused(stage) == 2
    for text in (resumed.stdout, resumed.stderr):
        assert CANARY_PASSWORD not in text
        assert CANARY_CLIENT_SECRET not in text


def test_record_beside_a_file(stage: Stage) -> None:
    """The record of a token whose first sink is a file is beside it, for its owner alone, and gives nothing away."""
    config = stage.config(["bookings"], Settings(rotation=ROTATION))
    config.write_text(config.read_text().replace(KV, ""))
    stage.write_secret("bookings.password", WRONG)

    daemon = cannot_lock_out(stage, lambda: stage.daemon(config), 4)

    daemon.wait_for("token_suspended", token="bookings")
    assert refused(stage) <= 2
    record = stage.file_of("bookings").with_name(".bookings.json.attempts")
    assert record.stat().st_mode & 0o777 == 0o600
    assert_gives_nothing_away(json.loads(record.read_text()))
    stage.write_secret("bookings.password", stage.passwords.password)
    daemon.wait_for("token_rotated")
    assert_gives_nothing_away(json.loads(record.read_text()))


def test_transient_failures_never_count(stage: Stage) -> None:
    """An endpoint that is down or limits the rate spends none of the attempts of a credential that never worked."""
    config = stage.config(["bookings"], Settings(rotation=ROTATION))
    for kind in ("unavailable_empty", "server_error_500", "rate_limited", "reset"):
        stage.lookalike.fail(kind)
        daemon = stage.daemon(config)
        daemon.wait_for("rotation_failed", 3, step="grant")
        daemon.kill()
    stage.lookalike.heal()

    stage.daemon(config).wait_for("token_rotated")

    assert refused(stage) == 0
    (known,) = record_in_vault(stage, "bookings.attempts").values()
    assert known["proven"]


def test_policy_without_the_record(stage: Stage) -> None:
    """Where Vault's policy forbids the record, an unproven credential waits and says why; a proven one goes on."""
    allow(stage, "aca/bookings", "aca/bookings.attempts")
    config = stage.config(["bookings"], Settings(rotation=ROTATION, auth=approle(stage), files=False))
    proven = stage.daemon(config, log="proven.log")
    proven.wait_for("token_rotated")
    reader = stage.vault_reader("bookings")
    allow(stage, "aca/bookings")

    rotated = len(proven.events("token_rotated"))
    proven.wait_for("token_rotated", rotated + 3)
    assert proven.events("rotation_failed") == []
    assert reader.refused == 0, reader.last_refusal
    assert proven.terminate() == 0

    before = attempts(stage)
    unproven = stage.daemon(config, log="unproven.log")
    failed = unproven.wait_for("rotation_failed", 2, step="grant", reason="permission_denied")
    print(failed["message"], "|", failed["advice"])
    assert "record" in failed["message"]
    assert "attempts" in failed["message"] + failed["advice"]
    assert failed["next_attempt_at"] > failed["timestamp"], "it waits, and is not suspended"
    assert attempts(stage) == before, "no attempt is made that could not be counted"

    allow(stage, "aca/bookings", "aca/bookings.attempts")
    unproven.wait_for("token_rotated")
    assert_nothing_leaked(stage, unproven)


def test_server_without_the_password_grant(stage: Stage) -> None:
    """`unsupported_grant_type` is said at level error with what it means; the published token stays as it is."""
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=ROTATION)))
    daemon.wait_for("token_rotated")
    stage.lookalike.fail("unsupported_grant_type")

    said = daemon.wait_for("token_suspended", token="bookings", reason="unsupported_grant_type")

    assert said["level"] == "error"
    assert "no longer offers the password grant" in said["advice"]
    assert said["expires_at"], "until when the published token works"
    assert daemon.metric("token_suspended", token="bookings", reason="unsupported_grant_type") == 1
    assert daemon.metric("token_suspended", token="bookings", reason="invalid_grant") == 0
    assert refused(stage) == 2
    document = json.loads(stage.file_of("bookings").read_text())
    assert document["expires_at"] == said["expires_at"]


def allow(stage: Stage, *paths: str) -> None:
    """Lets the daemon have these secrets alone."""
    rules = [f'path "secret/data/{path}" {{ capabilities = ["create", "read", "update"] }}' for path in paths]
    stage.bao.client().sys.create_or_update_policy("tokens", "\n".join(rules))


def approle(stage: Stage) -> str:
    """Makes an AppRole with that policy; returns the configuration of its log-in."""
    client = stage.bao.client()
    client.sys.enable_auth_method("approle")
    client.auth.approle.create_or_update_approle("aca-tokend", token_policies=["tokens"])
    role_id = client.auth.approle.read_role_id("aca-tokend")["data"]["role_id"]
    secret_id = client.auth.approle.generate_secret_id("aca-tokend")["data"]["secret_id"]
    stage.write_secret("secret-id", Secret(secret_id))
    return f'method = "approle", role_id = "{role_id}", secret_id = {{ file = "{stage.directory}/secret-id" }}'


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `aca-tokend` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "aca_tokend", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
