"""What nobody foresaw, in the calls of one token: its attempt ends, and nothing else does.

Nothing from outside makes real code raise such an error, so the real calls are wrapped in the process of the daemon, by
`inside/sitecustomize.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Passwords, Stage, wait_until
from tests.integration import scenes
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, assert_nothing_leaked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aca_tokend.demo.stage import DaemonProcess

INSIDE = Path(__file__).parent / "inside"
VERIFY = '{ path = "/api/engine/v2/users/current" }'
STEADY = ("resolve", "look", "grant", "verify", "publish")
# An attempt record is read and written while a credential is not proven.
CALLS = (*STEADY, "read_record", "write_record")
# It stands in no source file, whose lines a traceback may show.
TEXT = f"what nobody foresaw: {CANARY_PASSWORD}"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The servers, with tokens of 20 seconds and canaries for secrets."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=scenes.LIFETIME, passwords=passwords) as stage:
        yield stage


class Raising:
    """Calls that raise in the daemon that gets `environment`, each for a token of its own."""

    def __init__(self, directory: Path) -> None:
        self._flag = directory / "raises"
        self.environment = {"PYTHONPATH": str(INSIDE), "RAISING_FLAG": str(self._flag)}

    def begin(self) -> None:
        """From now on they do."""
        for call in CALLS:
            self._raised(call).unlink(missing_ok=True)
        fresh = self._flag.with_suffix(".new")
        fresh.write_text(TEXT)
        fresh.rename(self._flag)

    def end(self) -> None:
        """They do what they always do."""
        self._flag.unlink()

    def wait(self, daemon: DaemonProcess, calls: Sequence[str]) -> None:
        """Waits until each of these has raised, in a daemon that goes on running."""
        wait_until(lambda: all(map(self.raised, calls)) or not daemon.running, f"a failure of each of {calls}")
        ended = f"the daemon ended by a failure of {', '.join(filter(self.raised, calls))}"
        assert daemon.running, ended

    def raised(self, call: str) -> bool:
        """Whether a call has raised since it was to do so."""
        return self._raised(call).exists()

    def _raised(self, call: str) -> Path:
        return self._flag.with_name(f"raises.{call}")


def name_of(call: str) -> str:
    """The token whose call raises."""
    return f"raises-{call}"


def test_whatever_a_call_raises(stage: Stage) -> None:
    """An error that nobody foresaw, in any call of one token, ends its attempt alone, is counted, and shows nothing."""
    names = [*map(name_of, CALLS), "rooms"]
    config = scenes.configure(
        stage,
        *(
            scenes.token(stage, name, scenes.to_file(stage.file_of(name)), scenes.to_vault(name), verify=VERIFY)
            for name in names
        ),
    )
    readers = [stage.file_reader("rooms"), stage.vault_reader("rooms")]
    raising = Raising(stage.directory)
    raising.begin()
    daemon = stage.daemon(config, environment=raising.environment)

    raising.wait(daemon, CALLS)
    wait_until(
        lambda: daemon.metric("internal_errors_total", component="attempt") >= 3 * len(CALLS), "three of each counted"
    )
    scenes.assert_served(readers, tokens=2)
    assert daemon.get("/-/healthy")[0] == 200
    # one that cannot be tried may be published all the same, where readers have none
    assert {event["token"] for event in daemon.events("token_rotated")} <= {"rooms", name_of("verify")}
    raising.end()
    rotated(daemon, names)

    raising.begin()
    raising.wait(daemon, STEADY)
    scenes.assert_served(readers, tokens=2)
    raising.end()
    rotated(daemon, names)

    scenes.assert_served([stage.file_reader(name) for name in names], tokens=2)
    scenes.assert_never_refused(readers)
    assert stage.lookalike.counts().refused == {}
    assert daemon.events("token_suspended") == []
    assert_nothing_leaked(stage, daemon)
    assert "canary" not in daemon.text


def rotated(daemon: DaemonProcess, names: Sequence[str]) -> None:
    """Waits until each of these has a new token."""
    before = {name: count(daemon, name) for name in names}
    wait_until(lambda: all(count(daemon, name) > before[name] for name in names), "a new token for each")


def count(daemon: DaemonProcess, name: str) -> int:
    """How many tokens of this name were rotated."""
    return sum(event["token"] == name for event in daemon.events("token_rotated"))
