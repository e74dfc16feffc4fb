"""Whether a place could be written, as far as it shows without writing: what is missing is told before a grant.

It leaves nothing behind and promises nothing: a disk may fill up between here and the publish.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.core.errors import LookError
from aca_tokend.core.outcome import Reason
from aca_tokend.sinks.atomic import group_id, user_id

if TYPE_CHECKING:
    from aca_tokend.sinks.atomic import Access

_CAP_CHOWN = 1 << 0
_CAP_FOWNER = 1 << 3


def probe(directory: int, name: str, access: Access) -> None:
    """Tells by a LookError what a publish to `name` in this directory would fail on. Its message has no path."""
    _probe_directory(directory)
    _probe_sticky(directory, name)
    _probe_owner(access)


def _probe_directory(directory: int) -> None:
    room = os.fstatvfs(directory)
    if room.f_flag & os.ST_RDONLY:
        raise LookError(Reason.READ_ONLY, "its file system is read-only")
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=os.access in os.supports_effective_ids):
        raise LookError(Reason.PERMISSION_DENIED, "the daemon may not create files in its directory")
    blocks = room.f_bfree if os.geteuid() == 0 else room.f_bavail  # the rest is kept for root
    if room.f_blocks and not blocks:
        raise LookError(Reason.DISK_FULL, "no space is left on its file system")
    if room.f_files and not room.f_ffree:
        raise LookError(Reason.DISK_FULL, "its file system can take no further file")


def _probe_sticky(directory: int, name: str) -> None:
    """In a directory like /tmp only the owner of a file may replace it."""
    status = os.fstat(directory)
    if not status.st_mode & stat.S_ISVTX or os.geteuid() == status.st_uid:
        return
    try:
        owner = os.stat(name, dir_fd=directory, follow_symlinks=False).st_uid
    except FileNotFoundError:
        return
    if owner != os.geteuid() and not _capable(_CAP_FOWNER):
        raise LookError(Reason.PERMISSION_DENIED, "it belongs to another user, in a directory with the sticky bit")


def _probe_owner(access: Access) -> None:
    try:
        owner = user_id(access.owner) if access.owner else os.geteuid()
        group = group_id(access.group) if access.group else os.getegid()
    except KeyError as error:
        raise LookError(Reason.OWNER_NOT_SET, "there is no such owner or group") from error
    mine = owner == os.geteuid() and group in {os.getegid(), *os.getgroups()}
    if not mine and not _capable(_CAP_CHOWN):
        raise LookError(Reason.OWNER_NOT_SET, "the daemon may not give files to this owner or group")


def _capable(bit: int) -> bool:
    """Whether this process has a capability; without /proc, whether it is root."""
    try:
        status = Path("/proc/thread-self/status").read_bytes()
    except OSError:
        status = b""
    effective = status.partition(b"CapEff:")[2].partition(b"\n")[0]
    return bool(int(effective, 16) & bit) if effective else os.geteuid() == 0
