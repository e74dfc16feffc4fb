"""A bounded pool of threads. Real threads; what two of them may do in either order is pinned by holding their lock."""

from __future__ import annotations

import math
import threading
import weakref
from typing import TYPE_CHECKING

from aca_tokend.scheduling.executor import MOST_HUNG, Executor
from tests.unit.test_scheduler import GENEROUS, NO_STACK, held, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

import pytest


def nothing() -> None:
    """What is called for a call that is dropped."""


@pytest.fixture
def bugs() -> list[BaseException]:
    """What a pool told."""
    return []


@pytest.fixture
def pool(bugs: list[BaseException]) -> Iterator[Executor]:
    """A pool of two threads."""
    pool = Executor("pool", 2, bugs.append)
    yield pool
    pool.close()


@pytest.fixture
def no_more_threads() -> Iterator[Callable[[], None]]:
    """From when it is called on the machine gives no further thread."""
    before = threading.stack_size()

    def from_now_on() -> None:
        threading.stack_size(NO_STACK)

    yield from_now_on
    threading.stack_size(before)


def make(pool: Executor) -> None:
    """Makes one call, and waits until its thread has nothing to do."""
    done = threading.Event()
    pool.submit(0.0, done.set, nothing)
    assert done.wait(GENEROUS)
    wait_until(lambda: pool._idle == pool._threads)


def test_idle_thread_takes_the_next_call(pool: Executor) -> None:
    """A call that comes while a thread has nothing to do begins no further thread."""
    for _ in range(5):
        make(pool)

    assert pool._threads == 1


def test_more_calls_than_idle_threads_begin_another(pool: Executor) -> None:
    """Of two calls that come while one thread has nothing to do neither waits for the other."""
    make(pool)
    together = threading.Barrier(2)
    done = threading.Semaphore(0)

    def call() -> None:
        together.wait(GENEROUS)
        done.release()

    with pool._ready:  # both are there before the thread takes one
        pool.submit(0.0, call, nothing)
        pool.submit(0.0, call, nothing)

    assert done.acquire(timeout=GENEROUS)
    assert done.acquire(timeout=GENEROUS)
    assert pool._threads == 2


def test_resized_pool_leaves_calls_to_idle_threads(pool: Executor) -> None:
    """A pool that is resized begins threads for what waits, but not for what an idle one is about to take."""
    make(pool)
    done = threading.Event()
    with pool._ready:  # it is there before the idle thread takes it
        pool.submit(0.0, done.set, nothing)
        pool.resize(3)

    assert done.wait(GENEROUS)
    assert pool._threads == 1


def test_closed_pool_makes_what_waits(pool: Executor) -> None:
    """A pool that is closed makes the calls that it was handed before, and then ends its threads."""
    started, release, done = threading.Semaphore(0), threading.Event(), threading.Event()
    for _ in range(2):
        pool.submit(0.0, lambda: held(started, release), nothing)
        assert started.acquire(timeout=GENEROUS)
    pool.submit(0.0, done.set, nothing)
    pool.close()
    release.set()

    assert done.wait(GENEROUS)
    wait_until(lambda: pool._threads == 0)


def test_thread_that_rests_keeps_nothing_of_its_last_call(pool: Executor) -> None:
    """What a call was made with, such as a credential, goes with it."""

    class Sent:
        def __call__(self) -> None:
            pass

    sent = Sent()
    left = weakref.ref(sent)
    pool.submit(0.0, sent, nothing)
    del sent

    wait_until(lambda: left() is None)


def test_only_so_many_that_hang_leave_their_places(bugs: list[BaseException]) -> None:
    """However many calls hang, the threads of a pool have an end."""
    now, release = [0.0], threading.Event()
    pool = Executor("slow", 1, bugs.append, lambda: now[0], hung_seconds=1.0)
    for number in range(1 + MOST_HUNG):
        pool.submit(0.0, lambda: held(threading.Semaphore(0), release), nothing)
        pool.relieve()
        wait_until(lambda number=number: len(pool._busy_since) == number + 1)  # type: ignore[misc]  # a lambda's default
        now[0] += 2.0
    pool.submit(0.0, nothing, nothing)
    pool.relieve()

    assert pool._threads == 1 + MOST_HUNG
    release.set()
    pool.close()


def test_thread_that_ends_hands_on_what_it_was_woken_for(pool: Executor) -> None:
    """A call whose thread ends because the pool has shrunk is made by another, at once."""
    started, release, done = threading.Semaphore(0), threading.Event(), threading.Event()
    for _ in range(2):
        pool.submit(0.0, lambda: held(started, release), nothing)
        assert started.acquire(timeout=GENEROUS)
    release.set()
    wait_until(lambda: pool._idle == 2)
    with pool._ready:  # the one that is woken finds the pool shrunk
        pool.size = 1
        pool.submit(0.0, done.set, nothing)

    assert done.wait(GENEROUS), "the other thread would have slept for a minute"
    assert pool._threads == 1


def test_pool_goes_on_with_the_threads_it_has(
    pool: Executor, bugs: list[BaseException], no_more_threads: Callable[[], None]
) -> None:
    """Where the machine gives no further thread, the calls of a pool wait for those that it has."""
    started, release, done = threading.Event(), threading.Event(), threading.Semaphore(0)
    pool.submit(0.0, lambda: held(started, release), nothing)
    assert started.wait(GENEROUS)
    no_more_threads()
    for _ in range(3):
        pool.submit(0.0, done.release, nothing)
    pool.resize(5)
    release.set()

    for _ in range(3):
        assert done.acquire(timeout=GENEROUS)
    assert pool._threads == 1
    assert not bugs


def test_pool_without_any_thread(
    pool: Executor, no_more_threads: Callable[[], None], bugs: list[BaseException]
) -> None:
    """Where the machine gives a pool not even its first thread, who hands it a call is told; what is patient waits."""
    size = threading.stack_size()
    no_more_threads()
    done = threading.Event()
    assert not pool.submit(0.0, nothing, nothing)
    assert pool.lacks_threads()
    assert not pool.lacks_threads()
    assert pool.submit(0.0, done.set, nothing, patient=True)
    pool.share(0.0)
    assert pool.lacks_threads()
    assert pool.lacks_threads()

    threading.stack_size(size)
    pool.share(0.0)

    assert done.wait(GENEROUS)
    assert not pool.lacks_threads()
    assert not bugs


def test_thread_that_never_begins(pool: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that had no memory to begin is as good as none: nobody waits for it, and the next one serves."""
    done = threading.Event()
    with monkeypatch.context() as wanting:
        wanting.setattr("aca_tokend.threads.BEGIN_SECONDS", 0.01)
        wanting.setattr(threading.Thread, "_bootstrap", lambda _thread: None)
        assert not pool.submit(0.0, nothing, nothing)
        assert pool.submit(0.0, done.set, nothing, patient=True)

    pool.relieve()

    assert done.wait(GENEROUS)
    assert pool._threads == 1


def test_last_call_waits_for_a_thread(pool: Executor, no_more_threads: Callable[[], None]) -> None:
    """While stopping, what finishes a rotation waits for a thread, where otherwise it would be tried again later."""
    size = threading.stack_size()
    no_more_threads()
    done = threading.Event()
    pool.shutdown()
    assert pool.submit(0.0, done.set, nothing, finish=True)

    threading.stack_size(size)
    pool.relieve()

    assert done.wait(GENEROUS)


def test_pool_that_shares(bugs: list[BaseException]) -> None:
    """A pool gives its threads but one back to the system, and has them again when it shares no more."""
    now = [1000.0]
    pool = Executor("pool", 3, bugs.append, lambda: now[0])
    together, done = threading.Barrier(3), threading.Semaphore(0)

    def call() -> None:
        together.wait(GENEROUS)
        done.release()

    def all_three() -> None:
        for _ in range(3):
            pool.submit(0.0, call, nothing)
        for _ in range(3):
            assert done.acquire(timeout=GENEROUS)

    all_three()
    pool.share(1060.0)
    wait_until(lambda: pool._threads == 1)
    make(pool)
    assert pool._threads == 1

    now[0] = 1060.0
    all_three()
    pool.close()


def test_next_call_to_count_as_hung_is_told(bugs: list[BaseException]) -> None:
    """A pool tells when it needs relief again: once the next call that runs has hung; never, where all have."""
    now = [1000.0]
    pool = Executor("local", 1, bugs.append, lambda: now[0], 2.0)
    started, release = threading.Semaphore(0), threading.Event()
    assert pool.relieve() == math.inf
    pool.submit(0.0, lambda: held(started, release), nothing)
    assert started.acquire(timeout=GENEROUS)
    assert pool.relieve() == 1002.0

    pool.submit(0.0, lambda: held(started, release), nothing)
    now[0] = 1002.0
    pool.relieve()
    assert started.acquire(timeout=GENEROUS)
    assert pool.relieve() == 1004.0

    now[0] = 1004.0
    assert pool.relieve() == math.inf
    pool.submit(0.0, started.release, nothing)
    assert started.acquire(timeout=GENEROUS), "where all have hung, what comes next begins at once"
    release.set()
    assert not bugs


def test_idle_threads_end(bugs: list[BaseException]) -> None:
    """A thread that has nothing to do for a while ends, and another begins with the next call."""
    pool = Executor("rare", 2, bugs.append)
    pool._idle_seconds = 0.01
    for _ in range(3):
        done = threading.Event()
        pool.submit(0.0, done.set, nothing)
        assert done.wait(GENEROUS)
        wait_until(lambda: pool._threads == 0)
    assert not bugs
