"""Runs checks side by side, each blocking call in the pool it names, and is done when its time is over.

A check is a coroutine over the calls of core/steps.py. What still hangs when the time is over is told as a finding; its
thread is left behind, and does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aca_tokend.core.outcome import ADVICE
from aca_tokend.core.steps import make
from aca_tokend.doctor.findings import Area, Finding, Status, listed
from aca_tokend.scheduling.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

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
    """A check, what it found, and the answers that it waits for."""

    check: Check
    findings: list[Finding] = field(default_factory=list)
    answers: list[Future[Any]] = field(default_factory=list)
    notes: Notes = field(init=False)
    ending: asyncio.Task[str] = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is found yet."""
        self.notes = Notes(self.check.area, self.check.subject, self.check.steps, self.findings.append)

    def skip(self, steps: Iterable[str], why: str) -> None:
        """Tells that these were not tried."""
        area, subject = self.check.area, self.check.subject
        self.findings += [Finding(area, subject, step, Status.SKIPPED, why) for step in steps]


class Examination:
    """Runs these checks once. `pools` are the sizes of the pools that their calls name."""

    def __init__(self, pools: Mapping[str, int], checks: Iterable[Check]) -> None:
        self._bugs: list[BaseException] = []
        self._pools = {name: Executor(f"doctor {name}", size, self._bugs.append) for name, size in pools.items()}
        self._lanes = {name: asyncio.Semaphore(size) for name, size in pools.items()}
        self._tasks = [_Task(check) for check in checks]
        self._by_key = {task.check.key: task for task in self._tasks}

    def run(self, seconds: float, progress: Callable[[int, int, Sequence[str]], None]) -> tuple[Finding, ...]:
        """Runs every check, for so many seconds at most. `progress` is told: done, of how many, and what is out."""
        try:
            return asyncio.run(self._run(seconds, progress))
        finally:
            for pool in self._pools.values():
                pool.shutdown()
                pool.close()

    async def _run(self, seconds: float, progress: Callable[[int, int, Sequence[str]], None]) -> tuple[Finding, ...]:
        end = time.monotonic() + seconds
        for task in self._tasks:
            task.ending = asyncio.create_task(self._examine(task))
        out = self._tasks
        while out and (left := end - time.monotonic()) > 0:
            await asyncio.wait(
                [task.ending for task in out], timeout=min(TICK_SECONDS, left), return_when=asyncio.FIRST_EXCEPTION
            )
            for task in out:
                if task.ending.done():
                    task.ending.result()  # raises where it was a bug that ended it
            if self._bugs:
                raise self._bugs[0]
            out = [task for task in out if not task.ending.done()]
            progress(len(self._tasks) - len(out), len(self._tasks), [task.check.subject for task in out])
        for task in out:
            self._give_up(task, seconds)
        return tuple(finding for task in self._tasks for finding in task.findings)

    def _give_up(self, task: _Task, seconds: float) -> None:
        """Tells what a check that is not done was about to find."""
        check, left = task.check, list(task.notes.left)
        waits_for = [key for key in check.after if not self._by_key[key].ending.done()]
        if left and any(answer.running() for answer in task.answers):
            step = left.pop(0)
            detail, fix = f"hangs: no end of it within {seconds:.1f} s", HANGS[check.area]
            task.findings.append(Finding(check.area, check.subject, step, Status.FAILED, detail, fix))
            why = f"{step} hangs"
        elif waits_for:
            why = f"{listed(sorted(waits_for))} hangs"
        else:
            why = "the time was over before it was its turn"
        task.skip(left, why)

    async def _examine(self, task: _Task) -> str:
        """Runs a check once it may begin. Returns what kept it from its last step, "" where nothing did."""
        check = task.check
        for key in check.after:
            if problem := await self._by_key[key].ending:
                task.skip(task.notes.left, f"because {problem}")
                return problem
        async with self._lanes[check.lane] if check.lane else nullcontext():
            await self._drive(task)
        if not task.notes.left:
            return ""
        failed = [it.check for it in task.findings if it.status is Status.FAILED]
        problem = f"{failed[-1] if failed else task.notes.left[0]} of {check.subject} failed"
        task.skip(task.notes.left, f"because {problem}")
        return problem

    async def _drive(self, task: _Task) -> None:
        """Makes the calls that a check awaits, each in its pool, whatever their patience."""
        coroutine, results = task.check.examine(task.notes), None
        while True:
            try:
                calls: Sequence[Call[Any]] = coroutine.send(results).calls
            except StopIteration:
                return
            task.answers = [self._submit(call) for call in calls]
            results = [await asyncio.wrap_future(answer) for answer in task.answers]

    def _submit(self, call: Call[Any]) -> Future[Any]:
        answer: Future[Any] = Future()

        def run() -> None:
            # cancelled: the time is over, and nothing more is begun
            if answer.set_running_or_notify_cancel():
                answer.set_result(make(call))
            elif call.finish:
                make(call)

        self._pools[call.pool].submit(call.urgency, run, lambda: None, finish=call.finish)
        return answer


def advice(reason: Reason) -> str:
    """What to do about it, without what the daemon does by itself."""
    return ADVICE[reason].removesuffix("; attempts go on")
