"""A KV secret: look is one read, publish one write; in version 2 with check-and-set.

In version 2 it never writes over anything but the version it was shown. Version 1 has nothing to tell that by: what
came since the look is written over. It writes nowhere but there and to records beside it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.token import FIELDS, OWNER, NotADocumentError, Seen, parse_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.config import VaultPublish
    from aca_tokend.core.token import Document
    from aca_tokend.vault import VaultSession

    Fields = Mapping[str, object]


_UNCHANGED = {field: field for field in (*FIELDS, OWNER)}


class KvSink:
    """One secret that holds one token. What it stamps is its content, in KV version 2 with its version's number."""

    __slots__ = ("_engine", "_mount", "_names", "_path", "_session", "name")

    kind = "vault"

    def __init__(self, config: VaultPublish, session: VaultSession) -> None:
        self._mount = config.mount
        self._path = config.path
        self._session = session
        self._engine = _VERSION_1 if config.kv_version == 1 else _VERSION_2
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
        held, stamp = self._engine.read(self._session, self._mount, self._path)
        if held is None:
            return Seen(None, stamp)
        fields = {field: held[name] for field, name in self._names.items() if name in held}
        try:
            return Seen(parse_document(fields), stamp)
        except NotADocumentError as error:
            token = held.get(OWNER)
            return Seen(None, stamp, foreign=str(error), token=token if isinstance(token, str) else "")

    def publish(self, document: Document, seen: Seen) -> Seen:
        """Replaces what was seen. Raises PublishError."""
        fields = {self._names[field]: value for field, value in document.fields().items()}
        stamp = self._engine.write(self._session, self._mount, self._path, fields, seen.stamp)
        self._engine.describe(self._session, self._mount, self._path, seen.stamp, document)
        return Seen(document, stamp)

    def read_record(self, name: str) -> SeenRecord:
        """Reads the secret beside the token's, such as `aca/bookings.attempts`. Raises LookError."""
        return SeenRecord(*self._engine.read(self._session, self._mount, f"{self._path}.{name}"))

    def write_record(self, name: str, fields: Fields, stamp: object) -> object:
        """Replaces what was seen there. Raises PublishError."""
        return self._engine.write(self._session, self._mount, f"{self._path}.{name}", fields, stamp)


class _Engine(Protocol):
    """A version of the KV engine: what there is to read and to write, with a stamp for what is there."""

    def read(self, session: VaultSession, mount: str, path: str) -> tuple[Fields | None, object]: ...

    def write(self, session: VaultSession, mount: str, path: str, fields: Fields, stamp: object) -> object: ...

    def describe(self, session: VaultSession, mount: str, path: str, stamp: object, document: Document) -> None: ...


class Version(NamedTuple):
    """What a secret of version 2 held: the number of its latest version, and the digest of that, empty for nothing.

    Vault compares the number alone. That is not enough to know what was written: after the metadata was deleted, the
    mount made anew or the storage restored, somebody else's version has the number of ours.
    """

    number: int
    digest: bytes = b""


class _Version2:
    """With versions: a write names the one it replaces, and Vault refuses it where that is not the latest."""

    def read(self, session: VaultSession, mount: str, path: str) -> tuple[Fields | None, object]:
        read = session.read_kv(mount, path)
        return read.fields, Version(read.version, b"" if read.fields is None else _digest(read.fields))

    def write(self, session: VaultSession, mount: str, path: str, fields: Fields, stamp: object) -> object:
        if not isinstance(stamp, Version):
            raise TypeError(_NOT_OURS)
        return Version(session.write_kv(mount, path, fields, stamp.number), _digest(fields))

    def describe(self, session: VaultSession, mount: str, path: str, stamp: object, document: Document) -> None:
        """Says in the metadata of a secret that we made whose it is."""
        if stamp == Version(0):
            session.describe_kv(mount, path, {"managed_by": "aca-tokend", "account": document.account})


class _Version1:
    """Without versions: the stamp is a digest of the content, and a write replaces whatever is there."""

    def read(self, session: VaultSession, mount: str, path: str) -> tuple[Fields | None, object]:
        held = session.read_kv1(mount, path)
        fields = {} if held == _EMPTY else held
        return fields, b"" if fields is None else _digest(fields)

    def write(self, session: VaultSession, mount: str, path: str, fields: Fields, stamp: object) -> object:
        if not isinstance(stamp, bytes):
            raise TypeError(_NOT_OURS)
        session.write_kv1(mount, path, fields or _EMPTY, new=not stamp)
        return _digest(fields)

    def describe(self, session: VaultSession, mount: str, path: str, stamp: object, document: Document) -> None:
        """There is no metadata."""


# One of each for all sinks: there are thousands of these.
_VERSION_1: _Engine = _Version1()
_VERSION_2: _Engine = _Version2()

# KV version 1 refuses a secret without fields; a record without entries is written as this.
_EMPTY: Fields = {"empty": True}

_NOT_OURS = "this was not seen by a KV sink"


def _digest(fields: Fields) -> bytes:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest()
