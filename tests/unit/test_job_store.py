"""What is due when: soonest first, nothing that was taken off, and none of it by the wall clock."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from hypothesis import given
from hypothesis import strategies as st

from aca_tokend.core.steps import Duty
from aca_tokend.scheduling.job_store import DUE, NEVER, JobStore, Timer

WALL_CLOCKS = (datetime(1969, 12, 31, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))


async def _attempt() -> float:
    return math.inf


class Rig:
    """A store with a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store = JobStore(lambda: self.now)
        self._makes = BackgroundScheduler(timezone=UTC)

    def job(self, name: str, at: float) -> Any:  # noqa: ANN401 -- APScheduler publishes no types
        """A job as APScheduler makes it."""
        timer = Timer(at, Duty(name, "a", _attempt, lambda: 0.0))
        return self._makes.add_job(int, timer, id=name, next_run_time=NEVER)

    def take(self, now: float) -> list[Any]:
        """Takes what is due, as a round of APScheduler's does."""
        self.now = now
        due = self.store.get_due_jobs(WALL_CLOCKS[0])
        for job in due:
            assert job._get_run_times(WALL_CLOCKS[0]) == [DUE]
            job.next_run_time = job.trigger.get_next_fire_time(DUE, WALL_CLOCKS[0])
            self.store.update_job(job)
        return due


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["add", "hasten", "take", "take back"]), st.integers(0, 50)),
            st.tuples(st.just("remove"), st.integers(0, 100)),
        ),
        max_size=120,
    )
)
def test_what_is_due_comes_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    """Whatever is added, set anew and removed, what is due comes soonest first, once, and nothing that was removed."""
    rig = Rig()
    waiting: list[Any] = []
    queued: list[Any] = []
    for number, (step, value) in enumerate(steps):
        held = [*waiting, *queued]
        if step == "add":
            waiting.append(rig.job(f"t{number}", float(value)))
            rig.store.add_job(waiting[-1])
        elif step == "hasten" and held:
            job = held[value % len(held)]
            sooner = job in waiting and value < job.trigger.at
            assert rig.store.hasten(job, float(value)) is sooner
        elif step == "take back" and queued:
            waiting.append(queued.pop(value % len(queued)))
            rig.store.take_back(waiting[-1], float(value))
        elif step == "remove" and held:
            job = held[value % len(held)]
            rig.store.remove_job(job.id)
            (queued if job in queued else waiting).remove(job)
        elif step == "take":
            due = rig.take(float(value))
            assert [job.trigger.at for job in due] == sorted(
                job.trigger.at for job in waiting if job.trigger.at <= value
            )
            assert all(job in waiting for job in due)
            waiting = [job for job in waiting if job not in due]
            queued += due
        soonest = rig.store._soonest()
        assert soonest == min((job.trigger.at for job in waiting), default=math.inf)
        assert (rig.store.get_next_run_time() is None) is (not waiting)
        assert {job.id for job in rig.store.get_all_jobs()} == {job.id for job in [*waiting, *queued]}


def test_no_wall_clock_moves_a_job() -> None:
    """By whatever wall clock, a job is due when its monotonic time has come, runs once then, and stays."""
    for wall in WALL_CLOCKS:
        rig = Rig()
        job = rig.job("one", 5.0)
        rig.store.add_job(job)
        assert rig.store.get_due_jobs(wall) == []
        assert job._get_run_times(wall) == []

        rig.now = 5.0
        assert rig.store.get_due_jobs(wall) == [job]
        assert job._get_run_times(wall) == [DUE]
        assert job.trigger.get_next_fire_time(DUE, wall) is NEVER


def test_tells_once_of_what_is_due_before_the_next_look() -> None:
    """APScheduler's thread is woken for what is due before it would look, once, and for nothing else."""
    rig = Rig()
    assert not rig.store.sooner()
    for name, at, sooner in (("first", 10.0, True), ("later", 20.0, False), ("sooner", 5.0, True)):
        rig.store.get_next_run_time()
        rig.store.add_job(rig.job(name, at))
        assert rig.store.sooner() is sooner
        assert not rig.store.sooner()


def test_what_comes_back_for_a_moment_that_it_had_before_comes_once() -> None:
    """A job that was brought forward and comes back for its first moment is handed out once then."""
    rig = Rig()
    job, before = rig.job("one", 10.0), rig.job("before", 7.0)
    rig.store.add_job(job)
    rig.store.add_job(before)
    rig.store.hasten(job, 5.0)
    assert rig.take(5.0) == [job]
    rig.store.take_back(job, 10.0)

    assert rig.take(10.0) == [before, job]


def test_what_was_left_behind_goes() -> None:
    """A job that is hastened a thousand times before its time leaves no thousand entries behind."""
    rig = Rig()
    job = rig.job("one", 1001.0)
    rig.store.add_job(job)
    for number in range(1000):
        rig.store.hasten(job, 1000.0 - number / 1000)

    assert len(rig.store._heap) <= 2


def test_what_stays_when_the_rest_goes_comes_in_order() -> None:
    """Where most jobs are removed, those that stay and those that come later are due soonest first."""
    rig = Rig()
    for number in range(40):
        rig.store.add_job(rig.job(f"t{number}", float(number * 7 % 40)))
    for number in range(40):
        if number % 3:
            rig.store.remove_job(f"t{number}")
    rig.store.add_job(rig.job("later", 50.0))

    due = [job.trigger.at for job in rig.take(100.0)]
    assert len(due) == 14 + 1
    assert due == sorted(due)


def test_far_moment_is_no_date() -> None:
    """What is due later than any calendar goes is looked for by then, and ends no schedule."""
    rig = Rig()
    rig.store.add_job(rig.job("far", 1e15))
    assert rig.store.get_next_run_time() is not None


def test_names_are_unique_and_known() -> None:
    """A name is added once, and what is not there cannot be removed, as APScheduler asks of every job store."""
    rig = Rig()
    rig.store.add_job(rig.job("one", 1.0))
    with pytest.raises(ConflictingIdError):
        rig.store.add_job(rig.job("one", 2.0))
    with pytest.raises(JobLookupError):
        rig.store.remove_job("two")
    assert rig.store.lookup_job("two") is None

    rig.store.remove_all_jobs()
    assert rig.take(10.0) == []
