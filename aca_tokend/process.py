"""What the process asks of the system before it reads anything: to keep others from its memory, and to use less of it.

It holds for the whole process and is not undone; a program that a hook starts is an ordinary process again.
"""

from __future__ import annotations

import ctypes
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
