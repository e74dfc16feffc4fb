"""Becomes another program that ends with its parent: `python tied.py PARENT_PID PROGRAM ARGUMENT…`.

The kernel sends SIGKILL when the parent is gone, however it went. It means the very thread that started the program, so
that thread must live as long as its process. Only Linux can do this; elsewhere the program just runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Asks for the signal and becomes the program."""
    parent, program, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            sys.exit("the parent went before the kernel was asked")
    os.execv(program, [program, *arguments])  # noqa: S606 - the program that the caller chose


if __name__ == "__main__":
    main()
