"""Resolves references to secrets, anew each time, so that a changed file or Vault secret is taken up at the next grant.

It reads the environment, files, and Vaults through the readers it is given. No message holds a value: each names the
reference. Nothing is cached but which files have been warned of.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import TYPE_CHECKING, Protocol

import structlog

from aca_tokend.core.config import EnvReference, FileReference, PublicFileReference, VaultReference
from aca_tokend.core.errors import SecretError, is_exhausted
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.regular_file import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aca_tokend.core.config import Reference

# Far above any password or key. Whatever is larger was named by mistake.
MAX_SECRET_BYTES = 64 * 1024

_UNREADABLE = {
    errno.EISDIR: "is a directory",
    errno.ENXIO: "is not a regular file",
    errno.EFBIG: f"holds more than {MAX_SECRET_BYTES} bytes",
}


class VaultReader(Protocol):
    """A Vault to read secrets from."""

    def read_secret(self, mount: str, path: str, /) -> Callable[[str], Secret]:
        """Reads a KV secret now. Returns what gives a field of it by its name; both raise SecretError."""


class SecretResolver:
    """Finds the secrets that references name. Used by several threads at once.

    Args:
        vaults: the Vault of each `[vault.NAME]`; looked at on each call, so it may be filled later.
        file_pool: the pool for calls about a path; without it files are read where the caller is.
    """

    def __init__(self, vaults: Mapping[str, VaultReader], file_pool: Callable[[str], str] | None = None) -> None:
        self._vaults = vaults
        self._file_pool = file_pool
        self._lock = threading.Lock()
        self._warned: dict[str, tuple[int, int, int]] = {}

    def pool(self, reference: Reference) -> str | None:
        """The pool in which to resolve it: that of its Vault or of its file system; None where it needs none."""
        match reference:
            case VaultReference():
                return f"vault.{reference.vault_name}"
            case FileReference() if self._file_pool is not None:
                try:
                    return f"secrets {self._file_pool(path_of(reference))}"
                except SecretError:
                    return None  # to resolve it says why
            case _:
                return None

    def resolve(self, reference: Reference) -> Secret:
        """The secret now, without one newline at its end. Raises SecretError."""
        match reference:
            case EnvReference():
                return _checked(reference, _environment(reference))
            case FileReference():
                return _checked(reference, self._file(reference))
            case VaultReference():
                return self.resolve_all([reference])[reference]

    def resolve_all(self, references: Iterable[Reference]) -> dict[Reference, Secret]:
        """Several secrets now: the fields of one Vault secret by one read, so that they belong to each other.

        Raises SecretError.
        """
        found: dict[Reference, Secret] = {}
        fields: dict[tuple[str, str, str], Callable[[str], Secret]] = {}
        for reference in references:
            if isinstance(reference, VaultReference):
                place = (reference.vault_name, reference.mount, reference.path)
                if place not in fields:
                    fields[place] = self._vaults[reference.vault_name].read_secret(reference.mount, reference.path)
                found[reference] = _checked(reference, fields[place](reference.field))
            else:
                found[reference] = self.resolve(reference)
        return found

    def _file(self, reference: FileReference) -> Secret:
        try:
            content, status = read_regular(path_of(reference), MAX_SECRET_BYTES)
        except FileNotFoundError as exc:
            raise SecretError(Reason.SECRET_MISSING, f"{reference}: there is no such file") from exc
        except OSError as exc:
            problem = _UNREADABLE.get(exc.errno or 0) or (exc.strerror or "unreadable").lower()
            reason = Reason.RESOURCE_EXHAUSTED if is_exhausted(exc) else Reason.SECRET_UNREADABLE
            raise SecretError(reason, f"{reference}: {problem}") from exc
        if not isinstance(reference, PublicFileReference):
            self._warn_if_open(path_of(reference), status)
        try:
            return Secret(content.decode("utf-8"))
        except UnicodeDecodeError:
            # without its cause, which holds the content
            raise SecretError(Reason.SECRET_NOT_TEXT, f"{reference}: is not UTF-8 text") from None

    def _warn_if_open(self, path: str, status: os.stat_result) -> None:
        """Warns once of each state of a file that others than its owner and group can reach."""
        if not open_to_others(status):
            return
        mode = stat.S_IMODE(status.st_mode)
        state = (status.st_ino, status.st_mtime_ns, mode)
        with self._lock:
            known = self._warned.get(path) == state
            self._warned[path] = state
        if not known:
            structlog.get_logger().warning("secret_file_open_to_others", path=path, mode=f"{mode:04o}")


def open_to_others(status: os.stat_result) -> bool:
    """Whether others than its owner and group can do anything with a file."""
    return bool(status.st_mode & stat.S_IRWXO)


def path_of(reference: FileReference) -> str:
    """Where the file is. Raises SecretError for a credential in a process that was given none."""
    if not reference.credential:
        return reference.file
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        problem = "the variable is not set, as it is in a unit of systemd with LoadCredential="
        raise SecretError(Reason.SECRET_MISSING, f"{reference}: {problem}")
    return os.path.join(directory, reference.credential)  # noqa: PTH118 -- strings throughout


def _environment(reference: EnvReference) -> Secret:
    value = os.environ.get(reference.env)
    if value is None:
        raise SecretError(Reason.SECRET_MISSING, f"{reference}: the variable is not set")
    return Secret(value)


def _checked(reference: Reference, secret: Secret) -> Secret:
    """The secret as it will be sent. Raises SecretError for one that cannot be meant."""
    value = _without_newline(secret.reveal())
    if not value:
        raise SecretError(Reason.SECRET_EMPTY, f"{reference}: is empty")
    if "\0" in value:
        raise SecretError(Reason.SECRET_NOT_TEXT, f"{reference}: holds a NUL character")
    if not _is_utf8(value):
        raise SecretError(Reason.SECRET_NOT_TEXT, f"{reference}: is not UTF-8 text")
    return Secret(value)


def _without_newline(value: str) -> str:
    return value[:-2] if value.endswith("\r\n") else value.removesuffix("\n")


def _is_utf8(value: str) -> bool:
    """False for what the environment keeps of other bytes, and for half characters out of JSON."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
