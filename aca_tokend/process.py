"""What the process asks of the system: to keep others from its memory, and to use less memory and CPU.

It holds for the whole process and is not undone. A program that a hook starts may be traced and may dump core again.
"""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress

# <linux/prctl.h>
_PR_SET_DUMPABLE = 4
# <malloc.h>
_M_ARENA_MAX = -8


def harden() -> None:
    """Has the process write no core dump, and keep memory, environment and open files from others of its user.

    The limit alone would not do: where the system pipes core dumps to a program it does not count. Not being dumpable
    also closes ptrace and /proc/PID/mem, environ and fd to all who lack CAP_SYS_PTRACE, such as the programs of hooks.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


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
