"""Whether a place could be written, as far as it shows without writing: what is missing is told before a grant.

It leaves nothing behind and promises nothing: a disk may fill up between here and the publish.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.core.errors import LookError
from aca_tokend.core.outcome import Reason
from aca_tokend.sinks.atomic import UNREADABLE, group_id, user_id

if TYPE_CHECKING:
    from collections.abc import Collection

    from aca_tokend.sinks.atomic import Access

_CAP_CHOWN = 1 << 0
_CAP_DAC_OVERRIDE = 1 << 1
_CAP_DAC_READ_SEARCH = 1 << 2
_CAP_FOWNER = 1 << 3
_ACL = "system.posix_acl_default"


def probe(directory: int, name: str, access: Access) -> None:
    """Tells by a LookError what a publish to `name` in this directory would fail on. Its message has no path."""
    _probe_directory(directory)
    _probe_sticky(directory, name)
    _probe_owner(directory, access)


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


def _probe_owner(directory: int, access: Access) -> None:
    user, groups, status = os.geteuid(), {os.getegid(), *os.getgroups()}, os.fstat(directory)
    try:
        owner = user_id(access.owner) if access.owner else user
        group = group_id(access.group) if access.group else None
    except KeyError as error:
        raise LookError(Reason.OWNER_NOT_SET, "there is no such owner or group") from error
    mine = owner == user and (group is None or group in groups)
    if not mine and not _capable(_CAP_CHOWN):
        raise LookError(Reason.OWNER_NOT_SET, "the daemon may not give files to this owner or group")
    if group is None:
        group = status.st_gid if status.st_mode & stat.S_ISGID else os.getegid()
    if may_read(access.mode, owner, group, user, groups) or _capable(_CAP_DAC_OVERRIDE | _CAP_DAC_READ_SEARCH):
        return
    with suppress(OSError):  # there is none
        os.getxattr(directory, _ACL)
        return  # it may let the daemon read all the same: the publish tries it
    raise LookError(Reason.OWNER_NOT_SET, UNREADABLE)


def may_read(mode: int, owner: int, group: int, user: int, groups: Collection[int]) -> bool:
    """Whether a user in these groups, without capabilities, may read a file."""
    return bool(mode & (stat.S_IRUSR if owner == user else stat.S_IRGRP if group in groups else stat.S_IROTH))


def _capable(bits: int) -> bool:
    """Whether this process has one of these capabilities; without /proc, whether it is root."""
    try:
        status = Path("/proc/thread-self/status").read_bytes()
    except OSError:
        status = b""
    effective = status.partition(b"CapEff:")[2].partition(b"\n")[0]
    return bool(int(effective, 16) & bits) if effective else os.geteuid() == 0
