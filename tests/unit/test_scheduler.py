"""APScheduler's traps, each with its test, and the pools. Real threads, no sleeping: everything waits on conditions."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.errors import InternalError, LookError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import BUSY, HUNG_SECONDS, Call, Calls, Duty
from aca_tokend.scheduling.job_store import LOOK_SECONDS
from aca_tokend.scheduling.scheduler import RotationScheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

GENEROUS = 30.0
# More than any address space has room for.
NO_STACK = 1 << 46
PATIENCE_SECONDS = 1000.0


class Clock:
    """The machine's clocks; it can sleep, and one of them can fail."""

    def __init__(self) -> None:
        self.slept = 0.0
        self.failure: Exception | None = None

    def monotonic(self) -> float:
        if self.failure is not None:
            raise self.failure
        return time.monotonic() + self.slept

    def wall(self) -> float:
        return time.time()


class Rig:
    """A scheduler with two pools of two threads, and what it told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.bugs: list[BaseException] = []
        self.bug = threading.Event()
        self.lags: list[float] = []
        self.scheduler = RotationScheduler({"a": 2, "b": 2}, self.clock, self._on_bug, self.lags.append)

    def _on_bug(self, bug: BaseException) -> None:
        self.bugs.append(bug)
        self.bug.set()

    def keep(
        self, name: str, attempt: Callable[[], Coroutine[Any, Any, float]], at: float | None = None, urgency: float = 0
    ) -> None:
        work = Duty(name, "a", attempt, lambda: urgency)
        self.scheduler.keep(work, self.clock.monotonic() if at is None else at)

    def lose_patience(self, name: str) -> None:
        """Lets the patience of an attempt end once all its calls but one have answered."""
        wait_until(lambda: self.waits_for_one(name))
        self.clock.slept += PATIENCE_SECONDS
        self.scheduler.redraw()

    def waits_for_one(self, name: str) -> bool:
        """Whether all calls but one that the attempt of a token handed out have answered."""
        task = self.scheduler._under_way.get(name)
        return task is not None and task.round is not None and task.round.out == 1

    def queued(self, name: str) -> bool:
        """Whether a token was handed to its pool."""
        job = self.scheduler._store.lookup_job(name)
        return job is not None and job.trigger.queued


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A scheduler that is stopped when the test ends."""
    rig = Rig()
    yield rig
    rig.scheduler.stop(0.0)


def counting(done: threading.Event, times: int, delay: float = 0.0) -> Callable[[], Coroutine[Any, Any, float]]:
    """An attempt that comes again at once until it ran `times` times."""
    count = 0

    async def attempt() -> float:
        nonlocal count
        await Call("a", lambda: None)
        count += 1
        if count >= times:
            done.set()
            return math.inf
        return time.monotonic() + delay

    return attempt


def test_job_for_a_past_moment_is_run(rig: Rig) -> None:
    """Trap: a `date` job more than a second late is dropped by default; ours is run however late it is."""
    done = threading.Event()
    rig.keep("late", counting(done, 1), at=rig.clock.monotonic() - 3600)
    rig.scheduler.start()

    assert done.wait(GENEROUS)
    assert rig.lags[0] >= 3600


def test_attempt_that_comes_again_at_once_is_not_lost(rig: Rig) -> None:
    """Trap: a job that adds its own id again for "now" is skipped and lost; a hundred immediate returns all run."""
    done = threading.Event()
    rig.scheduler.start()
    rig.keep("again", counting(done, 100))

    assert done.wait(GENEROUS)
    assert not rig.bugs


def test_attempt_that_raises_is_told(rig: Rig) -> None:
    """Trap: a job that raises vanishes; what an attempt raises unexpectedly is told, so that the process ends."""

    async def attempt() -> float:
        await Call("a", lambda: None)
        message = "a bug"
        raise ValueError(message)

    rig.scheduler.start()
    rig.keep("buggy", attempt)

    assert rig.bug.wait(GENEROUS)
    assert isinstance(rig.bugs[0], ValueError)


def test_call_that_raises_in_another_pool_is_told(rig: Rig) -> None:
    """A bug in a call, in whichever pool, that its attempt does not contain is told as one of the schedule."""

    def call() -> None:
        message = "a bug"
        raise KeyError(message)

    async def attempt() -> float:
        await Call("b", call)
        return math.inf

    rig.scheduler.start()
    rig.keep("buggy", attempt)

    assert rig.bug.wait(GENEROUS)
    assert isinstance(rig.bugs[0], InternalError)
    assert rig.bugs[0].kind == "KeyError"


def test_what_fails_in_apschedulers_thread_is_told(rig: Rig) -> None:
    """Trap: APScheduler logs what a job raises and goes on; what cannot be handed to its pool is told as a bug."""
    rig.scheduler.start()
    rig.scheduler.keep(Duty("one", "no such pool", counting(threading.Event(), 1), lambda: 0.0), rig.clock.monotonic())

    assert rig.bug.wait(GENEROUS)
    assert isinstance(rig.bugs[0], KeyError)


def test_round_that_fails_is_told(rig: Rig) -> None:
    """Trap: APScheduler logs that a job store failed and asks again ten seconds later; it is told as a bug."""
    rig.scheduler.start()
    now = rig.clock.monotonic()
    rig.clock.failure = ValueError("a bug")
    rig.keep("one", counting(threading.Event(), 1), at=now)

    assert rig.bug.wait(GENEROUS)
    assert rig.bugs[0] is rig.clock.failure
    rig.clock.failure = None


def test_job_that_would_begin_twice_is_told(rig: Rig) -> None:
    """Trap: APScheduler skips a job whose last run is not over, and it is lost; that is told as a bug."""
    started, release = threading.Event(), threading.Event()

    async def attempt() -> float:
        await Call("a", lambda: held(started, release))
        return math.inf

    rig.scheduler.start()
    rig.keep("one", attempt)
    assert started.wait(GENEROUS)
    job = rig.scheduler._store.lookup_job("one")
    rig.scheduler._store.take_back(job, rig.clock.monotonic())
    rig.scheduler._scheduler.wakeup()

    assert rig.bug.wait(GENEROUS)
    assert "maximum number of instances" in str(rig.bugs[0])
    release.set()


def test_expected_error_of_a_call_is_raised_where_it_is_awaited(rig: Rig) -> None:
    """A TokendError that a call raises is raised again in the attempt, in order beside the other results."""
    told: list[object] = []
    done = threading.Event()

    def fail() -> int:
        raise LookError(Reason.TIMEOUT, "slow")

    async def attempt() -> float:
        told.extend(await Calls([Call("a", lambda: 1), Call("b", fail), Call("b", lambda: 3)]))
        try:
            await Call("b", fail)
        except LookError as error:
            told.append(error.reason)
        done.set()
        return math.inf

    rig.scheduler.start()
    rig.keep("one", attempt)

    assert done.wait(GENEROUS)
    assert told[0] == 1
    assert isinstance(told[1], LookError)
    assert told[2:] == [3, Reason.TIMEOUT]


def test_hanging_pool_does_not_delay_another(rig: Rig) -> None:
    """Calls that hang hold threads of their own pool alone: attempts in the other pool go on."""
    release = threading.Event()
    done = threading.Event()

    async def hanging() -> float:
        await Call("b", lambda: release.wait(GENEROUS))
        return math.inf

    rig.scheduler.start()
    for number in range(5):
        rig.keep(f"hanging-{number}", hanging)
    rig.keep("well", counting(done, 50))

    assert done.wait(GENEROUS)
    release.set()


def test_pool_never_runs_more_than_its_size(rig: Rig) -> None:
    """However many calls wait, no more than the pool's size run at once."""
    lock = threading.Lock()
    running, most, finished = 0, 0, 0
    done = threading.Event()

    def call() -> None:
        nonlocal running, most, finished
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)  # so that calls overlap; nothing is concluded from how long it takes
        with lock:
            running -= 1
            finished += 1
            if finished == 40:
                done.set()

    async def attempt() -> float:
        await Call("b", call)
        return math.inf

    rig.scheduler.start()
    for number in range(40):
        rig.keep(f"t{number}", attempt)

    assert done.wait(GENEROUS)
    assert most <= 2


def test_most_urgent_goes_first(rig: Rig) -> None:
    """Of the calls that wait for a pool the one with the smallest urgency value runs first."""
    release = threading.Event()
    ready = threading.Semaphore(0)
    order: list[int] = []
    done = threading.Event()

    async def blocker() -> float:
        await Call("b", lambda: held(ready, release))
        return math.inf

    def attempt(number: int) -> Callable[[], Coroutine[Any, Any, float]]:
        async def waiting() -> float:
            await Call("b", lambda: order.append(number), urgency=number)
            if len(order) == 6:
                done.set()
            return math.inf

        return waiting

    rig.scheduler.start()
    rig.keep("blocker-1", blocker)
    rig.keep("blocker-2", blocker)
    ready.acquire(timeout=GENEROUS)
    ready.acquire(timeout=GENEROUS)
    for number in (5, 3, 1, 4, 2, 6):
        rig.keep(f"t{number}", attempt(number))
    queue = rig.scheduler._pools["b"]
    wait_until(lambda: len(queue._waiting) == 6)
    release.set()

    assert done.wait(GENEROUS)
    assert order[0] == 1
    assert sorted(order[:4]) == [1, 2, 3, 4], "two threads take them in order, give or take one"


def test_stop_drops_what_is_queued(rig: Rig) -> None:
    """Trap: shutdown runs whatever is still queued; ours starts none of ten thousand that wait behind hanging calls."""
    release = threading.Event()
    started = threading.Semaphore(0)
    ran: list[int] = []

    async def hanging() -> float:
        await Call("a", lambda: held(started, release))
        return math.inf

    async def queued() -> float:
        await Call("a", lambda: ran.append(1))
        return math.inf

    for number in range(2):
        rig.keep(f"hanging-{number}", hanging)
    for number in range(10_000):
        rig.keep(f"queued-{number}", queued, urgency=1)
    rig.scheduler.start()
    started.acquire(timeout=GENEROUS)
    started.acquire(timeout=GENEROUS)
    left = rig.scheduler.stop(0.0)
    release.set()

    assert set(left) == {"hanging-0", "hanging-1"}
    assert rig.scheduler.wait_until_done(GENEROUS)
    assert ran == []


def test_stop_drops_calls_that_wait_in_another_pool(rig: Rig) -> None:
    """A call of an attempt under way that waits behind hanging ones, such as a grant not sent yet, is not made."""
    release = threading.Event()
    started = threading.Semaphore(0)
    ran: list[int] = []

    async def hanging() -> float:
        await Call("b", lambda: held(started, release))
        return math.inf

    async def waiting() -> float:
        await Call("b", lambda: ran.append(1))
        return math.inf

    rig.scheduler.start()
    for number in range(2):
        rig.keep(f"hanging-{number}", hanging)
        started.acquire(timeout=GENEROUS)
    for number in range(20):
        rig.keep(f"waiting-{number}", waiting)
    queue = rig.scheduler._pools["b"]
    wait_until(lambda: len(queue._waiting) == 20)
    left = rig.scheduler.stop(0.0)
    release.set()

    assert set(left) == {"hanging-0", "hanging-1"}
    wait_until(lambda: not queue._waiting and not queue._busy_since)
    assert ran == []


def test_stop_lets_a_minted_token_be_published(rig: Rig) -> None:
    """A rotation whose grant was sent goes on through publish while stopping; its next attempt is not scheduled."""
    sent, answer = threading.Event(), threading.Event()
    published = threading.Event()

    async def attempt() -> float:
        await Call("a", lambda: held(sent, answer))
        await Call("b", published.set, finish=True)
        return time.monotonic()

    rig.scheduler.start()
    rig.keep("minting", attempt)
    assert sent.wait(GENEROUS)
    threading.Timer(0.1, answer.set).start()

    assert rig.scheduler.stop(GENEROUS) == ()
    assert published.is_set()


def test_stop_abandons_a_rotation_whose_grant_was_not_sent(rig: Rig) -> None:
    """An attempt whose next call is not one that must be made ends while stopping."""
    looking, looked = threading.Event(), threading.Event()
    granted = threading.Event()

    async def attempt() -> float:
        await Call("a", lambda: held(looking, looked))
        await Call("b", granted.set)
        return math.inf

    rig.scheduler.start()
    rig.keep("looking", attempt)
    assert looking.wait(GENEROUS)
    threading.Timer(0.1, looked.set).start()

    assert rig.scheduler.stop(GENEROUS) == ()
    assert not granted.is_set()


def test_stop_makes_no_further_call_of_the_same_pool(rig: Rig) -> None:
    """A call that would be made by the very thread that made the one before is not made while stopping."""
    looking, looked = threading.Event(), threading.Event()
    granted = threading.Event()

    async def attempt() -> float:
        await Call("a", lambda: held(looking, looked))
        await Call("a", granted.set)
        return math.inf

    rig.scheduler.start()
    rig.keep("looking", attempt)
    assert looking.wait(GENEROUS)
    threading.Timer(0.1, looked.set).start()

    assert rig.scheduler.stop(GENEROUS) == ()
    assert not granted.is_set()


def test_stop_begins_what_finishes(rig: Rig) -> None:
    """Work that finishes what was published is begun by a stop, due or not, and what is asked for during it too."""
    ran: list[str] = []

    async def hook() -> float:
        await Call("b", lambda: ran.append("hook"), finish=True)
        return math.inf

    work = Duty("hook", "b", hook, lambda: 0.0, finish=True)
    sent, answer = threading.Event(), threading.Event()

    async def publishing() -> float:
        await Call("a", lambda: held(sent, answer), finish=True)
        rig.scheduler.keep(replace(work, name="late hook"), rig.clock.monotonic())
        return math.inf

    rig.scheduler.start()
    rig.scheduler.keep(work, rig.clock.monotonic() + 3600)
    rig.keep("publishing", publishing)
    assert sent.wait(GENEROUS)
    threading.Timer(0.1, answer.set).start()

    assert rig.scheduler.stop(GENEROUS) == ()
    assert ran == ["hook", "hook"]


def test_stop_runs_a_hook_again_that_was_asked_for_meanwhile(rig: Rig) -> None:
    """What asks for a hook while it runs and the daemon stops gets a run of its own."""
    began, go_on = threading.Event(), threading.Event()
    runs: list[int] = []

    async def hook() -> float:
        await Call("b", lambda: held(began, go_on), finish=True)
        runs.append(1)
        return math.inf

    work = Duty("hook", "b", hook, lambda: 0.0, finish=True)

    def ask() -> None:
        rig.scheduler.keep(work, rig.clock.monotonic())
        go_on.set()

    rig.scheduler.start()
    rig.scheduler.keep(work, rig.clock.monotonic())
    assert began.wait(GENEROUS)
    threading.Timer(0.1, ask).start()

    assert rig.scheduler.stop(GENEROUS) == ()
    assert runs == [1, 1]


class Hanging:
    """An attempt that loses patience with a call that hangs in pool b, and what came of it."""

    def __init__(self, rig: Rig, *, finish: bool) -> None:
        self.started, self.release, self.went_on = threading.Event(), threading.Event(), threading.Event()
        self.late: list[object] = []
        self.finish = finish
        rig.scheduler.start()
        rig.keep("one", self.attempt)
        assert self.started.wait(GENEROUS)
        rig.lose_patience("one")
        assert self.went_on.wait(GENEROUS)

    async def attempt(self) -> float:
        hang: Call[object] = Call(
            "b", lambda: held(self.started, self.release), finish=self.finish, late=self.late.append
        )
        other: Call[object] = Call("a", lambda: 1, finish=self.finish)
        assert await Calls([hang, other], patience=PATIENCE_SECONDS) == [BUSY, 1]
        self.went_on.set()
        return math.inf


def test_attempt_that_went_on_is_not_stuck(rig: Rig) -> None:
    """An attempt that lost patience is over, on time and not under way."""
    hanging = Hanging(rig, finish=False)

    assert rig.scheduler.wait_until_done(GENEROUS)
    assert rig.scheduler.overdue() == []
    hanging.release.set()
    wait_until(lambda: hanging.late == [None])


def test_stop_waits_for_a_late_answer_that_finishes(rig: Rig) -> None:
    """A rotation that went on without the answer of a publish is not over before that has come."""
    hanging = Hanging(rig, finish=True)
    threading.Timer(0.1, hanging.release.set).start()

    assert rig.scheduler.stop(GENEROUS) == ()
    assert hanging.late == [None]


def test_stop_names_a_token_whose_late_answer_did_not_come(rig: Rig) -> None:
    """A publish that hangs longer than a stop waits leaves its token unfinished, though the attempt has gone on."""
    hanging = Hanging(rig, finish=True)
    assert rig.scheduler.wait_until_done(GENEROUS)

    assert rig.scheduler.stop(0.0) == ("one",)
    hanging.release.set()
    wait_until(lambda: hanging.late == [None])


def test_stop_waits_for_no_late_answer_that_finishes_nothing(rig: Rig) -> None:
    """A look that hangs holds up no stop once the attempt has gone on without it."""
    hanging = Hanging(rig, finish=False)

    assert rig.scheduler.stop(GENEROUS) == ()
    assert hanging.late == []
    hanging.release.set()


def test_attempts_lose_patience_while_stopping(rig: Rig) -> None:
    """A stop goes on without a place that hangs: what else finishes the rotation is done."""
    started, release, published = threading.Event(), threading.Event(), threading.Event()

    async def attempt() -> float:
        assert await Calls([Call("b", lambda: held(started, release), finish=True)], patience=PATIENCE_SECONDS) == [
            BUSY
        ]
        await Call("a", published.set, finish=True)
        return math.inf

    rig.scheduler.start()
    rig.keep("one", attempt)
    assert started.wait(GENEROUS)

    def time_passes() -> None:
        wait_until(lambda: rig.scheduler._stopping)
        rig.clock.slept += PATIENCE_SECONDS
        if published.wait(GENEROUS):
            release.set()

    threading.Thread(target=time_passes).start()

    assert rig.scheduler.stop(GENEROUS) == ()
    assert published.is_set()
    assert not rig.bugs


def test_stop_drops_a_late_call_and_not_the_attempt_that_went_on(rig: Rig) -> None:
    """A call that still waits for a thread when the daemon stops is dropped, and with it no attempt that went on."""
    started, release, sent, answer = threading.Semaphore(0), threading.Event(), threading.Event(), threading.Event()
    published, ran = threading.Event(), threading.Event()

    async def hanging() -> float:
        await Call("b", lambda: held(started, release))
        return math.inf

    async def attempt() -> float:
        assert await Calls([Call("b", ran.set)], patience=PATIENCE_SECONDS) == [BUSY]
        await Call("a", lambda: held(sent, answer))
        await Call("a", published.set, finish=True)
        return math.inf

    rig.scheduler.start()
    for number in range(2):
        rig.keep(f"hanging-{number}", hanging)
        assert started.acquire(timeout=GENEROUS)
    rig.keep("one", attempt)
    rig.lose_patience("one")
    assert sent.wait(GENEROUS)
    threading.Timer(0.1, answer.set).start()
    threading.Thread(target=_after, args=(published, release)).start()

    assert rig.scheduler.stop(GENEROUS) == ()
    assert published.is_set()
    assert not ran.is_set()


def test_calls_that_hang_leave_their_places_to_others(rig: Rig) -> None:
    """What waits behind a call that hangs in a pool for calls on this machine begins, though nothing else happens."""
    started, release, ran = threading.Semaphore(0), threading.Event(), threading.Event()

    async def hanging() -> float:
        await Call("file:/mnt", lambda: held(started, release))
        return math.inf

    async def waiting() -> float:
        await Call("file:/mnt", ran.set)
        return math.inf

    rig.scheduler.set_pools({"file:/mnt": 1})
    rig.scheduler.start()
    rig.keep("hanging", hanging)
    assert started.acquire(timeout=GENEROUS)
    rig.keep("waiting", waiting)
    wait_until(lambda: rig.waits_for_one("waiting"))
    assert not ran.is_set()
    rig.clock.slept += 2 * HUNG_SECONDS
    rig.scheduler.redraw()

    assert ran.wait(GENEROUS)
    release.set()


def test_nothing_is_looked_over_while_nothing_is_under_way(rig: Rig) -> None:
    """Once the last attempt is over, nobody looks again for one that lost patience."""

    async def attempt() -> float:
        await Calls([Call("a", lambda: None), Call("b", lambda: None)], patience=PATIENCE_SECONDS)
        return math.inf

    rig.scheduler.start()
    rig.keep("one", attempt)
    assert rig.scheduler.wait_until_done(GENEROUS)
    rig.clock.slept += PATIENCE_SECONDS
    rig.scheduler.redraw()

    job = rig.scheduler._store.lookup_job("patience of attempts")
    wait_until(lambda: job.trigger.at > rig.clock.monotonic() + PATIENCE_SECONDS)


def test_own_work_is_no_lag(rig: Rig) -> None:
    """The work of the scheduler's own, which looks after patience, is no attempt that begins late."""
    rig.scheduler.start()
    job = rig.scheduler._store.lookup_job("patience of attempts")
    began = job.trigger.at
    rig.clock.slept += 2 * LOOK_SECONDS
    rig.scheduler.redraw()
    wait_until(lambda: job.trigger.at > began)

    assert rig.lags == []


def test_lost_job_is_overdue(rig: Rig) -> None:
    """The dead-man check names a token whose job is gone though its time has passed, and none that waits its turn."""
    rig.keep("lost", counting(threading.Event(), 1), at=rig.clock.monotonic() - 60)
    rig.keep("coming", counting(threading.Event(), 1), at=rig.clock.monotonic() + 60)

    assert rig.scheduler.overdue() == ["lost"]


def test_token_that_waits_in_a_busy_pool_is_not_overdue(rig: Rig) -> None:
    """A token that waits for a thread of a busy pool is late, not lost: a restart would not help it."""
    release, started = threading.Event(), threading.Semaphore(0)

    async def hanging() -> float:
        await Call("a", lambda: held(started, release))
        return math.inf

    rig.scheduler.start()
    rig.keep("hanging-1", hanging)
    rig.keep("hanging-2", hanging)
    started.acquire(timeout=GENEROUS)
    started.acquire(timeout=GENEROUS)
    rig.keep("late", counting(threading.Event(), 1), at=rig.clock.monotonic() - 60)
    wait_until(lambda: rig.queued("late"))

    assert rig.scheduler.overdue() == []
    release.set()


def test_neither_a_call_that_hangs_nor_many_that_follow_each_other_are_overdue(rig: Rig) -> None:
    """However long an attempt takes, by one call that hangs or by many that are slow, as of a Vault, it is not lost."""
    release, started, slow = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    async def hanging() -> float:
        await Call("b", lambda: held(started, release))
        return math.inf

    async def many() -> float:
        for _ in range(5):
            await Call("a", lambda: setattr(rig.clock, "slept", rig.clock.slept + 3600.0))
            await Call("b", lambda: None)
        await Call("a", lambda: held(slow, release))
        return math.inf

    rig.scheduler.start()
    rig.keep("hangs", hanging)
    rig.keep("slow", many)
    assert started.acquire(timeout=GENEROUS)
    assert slow.acquire(timeout=GENEROUS)

    assert not {"hangs", "slow"} & set(rig.scheduler.overdue())  # our own work has to come round after such jumps
    release.set()


def test_token_that_waits_in_a_busy_pool_is_not_hastened(rig: Rig) -> None:
    """An attempt that was handed to its pool begins once, however it is hastened meanwhile."""
    release, started, ran = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    async def hanging() -> float:
        await Call("a", lambda: held(started, release))
        return math.inf

    async def waiting() -> float:
        await Call("a", ran.release)
        return math.inf

    rig.scheduler.start()
    for number in range(2):
        rig.keep(f"hanging-{number}", hanging)
        assert started.acquire(timeout=GENEROUS)
    rig.keep("late", waiting, urgency=1)
    wait_until(lambda: rig.queued("late"))
    rig.scheduler.hasten("late", rig.clock.monotonic() - 3600)
    done = threading.Event()
    rig.scheduler.keep(Duty("other", "b", counting(done, 3), lambda: 0.0), rig.clock.monotonic())
    release.set()

    assert done.wait(GENEROUS)
    assert rig.scheduler.wait_until_done(GENEROUS)
    assert ran.acquire(blocking=False)
    assert not ran.acquire(blocking=False)
    assert max(rig.lags) < 3600, "it was due when it was handed on"
    assert not rig.bugs


def test_what_fell_due_while_the_machine_slept_begins_at_once(rig: Rig) -> None:
    """After the monotonic clock ran ahead of what threads wait by, redraw brings every job back to its time."""
    done = threading.Event()
    rig.keep("one", counting(done, 1), at=rig.clock.monotonic() + 1800.0)
    rig.scheduler.start()
    assert not done.is_set()

    rig.clock.slept = 3600.0
    rig.scheduler.redraw()

    assert done.wait(GENEROUS)


def test_dropped_token_is_not_run(rig: Rig) -> None:
    """A token that was dropped has no further attempt, and is neither overdue nor waited for."""
    ran = threading.Event()
    rig.keep("gone", counting(ran, 1), at=rig.clock.monotonic() - 60)
    rig.scheduler.drop("gone")
    rig.scheduler.start()
    done = threading.Event()
    rig.keep("other", counting(done, 5))

    assert done.wait(GENEROUS)
    assert rig.scheduler.wait_until_done(GENEROUS)
    assert not ran.is_set()
    assert rig.scheduler.overdue() == []


def test_token_dropped_while_under_way_is_not_put_back(rig: Rig) -> None:
    """An attempt under way goes on to its end though its token was dropped, and no other follows."""
    started, release = threading.Event(), threading.Event()
    runs: list[int] = []

    async def attempt() -> float:
        await Call("a", lambda: held(started, release))
        runs.append(1)
        return time.monotonic()

    rig.scheduler.start()
    rig.keep("gone", attempt)
    assert started.wait(GENEROUS)
    rig.scheduler.drop("gone")
    rig.scheduler.hasten("gone", rig.clock.monotonic())
    release.set()

    assert rig.scheduler.wait_until_done(GENEROUS)
    assert runs == [1]


def test_token_replaced_while_under_way_waits_for_the_end(rig: Rig) -> None:
    """New work of a token begins once the attempt under way is over: there are never two at once. The latest counts."""
    started, release, done = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    async def old() -> float:
        await Call("a", lambda: held(started, release))
        order.append("old")
        return time.monotonic()

    def new(name: str) -> Callable[[], Coroutine[Any, Any, float]]:
        async def attempt() -> float:
            await Call("b", lambda: order.append(name))
            done.set()
            return math.inf

        return attempt

    rig.scheduler.start()
    rig.keep("one", old)
    assert started.wait(GENEROUS)
    rig.scheduler.drop("one")
    rig.keep("one", new("second"))
    rig.keep("one", new("third"))
    others = threading.Event()
    rig.keep("other", counting(others, 20))
    assert others.wait(GENEROUS)
    assert order == [], "what would have begun had every opportunity"
    release.set()

    assert done.wait(GENEROUS)
    assert rig.scheduler.wait_until_done(GENEROUS)
    assert order == ["old", "third"]


def test_replaced_work_that_waits_in_a_busy_pool_is_not_run(rig: Rig) -> None:
    """Work that was handed to a pool that hangs is replaced by work in another pool, and never begins."""
    release, started, done = threading.Event(), threading.Semaphore(0), threading.Event()
    ran = threading.Event()

    async def hanging() -> float:
        await Call("a", lambda: held(started, release))
        return math.inf

    rig.scheduler.start()
    for number in range(2):
        rig.keep(f"hanging-{number}", hanging)
        started.acquire(timeout=GENEROUS)
    rig.keep("moved", counting(ran, 1), urgency=1)
    wait_until(lambda: rig.queued("moved"))

    async def elsewhere() -> float:
        await Call("b", done.set)
        return math.inf

    rig.scheduler.keep(Duty("moved", "b", elsewhere, lambda: 0.0), rig.clock.monotonic())
    assert done.wait(GENEROUS)
    release.set()
    assert rig.scheduler.wait_until_done(GENEROUS)
    assert not ran.is_set()


def test_keep_and_drop_from_many_threads(rig: Rig) -> None:
    """However keep, hasten, redraw and drop of one token cross, it has one attempt at a time, and none is lost."""
    lock = threading.Lock()
    running, most, ran = 0, 0, 0

    def call() -> None:
        nonlocal running, most, ran
        with lock:
            running += 1
            most = max(most, running)
            ran += 1
        time.sleep(0.002)  # so that two would overlap; nothing is concluded from how long it takes
        with lock:
            running -= 1

    async def attempt() -> float:
        await Call("b", call)
        return time.monotonic() + 0.001

    def work(number: int) -> None:
        for step in range(200):
            match (number + step) % 4:
                case 0:
                    rig.scheduler.keep(Duty("one", "ab"[step % 2], attempt, lambda: 0.0), rig.clock.monotonic())
                case 1:
                    rig.scheduler.hasten("one", rig.clock.monotonic())
                case 2:
                    rig.scheduler.redraw()
                case _:
                    rig.scheduler.drop("one")

    rig.scheduler.start()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
    rig.keep("one", attempt)
    before = ran
    wait_until(lambda: ran > before + 20)
    rig.scheduler.drop("one")

    assert rig.scheduler.wait_until_done(GENEROUS)
    assert most == 1
    assert not rig.bugs


def test_pool_added_while_running(rig: Rig) -> None:
    """Work runs in a pool that was added after the start, and what hangs there delays no other."""
    done = threading.Event()
    rig.scheduler.start()
    rig.scheduler.set_pools({"a": 2, "b": 2, "c": 1})

    async def attempt() -> float:
        await Call("a", lambda: None)
        await Call("c", done.set)
        return math.inf

    rig.scheduler.keep(Duty("one", "c", attempt, lambda: 0.0), rig.clock.monotonic())

    assert done.wait(GENEROUS)


def test_pool_that_grows_and_shrinks(rig: Rig) -> None:
    """A pool that grows takes on what waits; one that shrinks lets what runs finish, and then runs no more."""
    release, started = threading.Event(), threading.Semaphore(0)
    pool = rig.scheduler._pools["b"]

    async def hanging() -> float:
        await Call("b", lambda: held(started, release))
        return math.inf

    rig.scheduler.start()
    for number in range(5):
        rig.keep(f"t{number}", hanging)
    for _ in range(2):
        started.acquire(timeout=GENEROUS)
    wait_until(lambda: len(pool._waiting) == 3)
    rig.scheduler.set_pools({"b": 4})
    assert pool._threads == 4
    for _ in range(2):
        assert started.acquire(timeout=GENEROUS)
    rig.scheduler.set_pools({"b": 1})
    release.set()

    assert rig.scheduler.wait_until_done(GENEROUS)
    wait_until(lambda: pool._threads == 1)
    done = threading.Event()
    rig.keep("after", counting(done, 20))
    assert done.wait(GENEROUS)
    assert pool._threads == 1


def test_removed_pool_ends_its_threads(rig: Rig) -> None:
    """A pool that was removed leaves no thread behind, and one of its name may come again."""
    done = threading.Event()

    async def attempt() -> float:
        await Call("b", done.set)
        return math.inf

    rig.scheduler.start()
    for _ in range(3):
        done.clear()
        rig.keep("one", attempt)
        assert done.wait(GENEROUS)
        assert rig.scheduler.wait_until_done(GENEROUS)
        pool = rig.scheduler._pools["b"]
        rig.scheduler.remove_pools(but={"a"})
        wait_until(lambda pool=pool: pool._threads == 0)  # type: ignore[misc]  # bound now
        assert "b" not in rig.scheduler._pools
        rig.scheduler.set_pools({"a": 2, "b": 2})

    assert not rig.bugs


def _after(first: threading.Event, then: threading.Event) -> None:
    if first.wait(GENEROUS):
        then.set()


def held(told: threading.Event | threading.Semaphore, release: threading.Event) -> None:
    """A call that tells that it runs and hangs until it is released."""
    if isinstance(told, threading.Event):
        told.set()
    else:
        told.release()
    release.wait(GENEROUS)


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, generously."""
    deadline = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_no_thread_for_a_call(rig: Rig) -> None:
    """Where the system gives no thread for a call, the attempt gets the reason in place of its answer, and ends."""
    rig.scheduler.start()
    size, done, found = threading.stack_size(), threading.Event(), list[BaseException]()

    async def attempt() -> float:
        threading.stack_size(NO_STACK)
        try:
            await Call("b", lambda: None)
        except InternalError as error:
            found.append(error)
        threading.stack_size(size)
        found.append(await Call("b", lambda: ValueError("answered")))
        done.set()
        return math.inf

    try:
        rig.keep("one", attempt)
        assert done.wait(GENEROUS)
    finally:
        threading.stack_size(size)

    refused, answered = found
    assert isinstance(refused, InternalError)
    assert refused.reason is Reason.RESOURCE_EXHAUSTED
    assert isinstance(answered, ValueError)
    assert not rig.bugs


def test_no_thread_to_begin_in(rig: Rig) -> None:
    """Where the system gives no thread to begin an attempt in, the attempt waits until one is found."""
    begun = threading.Event()
    size = threading.stack_size()
    rig.scheduler.start()
    rig.keep("first", counting(begun, 1))  # APScheduler's own thread is there
    assert begun.wait(GENEROUS)
    try:
        threading.stack_size(NO_STACK)
        done = threading.Event()
        rig.scheduler.keep(Duty("one", "b", counting(done, 1), lambda: 0.0), rig.clock.monotonic())
        wait_until(rig.scheduler.find_threads)
        assert not done.is_set()
    finally:
        threading.stack_size(size)

    wait_until(lambda: not rig.scheduler.find_threads())
    assert done.wait(GENEROUS)
    assert not rig.bugs
