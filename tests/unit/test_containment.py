"""A bug ends what met it and nothing else: it is logged and counted, shows no value, and work goes on."""

from __future__ import annotations

import errno
import gc
import json
import math
import os
import random
import resource
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest

from aca_tokend import service
from aca_tokend.acaengine.endpoint import HttpTokenEndpoint
from aca_tokend.admin import AdminServer
from aca_tokend.clock import SystemClock
from aca_tokend.config.files import load
from aca_tokend.core.config import AdminConfig, EndpointConfig, parse
from aca_tokend.core.errors import FRAMES, InternalError, SecretError, contained
from aca_tokend.core.guard import parse_record
from aca_tokend.core.outcome import Component, HookRan, Reason, Unexpected
from aca_tokend.core.steps import Call, Calls, make
from aca_tokend.daemon import CLEANUP, KEEP_AGAIN_SECONDS, Daemon
from aca_tokend.demo.stage import wait_until
from aca_tokend.event_log import EventLog
from aca_tokend.pages import site
from aca_tokend.reload import Source
from aca_tokend.rotation.hook_runner import Hooker, HookState, Written
from aca_tokend.status_api import api
from tests.fakes import Bench, FakeClock, FakeHook, MemorySink, drive, token_config
from tests.unit.test_admin import ask
from tests.unit.told import configured, lines

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from pathlib import Path

    from aca_tokend.core.config import AnyFiles
    from aca_tokend.core.outcome import Event
    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.vault.session import VaultSession

CANARY = "canary-secret"


def fail(*_: object) -> NoReturn:
    """A bug whose exception and variables hold a secret."""
    password = CANARY
    raise RuntimeError(password)


class Broken:
    """Something that no attribute can be read of, and that is no path."""

    __fspath__ = fail

    def __getattr__(self, name: str) -> NoReturn:
        fail(name)


def raised(run: Callable[[], object]) -> BaseException:
    try:
        run()
    except BaseException as error:  # noqa: BLE001 -- it is what is looked at
        return error
    raise AssertionError


# ── the translation ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_kept_of_an_exception() -> None:
    """Its type, the types it came from and the places in the code, the innermost last; no text, no value, no path."""

    def parsing() -> None:
        try:
            json.loads(CANARY)
        except ValueError as error:
            raise KeyError(CANARY) from error

    error = InternalError.of(raised(parsing))

    assert error.kind == "KeyError"
    assert error.trace[0] == "from json.decoder.JSONDecodeError"
    file, _, function = error.trace[-1].partition(" in ")
    assert file.startswith("test_containment.py:")
    assert function == "test_what_is_kept_of_an_exception.<locals>.parsing"
    assert error.message == f"unexpected KeyError in {file}"
    assert error.reason is Reason.INTERNAL_ERROR
    assert not any(path in line for line in error.trace for path in (CANARY, "/tests/", "/lib/"))


def test_files_are_called_as_on_every_machine() -> None:
    """Files of ours, of packages and of Python's library are named from where each of these begins."""
    ours = InternalError.of(raised(lambda: load(cast("Path", 1j))))
    library = InternalError.of(raised(lambda: json.loads(CANARY)))

    assert [line.partition(":")[0] for line in ours.trace][-1] == "config/files.py"
    assert [line.partition(":")[0] for line in library.trace][-1] == "json/decoder.py"


def test_nothing_leads_back_to_the_exception() -> None:
    """Neither the exception nor its frames are kept by what they became."""

    class Held:
        """What a frame holds."""

    references: list[weakref.ref[Held]] = []

    def failing() -> NoReturn:
        held = Held()
        references.append(weakref.ref(held))
        raise RuntimeError(held)

    gc.disable()
    try:
        error = make(Call("pool", failing))
        assert references[0]() is None
    finally:
        gc.enable()
    assert isinstance(error, InternalError)
    assert (error.__cause__, error.__context__, error.__traceback__) == (None, None, None)


def test_endless_recursion_stays_short() -> None:
    """Of a long traceback the innermost frames are kept."""

    def deeper() -> None:
        deeper()

    assert len(InternalError.of(raised(deeper)).trace) == FRAMES


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_call_that_fails_unexpectedly(stop: type[BaseException]) -> None:
    """It is an InternalError where it is awaited, a value among calls side by side; what ends a process passes."""

    async def alone() -> str:
        failing: Call[int] = Call("pool", fail)
        try:
            await failing
        except InternalError as error:
            return contained(Component.ATTEMPT, "bookings", error)[1].trace[-1]
        return ""

    async def beside() -> list[object]:
        calls: list[Call[int]] = [Call("pool", fail), Call("pool", lambda: 1)]
        return list(await Calls(calls))

    assert "in fail" in drive(alone())
    error, one = drive(beside())
    assert isinstance(error, InternalError)
    assert one == 1

    def ends() -> NoReturn:
        raise stop

    with pytest.raises(stop):
        make(Call("pool", ends))


def test_expected_errors_stay_what_they_are() -> None:
    """An error of the closed list comes out of a call as itself."""

    def missing() -> NoReturn:
        raise SecretError(Reason.SECRET_MISSING, "there is none")

    async def caught() -> object:
        return (await Calls([Call("pool", missing)]))[0]

    assert type(drive(caught())) is SecretError


# ── attempts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bug_in_an_attempt() -> None:
    """It is told without its text, comes again by the backoff, and uses up no attempt of the credential."""
    bench = Bench()
    bench.endpoint.before_answer = fail

    for count in range(1, 5):
        again = bench.attempt()
        assert 0.0 < again <= bench.facts.config.rotation.backoff.cap
        assert bench.failures == count
        bench.clock.advance(again)

    bugs = bench.told(Unexpected)
    assert {(bug.component, bug.owner, bug.kind) for bug in bugs} == {(Component.ATTEMPT, "bookings", "RuntimeError")}
    assert CANARY not in repr(bench.events)
    assert bench.facts.suspension is None
    (entry,) = parse_record(bench.sinks[0].records["attempts"][1]).entries
    assert (entry.spent, entry.reason) == (0, None), "each claim was given back"
    bench.endpoint.before_answer = None
    bench.attempt()
    assert bench.facts.everywhere


def test_bug_at_a_place() -> None:
    """It is a failure of that place alone, and told as a bug too: the token is published at its other place."""
    bench = Bench(sinks=[MemorySink("vault:a"), MemorySink("vault:b")])
    bench.sinks[0].look = fail  # type: ignore[method-assign]  # planted

    bench.attempt()

    assert [(bug.component, bug.kind) for bug in bench.told(Unexpected)] == [(Component.ATTEMPT, "RuntimeError")]
    assert CANARY not in repr(bench.events)
    bad, good = bench.facts.places
    assert bad.failure is not None
    assert bad.failure.reason is Reason.INTERNAL_ERROR
    assert good.failure is None
    assert bench.sinks[1].content == bench.document


def test_bug_in_the_rules_passes_the_turn() -> None:
    """Where an attempt ends by a bug of our own whose turn it was to ask the endpoint, another token has it."""
    bench = Bench()
    gate, now = bench.token.wiring.gate, bench.clock.now
    for name, expires in ((bench.facts.name, now + 100.0), ("b", now + 3600.0), ("c", now + 3600.0)):
        turns = gate.failed(name, expires, now, None, 0.5)
    assert turns[0].token == bench.facts.name
    object.__setattr__(bench.rotator, "decide", fail)

    bench.attempt()

    assert [bug.component for bug in bench.told(Unexpected)] == [Component.ATTEMPT]
    assert {wake.token for wake in bench.woken} == {"b", "c"}


# ── hooks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bug_in_a_hook() -> None:
    """It is a failed run with reason `internal_error`, told as a bug too; by the backoff it is run again, and works."""
    events: list[Event] = []
    clock, hook = FakeClock(), FakeHook(before_answer=fail)
    hooker = Hooker(clock, random.Random(7), events.append)  # noqa: S311 -- a test
    state = HookState("hook 1", hook, token_config().rotation.backoff, frozenset({"bookings"}))
    state.ask(Written("bookings", "file:/run/aca/bookings.json"), ())

    again = drive(hooker.attempt(state))

    bug, ran = events
    assert isinstance(bug, Unexpected)
    assert (bug.component, bug.owner, bug.kind) == (Component.HOOK, "reload", "RuntimeError")
    assert isinstance(ran, HookRan)
    assert ran.failure is not None
    assert (ran.failure.reason, ran.tokens, ran.attempt) == (Reason.INTERNAL_ERROR, ("bookings",), 1)
    assert CANARY not in repr(events)
    assert clock.now < again < math.inf

    hook.before_answer = None
    clock.now = again
    assert drive(hooker.attempt(state)) == math.inf
    assert isinstance(ran := events[-1], HookRan)
    assert (ran.failure, ran.recovered) == (None, True)


# ── the daemon ────────────────────────────────────────────────────────────────────────────────────────────────────────


def configuration(*names: str) -> dict[str, Any]:
    token = {"authority": "a", "client_id": "c", "password": {"env": "NONE"}, "client_secret": {"env": "NONE"}}
    return {
        "acaengine": {"main": {"url": "http://127.0.0.1:9"}},
        "vault": {"main": {"address": "http://127.0.0.1:9", "auth": {"method": "token", "token": {"env": "NONE"}}}},
        "tokens": [
            {**token, "name": name, "username": name, "publish": [{"to": "file", "path": f"/nonexistent/{name}"}]}
            for name in names
        ],
    }


class Rig:
    """A daemon that was not started, and its log."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self.stream: io.StringIO = configured()
        config = parse([("config.toml", configuration("bookings", "foyer"))])
        self.daemon = Daemon(config, SystemClock(), rng=rng or random.Random(7))  # noqa: S311 -- a test

    def bugs(self, component: Component) -> list[dict[str, Any]]:
        """The lines of the bugs of one component, which the metric counts, and which show nothing."""
        assert CANARY not in self.stream.getvalue()
        assert self.daemon.bug is None
        assert not self.daemon.bell.stop
        found = [line for line in lines(self.stream) if line["event"] == "internal_error"]
        page = self.daemon.metrics.exposition("")[0].decode()
        assert f'aca_tokend_internal_errors_total{{component="{component}"}} {len(found)}.0' in page
        assert {line["component"] for line in found} == {component}
        assert {(line["error_type"], line["trace"][-1].partition(" in ")[2]) for line in found} == {
            ("RuntimeError", "fail")
        }
        return found


class Renewing:
    """The session with a Vault whose token is renewed, after some bugs."""

    pool = "vault.main"

    def __init__(self) -> None:
        self.kept = 0
        self.broken = True

    def keep(self) -> float:
        self.kept += 1
        if self.broken:
            fail()
        return math.inf

    def close(self) -> None:
        """Nothing is open."""


def test_bug_in_the_token_renewer() -> None:
    """The renewal of our token in a Vault comes again after a minute, and then works."""
    rig = Rig()
    session = Renewing()
    rig.daemon.parts.vaults["main"] = cast("VaultSession", session)
    work = rig.daemon._keep_work("main")
    before = rig.daemon.clock.monotonic()

    again = drive(work.attempt())

    assert before + KEEP_AGAIN_SECONDS <= again <= rig.daemon.clock.monotonic() + KEEP_AGAIN_SECONDS
    (bug,) = rig.bugs(Component.VAULT)
    assert bug["vault"] == "main"
    session.broken = False
    assert drive(work.attempt()) == math.inf
    assert session.kept == 2


def test_bug_in_the_temp_file_cleanup() -> None:
    """The clean-up of files ends, and is not tried again before the next start; the schedule goes on."""
    rig = Rig()
    publish = rig.daemon.config.tokens[0].publish[0].model_copy(update={"path": Broken()})
    rig.daemon._uncleaned = [cast("AnyFiles", publish)]
    work = rig.daemon._cleanup_work()
    assert work.name == CLEANUP

    assert drive(work.attempt()) == math.inf
    (bug,) = rig.bugs(Component.RELOAD)
    assert bug["what"] == "temp-file cleanup"


def test_bugs_in_what_is_watched() -> None:
    """Each thing that the main thread watches fails by itself; the next round does them all again."""
    rig = Rig()
    daemon = rig.daemon
    tokens = daemon.tokens.by_name
    broken, tokens["foyer"] = tokens["foyer"], cast("ManagedToken", Broken())
    watching = threading.Thread(target=daemon.watch, daemon=True)
    watching.start()
    try:
        wait_until(lambda: rig.stream.getvalue().count('"internal_error"') >= 4, "two rounds")
    finally:
        tokens["foyer"] = broken
        daemon.bell.ring_to_stop()
        watching.join(60.0)
        daemon.bell.stop = False

    found = rig.bugs(Component.RELOAD)
    assert {line["what"] for line in found} == {"unavailable time", "expired tokens"}
    assert [line["level"] for line in found].count("error") == 2


# ── reloads ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Dice(random.Random):
    """Draws, or fails."""

    broken = False

    def random(self) -> float:
        if self.broken:
            fail()
        return super().random()


def toml(*names: str) -> str:
    document = configuration(*names)
    endpoint = f"[acaengine.main]\nurl = '{document['acaengine']['main']['url']}'\n"
    return endpoint + "".join(
        f"[[tokens]]\nname = '{name}'\nauthority = 'a'\nusername = '{name}'\nclient_id = 'c'\n"
        f"password = {{ env = 'NONE' }}\nclient_secret = {{ env = 'NONE' }}\n"
        f"publish = [{{ to = 'file', path = '/nonexistent/{name}' }}]\n"
        for name in names
    )


class Reloading(Rig):
    """A daemon that reads its configuration from a file."""

    def __init__(self, main: Path) -> None:
        self.dice = Dice(7)
        super().__init__(self.dice)
        self.main = main
        main.write_text(toml("bookings", "foyer"))
        self.daemon.source = Source(main, self.daemon.config, self.daemon.logger, self.daemon._observe_reload)
        self.reload()

    def reload(self, *names: str) -> None:
        if names:
            self.main.write_text(toml(*names))
        self.daemon.reload()

    @property
    def successful(self) -> float:
        page = self.daemon.metrics.exposition("")[0].decode()
        (line,) = [line for line in page.splitlines() if line.startswith("aca_tokend_config_last_reload_successful")]
        return float(line.rpartition(" ")[2])


def test_bug_before_the_swap(tmp_path: Path) -> None:
    """A reload that fails before it swaps anything changes nothing and says so; the same files are taken up later."""
    rig = Reloading(tmp_path / "config.toml")
    daemon = rig.daemon
    before = daemon.config
    assert daemon.source is not None
    observe, daemon.source.observe = daemon.source.observe, fail

    rig.reload("bookings", "rooms")

    assert daemon.config is before
    assert set(daemon.tokens.by_name) == {"bookings", "foyer"}
    assert rig.successful == 0.0
    (bug,) = rig.bugs(Component.RELOAD)
    assert bug["what"] == "configuration"

    daemon.source.observe = observe
    rig.reload()
    assert set(daemon.tokens.by_name) == {"bookings", "rooms"}
    assert rig.successful == 1.0


def test_reload_without_memory_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload for which there was no memory is tried again by itself: no file changes, and nobody asks for it."""
    monkeypatch.setattr("aca_tokend.daemon.READ_AGAIN_SECONDS", 0.0)
    rig = Reloading(tmp_path / "config.toml")
    daemon = rig.daemon
    assert daemon.source is not None
    observe = daemon.source.observe

    def wanting(_succeeded: bool) -> None:
        raise MemoryError

    daemon.source.observe = wanting
    rig.reload("bookings", "rooms")
    assert set(daemon.tokens.by_name) == {"bookings", "foyer"}
    assert rig.successful == 0.0

    daemon.source.observe = observe
    watching = threading.Thread(target=daemon.watch)
    watching.start()
    try:
        wait_until(lambda: rig.successful == 1.0, "it is read again")
    finally:
        daemon.bell.ring_to_stop()
        watching.join()
    assert set(daemon.tokens.by_name) == {"bookings", "rooms"}


def test_bug_amid_the_swap(tmp_path: Path) -> None:
    """After a reload that failed half-way every token is on schedule, and reloads count as failed until a restart."""
    rig = Reloading(tmp_path / "config.toml")
    rig.dice.broken = True

    rig.reload("bookings", "foyer", "rooms")

    rig.dice.broken = False
    assert {"bookings", "foyer"} <= rig.daemon.scheduler._store.jobs.keys()
    assert rig.successful == 0.0
    rig.bugs(Component.RELOAD)
    rig.reload("bookings", "foyer", "rooms", "signage")
    assert "signage" in rig.daemon.tokens.by_name
    assert rig.successful == 0.0


# ── pages and threads ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/metrics", "/metrics"),
        ("/-/healthy", "/-/healthy"),
        ("/", "/"),
        (f"/tokens/{CANARY}", "/tokens/<name>"),
        ("/api/v1/status", "/api/v1/status"),
        (f"/api/v1/status/{CANARY}", "/api/v1/status/<name>"),
    ],
)
def test_bug_in_a_page(path: str, rule: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A page, a probe or the API answers 500 in two words; the rest of the listener goes on, and nothing is printed."""
    rig = Rig()
    told = (fail, fail)
    server = AdminServer(
        AdminConfig(listen="127.0.0.1:0"),
        fail,
        fail,
        list,
        api(*told),
        site(*told),
        on_error=lambda page, error: rig.daemon.unexpected(Component.PAGE, page, error),
    )
    server.start()
    try:
        answer = ask(server, path)
        assert ask(server, "/-/ready").status == 200
    finally:
        server.stop()

    assert (answer.status, answer.body) == (500, "Internal Server Error\n")
    (bug,) = rig.bugs(Component.PAGE)
    assert bug["page"] == rule
    assert capfd.readouterr() == ("", "")


def test_bug_that_ends_a_thread(capfd: pytest.CaptureFixture[str]) -> None:
    """A thread beside the schedule that ends by a bug is told of in the log, and not printed."""
    rig = Rig()
    before = threading.excepthook
    threading.excepthook = lambda ended: service.thread_ended(rig.daemon, ended)
    try:
        thread = threading.Thread(target=fail, name="config")
        thread.start()
        thread.join()
    finally:
        threading.excepthook = before

    (bug,) = rig.bugs(Component.RELOAD)
    assert bug["what"] == "thread config"
    assert capfd.readouterr() == ("", "")
    assert sys.exc_info() == (None, None, None)


# ── want of resources ─────────────────────────────────────────────────────────────────────────────────────────────────

EXHAUSTIONS = [
    OSError(errno.EMFILE, CANARY),
    OSError(errno.ENFILE, CANARY),
    OSError(errno.ENOMEM, CANARY),
    OSError(errno.ENOBUFS, CANARY),
    MemoryError(CANARY),
    RuntimeError("can't start new thread"),
]


@pytest.mark.parametrize("error", EXHAUSTIONS, ids=repr)
def test_want_of_resources_is_no_bug(error: Exception) -> None:
    """Where no descriptor, memory or thread is left, the attempt has a reason of its own, told as a WARNING."""

    def run() -> None:
        raise error

    stream = configured()
    found = make(Call("file", run))
    assert isinstance(found, InternalError)
    again, event = contained(Component.ATTEMPT, "bookings", found)
    EventLog().observe(event)

    assert found.reason is again.reason is event.reason is Reason.RESOURCE_EXHAUSTED
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["token"]) == ("resource_exhausted", "warning", "bookings")
    assert CANARY not in stream.getvalue() + str(found)


@pytest.mark.parametrize("error", [OSError(errno.EIO, ""), RuntimeError("dictionary changed size"), ValueError()])
def test_what_is_a_bug_stays_one(error: Exception) -> None:
    """Any other exception that nobody expected is a bug."""
    assert InternalError.of(error).reason is Reason.INTERNAL_ERROR


def test_no_descriptor_says_nothing_of_a_server() -> None:
    """A request for which no socket, or no answer of the resolver, can be had fails by want of resources."""
    endpoint = HttpTokenEndpoint("main", EndpointConfig.model_validate({"url": "http://127.0.0.1:9"}))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        found = make(Call("acaengine.main", endpoint.authority))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert isinstance(found, InternalError)
    assert found.reason is Reason.RESOURCE_EXHAUSTED
