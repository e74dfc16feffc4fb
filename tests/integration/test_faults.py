"""Faults around the daemon: the last good token stays, the reason is told, nothing else waits, nothing leaks."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.outcome import ADVICE, Reason
from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Settings, Stage, wait_until
from tests.integration.conftest import CANARY_PASSWORD, assert_nothing_leaked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aca_tokend.demo.stage import DaemonProcess

ROTATION = (
    'min_interval = "1s"\nassumed_lifetime = "60s"\nbackoff = { initial = "200ms", cap = "1s" }\nretry_rejected = "0s"'
)

# Each row of the failure table, what the look-alike is told to do, and the reason that is logged and counted.
ENDPOINT_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("invalid_grant", {}, "invalid_grant"),
    ("invalid_client", {}, "invalid_client"),
    ("unauthorized_client", {}, "unauthorized_client"),
    ("unauthorized_client_400", {}, "unauthorized_client"),
    ("invalid_scope", {}, "invalid_scope"),
    ("invalid_request", {}, "invalid_request"),
    ("unprocessable_422", {}, "invalid_request"),
    ("unsupported_grant_type", {}, "unsupported_grant_type"),
    ("server_error_500", {}, "server_error"),
    ("rate_limited", {"retry_after": "1"}, "rate_limited"),
    ("bad_gateway_html", {}, "unavailable"),
    ("unavailable_empty", {}, "unavailable"),
    ("gateway_timeout_html", {}, "unavailable"),
    ("not_found", {}, "not_found"),
    ("bad_request_html", {}, "unexpected_status"),
    ("bad_request_json", {}, "unexpected_status"),
    ("redirect_302", {}, "redirected"),
    ("html_200", {}, "not_json"),
    ("truncated_json", {}, "not_json"),
    ("not_utf8", {}, "not_json"),
    ("deep_json", {}, "response_too_large"),
    ("cut_body", {}, "connection_lost"),
    ("reset", {}, "connection_lost"),
    ("hang", {}, "timeout"),
    ("drip_headers", {"seconds": 0.2}, "timeout"),
    ("drip_body", {"seconds": 0.2}, "timeout"),
    ("endless_body", {}, "response_too_large"),
    ("huge_body", {}, "response_too_large"),
    ("gzip_bomb", {"megabytes": 5}, "not_json"),
]


def give_each_its_endpoint(config: Path, url: str) -> None:
    """Changes a configuration so that no token waits for another's endpoint, or shares its client."""
    head, *entries = config.read_text().split("[[tokens]]")
    for number, entry in enumerate(entries):
        head += f'[acaengine.e{number}]\nurl = "{url}"\nhost = "e{number}.example.com"\ntimeout = "1s"\n'
        entries[number] = f'[[tokens]]\nacaengine = "e{number}"' + entry
    config.write_text(head + "".join(entries))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, DaemonProcess, Stage]]:
    """One daemon with a token per fault, each with an endpoint of its own at the same server."""
    from aca_tokend.demo.stage import Passwords
    from tests.integration.conftest import CANARY_CLIENT_SECRET

    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path_factory.mktemp("faults"), lifetime=600.0, raft=True, passwords=passwords) as stage:
        names = [kind for kind, _, _ in ENDPOINT_FAULTS]
        config = stage.config(names, Settings(rotation=ROTATION))
        give_each_its_endpoint(config, stage.lookalike.url)
        # The daemon first publishes a good token of a life that is soon over its rotation point, then meets the faults.
        stage.lookalike.levers(lifetime=8.0)
        daemon = stage.daemon(config)
        daemon.wait_for("token_rotated", len(names))
        stage.lookalike.levers(
            faults=[{"kind": kind, "username": kind, **details} for kind, details, _ in ENDPOINT_FAULTS]
        )
        yield stage, daemon, stage


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize(("kind", "details", "reason"), ENDPOINT_FAULTS, ids=[kind for kind, _, _ in ENDPOINT_FAULTS])
def test_endpoint_fault(
    crowd: tuple[Stage, DaemonProcess, Stage], kind: str, details: dict[str, Any], reason: str
) -> None:
    """The failed grant is told by its reason in log and metrics, and the token that was published stays."""
    del details
    stage, daemon, _ = crowd
    failed = daemon.wait_for("rotation_failed", token=kind, step="grant", reason=reason)
    published = stage.file_of(kind).read_bytes()
    daemon.wait_for("rotation_failed", 2, token=kind)

    assert failed["next_attempt_at"] > failed["timestamp"]
    assert failed["advice"]
    assert daemon.metric("rotation_errors_total", token=kind, step="grant", reason=reason) >= 1
    assert json.loads(published)["access_token"]
    assert stage.file_of(kind).read_bytes() == published
    assert_nothing_leaked(stage, daemon)


@pytest.mark.xdist_group("faults")
def test_rejected_tokens_are_suspended_after_two_attempts(crowd: tuple[Stage, DaemonProcess, Stage]) -> None:
    """Whatever the server refuses for good is asked for twice in all, and then left alone."""
    stage, daemon, _ = crowd
    reasons = {
        "invalid_grant": "invalid_grant",
        "invalid_client": "invalid_client",
        "unauthorized_client": "unauthorized_client",
        "unauthorized_client_400": "unauthorized_client",
        "invalid_scope": "invalid_scope",
        "invalid_request": "invalid_request",
        "unprocessable_422": "invalid_request",
        "unsupported_grant_type": "unsupported_grant_type",
    }

    for kind, reason in reasons.items():
        told = daemon.wait_for("token_suspended", token=kind)
        assert (told["reason"], told["advice"]) == (reason, ADVICE[Reason(reason)])
        assert daemon.metric("token_suspended", token=kind, reason=reason) == 1
    daemon.wait_for("rotation_failed", 8, token="not_found")

    refused = stage.lookalike.counts().refused  # answered 400 or 401
    rejected = reasons.keys() - {"unprocessable_422"}
    assert {kind: refused[kind] for kind in rejected} == dict.fromkeys(rejected, 2)


@pytest.mark.parametrize("kinds", [["server_error_500", "hang"], ["invalid_grant", "html_200"]])
def test_bad_tokens_delay_no_other(stage: Stage, kinds: list[str]) -> None:
    """Beside tokens that fail on the same endpoint, one that is well goes on rotating and is never refused."""
    config = stage.config(["well", *kinds], Settings(rotation=ROTATION, endpoint='timeout = "1s"'))
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated", 3)
    stage.lookalike.levers(faults=[{"kind": kind, "username": kind} for kind in kinds])
    reader = stage.file_reader("well")

    wait_until(lambda: reader.tokens >= 4, "rotations of the token that is well")

    assert reader.refused == 0, reader.last_refusal
    assert daemon.get("/-/healthy")[0] == 200, "no endpoint fault is mended by a restart"


def test_wrong_password_then_mended(stage: Stage) -> None:
    """A wrong password costs two attempts; the published token stays; the mended file is taken up and published."""
    config = stage.config(["bookings"], Settings(rotation=ROTATION))
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    stage.write_secret("bookings.password", Secret("canary-p&ss+w%rd=ü-wrong"))

    daemon.wait_for("token_suspended", token="bookings", reason="invalid_grant")
    assert stage.lookalike.counts().refused == {"bookings": 2}
    rotated = len(daemon.events("token_rotated"))

    stage.write_secret("bookings.password", stage.passwords.password)
    daemon.wait_for("token_resumed", token="bookings")
    daemon.wait_for("token_rotated", rotated + 1)
    assert_nothing_leaked(stage, daemon)
    assert "canary-p&ss+w%rd=ü-wrong" not in daemon.text


def test_endpoint_down_and_up(stage: Stage) -> None:
    """While nothing listens at the endpoint attempts go on, and within the outage tolerance no reader is refused."""
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=ROTATION)))
    daemon.wait_for("token_rotated")
    reader = stage.file_reader("bookings")
    stage.lookalike.fail("hang", count=1)
    stage.lookalike.fail("unavailable_empty", retry_after="1")

    daemon.wait_for("rotation_failed", 2, reason="unavailable")
    assert daemon.metric("endpoint_up", endpoint="main") == 0
    stage.lookalike.heal()
    tokens = reader.tokens
    wait_until(lambda: reader.tokens > tokens, "a new token after the outage")

    assert reader.refused == 0, reader.last_refusal
    wait_until(lambda: daemon.metric("endpoint_up", endpoint="main") == 1, "the endpoint seen up")


def test_connection_refused(stage: Stage) -> None:
    """A server that refuses connections is told of as such, and its return is taken up."""
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=ROTATION)))
    daemon.wait_for("token_rotated")
    stage.lookalike.go_down()
    daemon.wait_for("rotation_failed", reason="connect_failed")
    rotated = len(daemon.events("token_rotated"))
    stage.lookalike.come_up()
    daemon.wait_for("token_rotated", rotated + 1)


def test_vault_down_delays_no_file(stage: Stage) -> None:
    """While Vault is down the file goes on being rotated; when Vault is back it gets the latest token."""
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=ROTATION, vault='timeout = "1s"')))
    daemon.wait_for("token_rotated")
    reader = stage.file_reader("bookings")
    stage.bao.stop()

    daemon.wait_for("publish_failed", token="bookings", sink="vault:secret/aca/bookings", reason="connect_failed")
    tokens = reader.tokens
    wait_until(lambda: reader.tokens >= tokens + 2, "rotations of the file while Vault is down")
    stage.bao.restart()

    daemon.wait_for("publish_recovered", sink="vault:secret/aca/bookings")
    vault = stage.vault_reader("bookings")
    wait_until(lambda: vault.document == reader.document, "the same token in Vault and in the file")
    assert reader.refused == 0, reader.last_refusal
    assert_nothing_leaked(stage, daemon)


def test_vault_sealed(stage: Stage) -> None:
    """A sealed Vault is told of as sealed, and unsealing it is taken up."""
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=ROTATION)))
    daemon.wait_for("token_rotated")
    stage.bao.seal()
    daemon.wait_for("publish_failed", reason="vault_sealed")
    stage.bao.unseal()
    daemon.wait_for("publish_recovered")
    assert_nothing_leaked(stage, daemon)


def test_hanging_vault_delays_nothing_else(stage: Stage) -> None:
    """A Vault that accepts connections and is silent holds its own pool alone: files go on being rotated in time."""
    import os
    import signal

    daemon = stage.daemon(stage.config(["bookings", "signage"], Settings(rotation=ROTATION, vault='timeout = "1s"')))
    daemon.wait_for("token_rotated", 2)
    reader = stage.file_reader("bookings")
    os.kill(stage.bao.pid, signal.SIGSTOP)
    try:
        tokens = reader.tokens
        wait_until(lambda: reader.tokens >= tokens + 3, "rotations of the file while Vault hangs")
        assert reader.refused == 0, reader.last_refusal
        daemon.wait_for("publish_failed", reason="timeout")
        assert daemon.get("/-/healthy")[0] == 200
    finally:
        os.kill(stage.bao.pid, signal.SIGCONT)
    daemon.wait_for("publish_recovered")


def test_directory_lost_delays_no_vault(stage: Stage) -> None:
    """A file that cannot be written is told of and tried again alone, while Vault goes on being served."""
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=ROTATION)))
    daemon.wait_for("token_rotated")
    reader = stage.vault_reader("bookings")
    directory = stage.file_of("bookings").parent
    shutil.rmtree(directory)

    daemon.wait_for("publish_failed", kind="file", reason="directory_missing")
    tokens = reader.tokens
    wait_until(lambda: reader.tokens >= tokens + 2, "rotations in Vault while the file cannot be written")
    assert stage.lookalike.counts().grants <= len(daemon.events("token_rotated")) + 1
    directory.mkdir()
    daemon.wait_for("publish_recovered", kind="file")
    assert reader.refused == 0, reader.last_refusal


def test_foreign_secret_is_kept(stage: Stage) -> None:
    """What somebody else keeps at the path is reported and neither taken for ours nor overwritten."""
    kv = stage.bao.client().secrets.kv.v2
    kv.create_or_update_secret("aca/bookings", secret={"mine": "keep"}, mount_point="secret")
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=ROTATION, files=False)))

    daemon.wait_for("rotation_failed", token="bookings", step="look", reason="foreign_document")

    assert stage.lookalike.counts().grants == 0
    kept = kv.read_secret_version("aca/bookings", mount_point="secret", raise_on_deleted_version=True)
    assert kept["data"]["data"] == {"mine": "keep"}


def test_revoked_vault_token_of_an_approle(stage: Stage) -> None:
    """When the daemon's own Vault token is revoked it logs in again by its AppRole, and no reader notices."""
    client = stage.bao.client()
    client.sys.enable_auth_method("approle")
    client.sys.create_or_update_policy(
        "tokens", 'path "secret/data/aca/*" { capabilities = ["create", "read", "update"] }'
    )
    client.auth.approle.create_or_update_approle("aca-tokend", token_policies=["tokens"])
    role_id = client.auth.approle.read_role_id("aca-tokend")["data"]["role_id"]
    secret_id = client.auth.approle.generate_secret_id("aca-tokend")["data"]["secret_id"]
    stage.write_secret("secret-id", Secret(secret_id))
    auth = f'method = "approle", role_id = "{role_id}", secret_id = {{ file = "{stage.directory}/secret-id" }}'
    config = stage.config(["bookings"], Settings(rotation=ROTATION, auth=auth))
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    reader = stage.vault_reader("bookings")
    for accessor in client.list("auth/token/accessors")["data"]["keys"]:
        if client.lookup_token(accessor, accessor=True)["data"]["path"] == "auth/approle/login":
            client.revoke_token(accessor, accessor=True)

    daemon.wait_for("vault_logged_in", 2)
    tokens = reader.tokens
    wait_until(lambda: reader.tokens > tokens, "a rotation after the log-in")
    assert reader.refused == 0, reader.last_refusal
    assert secret_id not in daemon.text
