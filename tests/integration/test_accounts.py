"""Another account, address or application for a token: readers keep what works until it is replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Passwords, Settings, Stage, wait_until
from tests.integration import scenes
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, assert_nothing_leaked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aca_tokend.demo.reader import Reader
    from aca_tokend.demo.stage import DaemonProcess

TOKEN_PATH = "/auth/oauth/token"
API_PATH = "/api/engine/v2/users/current"
# It answers whatever token comes, and its faults meet no reader.
OTHER_PATH = "/auth/authority"
EVERY_SECOND = f'{{ path = "{API_PATH}", every = "1s" }}'


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The servers, with tokens of 20 seconds and canaries for secrets."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=scenes.LIFETIME, passwords=passwords) as stage:
        yield stage


def asked(stage: Stage) -> int:
    """How many requests the token endpoint has seen."""
    return stage.lookalike.counts().requests.get(TOKEN_PATH, 0)


def cpu_seconds(daemon: DaemonProcess) -> float:
    """How much of a core a daemon has taken so far: proc(5), utime and stime."""
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status_of(daemon: DaemonProcess, name: str) -> Mapping[str, Any]:
    """What the status API says of a token."""
    token: Mapping[str, Any] = json.loads(daemon.get(f"/api/v1/status/{name}")[1])["token"]
    return token


# ── another account, which is refused ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["reference", "reload"])
def test_account_that_is_refused(stage: Stage, by: str) -> None:
    """A new account that is refused costs a few requests and no CPU, and the old one's token is still told as valid."""
    stage.lookalike.levers(lifetime=120.0, accounts={"svc-new": {"password": "another"}})
    name = stage.write_secret("username", Secret("bookings"))
    username = f'{{ file = "{name}" }}' if by == "reference" else '"bookings"'
    entry = scenes.token(stage, "bookings", scenes.to_vault("bookings"), username=username, verify=EVERY_SECOND)
    config = scenes.configure(stage, entry, settings=Settings(rotation=scenes.quick(120.0)))
    daemon = stage.daemon(config)
    reader = stage.vault_reader("bookings")
    scenes.assert_served([reader], tokens=2)

    if by == "reference":
        stage.write_secret("username", Secret("svc-new"))
    else:
        config.write_text(config.read_text().replace(f"username = {username}", 'username = "svc-new"'))
    wait_until(lambda: bool(stage.lookalike.counts().refused), "the new account refused")

    requests, began, cpu, accepted = asked(stage), time.monotonic(), cpu_seconds(daemon), reader.accepted
    wait_until(lambda: reader.accepted >= accepted + 120, "some seconds of a reader")
    share = (cpu_seconds(daemon) - cpu) / (time.monotonic() - began)
    print(f"{asked(stage) - requests} requests and {share:.1%} of a core afterwards")
    assert share < 0.1, f"{share:.0%} of a core"
    assert asked(stage) - requests <= 10
    scenes.assert_never_refused([reader])
    told = status_of(daemon, "bookings")
    assert told["state"] in {"suspended", "failing"}, told["state"]
    assert told["safe_until"] is not None, "until when the old account's token works"
    assert datetime.fromisoformat(told["safe_until"]) > datetime.now(UTC)
    assert stage.lookalike.counts().refused == {"svc-new": 2}
    assert daemon.events("token_expired") == []
    assert_nothing_leaked(stage, daemon)


# ── another address of the same server, another account or application ────────────────────────────────────────────────

CHANGES = ("url", "host", "authority", "username", "client")


def configured(stage: Stage, *, changed: bool) -> Path:
    """A configuration of a token for each of these, with an endpoint of its own, before the change or after it.

    The token `theirs` stays as it is. It has a file beside its secret, which a stranger will write.
    """
    url = f"http://localhost:{stage.lookalike.port}" if changed else stage.lookalike.url
    host = '"new.example.com"' if changed else '"old.example.com"'
    parts = [
        scenes.endpoint("url", url),
        scenes.endpoint("host", stage.lookalike.url, host=host),
        *(scenes.endpoint(name, stage.lookalike.url) for name in CHANGES[2:]),
        scenes.token(stage, "theirs", *places(stage, "theirs"), acaengine='"main"'),
    ]
    keys = {
        "authority": {"authority": '"authority-new"'},
        "username": {"username": '"svc-new"'},
        "client": {"client_id": '"another-application"'},
    }
    for name in CHANGES:
        mine = keys.get(name, {}) if changed else {}
        parts.append(scenes.token(stage, name, *places(stage, name), acaengine=f'"{name}"', **mine))
    secret = stage.passwords.client_secret.reveal()
    stage.lookalike.levers(
        accounts={"svc-new": {"password": stage.passwords.password.reveal()}},
        clients={"another-application": {"secret": secret, "scopes": ["public"]}},
    )
    return scenes.configure(stage, *parts)


def places(stage: Stage, name: str) -> tuple[str, str]:
    """A secret and a file."""
    return scenes.to_vault(name), scenes.to_file(stage.file_of(name))


def account_of(stage: Stage, name: str) -> str:
    """Whose token the file of a token holds."""
    account: str = json.loads(stage.file_of(name).read_text())["account"]
    return account


def published_before_the_change(stage: Stage) -> None:
    """Has a daemon publish every token, and ends it."""
    daemon = stage.daemon(configured(stage, changed=False))
    for name in (*CHANGES, "theirs"):
        daemon.wait_for("token_rotated", token=name)
    assert daemon.terminate() == 0


def test_changes_over_a_restart(stage: Stage) -> None:
    """What was published before the address or account changed is replaced in time; a stranger's document stays."""
    published_before_the_change(stage)
    accounts = {name: account_of(stage, name) for name in CHANGES}
    readers = [reader(name) for name in CHANGES for reader in (stage.vault_reader, stage.file_reader)]
    readers.append(stage.vault_reader("theirs"))
    place = stage.file_of("theirs")
    document = json.dumps(json.loads(place.read_text()) | {"account": "0" * 32, "token": "somebody-else"})
    place.write_text(document)

    daemon = stage.daemon(configured(stage, changed=True))

    scenes.assert_served(readers, tokens=3)
    assert [name for name in CHANGES if account_of(stage, name) == accounts[name]] == []
    assert place.read_text() == document
    assert stage.lookalike.counts().refused == {}
    assert_nothing_leaked(stage, daemon)


def test_doctor_says_what_will_be_replaced(stage: Stage) -> None:
    """Before the restart, the doctor says of each place that holds a token from before the change what will happen.

    This test alone goes by the doctor's words: a finding about each such place has `replace` in it.
    """
    published_before_the_change(stage)
    config = configured(stage, changed=True)

    command = [sys.executable, "-m", "aca_tokend", "doctor", "--json", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode in {0, 1}, ended.stderr
    told = " ".join(
        subject
        for row in json.loads(ended.stdout)["checks"]
        for subject in row["subjects"]
        if "replace" in row["detail"] + row["fix"]
    )
    wanted = {str(stage.file_of(name)) for name in CHANGES} | {f"aca/{name}" for name in CHANGES}
    assert {place for place in wanted if place not in told} == set()


# ── a pending token ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_pending_token_that_a_replica_overtook(stage: Stage) -> None:
    """A token that could not be tried is forgotten once a later one was adopted, which is replaced in its own time."""
    # due 4 seconds after the grant, and published untried no sooner than after 19
    stage.lookalike.levers(lifetime=24.0)
    rotation = 'fraction = 0.167\njitter = 0.0\nbackoff = {{ initial = "200ms", cap = "500ms" }}\nmin_interval = "{}"'
    place = scenes.to_vault("bookings")
    first, second = (
        scenes.configure(
            stage,
            scenes.token(stage, "bookings", place, **verify),
            settings=Settings(rotation=rotation.format(min_interval), suffix=suffix),
        )
        for min_interval, suffix, verify in (
            ("1s", "-1", {"verify": f'{{ path = "{OTHER_PATH}" }}'}),
            ("6s", "-2", {}),  # it grants no second token before it is gone
        )
    )
    daemon = stage.daemon(first, log="first.log")
    daemon.wait_for("token_rotated")
    reader = stage.vault_reader("bookings")
    stage.lookalike.levers(lifetime=600.0, faults=[{"kind": "unavailable_empty", "on": "authority"}])
    daemon.wait_for("rotation_failed", step="verify")

    stage.lookalike.levers(lifetime=24.0)
    replica = stage.daemon(second, log="second.log")
    later = datetime.fromisoformat(replica.wait_for("token_rotated")["issued_at"])
    wait_until(lambda: datetime.fromisoformat(status_of(daemon, "bookings")["issued_at"]) >= later, "its token adopted")
    replica.kill()
    stage.lookalike.heal()

    wait_until(lambda: later_than(reader, later) or reader.refused > 0, "a token after the replica's")
    scenes.assert_never_refused([reader])
    assert_nothing_leaked(stage, daemon)


def later_than(reader: Reader, moment: datetime) -> bool:
    """Whether what a reader reads was issued later than that."""
    return datetime.fromisoformat(str(reader.document["issued_at"])) > moment


# ── an outage that outlasts the token ─────────────────────────────────────────────────────────────────────────────────


def test_expired_token_is_not_revoked(stage: Stage) -> None:
    """In an outage longer than its life, a token that expired is not told as one that was refused before its time."""
    stage.lookalike.levers(lifetime=4.0)
    config = scenes.configure(stage, scenes.token(stage, "bookings", scenes.to_vault("bookings"), verify=EVERY_SECOND))
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    stage.lookalike.fail("unavailable_empty")
    reader = stage.vault_reader("bookings")

    wait_until(lambda: reader.refused >= 60, "some tries of the token after its expiry")

    told = status_of(daemon, "bookings")
    assert told["state"] == "expired"
    assert told["last"]["reason"] == "unavailable", "what keeps it from being replaced"
    stage.lookalike.heal()
    tokens = reader.tokens
    wait_until(lambda: reader.tokens > tokens, "a new token after the outage")
    assert [event["message"] for event in daemon.events("rotation_failed") if event["step"] == "verify"] == []
    assert "before its time" not in daemon.text
