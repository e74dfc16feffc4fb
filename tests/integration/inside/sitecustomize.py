"""Trouble inside a daemon under test, which Python loads at its start from the folder that PYTHONPATH names.

It makes real a file system that hangs. A real one takes root (FUSE, NFS), and nothing that a test could put at a path
hangs the daemon: it waits neither for pipes nor for locks. Python tells its audit hooks of each file that is about to
be opened, by whatever code and in whatever thread, and opens it once they have returned.
"""

from __future__ import annotations

import os
import sys
import time


def _hang(folder: str, flag: str) -> None:
    """Whatever opens this folder, or something below it, hangs while there is a file `flag`."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and (arguments[0] + "/").startswith(folder + "/"):
            while os.access(flag, os.F_OK):
                time.sleep(0.05)

    sys.addaudithook(hook)


if "HANGING_FOLDER" in os.environ:
    _hang(os.environ["HANGING_FOLDER"], os.environ["HANGING_FLAG"])
