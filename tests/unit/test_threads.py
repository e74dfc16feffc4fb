"""A thread that the system gives, and that has no memory to begin."""

from __future__ import annotations

import threading

import pytest

from aca_tokend.threads import Thread

GENEROUS = 30.0


def test_thread_that_begins_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts a thread that does not begin is told, and it does nothing if it begins after all."""
    go, ended, done = threading.Event(), threading.Event(), threading.Event()
    begin = Thread._bootstrap  # type: ignore[attr-defined]  # what a new thread calls

    def late(thread: Thread) -> None:
        go.wait()
        begin(thread)
        ended.set()

    monkeypatch.setattr("aca_tokend.threads.BEGIN_SECONDS", 0.01)
    monkeypatch.setattr(Thread, "_bootstrap", late)
    with pytest.raises(RuntimeError):
        Thread(target=done.set, daemon=True).start()
    go.set()

    assert ended.wait(GENEROUS)
    assert not done.is_set()
