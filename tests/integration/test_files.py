"""Files of every format and a directory, by the daemon with real parts."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING

from aca_tokend.demo.stage import Settings, wait_until
from tests.integration.conftest import assert_nothing_leaked

if TYPE_CHECKING:
    from pathlib import Path

    from aca_tokend.demo.stage import Stage

SINGLE = """
[[tokens.publish]]
to = "file"
path = "{places}/bookings.token"
format = "token"
[[tokens.publish]]
to = "file"
path = "{places}/bookings.conf"
format = "template"
template = "token {{{{ access_token }}}}\\n"
"""
TOGETHER = """
[[tokens.publish]]
to = "directory"
path = "{places}/together"
files = {{ token = {{ format = "token" }}, "app.env" = {{ format = "env" }}, "all.json" = {{ format = "json" }} }}
"""
IN_DIRECTORY = {"token": "(.+)", "app.env": 'ACA_ACCESS_TOKEN="(.+)"', "all.json": '"access_token":"([^"]+)'}


def configured(stage: Stage, files: str = SINGLE + TOGETHER, *, vault: bool = True) -> tuple[Path, Path]:
    """A configuration that publishes to these places, and where they are."""
    places = stage.directory / "published"
    (places / "together").mkdir(parents=True, exist_ok=True)
    config = stage.config(["bookings"], Settings(files=False))
    text = config.read_text()
    if not vault:
        text = text[: text.index("[[tokens.publish]]")]
    config.write_text(text + files.format(places=places))
    return config, places


def together(directory: Path) -> dict[str, str]:
    """The token that each file of a directory tells, read through one opened ..data; {} where there is none yet."""
    try:
        opened = os.open(directory / "..data", os.O_DIRECTORY)
    except FileNotFoundError:
        return {}
    found = {}
    try:
        for name, pattern in IN_DIRECTORY.items():
            with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=opened)) as file:
                match = re.search(pattern, file.read())
            assert match is not None
            found[name] = match[1]
    finally:
        os.close(opened)
    return found


def test_every_format_over_rotations(stage: Stage) -> None:
    """Over rotations the files of a directory always tell of one token, and every file comes to hold the latest."""
    config, places = configured(stage)
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    seen: set[str] = set()

    def three() -> bool:
        found = set(together(places / "together").values())
        assert len(found) <= 1
        seen.update(found)
        return len(seen) >= 3

    wait_until(three, "three tokens in the directory")
    assert daemon.terminate() == 0
    (token,) = set(together(places / "together").values())
    assert (places / "bookings.token").read_text() == token
    assert (places / "bookings.conf").read_text() == f"token {token}\n"
    assert_nothing_leaked(stage, daemon)
    assert token not in daemon.text


def test_format_is_changed_by_reload_and_at_a_start(stage: Stage) -> None:
    """Another format is written by the reload, another template at the start, each without a grant."""
    stage.lookalike.levers(lifetime=600.0)
    config, places = configured(stage, vault=False)
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    token = (places / "bookings.token").read_text()

    config.write_text(config.read_text().replace('format = "token"\n', 'format = "header"\n'))
    daemon.process.send_signal(signal.SIGHUP)
    header = f"Authorization: Bearer {token}\n"
    wait_until(lambda: (places / "bookings.token").read_text() == header, "the file in its new format")
    assert daemon.terminate() == 0

    config.write_text(config.read_text().replace("token {{", "the token {{"))
    daemon = stage.daemon(config, log="second.log")
    wait_until(lambda: (places / "bookings.conf").read_text() == f"the token {token}\n", "the file of the new template")
    assert set(together(places / "together").values()) == {token}
    assert stage.lookalike.counts().grants == 1
    assert json.loads((places / "together" / "all.json").read_text())["access_token"] == token


def test_what_is_missing_is_told_before_a_grant(stage: Stage) -> None:
    """Where no place could be written no grant is made; once it can, the token comes."""
    config, places = configured(stage, TOGETHER, vault=False)
    (places / "together").rmdir()
    daemon = stage.daemon(config)
    failed = daemon.wait_for("rotation_failed", step="look", reason="directory_missing")
    assert f"{places}/together: there is no such directory" in str(failed)
    assert stage.lookalike.counts().grants == 0

    (places / "together").mkdir()
    daemon.wait_for("token_rotated")
    assert together(places / "together")
