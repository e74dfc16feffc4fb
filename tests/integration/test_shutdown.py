"""Signals: what is under way is finished, what is queued does not start, and the process ends in time."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

from aca_tokend.demo.stage import Settings, wait_until
from tests.integration import scenes
from tests.integration.test_isolation import Hang, folder
from tests.leases import leased, program_is_waited_for

if TYPE_CHECKING:
    from pathlib import Path

    from aca_tokend.demo.stage import Stage

# Twice what is promised: the machine may be slow. That it ends by itself is what is tested.
PATIENCE_SECONDS = 30.0


def many(stage: Stage, count: int) -> Path:
    """A configuration of many tokens that share the secrets of one account."""
    config = stage.config(["bookings"], Settings(files=False, endpoint='timeout = "60s"'))
    head, _, entry = config.read_text().partition("[[tokens]]")
    entries = [
        "[[tokens]]" + entry.replace('name = "bookings"', f'name = "t{n}"').replace("aca/bookings", f"aca/t{n}")
        for n in range(count)
    ]
    config.write_text(head + "".join(entries))
    return config


def test_ten_thousand_queued_and_an_endpoint_that_hangs(stage: Stage) -> None:
    """With 10,000 tokens queued behind an endpoint that hangs for longer, SIGTERM ends the daemon with exit code 0."""
    stage.lookalike.fail("hang")
    daemon = stage.daemon(many(stage, 10_000))
    wait_until(lambda: stage.lookalike.counts().in_flight >= 1, "a hanging grant")

    daemon.process.send_signal(signal.SIGTERM)

    assert daemon.process.wait(PATIENCE_SECONDS) == 0
    assert stage.lookalike.counts().requests["/auth/oauth/token"] <= 8, "what was queued did not start"
    assert len(daemon.wait_for("daemon_stopped")["unfinished"]) <= 8


def test_everything_hangs_at_once(stage: Stage) -> None:
    """While hooks, a folder, Vault, the endpoint and a client all hang, SIGTERM ends the daemon in time."""
    program, begun = stage.directory / "program", stage.directory / "begun"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    stubborn = f"trap '' TERM; touch {begun}; while :; do sleep 300; done"
    hooks = {
        "stubborn": f"after = {{ command = ['sh', '-c', \"{stubborn}\"], timeout = '60s' }}\n",
        "leased": f"after = {{ command = ['{program}'], timeout = '60s' }}\n",
        "bad": "",
    }
    tokens = [
        scenes.token(stage, name, scenes.to_vault(name), scenes.to_file(folder(stage, name) / "token.json") + hook)
        for name, hook in hooks.items()
    ]
    settings = Settings(rotation=scenes.quick(), endpoint='timeout = "60s"', vault='timeout = "60s"')
    hang = Hang(stage.directory, folder(stage, "bad"))
    with leased(program):
        daemon = stage.daemon(scenes.configure(stage, *tokens, settings=settings), environment=hang.environment)
        wait_until(lambda: begun.exists() and program_is_waited_for(), "both hooks")
        wait_until(lambda: len(daemon.events("token_rotated")) >= len(hooks), "a token for each")
        with socket.create_connection(("127.0.0.1", daemon.admin_port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost:")
            hang.begin()
            os.kill(stage.bao.pid, signal.SIGSTOP)
            stage.lookalike.fail("hang")
            try:
                wait_until(lambda: stage.lookalike.counts().in_flight >= 1, "a grant that hangs")
                assert program_is_waited_for()
                daemon.process.send_signal(signal.SIGTERM)
                assert daemon.process.wait(PATIENCE_SECONDS) == 0
                assert program_is_waited_for()
            finally:
                os.kill(stage.bao.pid, signal.SIGCONT)
                hang.end()
    assert {"hook sh", "hook program"} <= set(daemon.wait_for("daemon_stopped")["unfinished"])


def test_minted_token_is_published_before_the_end(stage: Stage) -> None:
    """A grant that was sent before SIGTERM goes on through publish, and no further one is made."""
    stage.lookalike.levers(latency=2.0)
    daemon = stage.daemon(stage.config(["bookings"]))
    wait_until(lambda: stage.lookalike.counts().in_flight == 1, "a grant under way")

    assert daemon.terminate() == 0

    assert len(daemon.events("token_rotated")) == 1
    assert stage.file_of("bookings").exists()
    assert stage.lookalike.counts().grants == 1


def test_second_signal_leaves_at_once(stage: Stage) -> None:
    """A second signal ends the daemon without waiting for a rotation that hangs."""
    stage.lookalike.fail("hang")
    daemon = stage.daemon(stage.config(["bookings"], Settings(endpoint='timeout = "60s"')))
    wait_until(lambda: stage.lookalike.counts().in_flight == 1, "a grant that hangs")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_for("daemon_stopping")

    daemon.process.send_signal(signal.SIGTERM)

    assert daemon.process.wait(PATIENCE_SECONDS) == 1
    assert daemon.events("daemon_stopped") == []


def test_once_publishes_and_ends(stage: Stage) -> None:
    """`run --once` publishes what is due and exits 0; run again, it adopts and makes no grant."""
    stage.lookalike.levers(lifetime=600.0)
    config = stage.config(["bookings", "signage"])

    assert stage.daemon(config, "--once").process.wait(PATIENCE_SECONDS) == 0
    assert stage.file_of("bookings").exists()
    assert stage.daemon(config, "--once").process.wait(PATIENCE_SECONDS) == 0
    assert stage.lookalike.counts().grants == 2


def test_once_fails_where_a_token_is_not_published(stage: Stage) -> None:
    """`run --once` exits 1 if any token could not be published, and publishes the others."""
    stage.lookalike.levers(lifetime=600.0, faults=[{"kind": "unavailable_empty", "username": "signage"}])
    config = stage.config(["bookings", "signage"])

    daemon = stage.daemon(config, "--once")

    assert daemon.process.wait(PATIENCE_SECONDS) == 1
    assert stage.file_of("bookings").exists()
    assert not stage.file_of("signage").exists()
    assert daemon.events("rotation_failed")


def test_wrong_configuration_is_refused(stage: Stage) -> None:
    """A wrong configuration ends `run` with exit code 2 and every problem, before anything is connected to."""
    config = stage.config(["bookings"])
    config.write_text(config.read_text().replace("authority =", "autority ="))

    daemon = stage.daemon(config)

    assert daemon.process.wait(PATIENCE_SECONDS) == 2
    assert "did you mean" in daemon.text
    assert stage.lookalike.counts().requests == {}


def test_admin_port_that_is_taken_is_refused(stage: Stage) -> None:
    """A port that is taken ends `run` with exit code 2 and a message that names the key."""
    config = stage.config(["bookings"])
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{stage.lookalike.port}"))

    daemon = stage.daemon(config)

    assert daemon.process.wait(PATIENCE_SECONDS) == 2
    assert "admin.listen" in daemon.text
