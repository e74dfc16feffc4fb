"""A file with the document as one line of JSON, replaced whole: what a reader opens is the old file or the new one.

The new content is written beside the file, with its final mode and owner from before the first byte, and renamed over
it. Writers exclude each other by a lock beside the file. It never follows a symbolic link in the last part of the path,
never waits for the lock, or for a pipe that someone put there, and leaves what was there when anything fails.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import hashlib
import json
import os
import pwd
import re
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from aca_tokend.core.errors import LookError, PublishError, ReasonedError
from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.outcome import Reason
from aca_tokend.core.token import Document, NotADocumentError, Seen, parse_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from aca_tokend.core.config import FilePublish

# Far more than any document. Of a larger file no more is read: it is not ours.
MAX_BYTES = 1024 * 1024

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9]+-[0-9a-f]{16}\.tmp")

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
}


class FileSink:
    """One file that holds one token. What it stamps is a digest of the content, None where there is no file."""

    kind = "file"
    pool = "file"

    def __init__(self, config: FilePublish) -> None:
        self._config = config
        self._directory, self._name = os.path.split(config.path)
        self.name = f"file:{config.path}"
        self.replace_foreign = config.replace_foreign

    def look(self) -> Seen:
        """Reads the file; an empty one counts as nothing. Raises LookError."""
        with _told_as(LookError, self._config.path), _opened(self._directory, os.O_DIRECTORY) as directory:
            content, stamp = _read(self._name, directory)
        if not content:
            return Seen(None, stamp)
        try:
            return Seen(parse_document(_fields(content)), stamp)
        except NotADocumentError as error:
            return Seen(None, stamp, foreign=str(error))

    def publish(self, document: Document, seen: Seen) -> Seen:
        """Replaces the file, if it still is what was seen. Raises PublishError."""
        return Seen(document, self._replace(self._name, document.fields(), seen.stamp, self._give_away))

    def read_record(self, name: str) -> SeenRecord:
        """Reads the file beside the token's, such as `.bookings.json.attempts`. Raises LookError."""
        with _told_as(LookError, self._config.path), _opened(self._directory, os.O_DIRECTORY) as directory:
            content, stamp = _read(f".{self._name}.{name}", directory)
        try:
            return SeenRecord(_fields(content) if content else None, stamp)
        except NotADocumentError as error:
            return SeenRecord({"unreadable": str(error)}, stamp)  # which is no record, and can be cleared

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        """Replaces that file, if it still is what was seen; only the daemon's user may read it. Raises PublishError."""
        return self._replace(f".{self._name}.{name}", fields, stamp, _keep)

    def _replace(
        self, name: str, fields: Mapping[str, object], stamp: object, give_away: Callable[[int], None]
    ) -> object:
        """Replaces a file of this sink if it still has that stamp, and returns the new one."""
        content = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        with (
            _told_as(PublishError, self._config.path),
            _opened(self._directory, os.O_DIRECTORY) as directory,
            _locked(self._name, directory),
        ):
            if _read(name, directory)[1] != stamp:
                raise PublishError(Reason.CONFLICT, f"{self._config.path}: it is no longer what was read")
            self._write(name, content, directory, give_away)
        return _digest(content)

    def _write(self, name: str, content: bytes, directory: int, give_away: Callable[[int], None]) -> None:
        temporary = f".{self._name}.{os.getpid()}-{secrets.token_hex(8)}.tmp"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with _opened(temporary, flags, mode=self._config.mode & 0o600, directory=directory) as file:
                give_away(file)
                _write(file, content)
                os.fsync(file)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            with suppress(OSError):  # after the rename there is none
                os.unlink(temporary, dir_fd=directory)
        os.fsync(directory)

    def _give_away(self, file: int) -> None:
        """Sets group, mode and owner. In this order no wrong group may read it, and CAP_CHOWN alone suffices."""
        try:
            if self._config.group:
                os.fchown(file, -1, _group_id(self._config.group))
            os.fchmod(file, self._config.mode)
            if self._config.owner:
                os.fchown(file, _user_id(self._config.owner), -1)
        except KeyError as error:
            raise PublishError(Reason.OWNER_NOT_SET, f"{self._config.path}: there is no such owner or group") from error
        except (OSError, OverflowError) as error:
            raise PublishError(Reason.OWNER_NOT_SET, f"{self._config.path}: owner, group or mode not set") from error


def sweep(configs: Iterable[FilePublish]) -> None:
    """Removes the temporary files that a killed run of ours left beside these files. Reads each directory once."""
    names: dict[str, set[str]] = {}
    for config in configs:
        directory, name = os.path.split(config.path)
        names.setdefault(directory, set()).add(name)
    for directory, ours in names.items():
        # what cannot be swept hurts nobody, and publish will tell what is wrong with the directory
        with suppress(OSError), _opened(directory, os.O_DIRECTORY) as opened:
            for entry in os.listdir(opened):  # noqa: PTH208  # pathlib lists no descriptor
                found = _TEMPORARY.fullmatch(entry)
                if found and found["name"] in ours:
                    with suppress(OSError), _locked(found["name"], opened):  # locked: its writer is alive
                        os.unlink(entry, dir_fd=opened)


class _NotAFileError(OSError):
    """A directory, pipe or device."""


def _read(name: str, directory: int) -> tuple[bytes, object]:
    """The content, up to a byte more than we take, and its stamp; nothing and None where there is no file."""
    try:
        # O_NONBLOCK: opening a pipe would wait for its other end
        with _opened(name, os.O_RDONLY | os.O_NONBLOCK, directory=directory) as file:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise _NotAFileError
            with open(file, "rb", closefd=False) as stream:
                content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return b"", None
    if len(content) > MAX_BYTES:
        return content, (status.st_ino, status.st_mtime_ns, status.st_size)
    return content, _digest(content)


def _fields(content: bytes) -> dict[str, object]:
    """The JSON object that a file holds. Raises NotADocumentError."""
    if len(content) > MAX_BYTES:
        message = "it is larger than 1 MiB"
        raise NotADocumentError(message)
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        message = "it is not JSON"
        raise NotADocumentError(message) from None
    if not isinstance(fields, dict):
        message = "it is not a JSON object"
        raise NotADocumentError(message)
    return fields


def _keep(_file: int) -> None:
    """A record belongs to the daemon's user, as it is created."""


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _write(file: int, content: bytes) -> None:
    """Writes all of it: on a disk that fills up one write takes a part and only the next one fails."""
    while content:
        content = content[os.write(file, content) :]


def _user_id(name: str) -> int:
    return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid


def _group_id(name: str) -> int:
    return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid


@contextmanager
def _opened(path: str, flags: int, *, mode: int = 0, directory: int | None = None) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC | (0 if directory is None else os.O_NOFOLLOW), mode, dir_fd=directory)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _locked(name: str, directory: int) -> Iterator[None]:
    """Holds the lock of one file, or raises BlockingIOError.

    The lock file stays: whoever removed it would let a second writer in beside one that holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK
    with _opened(f".{name}.lock", flags, mode=0o600, directory=directory) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextmanager
def _told_as(kind: type[ReasonedError], path: str) -> Iterator[None]:
    """Translates what the system says into an error of this kind."""
    try:
        yield
    except _NotAFileError as error:
        raise kind(Reason.NOT_A_FILE, f"{path}: it is no regular file") from error
    except OSError as error:
        number = error.errno or 0
        code = errno.errorcode.get(number, str(number))
        reason = _REASONS.get(number, Reason.IO_ERROR)
        text = "another writer holds the lock" if reason is Reason.LOCKED else os.strerror(number)
        raise kind(reason, f"{path}: {text} ({code})") from error
