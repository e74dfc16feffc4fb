"""The page for beginners, done as it stands: from an empty OpenBao to a reader, by the commands of the page alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aca_tokend.demo.stage import Stage, wait_until
from tests.blocks import ROOT, blocks_for
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, secrets_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEST = "tests/integration/test_getting_started.py::test_the_page_as_it_stands"
USERNAME = "svc-bookings"
CLIENT_ID = "d1be3a40ba9afbc1bb3e1bb0a4d1aa58"
PATIENCE_SECONDS = 120.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """An OpenBao in which nothing is mounted, and a look-alike that knows what Backoffice would show."""
    with Stage(tmp_path, lifetime=600.0) as stage:
        stage.bao.client().sys.disable_secrets_engine("secret")
        stage.lookalike.levers(
            accounts={USERNAME: {"password": CANARY_PASSWORD}},
            clients={CLIENT_ID: {"secret": CANARY_CLIENT_SECRET, "scopes": ["public"]}},
        )
        yield stage


def blocks(stage: Stage) -> tuple[str, list[str]]:
    """The commands of the page: those that set a terminal up, and all others but what installs.

    Its addresses are those of the stage, and the daemon's pages are on a port that is free.
    """
    copy, terminal, *rest = [block.content for block in blocks_for(TEST)]
    assert "export PATH" in terminal
    (at,) = [number for number, block in enumerate(rest) if "[acaengine.main]\n" in block]
    rest[at] = rest[at].replace("[acaengine.main]\n", '[admin]\nlisten = "127.0.0.1:0"\n\n[acaengine.main]\n')
    for shown, real in {
        "https://aca.example.com": stage.lookalike.url,
        "https://vault.example.com:8200": stage.bao.address,
    }.items():
        assert shown in terminal
        terminal = terminal.replace(shown, real)
    return terminal, [copy + terminal + rest[0], *rest[1:]]


def shell(stage: Stage, script: str) -> subprocess.Popen[str]:
    """Runs a script as the user would in a checkout, until it ends or a command fails; both outputs are one."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(stage.directory),
        "PYTHONUTF8": "1",
        "BAO_TOKEN": stage.bao.root_token.reveal(),
    }
    return subprocess.Popen(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )


def test_the_page_as_it_stands(stage: Stage) -> None:
    """Its commands lead to a doctor that finds nothing and to a reader that is let in, and show no secret."""
    home = stage.directory / "aca"
    home.mkdir()
    (home / "venv").symlink_to(sys.prefix)
    terminal, commands = blocks(stage)
    *once, run = commands

    walk = shell(stage, "".join(once))
    try:
        output, _ = walk.communicate(f"{CANARY_PASSWORD}\n{CANARY_CLIENT_SECRET}\n", PATIENCE_SECONDS)
    finally:
        walk.kill()

    assert walk.returncode == 0, output
    assert "config.toml: well, 1 token\n" in output
    assert "\nwell: 0 failed, 0 warn, " in output
    assert '"event": "token_rotated"' in output
    assert output.splitlines()[-1] == str({"id": f"user-{USERNAME}", "name": USERNAME})
    assert stage.lookalike.counts().reads_refused == 0
    published = stage.bao.client().secrets.kv.v2.read_secret_version("aca/bookings", raise_on_deleted_version=True)
    secrets = secrets_of(stage) | {published["data"]["data"]["access_token"]}
    assert not [secret for secret in secrets if secret in output]

    daemon = shell(stage, f"{terminal}exec {run.strip()} > run.log 2>&1")
    log = home / "run.log"
    try:
        wait_until(lambda: log.exists() and '"token_adopted"' in log.read_text(), "the adoption of the token")
        daemon.terminate()
        assert daemon.wait(PATIENCE_SECONDS) == 0
    finally:
        daemon.kill()
        daemon.communicate()
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()].count("token_rotated") == 0
    assert not [secret for secret in secrets if secret in log.read_text()]
