"""The units of docs/readers/systemd, started by systemd itself beside a daemon that rotates their token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.demo.processes import LookAlike
from aca_tokend.demo.stage import wait_until
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD
from tests.readers.snippets import READERS
from tests.system.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = "svc-bookings"
CLIENT_ID = "d1be3a40ba9afbc1bb3e1bb0a4d1aa58"
API = "https://aca.example.com/api/engine/v2/users/current"
SECRETS = {"bookings-password": CANARY_PASSWORD, "client-secret": CANARY_CLIENT_SECRET}
CONFIG = f"""
[admin]
listen = ""
[acaengine.main]
url = "https://aca.example.com"
[rotation]
min_interval = "1s"
[[tokens]]
name = "bookings"
authority = "authority-1"
username = "{ACCOUNT}"
password = {{ file = "/etc/aca/bookings-password" }}
client_id = "{CLIENT_ID}"
client_secret = {{ file = "/etc/aca/client-secret" }}
scope = "public"
[[tokens.publish]]
to = "file"
path = "/run/aca/bookings.json"
group = "aca-readers"
[[tokens.publish]]
to = "file"
path = "/run/aca/bookings.env"
format = "env"
"""
# What stands in for the programs of an operator: one that reads the file again and again, one that reads nothing.
SIGNAGE = f"""#!/bin/sh
while aca-curl "$1" {API}; do sleep 0.2; done
"""
KIOSK = f"""#!/bin/sh
printf 'Authorization: %s\\n' "$ACA_AUTHORIZATION" | exec curl --silent --show-error --fail --header @- {API}
"""


class Host:
    """A machine with the units, their programs and a daemon."""

    def __init__(self, machine: Machine, lookalike: LookAlike) -> None:
        self.machine = machine
        self._url = lookalike.url
        machine.run("groupadd", "--system", "aca-readers")
        machine.run("mkdir", "/run/aca")
        for unit in sorted((READERS / "systemd").iterdir()):
            self._write(f"/etc/systemd/system/{unit.name}", unit.read_text())
        curl = (READERS / "shell" / "aca-curl").read_text()
        for name, program in {"aca-curl": curl, "aca-signage": SIGNAGE, "aca-kiosk": KIOSK}.items():
            self._write(f"/usr/local/bin/{name}", program, 0o755)
        for name, secret in SECRETS.items():
            self._write(f"/etc/aca/{name}", secret, 0o600)
        self._write("/etc/aca/config.toml", CONFIG)
        machine.run("systemctl", "daemon-reload")
        daemon = ("/usr/local/bin/aca-tokend", "run", "--config", "/etc/aca/config.toml")
        machine.run("systemd-run", "--quiet", "--unit=aca-tokend", "--collect", *daemon)
        wait_until(lambda: machine.call("test", "-e", "/run/aca/bookings.json").returncode == 0, "the first token")

    def _write(self, path: str, text: str, mode: int = 0o644) -> None:
        self.machine.write(path, text.replace("https://aca.example.com", self._url), mode)

    def published(self) -> dict[str, Any]:
        """The document in the file."""
        document: dict[str, Any] = json.loads(self.machine.run("cat", "/run/aca/bookings.json"))
        return document

    def start(self, unit: str) -> None:
        self.machine.run("systemctl", "start", unit)

    def said(self, unit: str) -> int:
        """How often a unit showed the answer of the API."""
        return self.machine.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").count(f'"{ACCOUNT}"')

    def wait_until_said(self, unit: str, count: int) -> None:
        wait_until(lambda: self.said(unit) >= count, f"{count} answers to {unit}")

    def run_of(self, unit: str) -> str:
        """Which run of a unit this is."""
        return self.machine.run("systemctl", "show", unit, "--value", "--property=InvocationID").strip()


@pytest.fixture
def lookalike(tmp_path: Path) -> Iterator[LookAlike]:
    """A look-alike whose tokens live for eight seconds."""
    levers = {
        "lifetime": 8.0,
        "accounts": {ACCOUNT: {"password": CANARY_PASSWORD}},
        "clients": {CLIENT_ID: {"secret": CANARY_CLIENT_SECRET, "scopes": ["public"]}},
    }
    with LookAlike.start(levers, log=tmp_path / "lookalike.log") as started:
        yield started


def test_units_over_rotations(lookalike: LookAlike, tmp_path: Path) -> None:
    """Each unit gets a token that works, over two rotations; what reads once is started anew with each new token."""
    with Machine(tmp_path / "machine") as machine:
        host = Host(machine, lookalike)
        tokens = {host.published()["access_token"]}
        host.start("aca-signage.service")
        host.start("aca-signage-token.path")
        host.start("aca-report.timer")
        for number in (1, 2):
            run = host.run_of("aca-signage.service")
            host.start("aca-report.service")  # fails if the command does
            host.start("aca-kiosk.service")
            host.wait_until_said("aca-report.service", number)
            host.wait_until_said("aca-kiosk.service", number)
            wait_until(lambda: host.published()["access_token"] not in tokens, "another token")
            wait_until(lambda run=run: host.run_of("aca-signage.service") != run, "the start with it")  # type: ignore[misc]  # bound now
            tokens.add(host.published()["access_token"])
        host.wait_until_said("aca-signage.service", host.said("aca-signage.service") + 1)
        machine.run("systemctl", "is-active", "aca-signage.service", "aca-signage-token.path", "aca-report.timer")
        journal = machine.run("journalctl", "--no-pager", "--output=export")

    assert len(tokens) == 3
    assert lookalike.counts().reads_refused == 0
    assert not [secret for secret in {*SECRETS.values(), *tokens} if secret in journal]
