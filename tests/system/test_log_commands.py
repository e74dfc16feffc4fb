"""The commands of docs/logs.md for the woken person, run by jq on the log of a real daemon."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Settings

if TYPE_CHECKING:
    from aca_tokend.demo.stage import Stage

DOCS = Path(__file__).parents[2] / "docs" / "logs.md"
ROTATION = 'min_interval = "1s"\nbackoff = { initial = "200ms", cap = "1s" }\nretry_rejected = "0s"'


def commands() -> dict[str, str]:
    """Each command of the page, by the comment above it."""
    (block,) = re.findall(r"^## Woken at three\n.*?^```sh\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^# (.*)\n(.*)$", block, re.MULTILINE))


def answer(command: str, log: str) -> list[list[str]]:
    """The rows that a command makes of a log."""
    done = subprocess.run(
        ["/bin/sh", "-c", command], input=log, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), command
    return [row.split("\t") for row in done.stdout.splitlines()]


def test_commands_of_the_page(stage: Stage) -> None:
    """Each command tells from the log what its comment says: who needs a person, who fails now, one token, requests."""
    needs, failing, one, what, requests = commands().values()
    daemon = stage.daemon(stage.config(["bookings", "rooms", "signage"], Settings(rotation=ROTATION)))
    daemon.wait_for("token_rotated", 3)
    stage.write_secret("bookings.password", Secret("canary-wrong"))
    stage.lookalike.levers(faults=[{"kind": "not_found", "username": "rooms"}])
    daemon.wait_for("token_suspended", token="bookings")
    daemon.wait_for("rotation_failed", 4, token="rooms")
    daemon.wait_for("token_expired", token="rooms")
    daemon.wait_for("token_rotated", 2, token="signage")
    assert daemon.terminate() == 0
    log = f"a line that is no JSON\n{daemon.text}\n{{}}\n"

    assert ["token_suspended", "bookings", "invalid_grant"] in [row[1:4] for row in answer(needs, log)]
    now = {row[0]: row for row in answer(failing, log)}
    assert now.keys() == {"bookings", "rooms"}
    assert now["rooms"][2:4] == ["grant", "not_found"]
    assert now["bookings"][3] == "invalid_grant"
    assert all(re.match(r"\d{4}-", row[4]) for row in now.values())
    told = answer(one, log)
    assert [row[2] for row in told if row[2].startswith("token_")][:1] == ["token_rotated"]
    assert "token_suspended" in [row[2] for row in told]
    assert answer(one.replace("bookings", "unknown"), log) == []
    counted = {(row[1], row[3]): int(row[0]) for row in answer(what, log)}
    assert counted["rotation_failed", "not_found"] >= 4
    assert counted["token_suspended", "invalid_grant"] == 1
    asked = answer(requests, log)
    assert {row[2] for row in asked} == {"invalid_grant", "not_found"}
    assert all(re.fullmatch(r"[0-9a-f-]{36}", row[1]) for row in asked)
