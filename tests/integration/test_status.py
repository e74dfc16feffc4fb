"""What the daemon tells of itself is true: asked over its listener and in the terminal, while real parts fail."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aca_tokend.core.secret import Secret
from aca_tokend.core.shards import shard_of
from aca_tokend.demo.stage import Settings, wait_until
from tests.integration.conftest import assert_nothing_leaked, secrets_of

if TYPE_CHECKING:
    from aca_tokend.demo.stage import DaemonProcess, Stage

# Tokens that are rotated every few seconds, and then are good for most of a minute.
SOON = 'fraction = 0.1\nmin_interval = "1s"\nassumed_lifetime = "60s"\nbackoff = { initial = "200ms", cap = "1s" }'
LONG_SECONDS = 60
ROTATION = 'min_interval = "1s"\nassumed_lifetime = "60s"\nbackoff = { initial = "200ms", cap = "1s" }'
WRONG = Secret("canary-p&ss+w%rd=ü-wrong")
USER = "canary-user-name-03ad"


def status(daemon: DaemonProcess, query: str = "") -> dict[str, Any]:
    """The status as the API tells it."""
    code, text = daemon.get(f"/api/v1/status{query}")
    assert code == 200, text
    read: dict[str, Any] = json.loads(text)
    return read


def token(daemon: DaemonProcess, name: str) -> dict[str, Any]:
    """One token as the API tells it."""
    found: dict[str, Any] = json.loads(daemon.get(f"/api/v1/status/{name}")[1])["token"]
    return found


def terminal(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`aca-tokend status` of this daemon."""
    where = f"http://127.0.0.1:{daemon.admin_port}"
    command = [sys.executable, "-m", "aca_tokend", "status", "--url", where, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={}, check=False, timeout=120)


def assert_told_without_secrets(stage: Stage, daemon: DaemonProcess, *names: str) -> None:
    """Neither an answer nor what the terminal shows holds a secret."""
    told = json.dumps(status(daemon)) + terminal(daemon).stdout
    for name in names:
        told += daemon.get(f"/api/v1/status/{name}")[1] + terminal(daemon, name).stdout
    for secret in secrets_of(stage) | {WRONG.reveal()}:
        assert secret not in told
    assert_nothing_leaked(stage, daemon)


def test_refused_and_mended(stage: Stage) -> None:
    """A wrong password is told with its reason and what resumes it, until it was mended, and nobody else is touched."""
    stage.lookalike.levers(lifetime=LONG_SECONDS)
    daemon = stage.daemon(stage.config(["bookings", "signage"], Settings(rotation=SOON)))
    daemon.wait_for("token_rotated", 2)
    wait_until(lambda: status(daemon)["counts"]["ready"] == 2, "two ready tokens")
    assert terminal(daemon).returncode == 0

    stage.lookalike.levers(accounts={"bookings": {"password": WRONG.reveal()}})
    daemon.wait_for("token_suspended")
    told = token(daemon, "bookings")
    assert told["state"] == "suspended"
    assert told["suspended"]["reason"] == told["last"]["reason"] == "invalid_grant"
    assert (told["last"]["result"], told["last"]["step"]) == ("suspended", "grant")
    assert told["last"]["request_id"]
    assert told["summary"].startswith("The server refused the username and password; readers are safe for ")
    assert (told["needs_a_person"], told["runbook"]) == (True, "ACACredentialsRejected")
    page = status(daemon)
    assert [it["name"] for it in page["tokens"]] == ["bookings", "signage"]
    assert (page["needs_a_person"], page["need_a_person"]) == (True, 1)
    assert page["endpoints"][0]["summary"] is None
    shown = terminal(daemon)
    assert shown.returncode == 1
    assert "bookings  The server refused the username and password" in shown.stdout
    assert terminal(daemon, "signage").returncode == 0
    assert_told_without_secrets(stage, daemon, "bookings", "signage")

    stage.write_secret("bookings.password", WRONG)  # what the server wants by now
    wait_until(lambda: status(daemon)["counts"]["ready"] == 2, "two ready tokens again")
    assert token(daemon, "bookings")["suspended"] is None
    assert terminal(daemon).returncode == 0


def test_endpoint_down_and_up(stage: Stage) -> None:
    """While the server is down its tokens fail, then have expired for readers, and are ready once it is back."""
    names = ["a", "b", "c", "d"]
    daemon = stage.daemon(stage.config(names, Settings(rotation=ROTATION)))
    daemon.wait_for("token_rotated", len(names))
    stage.lookalike.go_down()
    wait_until(lambda: status(daemon)["endpoints"][0]["up"] is False, "an endpoint that is told to be down")
    wait_until(lambda: status(daemon)["counts"]["expired"] == len(names), "that all tokens have expired")

    page = status(daemon)
    (endpoint,) = page["endpoints"]
    assert endpoint["reason"] == "connect_failed"
    assert endpoint["summary"].startswith("The server cannot be reached")
    assert endpoint["breaker"] in {"open", "probing"}
    assert endpoint["waiting"] > 0
    for told in page["tokens"]:
        assert "; readers have had no valid token for " in told["summary"]
        assert datetime.fromisoformat(told["safe_until"]) < datetime.fromisoformat(page["now"])
    assert "acaengine.main  The server cannot be reached" in terminal(daemon).stdout
    assert_told_without_secrets(stage, daemon, "a")

    stage.lookalike.come_up()
    wait_until(lambda: status(daemon)["counts"]["ready"] == len(names), "that all tokens are ready again")
    assert status(daemon)["endpoints"][0]["summary"] is None


def test_place_that_fails(stage: Stage) -> None:
    """A file that cannot be written is told with its own expiry, while the Vault beside it goes on."""
    stage.lookalike.levers(lifetime=LONG_SECONDS)
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=SOON)))
    daemon.wait_for("token_rotated")
    file = stage.file_of("bookings")
    while not file.is_dir():
        file.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):  # it was written just then
            file.mkdir()
    daemon.wait_for("publish_failed")
    wait_until(lambda: not token(daemon, "bookings")["sinks"][1]["ok"], "a sink that failed")
    told = token(daemon, "bookings")
    vault, ours = told["sinks"]
    assert (vault["ok"], ours["reason"]) == (True, "not_a_file")
    assert told["summary"].startswith(f"file:{file}: what is there is no regular file; readers are safe for ")
    assert (told["state"], told["needs_a_person"], told["runbook"]) == ("failing", True, "ACATokenPublishStale")
    file.rmdir()
    wait_until(lambda: token(daemon, "bookings")["state"] == "ready", "a token that is ready again")


def test_vault_sealed(stage: Stage) -> None:
    """A sealed Vault is told once for all its tokens, with what to do, until it was unsealed."""
    stage.lookalike.levers(lifetime=LONG_SECONDS)
    daemon = stage.daemon(stage.config(["bookings", "signage"], Settings(rotation=SOON)))
    daemon.wait_for("token_rotated", 2)
    stage.bao.seal()
    said = "Vault is sealed; 2 tokens cannot be published there."
    wait_until(lambda: status(daemon)["vaults"][0]["summary"] == said, "two tokens that cannot be published")
    page = status(daemon)
    (vault,) = page["vaults"]
    assert (vault["reason"], vault["needs_a_person"], vault["failing"]) == ("vault_sealed", True, 2)
    assert page["endpoints"][0]["summary"] is None
    shown = terminal(daemon)
    assert shown.returncode == 1
    assert shown.stdout.count("unseal it") == 1
    stage.bao.unseal()
    wait_until(lambda: status(daemon)["counts"]["ready"] == 2, "two tokens that are ready again")
    wait_until(lambda: status(daemon)["vaults"][0]["summary"] is None, "a Vault that is well again")
    assert_told_without_secrets(stage, daemon)


def test_user_names_are_hidden(stage: Stage) -> None:
    """With `show_usernames = false` no page, no answer and nothing in the terminal has the user name."""
    stage.add_accounts([USER])
    config = stage.config(["bookings"])
    text = config.read_text().replace('username = "bookings"', f'username = "{USER}"')
    config.write_text(text)
    daemon = stage.daemon(config, log="shown.log")
    daemon.wait_for("token_rotated")
    assert token(daemon, "bookings")["username"] == USER
    assert USER in terminal(daemon, "bookings").stdout
    assert daemon.terminate() == 0

    config.write_text(text.replace("[admin]", "[admin]\nshow_usernames = false"))
    daemon = stage.daemon(config, log="hidden.log")
    wait_until(lambda: status(daemon)["counts"]["ready"] == 1, "a ready token")
    assert token(daemon, "bookings")["username"] is None
    stage.lookalike.levers(accounts={USER: {"password": WRONG.reveal()}})
    daemon.wait_for("token_suspended")
    pages = ("/api/v1/status", "/api/v1/status/bookings", "/", "/tokens/bookings", "/metrics", "/-/ready?verbose")
    told = "".join(daemon.get(page)[1] for page in pages)
    for shown in (terminal(daemon), terminal(daemon, "bookings"), terminal(daemon, "--json")):
        told += shown.stdout + shown.stderr
    assert "bookings" in told
    assert USER not in told


def test_token_of_another_shard(stage: Stage) -> None:
    """A token that another shard keeps is answered with the number of that shard, also in the terminal."""
    names = ["bookings", "signage", "rooms-7", "b"]
    config = stage.config(names)
    config.write_text(config.read_text().replace("[log]", "[shard]\ncount = 4\nindex = 3\n[log]"))
    ours = [name for name in names if shard_of(name, 4) == 3]
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated", len(ours))
    page = status(daemon)
    assert (page["daemon"]["shard"], page["daemon"]["shards"]) == (3, 4)
    assert sorted(it["name"] for it in page["tokens"]) == sorted(ours)
    elsewhere = next(name for name in names if name not in ours)
    code, text = daemon.get(f"/api/v1/status/{elsewhere}")
    assert (code, json.loads(text)["error"]["shard"]) == (404, shard_of(elsewhere, 4))
    shown = terminal(daemon, elsewhere)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert f"ask the daemon of shard {shard_of(elsewhere, 4)}" in shown.stderr


def test_rejected_configuration(stage: Stage) -> None:
    """A configuration that was rejected is told with its problems, while the one before goes on."""
    config = stage.config(["bookings"])
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    well = config.read_text()
    config.write_text(well.replace("username", "user_name"))
    said = 'tokens[0] "bookings".username: missing'
    # it may be read half written first
    wait_until(lambda: said in "".join(status(daemon)["daemon"]["config"]["problems"]), "a rejected configuration")
    assert not status(daemon)["daemon"]["config"]["ok"]
    shown = terminal(daemon)
    assert shown.returncode == 1
    assert "configuration  " in shown.stdout
    config.write_text(well)
    wait_until(lambda: status(daemon)["daemon"]["config"]["ok"], "a configuration that is well again")
