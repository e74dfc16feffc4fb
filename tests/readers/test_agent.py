"""docs/readers/agent.md: an OpenBao agent renders the token into a file."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from aca_tokend.demo.reader import read_file
from aca_tokend.demo.stage import Settings, wait_until
from tests.readers.agents import let_in, snippet, start_agent

if TYPE_CHECKING:
    from aca_tokend.demo.child import Child
    from aca_tokend.demo.reader import Reader
    from aca_tokend.demo.stage import Stage

INTERVAL = 'static_secret_render_interval = "1m"'


class Rendered:
    """An agent with the snippet of the page, the file it renders, a reader of that, and what it told its command."""

    def __init__(self, stage: Stage, name: str, interval: str) -> None:
        directory = stage.directory / name
        directory.mkdir()
        self.file = directory / "token.json"
        self.runs = directory / "runs"
        self.failing = directory / "failing"
        command = directory / "bookings-reload"
        command.write_text(f"#!/bin/sh\nsha256sum < {self.file} >> {self.runs}\n[ ! -e {self.failing} ]\n")
        command.chmod(0o700)
        changes = {
            "https://vault.example.com:8200": stage.bao.address,
            "/etc/bookings": str(stage.directory),
            "/run/bookings": str(directory),
            "/usr/local/bin/bookings-reload": str(command),
            INTERVAL: interval,
        }
        config = directory / "agent.hcl"
        config.write_text(snippet("agent/agent.hcl", changes))
        self.log = config.with_suffix(".log")
        self.agent: Child = start_agent(config)
        self.reader: Reader = stage.reader(name, read_file(self.file))

    def told(self) -> list[str]:
        """A digest of each document that its command was run for."""
        return self.runs.read_text().splitlines() if self.runs.exists() else []


def test_rendered_file(stage: Stage) -> None:
    """A reader of the file is never refused over several rotations, if the agent looks often enough; else it is.

    The command runs once for each new token, and not again if it fails.
    """
    let_in(stage)
    daemon = stage.daemon(stage.config(["bookings"]))
    daemon.wait_for("token_rotated")
    with ExitStack() as stack:
        often = Rendered(stage, "often", 'static_secret_render_interval = "1s"')
        stack.callback(often.agent.stop)
        # the default is 5 minutes, far more than the 3 seconds between refresh_after and expires_at
        seldom = Rendered(stage, "seldom", "")
        stack.callback(seldom.agent.stop)

        wait_until(lambda: len(often.told()) == 1, "the first run of the command")
        often.failing.touch()
        wait_until(lambda: len(often.told()) == 2, "a run of the command that fails")
        often.failing.unlink()
        wait_until(lambda: often.reader.tokens >= 4, "three rotations seen by the reader")
        wait_until(lambda: seldom.reader.refused > 0, "a refusal where the agent looks too seldom")
        often.reader.stop()

        assert often.reader.refused == 0, often.reader.last_refusal
        assert often.reader.accepted > 20
        assert len(often.told()) == len(set(often.told()))
        assert often.agent.running
        assert (often.file.stat().st_mode & 0o777) == 0o640
        assert str(often.reader.document["access_token"]) not in often.log.read_text()


def test_deleted_secret(stage: Stage) -> None:
    """When the secret is deleted the rendered file stays as it was, and what is published next is rendered again."""
    stage.lookalike.levers(lifetime=600.0)
    let_in(stage)
    config = stage.config(["bookings"], Settings(files=False))
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    with ExitStack() as stack:
        rendered = Rendered(stage, "often", 'static_secret_render_interval = "1s"')
        stack.callback(rendered.agent.stop)
        wait_until(rendered.file.exists, "the rendered file")
        before = rendered.file.read_bytes()

        daemon.terminate()
        stage.bao.client().secrets.kv.v2.delete_latest_version_of_secret("aca/bookings", mount_point="secret")
        wait_until(lambda: "no secret exists" in rendered.log.read_text(), "the agent to see that it is gone")
        assert rendered.file.read_bytes() == before

        stage.daemon(config, log="second.log")
        wait_until(lambda: rendered.file.read_bytes() != before, "the next token")
        assert rendered.reader.refused == 0, rendered.reader.last_refusal
