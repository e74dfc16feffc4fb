"""Which file system a path is on, as far as its text tells. Nothing here touches the path itself.

Each has a pool of its own, so that one that hangs, such as that of a file server which is gone, holds up no token on
another.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FILE_POOL = "file"
FILE_POOL_SIZE = 4

_ESCAPED = re.compile(r"\\([0-7]{3})")


def pool_of(path: str) -> str:
    """The pool for calls about this path: `file` and where its file system is mounted, as in `file:/run`."""
    return f"{FILE_POOL}:{mount_of(path, _mounts())}"


def mount_of(path: str, mounts: tuple[str, ...]) -> str:
    """The longest of these mount points that the path lies below."""
    found = (mount for mount in mounts if path == mount or path.startswith(mount.rstrip("/") + "/"))
    return max(found, key=len, default="/")


def parse_mounts(text: str) -> tuple[str, ...]:
    """The mount points that /proc/self/mountinfo names: proc(5), its fifth field."""
    points = [fields[4] for line in text.splitlines() if len(fields := line.split(" ")) > 4]  # noqa: PLR2004
    return tuple(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), point) for point in points)


@cache
def _mounts() -> tuple[str, ...]:
    """Those there were when they were first asked for: what is mounted later counts to what it is mounted on."""
    try:
        return parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return ()
