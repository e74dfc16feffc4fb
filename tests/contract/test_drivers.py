"""One contract for whatever drives attempts: the scheduler with its threads, and the simulation's virtual clock.

The same programs run under both. Nothing is concluded from how long something takes.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from aca_tokend.core.errors import LookError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import BUSY, Call, Calls, Duty
from aca_tokend.scheduling.scheduler import RotationScheduler
from aca_tokend.simulation.driver import SimDriver
from aca_tokend.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

GENEROUS = 30.0
POOLS = {"a": 2, "b": 1, "slow": 1}
# Longer than any call takes that does not hang.
PATIENCE_SECONDS = 1000.0
# A call hangs for so long in virtual time; with a real clock until it is released.
HANGS_SECONDS = 5000.0
# Far enough ahead that nothing comes of itself, and yet in the range of a clock.
NEVER_BY_ITSELF = 1e6


class Stage(Protocol):
    """Where a program runs."""

    def now(self) -> float:
        """Monotonic seconds."""

    def keep(
        self,
        name: str,
        attempt: Callable[[], Coroutine[Any, Any, float]],
        after: float,
        urgency: float,
        pool: str = "a",
    ) -> None:
        """Puts an attempt on schedule, so many seconds from now."""

    def hasten(self, name: str) -> None:
        """Brings it forward to now."""

    def drop(self, name: str) -> None:
        """Takes a token off the schedule."""

    def play(self, done: Callable[[], bool]) -> None:
        """Lets time pass until it is done."""

    def waits_for_one(self, name: str) -> bool:
        """Whether all calls but one that the attempt of a token handed out have answered, and that has begun to hang.

        One in the queue behind it counts too: the pool `slow` has one place.
        """

    def lose_patience(self, name: str) -> None:
        """Lets the patience of an attempt end once that is so."""

    def hang(self) -> None:
        """A call in the pool `slow`, which hangs."""

    def release(self) -> None:
        """Ends the calls that hang, and those to come."""


class RealStage:
    """The scheduler: real threads, a real clock."""

    def __init__(self) -> None:
        self.bugs: list[BaseException] = []
        self.released = threading.Event()
        self.hangs = threading.Event()
        self.passed = 0.0
        self.started = False
        self.scheduler = RotationScheduler(POOLS, self, self.bugs.append, lambda _lag: None)

    def monotonic(self) -> float:
        return time.monotonic() + self.passed

    def wall(self) -> float:
        return time.time()

    def now(self) -> float:
        return self.monotonic()

    def keep(
        self,
        name: str,
        attempt: Callable[[], Coroutine[Any, Any, float]],
        after: float,
        urgency: float,
        pool: str = "a",
    ) -> None:
        self.scheduler.keep(Duty(name, pool, attempt, lambda: urgency), self.now() + after)

    def hasten(self, name: str) -> None:
        self.scheduler.hasten(name, self.now())

    def drop(self, name: str) -> None:
        self.scheduler.drop(name)

    def play(self, done: Callable[[], bool]) -> None:
        if not self.started:
            self.started = True
            self.scheduler.start()
        deadline = time.monotonic() + GENEROUS
        while not done():
            assert not self.bugs
            assert time.monotonic() < deadline
            time.sleep(0.002)  # between two looks at a condition

    def waits_for_one(self, name: str) -> bool:
        task = self.scheduler._under_way.get(name)
        return task is not None and task.round is not None and task.round.out == 1 and self.hangs.is_set()

    def lose_patience(self, name: str) -> None:
        self.play(lambda: self.waits_for_one(name))
        self.passed += PATIENCE_SECONDS
        self.scheduler.redraw()

    def hang(self) -> None:
        self.hangs.set()
        self.released.wait(GENEROUS)

    def release(self) -> None:
        self.released.set()


class SimulatedStage:
    """The simulation's driver: virtual time."""

    def __init__(self) -> None:
        self.world = World(seed=1)
        self.driver = SimDriver(self.world, POOLS, lambda pool: HANGS_SECONDS if pool == "slow" else 0.01)

    def now(self) -> float:
        return self.world.now

    def keep(
        self,
        name: str,
        attempt: Callable[[], Coroutine[Any, Any, float]],
        after: float,
        urgency: float,
        pool: str = "a",
    ) -> None:
        self.driver.keep(Duty(name, pool, attempt, lambda: urgency), self.now() + after)

    def hasten(self, name: str) -> None:
        self.driver.hasten(name, self.now())

    def drop(self, name: str) -> None:
        self.driver.drop(name)

    def play(self, done: Callable[[], bool]) -> None:
        while not done():
            assert self.world.now < NEVER_BY_ITSELF / 2
            self.world.run(self.world.now + 1.0)

    def waits_for_one(self, name: str) -> bool:
        task = self.driver._under_way.get(name)
        return task is not None and task.round is not None and task.round.out == 1

    def lose_patience(self, name: str) -> None:
        self.play(lambda: self.waits_for_one(name))
        self.world.run(self.world.now + PATIENCE_SECONDS)

    def hang(self) -> None:
        """It hangs by the latency of its pool."""

    def release(self) -> None:
        """They end by themselves."""


@pytest.fixture(params=["scheduler", "simulation"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Each of the two drivers."""
    if request.param == "simulation":
        yield SimulatedStage()
        return
    real = RealStage()
    yield real
    real.release()
    real.scheduler.stop(0.0)


@dataclass
class Told:
    """What a program tells, from whichever thread."""

    lines: list[object] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, line: object) -> None:
        with self.lock:
            self.lines.append(line)


def fail() -> int:
    """A call that fails as is to be expected of the world."""
    raise LookError(Reason.TIMEOUT, "slow")


def test_calls_run_one_after_the_other_with_their_results(stage: Stage) -> None:
    """Calls awaited in turn are made in turn, in whichever pools, and give what they return."""
    told = Told()

    async def attempt() -> float:
        for number in range(6):
            told(await Call("a" if number % 3 else "b", lambda number=number: number * 10))  # type: ignore[misc]
        return math.inf

    stage.keep("one", attempt, 0.0, 0.0)
    stage.play(lambda: len(told.lines) == 6)

    assert told.lines == [0, 10, 20, 30, 40, 50]


def test_results_of_calls_side_by_side_come_in_their_order(stage: Stage) -> None:
    """Calls handed out together give one result each, in the order they were given, an expected error as its value."""
    told = Told()

    async def attempt() -> float:
        for result in await Calls([Call("b", lambda: 1), Call("a", fail), Call("a", lambda: 3)]):
            told(type(result) if isinstance(result, LookError) else result)
        told(await Calls([]))
        return math.inf

    stage.keep("one", attempt, 0.0, 0.0)
    stage.play(lambda: len(told.lines) == 4)

    assert told.lines == [1, LookError, 3, ()]


def test_expected_error_is_raised_where_the_call_is_awaited(stage: Stage) -> None:
    """An expected error of a call is raised at its await, and the attempt goes on from there."""
    told = Told()

    async def attempt() -> float:
        try:
            await Call("b", fail)
        except LookError as error:
            told(error.reason)
        told(await Call("a", lambda: "on"))
        return math.inf

    stage.keep("one", attempt, 0.0, 0.0)
    stage.play(lambda: len(told.lines) == 2)

    assert told.lines == [Reason.TIMEOUT, "on"]


def test_attempt_comes_again_when_it_said(stage: Stage) -> None:
    """What an attempt returns is when the next begins; infinity ends it."""
    told = Told()

    async def attempt() -> float:
        began = stage.now()
        told(began)
        await Call("a", lambda: None)
        return began + 0.05 if len(told.lines) < 5 else math.inf

    stage.keep("one", attempt, 0.0, 0.0)
    stage.play(lambda: len(told.lines) == 5)

    moments = [float(str(line)) for line in told.lines]
    # a scheduler may wake up to 50 ms early
    assert all(later - earlier >= 0.0 for earlier, later in pairwise(moments))
    assert moments[-1] - moments[0] >= 0.05 * 4 - 0.2


def test_most_urgent_goes_first(stage: Stage) -> None:
    """Of the calls that wait for a place in a pool, the one with the smallest urgency value is made first.

    Also where others among them are to be made while stopping: an attempt that was claimed overtakes nobody.
    """
    told, started = Told(), Told()
    everybody_waits = threading.Event()

    def hold() -> None:
        """Keeps the only place of pool b until the others wait for it: at once in virtual time."""
        if isinstance(stage, RealStage):
            everybody_waits.wait(GENEROUS)

    async def first() -> float:
        started("first")
        await Call("b", hold, urgency=-1.0)
        return math.inf

    def waiting(number: int) -> Callable[[], Coroutine[Any, Any, float]]:
        async def attempt() -> float:
            started(number)
            await Call("b", lambda: told(number), urgency=float(number), finish=number % 2 == 0)
            return math.inf

        return attempt

    stage.keep("first", first, 0.0, -1.0)
    for number in (5, 3, 1, 4, 2):
        stage.keep(f"t{number}", waiting(number), 0.0 if isinstance(stage, SimulatedStage) else 0.2, 0.0)
    if isinstance(stage, RealStage):
        threading.Thread(target=_when, args=(lambda: waits(stage) == 5, everybody_waits), daemon=True).start()
    stage.play(lambda: len(told.lines) == 5)

    assert told.lines == [1, 2, 3, 4, 5]


def waits(stage: RealStage) -> int:
    """How many calls wait for a place in pool b."""
    return len(stage.scheduler._pools["b"]._waiting)


def _when(condition: Callable[[], bool], event: threading.Event) -> None:
    deadline = time.monotonic() + GENEROUS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)  # between two looks at a condition
    event.set()


def test_no_more_calls_at_once_than_the_pool_is_large(stage: Stage) -> None:
    """However many attempts call into a pool, its size bounds how many are under way; all are made."""
    told = Told()
    lock = threading.Lock()
    under_way, most = 0, 0

    def call() -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        if isinstance(stage, RealStage):
            time.sleep(0.001)  # so that calls overlap; nothing is concluded from it
        with lock:
            under_way -= 1
        told("made")

    async def attempt() -> float:
        await Call("b", call)
        await Calls([Call("a", call), Call("a", call), Call("a", call)])
        return math.inf

    for number in range(12):
        stage.keep(f"t{number}", attempt, 0.0, 0.0)
    stage.play(lambda: len(told.lines) == 48)

    assert most <= 3, "two in one pool and one in the other"


def test_hastened_attempt_comes_before_its_time(stage: Stage) -> None:
    """An attempt that waits for a far moment begins at once when it is hastened."""
    told = Told()

    async def far() -> float:
        told("far")
        return math.inf

    async def near() -> float:
        await Call("a", lambda: None)
        stage.hasten("far")
        return math.inf

    stage.keep("far", far, NEVER_BY_ITSELF, 0.0)
    stage.keep("near", near, 0.0, 0.0)
    stage.play(lambda: bool(told.lines))

    assert told.lines == ["far"]


def test_attempt_hastened_while_one_is_under_way_comes_at_once_after_it(stage: Stage) -> None:
    """Hastening a token whose attempt is under way counts for the next one."""
    told = Told()

    async def attempt() -> float:
        told("begins")
        await Call("a", lambda: None)
        if len(told.lines) == 1:
            stage.hasten("one")
            stage.hasten("unknown")
        await Call("b", lambda: None)
        return stage.now() + NEVER_BY_ITSELF

    stage.keep("one", attempt, 0.0, 0.0)
    stage.play(lambda: len(told.lines) == 2)

    assert told.lines == ["begins", "begins"]


def test_hastening_never_delays(stage: Stage) -> None:
    """An attempt that is due sooner keeps its time."""
    told = Told()

    async def attempt() -> float:
        told("begins")
        return math.inf

    stage.keep("one", attempt, 0.1, 0.0)
    if isinstance(stage, RealStage):
        stage.scheduler.hasten("one", stage.now() + NEVER_BY_ITSELF)
    elif isinstance(stage, SimulatedStage):
        stage.driver.hasten("one", stage.now() + NEVER_BY_ITSELF)
    stage.play(lambda: bool(told.lines))

    assert told.lines == ["begins"]


def test_kept_anew_while_under_way_comes_after_it(stage: Stage) -> None:
    """What is put on schedule for a token while an attempt of it is under way begins after that, and only that does."""
    told = Told()

    async def second() -> float:
        told("second")
        return math.inf

    async def first() -> float:
        told("first")
        await Call("a", lambda: None)
        stage.keep("one", second, 0.0, 0.0)
        await Call("b", lambda: told("first goes on"))
        return stage.now()

    stage.keep("one", first, 0.0, 0.0)
    stage.play(lambda: len(told.lines) == 3)

    assert told.lines == ["first", "first goes on", "second"]


def test_kept_anew_takes_the_place_of_what_was_on_schedule(stage: Stage) -> None:
    """There is one next attempt of a token: the one put on schedule last."""
    told = Told()

    def tells(line: str) -> Callable[[], Coroutine[Any, Any, float]]:
        async def attempt() -> float:
            told(line)
            return math.inf

        return attempt

    stage.keep("one", tells("first"), 0.05, 0.0)
    stage.keep("one", tells("second"), 0.1, 0.0)
    stage.keep("other", tells("other"), 0.3, 0.0)
    stage.play(lambda: "other" in told.lines)

    assert told.lines == ["second", "other"]


def test_dropped_token_does_not_come_again(stage: Stage) -> None:
    """A token that is dropped begins no further attempt; one that is under way goes on to its end."""
    told = Told()

    async def waiting() -> float:
        told("never")
        return math.inf

    async def under_way() -> float:
        stage.drop("waiting")
        stage.drop("under way")
        stage.drop("unknown")
        await Call("b", lambda: told("to its end"))
        return stage.now()

    async def last() -> float:
        told("last")
        return math.inf

    stage.keep("waiting", waiting, 0.2, 0.0)
    stage.keep("under way", under_way, 0.0, 0.0)
    stage.keep("last", last, 0.4, 0.0)
    stage.play(lambda: "last" in told.lines)

    assert told.lines == ["to its end", "last"]


# ── patience ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def hanging(stage: Stage, value: object, late: Told) -> Call[object]:
    """A call that hangs, and then gives `value`, or raises it."""

    def run() -> object:
        stage.hang()
        if isinstance(value, Exception):
            raise value
        return value

    return Call("slow", run, late=late)


def quick(value: object, pool: str = "a") -> Call[object]:
    """A call that gives `value` at once."""
    return Call(pool, lambda: value)


def test_attempt_goes_on_without_a_call_that_hangs(stage: Stage) -> None:
    """A call that has not answered when patience ends is busy in the results; its answer comes late, and once."""
    told, late = Told(), Told()

    async def attempt() -> float:
        told(await Calls([quick(1, "b"), hanging(stage, "slow", late), quick(3)], patience=PATIENCE_SECONDS))
        told(await quick("on"))
        stage.release()
        return math.inf

    async def after() -> float:
        told(await Call("slow", lambda: "the place is free again"))
        return math.inf

    stage.keep("one", attempt, 0.0, 0.0)
    stage.lose_patience("one")
    stage.play(lambda: bool(late.lines))
    stage.keep("after", after, 0.0, 0.0)
    stage.play(lambda: len(told.lines) == 3)

    assert told.lines == [[1, BUSY, 3], "on", "the place is free again"]
    assert late.lines == ["slow"]


def test_calls_that_answer_in_time_are_not_late(stage: Stage) -> None:
    """Within the patience of an attempt its calls give what they return, and nothing comes late."""
    told, late = Told(), Told()

    async def attempt() -> float:
        told(await Calls([Call("a", lambda: 1, late=late)], patience=PATIENCE_SECONDS))
        told(await Calls([Call("b", lambda: 2, late=late), Call("a", lambda: 3, late=late)], patience=PATIENCE_SECONDS))
        return math.inf

    stage.keep("one", attempt, 0.0, 0.0)
    stage.play(lambda: len(told.lines) == 2)

    assert told.lines == [[1], [2, 3]]
    assert late.lines == []


def test_attempt_goes_on_where_it_made_the_call_itself(stage: Stage) -> None:
    """An attempt whose call hangs in the very place in which the attempt runs goes on elsewhere, and comes again."""
    told, late = Told(), Told()

    async def attempt() -> float:
        told(await Calls([hanging(stage, len(told.lines), late)], patience=PATIENCE_SECONDS))
        told(await quick("on"))
        stage.release()
        return math.inf

    stage.keep("one", attempt, 0.0, 0.0, "slow")
    stage.lose_patience("one")
    stage.play(lambda: bool(late.lines))

    assert told.lines == [[BUSY], "on"]
    assert late.lines == [0]


def test_attempt_goes_on_into_the_place_that_hangs(stage: Stage) -> None:
    """The next call of an attempt that went on may be in the pool that hangs: it waits there for its turn."""
    told, late = Told(), Told()

    async def attempt() -> float:
        told(await Calls([hanging(stage, "slow", late)], patience=PATIENCE_SECONDS))
        stage.release()
        told(await quick("on", "slow"))
        return math.inf

    stage.keep("one", attempt, 0.0, 0.0, "slow")
    stage.lose_patience("one")
    stage.play(lambda: len(told.lines) == 2)

    assert told.lines == [[BUSY], "on"]
    assert late.lines == ["slow"]


def test_call_that_waits_for_its_turn_is_busy_too(stage: Stage) -> None:
    """A call that waits behind one that hangs is busy when patience ends; it stays in the queue and answers late."""
    told, late = Told(), Told()

    async def first() -> float:
        told(await Calls([hanging(stage, "first", late)], patience=PATIENCE_SECONDS))
        return math.inf

    async def second() -> float:
        told(await Calls([hanging(stage, "second", late), quick(2)], patience=PATIENCE_SECONDS))
        stage.release()
        return math.inf

    stage.keep("first", first, 0.0, 0.0)
    stage.lose_patience("first")
    stage.play(lambda: len(told.lines) == 1)
    stage.keep("second", second, 0.0, 0.0)
    stage.lose_patience("second")
    stage.play(lambda: len(late.lines) == 2)

    assert told.lines == [[BUSY], [BUSY, 2]]
    assert late.lines == ["first", "second"]


def test_patience_ends_for_each_calls_anew(stage: Stage) -> None:
    """An attempt may lose patience again and again; each late answer comes to its own call."""
    told, first, second = Told(), Told(), Told()

    async def attempt() -> float:
        told(await Calls([hanging(stage, 1, first)], patience=PATIENCE_SECONDS))
        told(await Calls([quick(0, "b"), hanging(stage, 2, second)], patience=PATIENCE_SECONDS))
        stage.release()
        return math.inf

    stage.keep("one", attempt, 0.0, 0.0, "slow")
    stage.lose_patience("one")
    stage.play(lambda: len(told.lines) == 1)
    stage.lose_patience("one")
    stage.play(lambda: bool(second.lines))

    assert told.lines == [[BUSY], [0, BUSY]]
    assert (first.lines, second.lines) == ([1], [2])


def test_late_answer_may_be_an_expected_error(stage: Stage) -> None:
    """An expected error that comes late is handed over as a value."""
    told, late = Told(), Told()

    async def attempt() -> float:
        told(await Calls([hanging(stage, LookError(Reason.TIMEOUT, "slow"), late)], patience=PATIENCE_SECONDS))
        stage.release()
        return math.inf

    stage.keep("one", attempt, 0.0, 0.0)
    stage.lose_patience("one")
    stage.play(lambda: bool(late.lines))

    assert told.lines == [[BUSY]]
    assert [type(line) for line in late.lines] == [LookError]


def test_late_answer_of_a_token_that_was_dropped(stage: Stage) -> None:
    """A token that was dropped, or put on schedule anew, still gets what its earlier attempt asked for."""
    told, late = Told(), Told()

    async def attempt() -> float:
        told(await Calls([hanging(stage, "late", late)], patience=PATIENCE_SECONDS))
        return stage.now()

    async def anew() -> float:
        told("anew")
        stage.release()
        return math.inf

    for name in ("one", "two"):
        stage.keep(name, attempt, 0.0, 0.0)
    stage.play(lambda: all(stage.waits_for_one(name) for name in ("one", "two")))
    for name in ("one", "two"):
        stage.drop(name)
    stage.keep("two", anew, 0.0, 0.0)
    stage.lose_patience("one")
    stage.play(lambda: len(late.lines) == 2)

    assert told.lines[:2] == [[BUSY], [BUSY]]
    assert told.lines[2:] == ["anew"]
    assert late.lines == ["late", "late"]


def test_killed_process_is_told_of_nothing_late() -> None:
    """What a simulated process was waiting for when it was killed is delivered to nobody."""
    stage, told, late = SimulatedStage(), Told(), Told()

    async def attempt() -> float:
        told(await Calls([quick(1), hanging(stage, 2, late)], patience=PATIENCE_SECONDS))
        told(await Calls([hanging(stage, 3, late)], patience=PATIENCE_SECONDS))
        return math.inf

    stage.keep("one", attempt, 0.0, 0.0)
    stage.lose_patience("one")
    stage.play(lambda: bool(told.lines))
    stage.driver.kill()
    stage.world.run(stage.world.now + 5 * HANGS_SECONDS)

    assert told.lines == [[1, BUSY]]
    assert late.lines == []
