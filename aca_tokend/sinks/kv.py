"""A KV secret: look is one read, publish one write; in version 2 with check-and-set.

In version 2 it never writes over anything but the version it was shown. Version 1 has nothing to tell that by: what
came since the look is written over. It writes nowhere but there and to records beside it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.token import FIELDS, OWNER, NotADocumentError, Seen, parse_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.config import VaultPublish
    from aca_tokend.core.token import Document
    from aca_tokend.vault.session import VaultSession

    Fields = Mapping[str, object]


_UNCHANGED = {field: field for field in (*FIELDS, OWNER)}

# KV version 1 refuses a secret without fields; a record without entries is written as this.
_EMPTY: Fields = {"empty": True}


class Version(NamedTuple):
    """What a secret of version 2 held: the number of its latest version, and the digest of that, empty for nothing.

    Vault compares the number alone. That is not enough to know what was written: after the metadata was deleted, the
    mount made anew or the storage restored, somebody else's version has the number of ours.
    """

    number: int
    digest: bytes = b""


class KvSink:
    """One secret that holds one token. What it stamps is its content, in KV version 2 with its version's number."""

    __slots__ = ("_mount", "_names", "_path", "_session", "_version", "name")

    kind = "vault"

    def __init__(self, config: VaultPublish, session: VaultSession) -> None:
        self._mount = config.mount
        self._path = config.path
        self._session = session
        self._version = config.kv_version
        # the name in Vault of each field of the document
        self._names = _UNCHANGED | config.fields if config.fields else _UNCHANGED
        vault = "vault" if session.name == "main" else session.pool
        self.name = f"{vault}:{config.mount}/{config.path}"

    @property
    def pool(self) -> str:
        """One pool for each Vault."""
        return self._session.pool

    def look(self) -> Seen:
        """Reads what is there; a deleted or destroyed version counts as nothing. Raises LookError."""
        held, stamp = self._read(self._path)
        if held is None:
            return Seen(None, stamp)
        fields = {field: held[name] for field, name in self._names.items() if name in held}
        try:
            return Seen(parse_document(fields), stamp)
        except NotADocumentError as error:
            token = held.get(OWNER)
            return Seen(None, stamp, foreign=str(error), token=token if isinstance(token, str) else "")

    def publish(self, document: Document, seen: Seen) -> Seen:
        """Replaces what was seen, and notes whose it is beside a secret that we made. Raises PublishError."""
        fields = {self._names[field]: value for field, value in document.fields().items()}
        note = {"managed_by": "aca-tokend", "account": document.account}
        return Seen(document, self._write(self._path, fields, seen.stamp, note))

    def read_record(self, name: str) -> SeenRecord:
        """Reads the secret beside the token's, such as `aca/bookings.attempts`. Raises LookError."""
        return SeenRecord(*self._read(f"{self._path}.{name}"))

    def write_record(self, name: str, fields: Fields, stamp: object) -> object:
        """Replaces what was seen there. Raises PublishError."""
        return self._write(f"{self._path}.{name}", fields, stamp)

    def _read(self, path: str) -> tuple[Fields | None, object]:
        """What is there, and its stamp; in version 1 a digest of the content, empty for nothing."""
        if self._version == 1:
            held = self._session.read_kv1(self._mount, path)
            fields = {} if held == _EMPTY else held
            return fields, b"" if fields is None else _digest(fields)
        read = self._session.read_kv(self._mount, path)
        return read.fields, Version(read.version, b"" if read.fields is None else _digest(read.fields))

    def _write(self, path: str, fields: Fields, stamp: object, note: Mapping[str, str] | None = None) -> object:
        """Replaces what has this stamp and returns the new one. In version 2 Vault sees to it that nothing else is.

        Beside a secret that this makes goes the note, unless somebody else left one there.
        """
        if self._version == 1 and isinstance(stamp, bytes):
            self._session.write_kv1(self._mount, path, fields or _EMPTY, new=not stamp)
            return _digest(fields)
        if self._version == 2 and isinstance(stamp, Version):  # noqa: PLR2004 -- the two versions there are
            written = self._session.write_kv(self._mount, path, fields, stamp.number)
            if note and stamp == Version(0) and not written.has_note:
                self._session.describe_kv(self._mount, path, note)
            return Version(written.version, _digest(fields))
        message = "this was not seen by this sink"
        raise TypeError(message)


def _digest(fields: Fields) -> bytes:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest()
