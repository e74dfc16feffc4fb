"""The page about moving here: what takes the place of a script, a cron job and an agent, as it stands there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.reader import API_PATH
from aca_tokend.demo.stage import Stage
from tests.blocks import ROOT, Block, blocks, blocks_for
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, secrets_of
from tests.walk import PATH, Walk, calls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = "tests/integration/test_moving.py"
PAGE = ROOT / "docs" / "moving.md"
CLIENT_ID = "d1be3a40ba9afbc1bb3e1bb0a4d1aa58"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The servers; the account and the application of the page, with its secrets in files and in OpenBao."""
    with Stage(tmp_path, lifetime=3600.0) as stage:
        stage.lookalike.levers(
            accounts={"svc-bookings": {"password": CANARY_PASSWORD}},
            clients={CLIENT_ID: {"secret": CANARY_CLIENT_SECRET, "scopes": ["public"]}},
        )
        stage.write_secret("bookings-password", Secret(CANARY_PASSWORD))
        stage.write_secret("client-secret", Secret(CANARY_CLIENT_SECRET))
        yield stage


class Moved(Walk):
    """A folder with a configuration of the page, and what lay at the places before; no daemon runs."""

    def __init__(self, stage: Stage, test: str) -> None:
        (self.block,) = blocks_for(f"{HERE}::{test}")
        self.stage = stage
        self.directory = stage.directory / "walk"
        self.directory.mkdir()
        self.names = {}
        root = stage.bao.root_token.reveal()
        self.environment = {"PATH": PATH, "BAO_ADDR": stage.bao.address, "BAO_TOKEN": root}
        text = self._here(before(self.block).content)
        (self.directory / "config.toml").write_text(text)
        # the daemon's own pages are not asked here
        (self.directory / "another.toml").write_text(f'[admin]\nlisten = "127.0.0.1:0"\n{text}')

    def _here(self, text: str) -> str:
        """With the servers and files of the test, and a log-in by a token."""
        token = f'auth = {{ method = "token", token = {{ file = "{self.stage.directory}/vault-token" }} }}'
        text = re.sub(r"^auth = \{ method = \"approle\".*$", token, text, flags=re.MULTILINE)
        for shown, real in {
            "https://aca.example.com": self.stage.lookalike.url,
            "https://vault.example.com:8200": self.stage.bao.address,
            "/run/secrets/aca/": f"{self.stage.directory}/",
            "/run/aca/": f"{self.directory}/",
            '"systemctl", "try-restart", "bookings.service"': f'"touch", "{self.directory}/restarted"',
        }.items():
            text = text.replace(shown, real)
        return text

    def walk(self) -> None:
        """Calls the commands of the page, and nothing that they print is a secret."""
        told = [self.call(call) for call in calls([self.block])]
        assert not [output for output in told for secret in secrets_of(self.stage) if secret in output]

    def works(self, token: str) -> None:
        """The API lets this token in."""
        answer = httpx.get(f"{self.stage.lookalike.url}{API_PATH}", headers={"Authorization": f"Bearer {token}"})
        assert answer.json()["name"] == "svc-bookings"


def before(block: Block) -> Block:
    """The configuration that stands before a block."""
    return [other for other in blocks(PAGE) if other.language == "toml" and other.line < block.line][-1]


def test_from_a_shell_script(stage: Stage) -> None:
    """The daemon replaces what the script left, and the file is a token that works."""
    moved = Moved(stage, "test_from_a_shell_script")
    file = moved.directory / "bookings.token"
    file.write_text("what-the-script-left\n")
    moved.walk()
    moved.works(file.read_text())


def test_from_a_cron_job(stage: Stage) -> None:
    """The secret that the job wrote has the same field as before, with a token that works."""
    moved = Moved(stage, "test_from_a_cron_job")
    secrets = stage.bao.client().secrets.kv.v2
    secrets.create_or_update_secret("aca/bookings", {"api_token": "what-the-job-wrote"}, mount_point="secret")
    moved.walk()
    published = secrets.read_secret_version("aca/bookings", mount_point="secret", raise_on_deleted_version=True)
    moved.works(published["data"]["data"]["api_token"])


def test_from_an_agent(stage: Stage) -> None:
    """The file has the form that the template gives it, with a token that works, and the service was restarted."""
    moved = Moved(stage, "test_from_an_agent")
    account = {"password": CANARY_PASSWORD, "client_secret": CANARY_CLIENT_SECRET}
    stage.bao.client().secrets.kv.v2.create_or_update_secret("aca/bookings-account", account, mount_point="secret")
    file = moved.directory / "bookings.env"
    file.write_text("ACA_PASSWORD=what-the-agent-left\n")
    moved.walk()
    found = re.fullmatch(r'ACA_TOKEN="([^"]+)"\nACA_TOKEN_EXPIRES_AT=\S+Z\n', file.read_text())
    assert found
    moved.works(found[1])
    assert (moved.directory / "restarted").exists()
