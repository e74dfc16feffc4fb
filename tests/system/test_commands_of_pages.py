"""The commands of pages that need programs of the system, called as they stand, and parts of units."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Passwords, Stage
from tests.blocks import ROOT, blocks_for
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, secrets_of
from tests.walk import Walk, calls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.blocks import Block

HERE = "tests/system/test_commands_of_pages.py"


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    """A daemon that keeps tokens which outlive the test."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=3600.0, passwords=passwords) as stage:
        yield Walk(stage)


def test_commands(walk: Walk) -> None:
    """Each command ends well, and what asks ACAEngine gets the answer that its page speaks of."""
    told = {call: walk.call(call) for call in calls(blocks_for(f"{HERE}::test_commands"))}
    (authority,) = [output for call, output in told.items() if "/auth/authority" in call]
    (grant,) = [output for call, output in told.items() if "/auth/oauth/token" in call]
    assert "authority-1" in authority
    assert json.loads(grant)["error"]
    assert not [call for call, output in told.items() for secret in secrets_of(walk.stage) if secret in output]


def test_aca_curl(walk: Walk) -> None:
    """The script of the page for shells reads the file and OpenBao by the calls of the page."""
    (block,) = blocks_for(f"{HERE}::test_aca_curl")
    programs = walk.directory / "bin"
    programs.mkdir()
    (programs / "aca-curl").symlink_to(ROOT / "docs" / "readers" / "shell" / "aca-curl")
    walk.environment["PATH"] += f":{programs}"
    walk.names["/run/aca/bookings.json"] = str(walk.stage.file_of("bookings"))
    for call in calls([block]):
        assert json.loads(walk.call(call))["name"] == "bookings"


@pytest.mark.parametrize("block", blocks_for(f"{HERE}::test_parts_of_units"), ids=str)
def test_parts_of_units(block: Block, tmp_path: Path) -> None:
    """A part of a unit on a page is one that systemd takes without a word."""
    program = "ExecStart=/bin/true\n" if "ExecStart=" not in block.content else ""
    unit = tmp_path / "aca-tokend.service"
    unit.write_text(block.content.replace("/usr/bin/aca-tokend", "/bin/true") + program)
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout + done.stderr == ""
