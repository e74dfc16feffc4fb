"""The parts of the daemon that need no server: the bell, the schedule, and the end after a bug."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from aca_tokend import config_files
from aca_tokend.bell import Bell
from aca_tokend.clock import SystemClock
from aca_tokend.core.config import parse
from aca_tokend.core.steps import Duty
from aca_tokend.daemon import STEP_SPREAD_SECONDS, Daemon
from aca_tokend.demo.stage import wait_until
from aca_tokend.reload import Source
from aca_tokend.sinks.mounts import FILE_POOL

if TYPE_CHECKING:
    from pathlib import Path

# Signals land on a thread that waits for the bell, thousands of times: with a lock in the handler this hangs for ever.
SIGNALS = """
import signal
from aca_tokend.bell import Bell

bell, count = Bell(), 0

def handle(number, frame):
    global count
    count += 1
    bell.ring_to_stop()

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
while count < 5000:
    bell.wait(0.001)
signal.setitimer(signal.ITIMER_REAL, 0)
print("done")
"""

BUG = """
import pathlib
import sys
from aca_tokend import daemon, log, service
from aca_tokend.core.config import parse

config = parse([("config.toml", {
    "admin": {"listen": ""},
    "acaengine": {"main": {"url": "http://127.0.0.1:9"}},
    "tokens": [{
        "name": "bookings", "authority": "a", "username": "u", "client_id": "c",
        "password": {"env": "NONE"}, "client_secret": {"env": "NONE"},
        "publish": [{"to": "file", "path": "/nonexistent/bookings.json"}],
    }],
})])

class Buggy(daemon.Daemon):
    def _observe(self, event):
        raise ZeroDivisionError("a bug")

log.configure("info", "json")
sys.exit(service.run(config, pathlib.Path("config.toml"), Buggy))
"""


ENTRY = """
[[tokens]]
name = "t{number}"
authority = "authority-1"
username = "svc-{number}"
password = {{ env = "PASSWORD" }}
client_id = "client-1"
client_secret = {{ env = "CLIENT_SECRET" }}
publish = [{{ to = "file", path = "/run/aca/t{number}.json" }}]
"""
TWO_TOKENS = "[acaengine.main]\nurl = 'https://aca.example.com'" + ENTRY.format(number=1) + ENTRY.format(number=2)

HANGING = """
import os
import sys
import threading
from aca_tokend import daemon
from aca_tokend.core.config import parse

config = parse([("config.toml", {
    "admin": {"listen": ""},
    "acaengine": {"main": {"url": "http://127.0.0.1:9"}},
    "tokens": [{
        "name": "bookings", "authority": "a", "username": "u", "client_id": "c",
        "password": {"env": "NONE"}, "client_secret": {"env": "NONE"},
        "publish": [{"to": "file", "path": sys.argv[1] + "/bookings.json"}],
    }],
})])
reached = threading.Event()

def hang(event, arguments):
    if event == "os.listdir" and isinstance(arguments[0], int):
        reached.set()
        threading.Event().wait()

sys.addaudithook(hang)
hanging = daemon.Daemon(config)
hanging.start()
reached.wait()
while hanging.readiness()[0].problem:
    hanging.bell.wait(0.05)
print("done", flush=True)
os._exit(0)
"""


def test_bell_rung_by_a_signal_never_locks_up() -> None:
    """A signal handler may ring the bell at any moment of the main thread's waiting for it."""
    result = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True, timeout=120, check=True)

    assert result.stdout == "done\n"


def test_bell_wakes_a_waiting_thread() -> None:
    """A wait ends as soon as the bell was rung, before or during it."""
    bell = Bell()
    bell.ring_to_stop()

    bell.wait(3600.0)

    assert bell.stop


def test_hanging_directory_holds_up_no_start(tmp_path: Path) -> None:
    """Where a file system hangs as leftovers are looked for, the tokens are put on schedule and tried all the same."""
    command = [sys.executable, "-c", HANGING, str(tmp_path)]

    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)

    assert result.stdout.splitlines()[-1] == "done"


class SleepingClock(SystemClock):
    """The clocks of a machine that sleeps now and then: what threads wait by stands still meanwhile."""

    slept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.slept


def idle(clock: SystemClock, tokens: int) -> Daemon:
    """A daemon that was not started."""
    entry = {
        "authority": "a",
        "client_id": "c",
        "password": {"env": "NONE"},
        "client_secret": {"env": "NONE"},
    }
    entries = [
        {**entry, "name": f"t{n}", "username": f"u{n}", "publish": [{"to": "file", "path": f"/nonexistent/t{n}.json"}]}
        for n in range(tokens)
    ]
    document = {"acaengine": {"main": {"url": "http://127.0.0.1:9"}}, "tokens": entries}
    return Daemon(parse([("config.toml", document)]), clock)


def test_after_a_step_tokens_reckon_anew_one_by_one() -> None:
    """When the clock was stepped each token comes within two seconds, and they do not come all at once."""
    daemon = idle(SystemClock(), 200)
    for state in daemon.states.values():
        daemon.scheduler.keep(daemon._work(state), daemon.clock.monotonic() + 3600.0)

    before = daemon.clock.monotonic()
    daemon._clock_stepped(-3600.0)
    after = daemon.clock.monotonic()

    due = [job.trigger.at for job in daemon.scheduler._store.jobs.values()]
    assert len(due) == 200
    assert all(state.clock_stepped for state in daemon.states.values())
    assert before <= min(due)
    assert max(due) <= after + STEP_SPREAD_SECONDS
    assert max(due) - min(due) > STEP_SPREAD_SECONDS / 2


def test_what_fell_due_while_the_machine_slept_begins_at_once() -> None:
    """A sleep is noticed as a step, and what fell due meanwhile begins then, not when its thread would have woken."""
    clock, began = SleepingClock(), threading.Event()
    daemon = idle(clock, 1)

    async def attempt() -> float:
        began.set()
        return math.inf

    daemon.scheduler.keep(Duty("slept through", FILE_POOL, attempt, lambda: 0.0), clock.monotonic() + 1800.0)
    daemon.scheduler.start()
    try:
        clock.slept = 3600.0
        daemon._clock_stepped(3600.0)
        assert began.wait(30.0)
    finally:
        daemon.stop()


def test_removed_token_is_taken_off_the_schedule() -> None:
    """A token that a reload removed is attempted no more; those that stay keep the very attempt that was due."""
    daemon = idle(SystemClock(), 3)
    for state in daemon.states.values():
        daemon.scheduler.keep(daemon._work(state), daemon.clock.monotonic() + 3600.0)
    due = dict(daemon.scheduler._store.jobs)
    staying = tuple(token for token in daemon.config.tokens if token.name != "t1")

    daemon._swap(daemon.config.model_copy(update={"tokens": staying}))

    assert daemon.states.keys() == {"t0", "t2"}
    left = daemon.scheduler._store.jobs
    assert left.keys() == {"t0", "t2"}
    assert all(left[name] is due[name] for name in left)


def of_two_tokens(main: Path) -> Daemon:
    """A daemon that has not started, with this file as its configuration; a reload reads it again."""
    main.write_text(TWO_TOKENS)
    daemon = Daemon(config_files.load(main))
    daemon.source = Source(main, daemon.config, daemon.config, daemon.logger, daemon._observe_reload)
    return daemon


def test_reload_keeps_no_second_configuration_of_a_token(tmp_path: Path) -> None:
    """After a reload a token's state holds the very configuration that the daemon does, also where its pool changed."""
    main = tmp_path / "config.toml"
    daemon = of_two_tokens(main)
    before = daemon.config.tokens
    for change in (("svc-2", "svc-3"), ("[[tokens]]", "max_concurrency = 3\n[[tokens]]")):
        main.write_text(main.read_text().replace(*change, 1))
        daemon.reload()

    assert daemon.config.tokens[0] is before[0]
    assert all(daemon.states[token.name].config is token for token in daemon.config.tokens)


def test_reload_changes_what_is_not_under_way_at_once(tmp_path: Path) -> None:
    """What reloads changed is taken over at once, or after an attempt that is under way: all of it then, in order."""
    main = tmp_path / "config.toml"
    daemon = of_two_tokens(main)
    began, go_on = threading.Event(), threading.Event()

    async def attempt() -> float:
        began.set()
        go_on.wait(60.0)
        return math.inf

    daemon.scheduler.keep(Duty("t1", FILE_POOL, attempt, lambda: 0.0), daemon.clock.monotonic())
    daemon.scheduler.start()
    try:
        assert began.wait(60.0)
        main.write_text(TWO_TOKENS.replace("svc", "other"))
        daemon.reload()
        assert daemon.states["t1"].config.username == "svc-1"
        assert daemon.states["t2"].config.username == "other-2"
        main.write_text(TWO_TOKENS.replace("svc", "another"))
        daemon.reload()
        assert [pending.fresh.config.username for pending in daemon._changes["t1"]] == ["other-1", "another-1"]
        go_on.set()
        wait_until(lambda: daemon.states["t1"].config.username == "another-1", "the change is taken over")
    finally:
        go_on.set()
        daemon.stop()


def test_a_bug_ends_the_process() -> None:
    """What nobody expected ends `run` with exit code 1 and one CRITICAL line, without local variables."""
    result = subprocess.run([sys.executable, "-c", BUG], capture_output=True, text=True, timeout=120, check=False)

    assert result.returncode == 1
    assert "a bug; please report it" in result.stderr
    assert "ZeroDivisionError" in result.stderr
