"""What counts against a credential, and what lets it be tried again: on real processes, as the server sees it."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Passwords, Stage, wait_until
from tests.integration import scenes
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, assert_nothing_leaked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRONG = Secret("canary-p&ss+w%rd=ü-wrong")
# A suspended token looks at its records, where these are files, every few seconds.
SEVERAL_POLLS_SECONDS = 9.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The servers, with tokens of 20 seconds and canaries for secrets."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=scenes.LIFETIME, passwords=passwords) as stage:
        yield stage


def refused(stage: Stage) -> int:
    """How many attempts the server has refused."""
    return sum(stage.lookalike.counts().refused.values())


def test_four_tokens_of_one_user(stage: Stage) -> None:
    """A wrong password of a user with four tokens is refused twice at most, and corrected it is not refused again."""
    names = ["rooms", "signage", "doors", "lights"]
    stage.add_accounts(["bookings"])
    stage.write_secret("bookings.password", WRONG)
    user = {"username": '"bookings"', "password": f'{{ file = "{stage.directory}/bookings.password" }}'}
    parts = [scenes.token(stage, name, scenes.to_file(stage.file_of(name)), **user) for name in names]
    daemon = stage.daemon(scenes.configure(stage, *parts))

    for name in names:
        daemon.wait_for("token_suspended", token=name)
    assert refused(stage) <= 2

    stage.write_secret("bookings.password", stage.passwords.password)
    scenes.assert_served([stage.file_reader(name) for name in names], tokens=1)
    assert refused(stage) <= 2
    assert_nothing_leaked(stage, daemon)
    assert WRONG.reveal() not in daemon.text


@pytest.mark.parametrize("by", ["reload", "restart"])
def test_corrected_host_and_authority(stage: Stage, by: str) -> None:
    """A token refused for a wrong `host` or `authority` is granted as soon as that is corrected."""
    stage.lookalike.levers(
        tenants=["127.0.0.1", "right.example.com"], faults=[{"kind": "invalid_grant", "username": "authority"}]
    )
    names = ["host", "authority"]
    config = scenes.configure(
        stage,
        scenes.endpoint("other", stage.lookalike.url, host='"wrong.example.com"'),
        scenes.token(stage, "host", scenes.to_file(stage.file_of("host")), acaengine='"other"'),
        scenes.token(
            stage,
            "authority",
            scenes.to_file(stage.file_of("authority")),
            acaengine='"main"',
            authority='"authority-wrong"',
        ),
    )
    daemon = stage.daemon(config)
    for name in names:
        daemon.wait_for("token_suspended", token=name, reason="invalid_grant")
    stage.lookalike.heal()
    right = config.read_text().replace("wrong.example.com", "right.example.com")
    right = right.replace("authority-wrong", "authority-right")

    if by == "restart":
        assert daemon.terminate() == 0
        config.write_text(right)
        daemon = stage.daemon(config)
    else:
        config.write_text(right)

    for name in names:
        daemon.wait_for("token_rotated", token=name)
    assert stage.lookalike.counts().refused == dict.fromkeys(names, 2)
    assert_nothing_leaked(stage, daemon)


def test_record_that_vanishes(stage: Stage) -> None:
    """A suspended token whose attempt records vanish is not tried again before `aca-tokend resume` names it."""
    rotation = 'retry_rejected = "0s"'
    stage.add_accounts(["bookings"])
    part = scenes.token(stage, "bookings", scenes.to_file(stage.file_of("bookings")), rotation=f"{{ {rotation} }}")
    config = scenes.configure(stage, part)
    stage.lookalike.levers(accounts={"bookings": {"password": CANARY_PASSWORD, "locked": True}})
    daemon = stage.daemon(config)
    daemon.wait_for("token_suspended", token="bookings", reason="invalid_grant")
    records = list(stage.file_of("bookings").parent.glob(".*attempts"))
    assert records != []
    for record in records:
        record.unlink()

    vanished = time.monotonic()
    wait_until(lambda: refused(stage) > 2 or time.monotonic() > vanished + SEVERAL_POLLS_SECONDS, "several polls")
    assert refused(stage) == 2

    stage.lookalike.levers(accounts={"bookings": {"password": CANARY_PASSWORD}})
    assert daemon.events("token_resumed") == []
    resumed = subprocess.run(
        [sys.executable, "-m", "aca_tokend", "resume", "bookings", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    daemon.wait_for("token_rotated", token="bookings")
    assert refused(stage) == 2
    assert_nothing_leaked(stage, daemon)
