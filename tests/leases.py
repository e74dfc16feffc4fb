"""A file that cannot be opened, as on a mount that hangs: whoever tries waits for the lease that somebody holds."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# It does not hear that somebody waits. The system has patience for 45 seconds.
HOLDER = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(os.open(sys.argv[1], os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def leased(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Holds a lease on the file, by a process that ends with this at the latest."""
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"held\n"
            yield holder
        finally:
            holder.kill()


def program_is_waited_for() -> bool:
    """Whether somebody waits for a lease."""
    return "BREAKER" in Path("/proc/locks").read_text()
