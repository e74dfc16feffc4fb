"""Every write is followed by a run of its hook, whatever reloads do meanwhile: the daemon, one step at a time.

The daemon is the real one, with its files; the endpoint and the hooks are fakes, and its schedule is one that does the
next step of whatever attempt the draw says. So a reload comes between any two steps of attempts and of runs of hooks.
"""

from __future__ import annotations

import itertools
import math
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from aca_tokend.core.config import parse
from aca_tokend.core.errors import HookError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import BUSY, make
from aca_tokend.daemon import Daemon
from aca_tokend.rotation.tokens import TokenWork
from tests.fakes import FakeClock, FakeHook, ScriptedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

    from aca_tokend.core.config import Config
    from aca_tokend.core.steps import Call, Calls, Work

TOKENS = ("t0", "t1")
# A place of one token: nothing at all, no hook, or one of these; in one of two forms.
HOOKS = (None, "a", "b")
LIFETIME = 7200.0
# Far more steps than what is under way at the end needs.
ENOUGH = 2000


@dataclass(eq=False)
class Task:
    """An attempt under way: the calls that it waits for, and which of them have been made."""

    number: int
    work: Work
    coroutine: Coroutine[Any, Any, float]
    handed: Calls[Any] | None = None
    results: list[Any] = field(default_factory=list)
    successor: tuple[Work, float] | None = None
    hasten_to: float = math.inf
    dropped: bool = False


class Steps:
    """What the scheduler is to the daemon, one step at a time. It breaks where a pool is missing, as the real one."""

    def __init__(self, clock: FakeClock, made: Callable[[Call[Any], Work | None], object]) -> None:
        self.clock = clock
        self.made = made
        self.pools: dict[str, int] = {}
        self.due: dict[str, tuple[Work, float]] = {}
        self.tasks: dict[str, Task] = {}
        self.hung: list[Call[Any]] = []
        self._numbers = itertools.count()

    # ── as the daemon sees it ─────────────────────────────────────────────────────────────────────────────────────────

    def keep(self, work: Work, at: float) -> None:
        task = self.tasks.get(work.name)
        if task is not None:
            task.successor, task.dropped = (work, at), False
        else:
            assert work.pool in self.pools, f"{work.name} has no pool"
            self.due[work.name] = (work, at)

    def hasten(self, name: str, at: float) -> None:
        if name in self.tasks:
            self.tasks[name].hasten_to = min(self.tasks[name].hasten_to, at)
        elif name in self.due:
            self.due[name] = (self.due[name][0], min(self.due[name][1], at))

    def drop(self, name: str) -> None:
        self.due.pop(name, None)
        if name in self.tasks:
            self.tasks[name].successor, self.tasks[name].dropped = None, True

    def has(self, name: str) -> bool:
        return name in self.due or name in self.tasks

    def under_way(self) -> frozenset[int]:
        return frozenset(task.number for task in self.tasks.values())

    def set_pools(self, pools: Mapping[str, int]) -> None:
        self.pools |= pools

    def remove_pools(self, but: Collection[str]) -> None:
        self.pools = {name: size for name, size in self.pools.items() if name in but}
        needed = {work.pool for work, _ in self.due.values()}
        needed |= {call.pool for task in self.tasks.values() for call in (task.handed.calls if task.handed else ())}
        assert needed <= self.pools.keys(), f"removed, though needed: {needed - self.pools.keys()}"

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, name: str) -> None:
        """Begins what is due next under this name, when it is due."""
        work, at = self.due.pop(name)
        self.clock.now = max(self.clock.now, at)
        task = self.tasks[name] = Task(next(self._numbers), work, work.attempt())
        self._drive(task, None)

    def step(self, name: str) -> None:
        """Makes the next call of an attempt or, once all are made, goes on with it."""
        task = self.tasks[name]
        assert task.handed is not None
        left = task.handed.calls[len(task.results) :]
        self.clock.advance(0.01)
        if left:
            task.results.append(self.made(left[0], task.work))
        else:
            self._drive(task, task.results)

    def lose_patience(self, name: str) -> None:
        """The calls that are not made yet hang, and the attempt goes on without."""
        task = self.tasks[name]
        assert task.handed is not None
        if task.handed.patience < math.inf:
            self.clock.advance(task.handed.patience)
            left = task.handed.calls[len(task.results) :]
            self.hung += left
            self._drive(task, [*task.results, *(BUSY for _ in left)])

    def answer(self) -> None:
        """A call that hung is made after all."""
        call = self.hung.pop(0)
        result = self.made(call, None)
        if call.late:
            call.late(result)

    def _drive(self, task: Task, results: Sequence[Any] | None) -> None:
        try:
            task.handed, task.results = task.coroutine.send(results), []
        except StopIteration as done:
            del self.tasks[task.work.name]
            work, at = task.successor or (task.work, done.value)
            if at != math.inf and not task.dropped:
                self.keep(work, min(at, task.hasten_to))
        else:
            assert {call.pool for call in task.handed.calls} <= self.pools.keys()


@dataclass
class Written:
    """A write, and the hooks of which one has to run after it: those that its place has since, or had then."""

    token: str
    hooks: set[str]
    failed: bool = False


class Reloads(RuleBasedStateMachine):
    """The daemon over writes, runs and reloads."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.content = dict.fromkeys(TOKENS, "")
        self.configured: dict[str, str | None] = {}
        self.owed: list[Written] = []
        self.failing: set[str] = set()
        rng = random.Random(7)  # noqa: S311 -- a test
        self.daemon = Daemon(self._config({}), self.clock, rng)  # type: ignore[arg-type]  # moved by hand
        self.steps = Steps(self.clock, self._make)
        self.daemon.scheduler = self.daemon.tokens.schedule = self.steps  # type: ignore[assignment]  # what it needs
        self.steps.set_pools(self.daemon.parts.pools())
        endpoint: Any = ScriptedEndpoint(self.clock, lifetime=LIFETIME)
        endpoint.close = lambda: None
        self.daemon.parts.endpoints["main"] = endpoint

    def _config(self, places: Mapping[str, tuple[str | None, str]]) -> Config:
        env = {"env": "PATH"}
        entry = {"authority": "a", "username": "u", "client_id": "c", "password": env, "client_secret": env}
        tokens = []
        for name, (hook, form) in {"none": (None, "json"), **places}.items():
            after = {"after": {"command": [f"/bin/{hook}"]}} if hook else {}
            publish = {"to": "file", "path": f"{self.folder}/{name}", "format": form, **after}
            tokens.append({**entry, "name": name, "username": name, "publish": [publish]})
        endpoint = {"main": {"url": "https://aca.example.com"}}
        config = parse([("config.toml", {"acaengine": endpoint, "tokens": tokens})])
        return config.model_copy(update={"tokens": config.tokens[1:]})

    @initialize(places=st.lists(st.sampled_from(HOOKS), min_size=2, max_size=2))
    def begin_with(self, places: list[str | None]) -> None:
        """Two tokens."""
        self._swap({name: (hook, "json") for name, hook in zip(TOKENS, places, strict=True)})

    @rule(
        token=st.sampled_from(TOKENS),
        hook=st.sampled_from(HOOKS),
        form=st.sampled_from(["json", "token"]),
        there=st.sampled_from([True, True, True, False]),
    )
    def reload(self, token: str, hook: str | None, form: str, there: bool) -> None:
        """A token gets another hook, none or the same; it is written in another form, leaves or comes back."""
        places = {name: it for name, it in self.places.items() if name != token}
        self._swap({**places, token: (hook, form)} if there else places)

    def _swap(self, places: dict[str, tuple[str | None, str]]) -> None:
        self.places = places
        self.daemon._swap(self._config(places))
        for state in self.daemon.parts.hooks.values():
            if not isinstance(state.hook, FakeHook):
                state.hook = FakeHook(state.hook.label, before_answer=lambda it=state.hook.label: self._ran(it))  # type: ignore[misc]  # bound now
        for written in self.owed:
            written.hooks |= {hook for name, (hook, _) in places.items() if name == written.token and hook}

    @rule(name=st.sampled_from(["a", "b"]))
    def hook_fails_or_is_fixed(self, name: str) -> None:
        """From now on a hook fails, or succeeds again."""
        self.failing ^= {name}

    @rule(draws=st.lists(st.integers(0, 5), min_size=1, max_size=25))
    def go_on(self, draws: list[int]) -> None:
        """What is under way goes on by single steps, and what is on schedule begins."""
        for draw in draws:
            under_way, due = sorted(self.steps.tasks), sorted(self.steps.due)
            if under_way and (draw % 3 or not due):
                self.steps.step(under_way[draw % len(under_way)])
            elif due:
                self.steps.begin(due[draw % len(due)])

    @precondition(lambda self: self.steps.tasks)
    @rule(draw=st.integers(0, 5))
    def lose_patience(self, draw: int) -> None:
        """What hangs is waited for no longer."""
        self.steps.lose_patience(sorted(self.steps.tasks)[draw % len(self.steps.tasks)])

    @precondition(lambda self: self.steps.hung)
    @rule()
    def answer(self) -> None:
        """What hung answers."""
        self.steps.answer()

    @rule()
    def clean_up(self) -> None:
        """What left the configuration is cleaned up, once nobody uses it."""
        self.daemon.draining.settle(self.steps.under_way)

    # ── what is owed ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _make(self, call: Call[Any], work: Work | None) -> object:
        """Makes a call and, where it wrote, notes that a run is owed."""
        had = work.token.wiring.hooks if isinstance(work, TokenWork) else ()
        result = make(call)
        for name in TOKENS:
            path = self.folder / name
            content = path.read_text() if path.exists() else ""
            if content != self.content[name]:
                self.content[name] = content
                hooks = {hook.hook.label for hook in had if hook}
                hooks |= {hook for hook, _ in [self.places[name]] if hook} if name in self.places else set()
                self.owed = [it for it in self.owed if it.token != name]
                if hooks:
                    self.owed.append(Written(name, hooks))
        return result

    def _ran(self, hook: str) -> None:
        """A run of a hook."""
        if hook in self.failing:
            for written in self.owed:
                written.failed |= hook in written.hooks
            raise HookError(Reason.COMMAND_FAILED, "it fails")
        self.owed = [it for it in self.owed if hook not in it.hooks]

    def teardown(self) -> None:
        """In the end, when all hooks succeed and nothing hangs, no run is owed.

        What failed is not run again for a place that has no hook any more.
        """
        self.failing.clear()
        for _ in range(ENOUGH):
            now = {name for name, (_, at) in self.steps.due.items() if at < self.clock.now + 100.0}
            if self.steps.hung:
                self.steps.answer()
            elif self.steps.tasks:
                self.steps.step(min(self.steps.tasks))
            elif now:
                self.steps.begin(min(now))
            else:
                break
        try:
            assert [it for it in self.owed if not (it.failed and not self.places.get(it.token, (None,))[0])] == []
        finally:
            shutil.rmtree(self.folder)


TestReloads = Reloads.TestCase
TestReloads.settings = settings(
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),  # what it finds is short enough
    suppress_health_check=[HealthCheck.too_slow],
)
