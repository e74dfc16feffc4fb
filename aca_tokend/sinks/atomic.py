"""Files by descriptor: read without following or waiting, and replaced whole or not at all.

What replaces a file is written beside it, with its final mode and owner from before the first byte, and renamed over
it. Nothing here follows a symbolic link below a directory, or waits for a lock or for a pipe that someone put there.
`beside` is how the names of a sink's own files begin: `.NAME` where they lie beside a file, and nothing in a directory.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import hashlib
import os
import pwd
import re
import secrets
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.errors import EXHAUSTED, PublishError, ReasonedError
from aca_tokend.core.formats import MAX_BYTES
from aca_tokend.core.outcome import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

_REASONS = {
    errno.ENOENT: Reason.DIRECTORY_MISSING,
    errno.ENOTDIR: Reason.DIRECTORY_MISSING,
    errno.EACCES: Reason.PERMISSION_DENIED,
    errno.EPERM: Reason.PERMISSION_DENIED,
    errno.EROFS: Reason.READ_ONLY,
    errno.ENOSPC: Reason.DISK_FULL,
    errno.EDQUOT: Reason.DISK_FULL,
    errno.EFBIG: Reason.DISK_FULL,  # the limit on what this process may write: as good as full to us
    errno.EISDIR: Reason.NOT_A_FILE,
    errno.ELOOP: Reason.NOT_A_FILE,  # a symbolic link: every open says O_NOFOLLOW
    errno.ENXIO: Reason.NOT_A_FILE,  # a socket
    errno.EAGAIN: Reason.LOCKED,
    **dict.fromkeys(EXHAUSTED, Reason.RESOURCE_EXHAUSTED),
}
_WORDS = {
    Reason.DIRECTORY_MISSING: "there is no such directory",
    Reason.LOCKED: "another writer holds the lock",
}
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NO_FILE = "no regular file"
# What `replace` renames, and the cleanup finds again after a kill: `beside` leads to the lock of its writer.
_TEMPORARY = re.compile(r"(?P<beside>(?:\..+)?)\.aca-tokend-[0-9]+-[0-9a-f]{16}\.tmp")
# One name for all that this process writes: where nothing can be renamed or removed, each try would leave a file more.
_MARK = f".aca-tokend-{os.getpid()}-{secrets.token_hex(8)}.tmp"
UNREADABLE = "with this owner, group and mode the daemon could not read it again"


class NotAFileError(OSError):
    """A directory, symbolic link, pipe or device. Its text says which."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read what is written. Without owner or group it is the daemon's."""

    mode: int
    owner: str = ""
    group: str = ""

    def give(self, file: int) -> None:
        """Sets group, mode and owner. In this order no wrong group may read it, and CAP_CHOWN alone suffices."""
        try:
            if self.group:
                os.fchown(file, -1, group_id(self.group))
            os.fchmod(file, self.mode)
            if self.owner:
                os.fchown(file, user_id(self.owner), -1)
        except KeyError as error:
            raise PublishError(Reason.OWNER_NOT_SET, "there is no such owner or group") from error
        except (OSError, OverflowError) as error:
            raise PublishError(Reason.OWNER_NOT_SET, "owner, group or mode not set") from error


# A record of ours: nobody else may read it.
PRIVATE = Access(0o600)


def read(name: str, directory: int) -> tuple[bytes, object]:
    """The content, up to a byte more than we take, and its stamp; nothing and None where there is no file."""
    try:
        # O_NONBLOCK: opening a pipe would wait for its other end
        with opened(name, os.O_RDONLY | os.O_NONBLOCK, directory=directory) as file:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise NotAFileError(_KINDS.get(stat.S_IFMT(status.st_mode), _NO_FILE))
            with open(file, "rb", closefd=False) as stream:
                content = stream.read(MAX_BYTES + 1)
            if content is None:  # it waits for somebody, as some files of /proc do
                raise NotAFileError(_NO_FILE)
    except FileNotFoundError:
        return b"", None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        message = "a symbolic link"
        raise NotAFileError(message) from error
    if len(content) > MAX_BYTES:
        return content, (status.st_ino, status.st_mtime_ns, status.st_size)
    return content, digest(content)


def replace(name: str, content: bytes, directory: int, access: Access, beside: str) -> None:
    """Puts a file with this content under `name`. Then both content and name are on disk. Only under the lock."""
    temporary = f"{beside}{_MARK}"
    try:
        try:
            create(temporary, content, directory, access)
        except FileExistsError:  # of a try before this one, which could not remove it
            os.unlink(temporary, dir_fd=directory)
            create(temporary, content, directory, access)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except BaseException:  # also where the process is told to end: no litter
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise


def create(name: str, content: bytes, directory: int, access: Access) -> None:
    """Makes a new file whose content is on disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with opened(name, flags, mode=access.mode & 0o600, directory=directory) as file:
        access.give(file)
        try:
            with opened(name, os.O_RDONLY, directory=directory):
                pass
        except PermissionError as error:
            raise PublishError(Reason.OWNER_NOT_SET, UNREADABLE) from error
        while content:  # on a disk that fills up one write takes a part and only the next one fails
            content = content[os.write(file, content) :]
        os.fsync(file)


def clean_up(path: str) -> None:
    """Removes the temporary files that killed runs of ours left in a directory, whatever they were to replace."""
    # what cannot be removed hurts nobody, and publish will tell what is wrong with the directory
    with suppress(OSError), opened(path, os.O_DIRECTORY) as directory:
        for name in os.listdir(directory):  # noqa: PTH208  # pathlib lists no descriptor
            if found := _TEMPORARY.fullmatch(name):
                with suppress(OSError), locked(found["beside"], directory):  # locked: its writer is alive
                    os.unlink(name, dir_fd=directory)


def digest(content: bytes) -> bytes:
    """The stamp of a content."""
    return hashlib.sha256(content).digest()


def user_id(name: str) -> int:
    """The number of a user. Raises KeyError."""
    return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid


def group_id(name: str) -> int:
    """The number of a group. Raises KeyError."""
    return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid


@contextmanager
def opened(path: str, flags: int, *, mode: int = 0, directory: int | None = None) -> Iterator[int]:
    """A descriptor; below a directory, of nothing that a symbolic link leads to."""
    file = os.open(path, flags | os.O_CLOEXEC | (0 if directory is None else os.O_NOFOLLOW), mode, dir_fd=directory)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def locked(beside: str, directory: int) -> Iterator[None]:
    """Holds the lock of a sink, or raises BlockingIOError.

    The lock file stays: whoever removed it would let a second writer in beside one that holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK
    with opened(f"{beside}.lock", flags, mode=0o600, directory=directory) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            with suppress(OSError):  # closing it would do, did not each program have it for a moment when it is started
                fcntl.flock(lock, fcntl.LOCK_UN)


@contextmanager
def unchanged(name: str, stamp: object, path: str, beside: str) -> Iterator[int]:
    """The directory, locked, with the file of this name still as it was seen. Raises PublishError."""
    with (
        told_as(PublishError, f"{path}/{name}"),
        opened(path, os.O_DIRECTORY) as directory,
        locked(beside, directory),
    ):
        if read(name, directory)[1] != stamp:
            raise PublishError(Reason.CONFLICT, "it is no longer what was read")
        yield directory


@contextmanager
def told_as(kind: type[ReasonedError], path: str) -> Iterator[None]:
    """Translates what the system says into an error of this kind that names the path."""
    try:
        yield
    except NotAFileError as error:
        raise kind(Reason.NOT_A_FILE, f"{path}: it is {error}") from error
    except OSError as error:
        number = error.errno or 0
        code = errno.errorcode.get(number, str(number))
        reason = _REASONS.get(number, Reason.IO_ERROR)
        raise kind(reason, f"{path}: {_WORDS.get(reason, os.strerror(number))} ({code})") from error
    except ReasonedError as error:
        raise kind(error.reason, f"{path}: {error.message}") from error
