"""What the scheduler is to the daemon, on a virtual clock: keeps attempts on schedule and makes their calls in pools.

Held to one contract with `RotationScheduler` by tests/contract/test_drivers.py. A call takes its place in its pool from
its start to its answer and has its effect in between, so whatever else is under way comes in between as well.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aca_tokend.core.steps import BUSY, HUNG_SECONDS, LOCAL, make

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from aca_tokend.core.steps import Call, Work
    from aca_tokend.simulation.world import World


@dataclass(slots=True, eq=False)
class _Round:
    """Calls that were handed out together, their results, when each began, and how many are still out."""

    calls: Sequence[Call[Any]]
    results: list[Any]
    began: list[float]
    out: int


@dataclass(slots=True, eq=False)
class _Task:
    """An attempt under way, the calls it waits for, and what is to follow it."""

    work: Work
    coroutine: Coroutine[Any, Any, float]
    began: float
    round: _Round | None = None
    hasten_to: float = math.inf
    successor: tuple[Work, float] | None = None
    dropped: bool = False


# A call that is out: whose, in which round, as which of it.
_Out = tuple[_Task, _Round, int, "Call[Any]"]


class _Pool:
    """So many calls at a time, the most urgent first."""

    __slots__ = ("busy", "free", "last_began", "local", "size", "waiting")

    def __init__(self, size: int, *, local: bool = False) -> None:
        self.size = size
        self.local = local
        self.busy = 0
        self.free = 0
        self.last_began = 0.0
        self.waiting: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []


class SimDriver:
    """Keeps every token of one process on schedule.

    Args:
        world: whose clock it is.
        pools: the size of each pool by its name.
        latency: how many seconds the next call in a pool takes.
    """

    def __init__(self, world: World, pools: Mapping[str, int], latency: Callable[[str], float]) -> None:
        self.world = world
        self.dead = False
        self.frozen_until = 0.0
        self._latency = latency
        self._pools = {name: _Pool(size, local=name.startswith(LOCAL)) for name, size in pools.items()}
        self._due: dict[str, tuple[float, Work]] = {}
        self._under_way: dict[str, _Task] = {}
        self._numbers = itertools.count()

    def keep(self, work: Work, at: float) -> None:
        """Puts a token on schedule: its next attempt begins at `at`, after the one that is under way."""
        task = self._under_way.get(work.name)
        if task is not None:
            task.successor, task.dropped = (work, at), False
            return
        ticket = self._due[work.name] = (at, work)
        self.world.at(at, self._fall_due, ticket)

    def hasten(self, name: str, at: float) -> None:
        """Brings the next attempt of a token forward to `at`, also while one is under way."""
        task, ticket = self._under_way.get(name), self._due.get(name)
        if task is not None:
            task.hasten_to = min(task.hasten_to, at)
        elif ticket is not None and at < ticket[0]:
            self.keep(ticket[1], at)

    def drop(self, name: str) -> None:
        """Takes a token off the schedule; an attempt under way goes to its end."""
        self._due.pop(name, None)
        task = self._under_way.get(name)
        if task is not None:
            task.successor, task.dropped = None, True

    def kill(self) -> None:
        """The process is no more: nothing goes on but what was sent already."""
        self.dead = True
        self._due.clear()
        for task in self._under_way.values():
            task.coroutine.close()
        self._under_way.clear()

    def freeze(self, until: float) -> None:
        """The machine sleeps until then."""
        self.frozen_until = until

    def kept(self) -> set[str]:
        """The tokens that have a next attempt, or one under way."""
        return self._due.keys() | self._under_way.keys()

    def began(self, name: str) -> float | None:
        """When the attempt of a token that is under way began."""
        task = self._under_way.get(name)
        return task.began if task else None

    def overdue(self, seconds: float) -> list[str]:
        """The tokens whose next attempt is overdue by so much, or whose attempt under way takes longer than that."""
        before = self.world.now - seconds
        late = [name for name, (at, _) in self._due.items() if at < before]
        return late + [name for name, task in self._under_way.items() if task.began < before]

    # ── one attempt ───────────────────────────────────────────────────────────────────────────────────────────────

    def _asleep(self, action: Callable[..., None], *arguments: object) -> bool:
        """Puts off what falls into the machine's sleep."""
        if self.world.now >= self.frozen_until:
            return False
        self.world.at(self.frozen_until, action, *arguments)
        return True

    def _fall_due(self, ticket: tuple[float, Work]) -> None:
        work = ticket[1]
        if self._due.get(work.name) is not ticket or self._asleep(self._fall_due, ticket):
            return
        self._submit(work.pool, work.urgency(), self._begin, ticket)

    def _begin(self, pool: _Pool, ticket: tuple[float, Work]) -> None:
        """Runs in a place of the pool in which the attempt begins, unless another ticket took over meanwhile."""
        work = ticket[1]
        if self._due.get(work.name) is not ticket:
            self._release(pool)
            return
        del self._due[work.name]
        task = self._under_way[work.name] = _Task(work, work.attempt(), self.world.now)
        self._drive(task, None, work.pool, pool)

    def _drive(self, task: _Task, results: Sequence[Any] | None, here: str, pool: _Pool) -> None:
        """Goes on with an attempt in a place of the pool `here`, until its next calls belong in another."""
        try:
            handed = task.coroutine.send(results)
        except StopIteration as done:
            self._end(task, done.value)
            self._release(pool)
            return
        calls = handed.calls
        round_ = task.round = _Round(calls, [BUSY] * len(calls), [0.0] * len(calls), len(calls))
        if handed.patience != math.inf:
            self.world.at(self.world.now + handed.patience, self._lose_patience, task, round_, handed.patience)
        if len(calls) == 1 and calls[0].pool == here:
            self._start(pool, (task, round_, 0, calls[0]))
            return
        for index, call in enumerate(calls):
            self._submit(call.pool, call.urgency, self._start, (task, round_, index, call))
        self._release(pool)

    def _lose_patience(self, task: _Task, round_: _Round, patience: float) -> None:
        """Drives an attempt on without the answers that are out. It makes no call here, so it takes no place."""
        if self.dead or task.round is not round_ or self._asleep(self._lose_patience, task, round_, patience):
            return
        before = self.world.now - patience
        for call, began, result in zip(round_.calls, round_.began, round_.results, strict=True):
            if result is BUSY and (began or self._pools[call.pool].last_began) > before:
                self.world.at(self.world.now + 1.0, self._lose_patience, task, round_, patience)
                return
        task.round = None
        self._drive(task, round_.results, "", _Pool(1))

    def _start(self, pool: _Pool, out: _Out) -> None:
        world = self.world
        pool.last_began = out[1].began[out[2]] = world.now
        takes = self._latency(out[3].pool)
        world.at(world.now + takes * world.rng.random(), self._take_effect, pool, out, world.now, takes)

    def _take_effect(self, pool: _Pool, out: _Out, started: float, takes: float) -> None:
        world = self.world
        if self._asleep(self._take_effect, pool, out, started, takes):
            return
        if self.dead and world.rng.random() < 0.5:  # noqa: PLR2004 -- of what a killed process was sending, half arrives
            return
        world.instant, world.answer_at = started, max(started + takes, world.now)
        result = make(out[3])
        world.instant = world.now
        if self.dead:
            return
        if pool.local and world.answer_at > started + HUNG_SECONDS:
            world.at(max(started + HUNG_SECONDS, world.now), self._release, pool)
            pool = _Pool(1)  # it has left its place to another by then
        world.at(world.answer_at, self._take_answer, pool, out, result)

    def _take_answer(self, pool: _Pool, out: _Out, result: object) -> None:
        if self.dead or self._asleep(self._take_answer, pool, out, result):
            return
        task, round_, index, call = out
        if task.round is not round_:
            if call.late is not None:
                call.late(result)
            self._release(pool)
            return
        round_.results[index] = result
        round_.out -= 1
        if round_.out:
            self._release(pool)
        else:
            task.round = None
            self._drive(task, round_.results, call.pool, pool)

    def _end(self, task: _Task, next_at: float) -> None:
        del self._under_way[task.work.name]
        work, at = task.successor or (task.work, next_at)
        if at != math.inf and not task.dropped:
            self.keep(work, min(at, task.hasten_to))

    # ── pools ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _submit(self, name: str, urgency: float, run: Callable[..., None], *arguments: object) -> None:
        pool = self._pools[name]
        if pool.busy < pool.size:
            pool.busy += 1
            run(pool, *arguments)
        else:
            heapq.heappush(pool.waiting, (urgency, next(self._numbers), run, arguments))

    def _release(self, pool: _Pool) -> None:
        """A place is free, for the next that waits. That may end at once and free it again: a loop, no recursion."""
        pool.free += 1
        if pool.free > 1:
            return
        while pool.free:
            if pool.waiting:
                _, _, run, arguments = heapq.heappop(pool.waiting)
                run(pool, *arguments)
            else:
                pool.busy -= 1
            pool.free -= 1
