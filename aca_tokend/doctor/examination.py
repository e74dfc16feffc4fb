"""Runs checks side by side, each blocking call in the pool it names, and is done when its time is over.

A check is a coroutine over the calls of core/steps.py. What still hangs when the time is over is told as a finding; its
thread is left behind, and does not keep the process from ending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aca_tokend.core.outcome import ADVICE
from aca_tokend.core.steps import make
from aca_tokend.doctor.findings import Area, Finding, Status, listed
from aca_tokend.scheduling.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from aca_tokend.core.errors import ReasonedError
    from aca_tokend.core.outcome import Reason
    from aca_tokend.core.steps import Call

# How often the progress is shown anew.
TICK_SECONDS = 0.1
HANGS = {
    Area.ENDPOINT: "find out what holds its answers back: the resolver, the network or the server",
    Area.VAULT: "find out what holds its answers back: the resolver, the network or the server",
    Area.SECRET: "see whether the file system, or the Vault, that holds it answers",
    Area.FILE: "see whether its file system answers; a network file system may be down",
    Area.ACCOUNT: "find out why the endpoint, or the place of the attempt record, does not answer",
}


class Notes:
    """What one check has found so far. Its `steps` are the names of its findings, in their order."""

    def __init__(self, area: Area, subject: str, steps: tuple[str, ...], found: Callable[[Finding], None]) -> None:
        self._area = area
        self._subject = subject
        self._found = found
        self.left = list(steps)

    def ok(self, step: str, detail: str) -> None:
        """It is as it should be."""
        self._tell(step, Status.OK, detail)

    def warn(self, step: str, detail: str, fix: str) -> None:
        """It works, but a human may look."""
        self._tell(step, Status.WARN, detail, fix)

    def failed(self, step: str, detail: str, fix: str) -> None:
        """The daemon would fail."""
        self._tell(step, Status.FAILED, detail, fix)

    def skipped(self, step: str, why: str) -> None:
        """It was not tried."""
        self._tell(step, Status.SKIPPED, why)

    def error(self, step: str, error: ReasonedError, said: str = "") -> None:
        """It failed for a known reason. `said` stands in place of the error's own message."""
        self.failed(step, said or error.message, advice(error.reason))

    def _tell(self, step: str, status: Status, detail: str, fix: str = "") -> None:
        if step in self.left:
            self.left.remove(step)
        self._found(Finding(self._area, self._subject, step, status, detail, fix))

    def also(self, subject: str) -> Notes:
        """Notes of the same check about another subject, which was not announced."""
        return Notes(self._area, subject, (), self._found)


@dataclass(frozen=True, slots=True)
class Check:
    """What is tried of one subject.

    Attributes:
        steps: the names of its findings, in the order in which it comes to them.
        examine: tries them. It ends early where a failure leaves nothing more to try; what is left is skipped then.
        after: the keys of the checks that must have come to their last step before it begins.
        key: what others name it by in `after`.
        lane: a pool; of the checks in one lane no more are under way at once than the pool takes calls.
    """

    area: Area
    subject: str
    steps: tuple[str, ...]
    examine: Callable[[Notes], Coroutine[Any, Any, None]]
    after: tuple[str, ...] = ()
    key: str = ""
    lane: str = ""


@dataclass(slots=True, eq=False)
class _Task:
    """A check under way, and the results of its calls that are still out."""

    check: Check
    notes: Notes
    waits_for: set[str]
    findings: list[Finding] = field(default_factory=list)
    coroutine: Coroutine[Any, Any, None] | None = None
    running: int = 0
    done: bool = False
    results: list[Any] = field(default_factory=list)
    out: int = 0


@dataclass(slots=True)
class _Lane:
    """How many more checks may begin, and those that wait to."""

    free: int
    queue: deque[_Task] = field(default_factory=deque)


class Examination:
    """Runs these checks once. `pools` are the sizes of the pools that their calls name."""

    def __init__(self, pools: Mapping[str, int], checks: Sequence[Check]) -> None:
        self._pools = {name: Executor(f"doctor {name}", size, self._on_bug) for name, size in pools.items()}
        self._changed = threading.Condition()
        self._bug: BaseException | None = None
        self._tasks = [self._task(check) for check in checks]
        self._left = len(self._tasks)
        self._lanes = {name: _Lane(size) for name, size in pools.items()}
        self._waiting: dict[str, list[_Task]] = {}
        for task in self._tasks:
            for key in task.waits_for:
                self._waiting.setdefault(key, []).append(task)

    def run(self, seconds: float, progress: Callable[[int, int, Sequence[str]], None]) -> tuple[Finding, ...]:
        """Runs every check, for so many seconds at most. `progress` is told: done, of how many, and what is out."""
        try:
            return self._run(seconds, progress)
        finally:
            for pool in self._pools.values():
                pool.close()

    def _run(self, seconds: float, progress: Callable[[int, int, Sequence[str]], None]) -> tuple[Finding, ...]:
        end = time.monotonic() + seconds
        self._begin([task for task in self._tasks if not task.waits_for])
        ended = False
        while not ended and (left := end - time.monotonic()) > 0:
            with self._changed:
                ended = self._changed.wait_for(lambda: not self._left or self._bug, min(TICK_SECONDS, left)) is True
                out = [task.check.subject for task in self._tasks if not task.done]
            if self._bug is not None:
                raise self._bug
            progress(len(self._tasks) - len(out), len(self._tasks), out)
        with self._changed:
            for task in self._tasks:
                if not task.done:
                    self._give_up(task, seconds)
                task.done = True  # what comes later is not taken
            return tuple(finding for task in self._tasks for finding in task.findings)

    def _task(self, check: Check) -> _Task:
        findings: list[Finding] = []

        def found(finding: Finding) -> None:
            with self._changed:
                if not task.done:
                    findings.append(finding)

        task = _Task(check, Notes(check.area, check.subject, check.steps, found), set(check.after), findings)
        return task

    def _give_up(self, task: _Task, seconds: float) -> None:
        """Tells what a check that is not done was about to find. The caller holds the lock."""
        check, left = task.check, list(task.notes.left)
        if task.running and left:
            step = left.pop(0)
            detail, fix = f"hangs: no end of it within {seconds:.1f} s", HANGS[check.area]
            task.findings.append(Finding(check.area, check.subject, step, Status.FAILED, detail, fix))
            why = f"{step} hangs"
        elif task.waits_for:
            why = f"{listed(sorted(task.waits_for))} hangs"
        else:
            why = "the time was over before it was its turn"
        self._skip(task, left, why)

    @staticmethod
    def _skip(task: _Task, steps: Sequence[str], why: str) -> None:
        area, subject = task.check.area, task.check.subject
        task.findings += [Finding(area, subject, step, Status.SKIPPED, why) for step in steps]

    # ── driving ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, tasks: Sequence[_Task]) -> None:
        """Begins these checks, and those that can begin because one of them has ended already."""
        ready = deque(tasks)
        while ready:
            task = ready.popleft()
            with self._changed:
                if not self._admit(task):
                    continue
            task.coroutine = task.check.examine(task.notes)
            ready.extend(self._drive(task, None))

    def _admit(self, task: _Task) -> bool:
        """Whether a check may begin now; else it does once another of its lane has ended. The caller holds the lock."""
        lane = self._lanes.get(task.check.lane)
        if lane is not None and not lane.free:
            lane.queue.append(task)
            return False
        if lane is not None:
            lane.free -= 1
        return True

    def _leave(self, task: _Task) -> list[_Task]:
        """Who may try to begin now that this check has ended. The caller holds the lock."""
        lane = self._lanes.get(task.check.lane)
        if lane is None:
            return []
        lane.free += 1
        return [lane.queue.popleft()] if lane.queue else []

    def _drive(self, task: _Task, results: Sequence[Any] | None) -> Sequence[_Task]:
        """Goes on with a check until its next calls. Returns who can begin if it has ended."""
        assert task.coroutine is not None  # noqa: S101 -- it was begun
        try:
            # whatever their patience: what hangs is told when the time is over
            calls: Sequence[Call[Any]] = task.coroutine.send(results).calls
        except StopIteration:
            return self._end(task)
        task.results, task.out = [None] * len(calls), len(calls)
        for index, call in enumerate(calls):
            self._pools[call.pool].submit(
                call.urgency,
                lambda index=index, call=call: self._make(task, index, call),  # type: ignore[misc]  # bound now
                lambda: None,
                finish=call.finish,
            )
        return ()

    def _make(self, task: _Task, index: int, call: Call[Any]) -> None:
        with self._changed:
            if task.done and not call.finish:
                return  # the time is over: nothing more is begun
            task.running += 1
        result = make(call)
        with self._changed:
            task.running -= 1
            task.results[index] = result
            task.out -= 1
            if task.out:
                return
        self._begin(self._drive(task, task.results))

    def _end(self, task: _Task) -> Sequence[_Task]:
        """Notes what a check came to, and returns who can begin now."""
        with self._changed:
            if task.done:
                return ()
            problem = ""
            if task.notes.left:
                failed = [it.check for it in task.findings if it.status is Status.FAILED]
                problem = f"{failed[-1] if failed else task.notes.left[0]} of {task.check.subject} failed"
                self._skip(task, task.notes.left, f"because {problem}")
            ready = self._done(task, problem) + self._leave(task)
            self._changed.notify_all()
            return ready

    def _done(self, task: _Task, problem: str) -> list[_Task]:
        """Which of those that waited for this one can begin; where it has a problem they are skipped."""
        task.done = True
        self._left -= 1
        ready: list[_Task] = []
        for waiting in self._waiting.pop(task.check.key, []):
            waiting.waits_for.discard(task.check.key)
            if waiting.done:
                continue
            if problem:
                self._skip(waiting, waiting.notes.left, f"because {problem}")
                ready += self._done(waiting, problem)
            elif not waiting.waits_for:
                ready.append(waiting)
        return ready

    def _on_bug(self, bug: BaseException) -> None:
        with self._changed:
            self._bug = self._bug or bug
            self._changed.notify_all()


def advice(reason: Reason) -> str:
    """What to do about it, without what the daemon does by itself."""
    return ADVICE[reason].removesuffix("; attempts go on")
