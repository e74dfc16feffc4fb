"""The parts of the daemon that need no server: the bell, the schedule, and the end after a bug."""

from __future__ import annotations

import math
import os
import resource
import shutil
import subprocess
import sys
import threading
import tomllib
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.bell import Bell
from aca_tokend.clock import SystemClock
from aca_tokend.config.files import load
from aca_tokend.core.config import parse
from aca_tokend.core.login import LoggedIn
from aca_tokend.core.outcome import Skipped
from aca_tokend.core.steps import Duty
from aca_tokend.daemon import CLEANUP, Daemon
from aca_tokend.demo.stage import wait_until
from aca_tokend.reload import Draining, Source
from aca_tokend.rotation.managed import ClockStepped, Reconfigured, Woken
from aca_tokend.rotation.tokens import STEP_SPREAD_SECONDS, TokenWork
from aca_tokend.sinks.mounts import FILE_POOL
from tests.changed import replace
from tests.fakes import FakeClock, ScriptedEndpoint, drive
from tests.unit.told import configured, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

    from aca_tokend.core.config import Config, TokenConfig

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
from aca_tokend.core.login import LoggedIn
from aca_tokend.core.outcome import Skipped

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

# The system gives no thread to any pool until each attempt that is due waits for one.
ONCE = (
    BUG.partition("class Buggy")[0]
    + """
import threading

start, refused = threading.Thread.start, []

def refuse(thread):
    if thread.name.startswith("file") and len(refused) < 2:
        refused.append(thread.name)
        raise RuntimeError("can't start new thread")
    start(thread)

threading.Thread.start = refuse
log.configure("info", "json")
sys.exit(service.run_once(config))
"""
)

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
from aca_tokend.core.login import LoggedIn
from aca_tokend.core.outcome import Skipped

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


def in_an_hour(daemon: Daemon) -> None:
    """Puts every token on schedule for later."""
    for token in daemon.tokens.by_name.values():
        daemon.scheduler.keep(TokenWork(daemon.tokens, token), daemon.clock.monotonic() + 3600.0)


class SteppedClock(SystemClock):
    """The clocks of a machine whose wall clock is set by hand."""

    stepped, looks = 0.0, 0

    def wall(self) -> float:
        self.looks += 1
        return super().wall() + self.stepped


def test_a_step_is_told_once() -> None:
    """A wall clock that was set is told of once, as is its next step; from then on the new time is the right one."""
    stream, clock = configured(), SteppedClock()
    daemon = idle(clock, 1)
    watching = threading.Thread(target=daemon.watch, daemon=True)

    def rounds() -> bool:
        """Some more of what is watched."""
        if clock.looks < seen + 20:
            daemon.bell.ring_to_reload()
        return clock.looks >= seen + 20

    watching.start()
    try:
        for step in (3600.0, -600.0):
            seen = clock.looks
            wait_until(rounds, "rounds before the step")
            clock.stepped += step
            seen = clock.looks
            wait_until(rounds, "rounds after the step")
    finally:
        daemon.bell.ring_to_stop()
        watching.join(60.0)

    steps = [line["seconds"] for line in lines(stream) if line["event"] == "clock_stepped"]
    assert [round(step) for step in steps] == [3600, -600]


def test_after_a_step_tokens_reckon_anew_one_by_one() -> None:
    """When the clock was stepped each token comes within two seconds, and they do not come all at once."""
    daemon = idle(SystemClock(), 200)
    in_an_hour(daemon)

    before = daemon.clock.monotonic()
    daemon._clock_stepped(-3600.0)
    after = daemon.clock.monotonic()

    due = [job.trigger.at for job in daemon.scheduler._store.jobs.values()]
    assert len(due) == 200
    assert all(list(token.inbox) == [ClockStepped()] for token in daemon.tokens.by_name.values())
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
    in_an_hour(daemon)
    due = dict(daemon.scheduler._store.jobs)
    staying = tuple(token for token in daemon.config.tokens if token.name != "t1")

    daemon._swap(daemon.config.model_copy(update={"tokens": staying}))

    assert daemon.tokens.by_name.keys() == {"t0", "t2"}
    left = daemon.scheduler._store.jobs
    assert left.keys() == {"t0", "t2"}
    assert all(left[name] is due[name] for name in left)


def of_two_tokens(main: Path, text: str = TWO_TOKENS) -> Daemon:
    """A daemon that has not started, with this file as its configuration; a reload reads it again."""
    main.write_text(text)
    daemon = Daemon(load(main))
    daemon.source = Source(main, daemon.config, daemon.logger, daemon._observe_reload)
    return daemon


def test_reload_keeps_no_second_configuration_of_a_token(tmp_path: Path) -> None:
    """After a reload a token has the very configuration that the daemon has, also where its pool changed."""
    main = tmp_path / "config.toml"
    daemon = of_two_tokens(main)
    before = daemon.config.tokens
    for change in (("svc-2", "svc-3"), ("[[tokens]]", "max_concurrency = 3\n[[tokens]]")):
        main.write_text(main.read_text().replace(*change, 1))
        daemon.reload()

    assert daemon.config.tokens[0] is before[0]
    assert all(of_now(daemon, token.name) is token for token in daemon.config.tokens)


def test_what_was_rejected_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that could not be read is taken up once it can be, though no file and no folder changed."""
    main = tmp_path / "config.toml"
    daemon = of_two_tokens(main)
    main.write_text(TWO_TOKENS.replace("svc-2", "svc-3"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        daemon.reload()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert daemon.source is not None
    assert [problem.problem for problem in daemon.source.problems] == ["cannot be read (EMFILE)"]

    monkeypatch.setattr("aca_tokend.daemon.READ_AGAIN_SECONDS", 0.0)
    watching = threading.Thread(target=daemon.watch)
    watching.start()
    wait_until(lambda: daemon.config.tokens[1].username == "svc-3", "the change is taken up")
    daemon.bell.ring_to_stop()
    watching.join()
    assert not daemon.source.problems


def of_now(daemon: Daemon, name: str) -> TokenConfig:
    """The configuration that the next attempt of a token takes in, or else the one that it has."""
    token = daemon.tokens.by_name[name]
    messages = [message.wiring.config for message in token.inbox if isinstance(message, Reconfigured)]
    return messages[-1] if messages else token.facts.config


def test_reloads_wait_for_an_attempt_under_way(tmp_path: Path) -> None:
    """What reloads changed is taken in by the next attempt: at once, or after the one that is under way."""
    main = tmp_path / "config.toml"
    daemon = of_two_tokens(main)
    with blocked(daemon, "t1") as go_on:
        for name in ("other", "another"):
            main.write_text(TWO_TOKENS.replace("svc", name))
            daemon.reload()
        configs = {name: token.facts.config for name, token in daemon.tokens.by_name.items()}
        assert configs["t1"].username == "svc-1"
        wait_until(lambda: daemon.tokens.by_name["t2"].facts.config.username == "another-2", "an attempt of t2")
        assert len(daemon.tokens.by_name["t1"].inbox) == 2
        go_on()
        wait_until(lambda: daemon.tokens.by_name["t1"].facts.config.username == "another-1", "the change is taken in")


# ── what leaves by a reload ───────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def blocked(daemon: Daemon, name: str) -> Iterator[Callable[[], None]]:
    """While an attempt of this name is under way in the daemon, which is started; what is yielded lets it go on."""
    began, go_on = threading.Event(), threading.Event()

    async def attempt() -> float:
        began.set()
        go_on.wait(60.0)
        return math.inf

    daemon.scheduler.keep(Duty(name, FILE_POOL, attempt, lambda: 0.0), daemon.clock.monotonic())
    try:
        if not daemon.scheduler._scheduler._thread:
            daemon.scheduler.start()
        assert began.wait(60.0)
        yield go_on.set
    finally:
        go_on.set()
        daemon.stop()


def of_vaults(*names: str) -> Config:
    """A configuration of two tokens in files, and these Vaults, which nothing needs."""
    auth = {"method": "token", "token": {"env": "NONE"}}
    document = tomllib.loads(TWO_TOKENS)
    return parse(
        [
            (
                "config.toml",
                document | {"vault": {name: {"address": "http://127.0.0.1:9", "auth": auth} for name in names}},
            )
        ]
    )


def test_each_reload_cleans_up_after_itself() -> None:
    """However attempts overlap, each reload is cleaned up after once the attempts that began before it are over."""
    draining, done = Draining(), list[str]()
    draining.add(frozenset({1}), [partial(done.append, "first")])
    draining.add(frozenset({1, 2}), [partial(done.append, "second")])
    draining.settle(lambda: frozenset({1, 2, 3}))
    assert done == []

    draining.settle(lambda: frozenset({2, 3}))
    assert done == ["first"]
    draining.add(frozenset({2, 3}), [partial(done.append, "third")])
    draining.settle(lambda: frozenset({3, 4}))
    assert done == ["first", "second"]
    for number in range(4, 100):
        draining.settle(lambda number=number: frozenset({number, number + 1}))  # type: ignore[misc]  # bound now
    assert done == ["first", "second", "third"], "though an attempt was under way all the time"


def test_pools_and_vaults_end_with_the_reload_that_left_them() -> None:
    """A reload's clean-up leaves alone what a later one left: an attempt that began between the two may need it."""
    daemon = Daemon(of_vaults("a", "b"))

    def there() -> set[str]:
        daemon.draining.settle(daemon.scheduler.under_way)
        pools = {name for name in daemon.scheduler._pools if name.startswith("vault.")}
        assert pools == {f"vault.{name}" for name in daemon.parts.vaults}
        return pools

    with blocked(daemon, "first") as end_first:
        daemon._swap(of_vaults("b"))
        with blocked(daemon, "second") as end_second:
            daemon._swap(of_vaults())
            assert there() == {"vault.a", "vault.b"}
            end_first()
            wait_until(lambda: there() == {"vault.b"}, "the clean-up after the first reload")
            end_second()
            wait_until(lambda: there() == set(), "the clean-up after the second")


def test_pool_that_came_back_stays() -> None:
    """What left by one reload and came back by the next is not removed by the clean-up of either."""
    daemon = Daemon(of_vaults("a"))
    in_an_hour(daemon)
    for names in ((), ("a",)):
        daemon._swap(of_vaults(*names))
    daemon.draining.settle(daemon.scheduler.under_way)

    assert "vault.a" in daemon.scheduler._pools
    assert "a" in daemon.parts.vaults


def test_renewer_of_a_removed_vault_is_dropped() -> None:
    """The token of a Vault that left is renewed no more, whatever a log-in tells that was under way."""
    daemon = Daemon(of_vaults("a", "b"))
    in_an_hour(daemon)
    for name in ("a", "b"):
        daemon._on_login(LoggedIn(name, "token", None, daemon.clock.monotonic() + 3600.0))
    assert {"vault:a", "vault:b"} <= daemon.scheduler._store.jobs.keys()

    daemon._swap(of_vaults("b"))

    assert {"vault:a", "vault:b"} & daemon.scheduler._store.jobs.keys() == {"vault:b"}
    daemon._on_login(LoggedIn("a", "token", None, daemon.clock.monotonic() + 3600.0))
    assert "vault:a" not in daemon.scheduler._store.jobs
    daemon._swap(of_vaults("a", "b"))
    daemon._on_login(LoggedIn("a", "token", None, daemon.clock.monotonic() + 3600.0))
    daemon.draining.settle(daemon.scheduler.under_way)
    assert "vault:a" in daemon.scheduler._store.jobs, "the clean-up is of the one that left"


def test_removed_token_passes_its_turn() -> None:
    """If a token leaves whose turn it is to ask an endpoint that is down, another that waits has it."""
    daemon = idle(SystemClock(), 5)
    in_an_hour(daemon)
    now, gate = daemon.clock.monotonic(), daemon.tokens.by_name["t0"].wiring.gate
    for name in ("t0", "t1", "t2", "t3", "t4"):
        wakes = gate.failed(name, now + 3600.0, now, None, 0.5)
    turn = wakes[0].token
    staying = tuple(token for token in daemon.config.tokens if token.name != turn)

    daemon._swap(daemon.config.model_copy(update={"tokens": staying}))
    daemon.draining.settle(daemon.scheduler.under_way)

    woken = [name for name, token in daemon.tokens.by_name.items() if any(isinstance(it, Woken) for it in token.inbox)]
    assert woken
    assert turn not in woken


def test_temporary_files_of_places_that_came_or_went(tmp_path: Path) -> None:
    """A reload removes what broken-off writes left where a place came or went, and looks at no other."""
    main, text = tmp_path / "config.toml", TWO_TOKENS.replace("/run/aca/", f"{tmp_path}/")
    left = [tmp_path / folder / ".any.aca-tokend-7-0123456789abcdef.tmp" for folder in ("stays", "goes", "comes")]
    for file in left:
        file.parent.mkdir()
    text = text.replace("t1.json", "stays/t1.json").replace("t2.json", "goes/t2.json")
    daemon = of_two_tokens(main, text)
    in_an_hour(daemon)
    daemon.start()
    try:
        on_schedule = (daemon.scheduler._store.jobs, daemon.scheduler._under_way)
        wait_until(lambda: not any(CLEANUP in it for it in on_schedule), "the cleanup at the start")
        for file in left:
            file.touch()
        main.write_text(text.replace("goes", "comes"))
        daemon.reload()
        daemon.draining.settle(frozenset)

        wait_until(lambda: [file.exists() for file in left] == [True, False, False], "the cleanup after the reload")
    finally:
        daemon.stop()


def test_last_result_of_a_removed_token_is_forgotten() -> None:
    """What was told of a token that left is not told of one that has its name later."""
    daemon = idle(SystemClock(), 2)
    daemon._observe(Skipped("t0", "endpoint_held"))
    daemon._observe(Skipped("t1", "endpoint_held"))
    assert daemon.watched.told.keys() == {"t0", "t1"}

    daemon._swap(daemon.config.model_copy(update={"tokens": daemon.config.tokens[:1]}))
    daemon._observe(Skipped("t1", "endpoint_held"))

    assert daemon.watched.told.keys() == {"t0"}


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_stop_names_what_was_granted_and_reached_no_place(tmp_path: Path) -> None:
    """A token all of whose places failed is lost at the end, though its attempt has ended: it is named."""
    text = TWO_TOKENS.replace("/run/aca", str(tmp_path)).replace('"PASSWORD"', '"PATH"')
    text = text.replace('"CLIENT_SECRET"', '"PATH"')
    daemon, clock = Daemon(parse([("config.toml", tomllib.loads(text))])), FakeClock()
    for name, missing in (("t1", False), ("t2", True)):
        token = daemon.tokens.by_name[name]
        endpoint = ScriptedEndpoint(clock, before_answer=partial(shutil.rmtree, tmp_path) if missing else None)
        token.wiring = replace(token.wiring, endpoint=endpoint)
        drive(daemon.tokens.rotator.attempt(token))
        assert endpoint.asked

    assert daemon.stop() == ("t2",)


def test_once_goes_on_when_there_are_threads_again() -> None:
    """Where the system had no thread for any pool when `run --once` began, the attempts are made once it has some."""
    result = subprocess.run([sys.executable, "-c", ONCE], capture_output=True, text=True, timeout=120, check=False)

    assert result.returncode == 1, "the token has no place"
    assert "resource_exhausted" in result.stderr
    assert "directory_missing" in result.stderr, "the attempt was made"


def test_a_bug_ends_the_process() -> None:
    """What nobody expected ends `run` with exit code 1 and one CRITICAL line, without local variables."""
    result = subprocess.run([sys.executable, "-c", BUG], capture_output=True, text=True, timeout=120, check=False)

    assert result.returncode == 1
    assert "a bug; please report it" in result.stderr
    assert "ZeroDivisionError" in result.stderr
