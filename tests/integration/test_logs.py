"""What a real daemon logs at level INFO while things fail: summed up, with the server's request ids, and to the end."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

from aca_tokend.demo.stage import Settings, Stage, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ROTATION = 'min_interval = "1s"\nassumed_lifetime = "60s"\nbackoff = { initial = "100ms", cap = "300ms" }'


def at_info(config: Path) -> Path:
    """The same configuration, which logs from INFO on."""
    config.write_text(config.read_text().replace('level = "debug"', 'level = "info"'))
    return config


def test_one_token_that_fails(stage: Stage) -> None:
    """Its failures are told at each doubling, each with its request id; then that it expired; then its success."""
    daemon = stage.daemon(at_info(stage.config(["bookings"], Settings(rotation=ROTATION))))
    daemon.wait_for("token_rotated")
    stage.lookalike.fail("not_found")
    daemon.wait_for("token_expired", token="bookings", reason="not_found")
    daemon.wait_for("rotation_failed", attempt=16)
    stage.lookalike.heal()
    rotated = daemon.wait_for("token_rotated", 2)

    failed = daemon.events("rotation_failed")
    assert [line["attempt"] for line in failed] == [2**power for power in range(len(failed))]
    assert [line.get("left_out", 0) for line in failed] == [0, *(2**power - 1 for power in range(len(failed) - 1))]
    assert {line["level"] for line in failed} == {"warning"}
    assert len({line["request_id"] for line in failed}) == len(failed)
    assert rotated["failures"] >= failed[-1]["attempt"]
    assert rotated["failing_seconds"] > 0
    assert rotated["request_id"]


def test_endpoint_that_is_down(stage: Stage) -> None:
    """The endpoint tells how many wait; each token has a first line, and one when it expired; then all are back."""
    names = [f"t{number}" for number in range(12)]
    daemon = stage.daemon(at_info(stage.config(names, Settings(rotation=ROTATION))))
    daemon.wait_for("token_rotated", len(names))
    stage.lookalike.go_down()
    daemon.wait_for("endpoint_down", waiting=len(names), expired=len(names), reason="connect_failed")
    wait_until(lambda: len(daemon.events("token_expired")) >= len(names), "every token told as expired")
    stage.lookalike.come_up()
    up = daemon.wait_for("endpoint_recovered")

    down = daemon.events("endpoint_down")
    # connections that were kept are lost, new ones refused: each reason has doublings of its own
    assert len(down) <= 2 * down[-1]["attempt"].bit_length()
    assert up["failures"] >= down[-1]["attempt"]
    first = {line["token"] for line in daemon.events() if line["event"] in {"rotation_failed", "rotation_skipped"}}
    assert first == set(names)
    wait_until(lambda: back(daemon.events("token_rotated")) == set(names), "every token rotated after its failures")
    assert sorted(line["token"] for line in daemon.events("token_expired")) == sorted(names)


def back(lines: list[Mapping[str, Any]]) -> set[str]:
    """The tokens of which a success after failures was told."""
    return {line["token"] for line in lines if "failing_seconds" in line}


def test_changed_token_fails_anew(stage: Stage) -> None:
    """After a reload that changed a token its next failure is told, though the same one was told before."""
    config = at_info(stage.config(["bookings"], Settings(rotation=ROTATION)))
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    stage.lookalike.fail("not_found")
    daemon.wait_for("rotation_failed", attempt=4)
    told = len(daemon.events("rotation_failed"))
    assert [line["attempt"] for line in daemon.events("rotation_failed") if "failing_since" not in line] == [1]
    config.write_text(config.read_text().replace('scope = "public"', 'scope = ""'))
    daemon.wait_for("config_reloaded", changed=1)

    wait_until(
        lambda: any("failing_since" not in line for line in daemon.events("rotation_failed")[told:]), "a first failure"
    )


def test_log_that_nobody_reads(stage: Stage) -> None:
    """With standard error full and unread tokens rotate and SIGTERM ends it; what was dropped is counted and told."""
    config = stage.config([f"t{number}" for number in range(60)], Settings(rotation=ROTATION))
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "aca_tokend", "run", "--config", str(config), "--log-format", "json"]
    with os.fdopen(reading) as log:
        process = subprocess.Popen(command, stderr=writing)
        os.close(writing)
        try:
            port = next(found[1] for line in log if (found := re.search(r'"admin": "127.0.0.1:(\d+)"', line)))

            def page(path: str) -> str:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                    return str(answer.read().decode())

            def dropped() -> float:
                return float(
                    re.findall(r"^aca_tokend_log_lines_dropped_total (\S+)", page("/metrics"), re.MULTILINE)[0]
                )

            file = stage.file_of("t0")
            wait_until(file.exists, "the first token")
            stage.lookalike.fail("not_found")
            wait_until(lambda: dropped() > 0, "a line that is dropped", 120.0)
            before = file.read_text()
            stage.lookalike.heal()
            wait_until(lambda: file.read_text() != before, "the next token")
            assert page("/-/healthy")

            told = next(json.loads(line) for line in log if '"log_lines_dropped"' in line)
            assert told["level"] == "warning"
            wait_until(lambda: dropped() >= told["since_start"] > 0, "as many that are counted")
            process.terminate()
            assert "daemon_stopped" in log.read(), "who reads to the end misses nothing of it"
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
