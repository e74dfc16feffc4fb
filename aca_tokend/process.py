"""What the process asks of the system: to keep others from its memory, to use less memory and CPU, to get its orphans.

It holds for the whole process and is not undone. A program that a hook starts may be traced and may dump core again.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/prctl.h>
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
# <malloc.h>
_M_ARENA_MAX = -8
# The system tells when a process was started in steps that are shorter than this.
_TICK_SECONDS = 0.02

# When each program that runs was begun, by CLOCK_BOOTTIME, and the ended ones that may have left something behind.
_running: dict[object, float] = {}
_ending: set[object] = set()
_ended = threading.Condition()  # held for each change of these two
_reaping = threading.Lock()


def harden() -> None:
    """Has the process write no core dump, and keep memory, environment and open files from others of its user.

    The limit alone would not do: where the system pipes core dumps to a program it does not count. Not being dumpable
    also closes ptrace and /proc/PID/mem, environ and fd to all who lack CAP_SYS_PTRACE, such as the programs of hooks.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def adopt_orphans() -> None:
    """From now on a process becomes a child of ours when its parent, which we started, has ended without it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def ending_orphans() -> Iterator[list[int]]:
    """Around the run of a program: at the end, ends what it left behind, also in other sessions.

    Nothing says whose an orphan is: what is younger than another program that still runs is left to that one's end.
    The list that it gives then has those that may not be ended.
    """
    left: list[int] = []
    run = object()
    with _ended:
        began = _running[run] = time.clock_gettime(time.CLOCK_BOOTTIME) - _TICK_SECONDS
    try:
        yield left
    finally:
        with _ended:
            _ending.add(run)
            del _running[run]
        try:
            while ending := _end_orphans(began, left):
                with suppress(ChildProcessError):
                    os.waitid(os.P_PID, ending[0], os.WEXITED | os.WNOWAIT)
        finally:
            with _ended:
                _ending.remove(run)
                _ended.notify_all()


def wait_for_programs(seconds: float) -> None:
    """Waits until every program has ended, with what it left behind, for so many seconds at most."""
    with _ended:
        _ended.wait_for(lambda: not _running and not _ending, seconds)


def _end_orphans(began: float, left: list[int]) -> list[int]:
    """Ends them, and returns those that may not be gone yet. Of those that have ended by themselves nothing is kept."""
    ending = []
    with _reaping:  # a number may be another process's once it was waited for, which happens here alone
        younger = min(list(_running.values()), default=math.inf)
        for pid, started in _orphans().items():
            ended = os.waitpid(pid, os.WNOHANG)[0]
            if not ended and began <= started < younger and pid not in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                    ending.append(pid)
                except PermissionError:
                    left.append(pid)
    return ending


def _orphans() -> dict[int, float]:
    """The processes that became children of ours, and when each was started, by CLOCK_BOOTTIME.

    They are the main thread's, which runs no programs.
    """
    adopts, found = ctypes.c_int(), {}
    children = Path(f"/proc/self/task/{os.getpid()}/children")  # not every kernel has it
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(adopts), 0, 0, 0)
    for pid in children.read_text().split() if adopts.value and children.exists() else ():
        with suppress(FileNotFoundError):  # another user's, which is not to be seen
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            found[int(pid)] = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return found


def save_memory() -> None:
    """Has all threads share one arena of glibc's malloc, where each would keep some of its own.

    Called before there are threads. They hardly compete for it: most of the time one of them holds the interpreter.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def save_cpu() -> None:
    """Has a thread that wakes wait until the one that runs is through, instead of taking its place at once.

    A rotation wakes threads some 40 times, and mostly the other one then only waits for the interpreter: as many
    rotations take about a ninth less CPU. Called before there are threads, since they inherit it.
    """
    with suppress(OSError):  # a sandbox may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
