"""The commands of pages that need nothing but the program and an OpenBao, called as they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Passwords, Stage
from tests.blocks import blocks_for
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, secrets_of
from tests.walk import Walk, calls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = "tests/integration/test_commands_of_pages.py"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The servers, with tokens that outlive the test."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=3600.0, passwords=passwords) as stage:
        yield stage


def test_commands(stage: Stage) -> None:
    """Each command does what its page says, ends well, and shows no secret."""
    walk = Walk(stage)
    told = {call: walk.call(call) for call in calls(blocks_for(f"{HERE}::test_commands"))}

    called = {call.split()[1] for call in told if call.startswith("aca-tokend ")}
    assert {"check", "doctor", "policy", "resume", "run", "simulate", "status"} <= called
    assert not [call for call, output in told.items() for secret in secrets_of(stage) if secret in output]


def test_policies(stage: Stage) -> None:
    """OpenBao takes each policy of a page as it stands."""
    policies = stage.bao.client().sys
    for number, block in enumerate(blocks_for(f"{HERE}::test_policies")):
        policies.create_or_update_policy(f"page-{number}", block.content)
        assert policies.read_policy(f"page-{number}")["rules"].strip() == block.content.strip(), block
