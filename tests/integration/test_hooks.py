"""What is run after a write, by a real daemon: it follows each one, hurries nobody, and survives every death."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.demo.stage import DaemonProcess, Settings, wait_until
from tests.integration.conftest import assert_nothing_leaked

if TYPE_CHECKING:
    from aca_tokend.demo.stage import Stage

PATIENCE_SECONDS = 60.0
KILLS = 6
BACKOFF = 'min_interval = "1s"\nassumed_lifetime = "60s"\nbackoff = { initial = "200ms", cap = "1s" }'


def configured(stage: Stage, hooks: dict[str, str]) -> Path:
    """A configuration of tokens that are files alone, each with what is run after it is written."""
    config = stage.config(list(hooks), Settings(rotation=BACKOFF))
    text = re.sub(r'\[\[tokens.publish\]\]\nto = "vault"\nmount = "secret"\npath = "[^"]*"\n', "", config.read_text())
    for account, after in hooks.items():
        place = f'path = "{stage.file_of(account)}"\n'
        assert place in text
        text = text.replace(place, f"{place}after = {after}\n")
    config.write_text(text)
    return config


def shell(script: str, timeout: str = "30s") -> str:
    """A hook that is a script."""
    return f"{{ command = ['sh', '-c', '''{script}'''], timeout = \"{timeout}\" }}"


def copying(stage: Stage, account: str, before: str = "") -> tuple[str, Path]:
    """A hook that notes what the file holds, in one write, and shows it; and where it notes it."""
    log = stage.directory / f"{account}.hooked"
    log.touch()
    return shell(
        f'{before}c=$(cat {stage.file_of(account)}); echo "$c"; echo "$c" | tr -d "\\n" >>{log}; echo >>{log}'
    ), log


def content(stage: Stage, account: str) -> str:
    """What the file holds, as the hook notes it."""
    try:
        return stage.file_of(account).read_text().replace("\n", "")
    except FileNotFoundError:
        return ""


def test_hook_follows_each_write(stage: Stage) -> None:
    """A hook runs after each rotation, sees what was written, and no secret that it shows gets anywhere."""
    stage.lookalike.levers(lifetime=4.0)
    after, log = copying(stage, "bookings")
    daemon = stage.daemon(configured(stage, {"bookings": after}))

    daemon.wait_for("hook_ran", 3)

    wait_until(lambda: log.read_text().splitlines()[-1] == content(stage, "bookings"), "a run for the last write")
    noted = log.read_text().splitlines()
    assert len(set(noted)) >= 3
    ran = daemon.events("hook_ran")[-1]
    assert (ran["hook"], ran["tokens"]) == ("sh", ["bookings"])
    assert "<secret>" in ran["output"]
    assert_nothing_leaked(stage, daemon)
    assert daemon.terminate() == 0


def test_failing_hook_is_run_again_and_delays_nobody(stage: Stage) -> None:
    """While the hook of one token hangs, its own rotations and the other's hook go on; once mended, it is run."""
    stage.lookalike.levers(lifetime=4.0)
    good, log = copying(stage, "signage")
    mended = stage.directory / "mended"
    bad = shell(f"test -e {mended} || sleep 300", timeout="1s")
    daemon = stage.daemon(configured(stage, {"bookings": bad, "signage": good}))

    failed = daemon.wait_for("hook_failed", 3)
    rotated = len(daemon.events("token_rotated"))
    daemon.wait_for("token_rotated", rotated + 2, token="bookings")
    assert (failed["step"], failed["reason"], failed["tokens"]) == ("hook", "command_timeout", ["bookings"])
    assert "next_attempt_at" in failed
    assert daemon.metric("rotation_errors_total", token="bookings", step="hook", reason="command_timeout") >= 3
    assert daemon.metric("token_consecutive_failures", token="bookings") >= 3
    assert daemon.metric("token_consecutive_failures", token="signage") == 0
    wait_until(lambda: log.read_text().splitlines()[-1] == content(stage, "signage"), "the other's run")
    assert not daemon.events("rotation_failed")
    mended.touch()

    assert daemon.wait_for("hook_recovered")["tokens"] == ["bookings"]
    wait_until(lambda: daemon.metric("token_consecutive_failures", token="bookings") == 0, "no failure")
    assert daemon.get("/-/healthy")[0] == 200
    assert daemon.terminate() == 0


def test_no_write_stays_without_its_hook(stage: Stage) -> None:
    """Killed at any moment around a write, the daemon runs the hook for it after the next start."""
    rng = random.Random(4)  # noqa: S311 -- moments
    stage.lookalike.levers(lifetime=4.0)
    after, log = copying(stage, "bookings", before="sleep 0.05; ")
    config = configured(stage, {"bookings": after})
    for _ in range(KILLS):
        held = content(stage, "bookings")
        daemon = stage.daemon(config)
        wait_until(lambda held=held: content(stage, "bookings") != held, "a write")  # type: ignore[misc]  # bound now
        time.sleep(rng.choice((0.0, rng.uniform(0.0, 0.1))))
        daemon.kill()
    stage.lookalike.levers(lifetime=600.0)
    daemon = stage.daemon(config)

    daemon.wait_for("hook_ran")  # its own: a command of one that was killed goes on, and may do the same
    wait_until(lambda: log.read_text().splitlines()[-1:] == [content(stage, "bookings")], "a run for the last write")
    assert daemon.terminate() == 0


def test_adopted_token_has_its_hook_run_once(stage: Stage) -> None:
    """After a start the hook runs once for what was found: nobody knows whether the process before came to it."""
    stage.lookalike.levers(lifetime=600.0)
    after, log = copying(stage, "bookings")
    config = configured(stage, {"bookings": after})
    assert stage.daemon(config, "--once").process.wait(PATIENCE_SECONDS) == 0

    assert stage.daemon(config, "--once").process.wait(PATIENCE_SECONDS) == 0

    assert log.read_text().splitlines() == [content(stage, "bookings")] * 2
    assert stage.lookalike.counts().grants == 1


def test_once_fails_with_its_hook(stage: Stage) -> None:
    """`run --once` exits 1 if a hook failed, though the token was published."""
    stage.lookalike.levers(lifetime=600.0)
    daemon = stage.daemon(configured(stage, {"bookings": shell("echo no; exit 3")}), "--once")

    assert daemon.process.wait(PATIENCE_SECONDS) == 1
    assert content(stage, "bookings")
    (failed,) = daemon.events("hook_failed")
    assert (failed["reason"], failed["output"]) == ("command_failed", "no")


def test_stop_lets_a_hook_finish(stage: Stage) -> None:
    """A stop while a hook runs, and another is due for a second token, lets both come to their end."""
    stage.lookalike.levers(lifetime=600.0)
    log = stage.directory / "runs"
    slow = shell(f"echo begun >>{log}; sleep 0.5; echo ended >>{log}")
    daemon = stage.daemon(configured(stage, {"bookings": slow, "signage": slow}))
    wait_until(lambda: len(daemon.events("token_rotated")) == 2, "both tokens")

    assert daemon.terminate() == 0
    lines = log.read_text().split()
    assert lines == ["begun", "ended"] * (len(lines) // 2)
    assert {token for ran in daemon.events("hook_ran") for token in ran["tokens"]} == {"bookings", "signage"}


def test_stop_ends_a_hook_that_hangs(stage: Stage) -> None:
    """A hook that hangs holds a stop up for no longer than any rotation, and is not left behind."""
    stage.lookalike.levers(lifetime=600.0)
    file = stage.directory / "pids"
    hanging = shell(f"trap : TERM; sleep 300 & echo $$ $! >{file}; while :; do wait; done", timeout="60s")
    daemon = stage.daemon(configured(stage, {"bookings": hanging}))
    wait_until(lambda: file.exists() and len(file.read_text().split()) == 2, "a run")

    assert daemon.terminate() == 0

    assert daemon.events("daemon_stopped")[0]["unfinished"] == ["hook sh"]
    for pid in file.read_text().split():
        wait_until(lambda pid=pid: _ended(pid), f"the end of {pid}")  # type: ignore[misc]  # bound now


def test_stop_ends_what_left_the_session_of_a_hook(stage: Stage) -> None:
    """A stop while a hook runs ends what it started in another session too, before the daemon itself ends."""
    stage.lookalike.levers(lifetime=600.0)
    file = stage.directory / "pid"
    hanging = shell(f"setsid sleep 300 >/dev/null 2>&1 & echo $! >{file}; sleep 300", timeout="60s")
    daemon = stage.daemon(configured(stage, {"bookings": hanging}))
    wait_until(lambda: file.exists() and file.read_text() != "", "a run")

    assert daemon.terminate() == 0
    assert _ended(file.read_text().strip())


def _ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_what_a_hook_leaves_behind_is_ended(stage: Stage) -> None:
    """A process that leaves the session of its hook ends with it, and nothing remains of either."""
    stage.lookalike.levers(lifetime=600.0)
    file = stage.directory / "pid"
    daemon = stage.daemon(configured(stage, {"bookings": shell(f"setsid sleep 300 >/dev/null 2>&1 & echo $! >{file}")}))
    wait_until(lambda: file.exists() and file.read_text() != "", "a run")

    wait_until(lambda: _ended(file.read_text().strip()), "the end of what it left")
    own = Path(f"/proc/{daemon.process.pid}/task")
    wait_until(lambda: not any((it / "children").read_text() for it in own.iterdir()), "no process left")
    assert daemon.terminate() == 0


def test_signal_reaches_the_reader(stage: Stage) -> None:
    """A process that its pid file names gets the signal after each write."""
    stage.lookalike.levers(lifetime=4.0)
    log, pid_file = stage.directory / "signals", stage.directory / "reader.pid"
    script = f"trap 'echo hup >>{log}' HUP; echo $$ >{pid_file}; while :; do sleep 0.05; done"
    # under nohup HUP is ignored from the start, and no shell can trap what is
    reader = subprocess.Popen(["/usr/bin/env", "--default-signal=HUP", "/bin/sh", "-c", script])
    try:
        wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", "the reader")
        after = f'{{ signal = "HUP", pid_file = "{pid_file}" }}'
        daemon = stage.daemon(configured(stage, {"bookings": after}))
        wait_until(lambda: log.exists() and len(log.read_text().split()) >= 2, "two signals")
        os.kill(reader.pid, signal.SIGKILL)
        reader.wait()
        assert daemon.wait_for("hook_failed")["reason"] == "process_missing"
    finally:
        reader.kill()
        reader.wait()


def test_equal_hooks_share_a_run(stage: Stage) -> None:
    """Twenty tokens with one and the same hook start together, and have it run a few times, not twenty."""
    stage.lookalike.levers(lifetime=600.0)
    log = stage.directory / "runs"
    hook = shell(f"echo run >>{log}")
    names = [f"t{number}" for number in range(20)]
    daemon: DaemonProcess = stage.daemon(configured(stage, dict.fromkeys(names, hook)))

    def done() -> set[str]:
        return {token for ran in daemon.events("hook_ran") for token in ran["tokens"]}

    wait_until(lambda: done() == set(names), "a run for each")
    assert len(log.read_text().split()) < 10
    assert daemon.terminate() == 0
