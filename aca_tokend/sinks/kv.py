"""A KV version 2 secret: look is one read, publish one write with check-and-set.

It never writes over anything but the version it was shown, and writes nowhere but there and to records beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.token import FIELDS, NotADocumentError, Seen, parse_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.config import VaultPublish
    from aca_tokend.core.token import Document
    from aca_tokend.vault import VaultSession


_UNCHANGED = {field: field for field in FIELDS}


class KvSink:
    """One secret that holds one token. What it stamps is the version of the secret."""

    kind = "vault"

    def __init__(self, config: VaultPublish, session: VaultSession) -> None:
        self._mount = config.mount
        self._path = config.path
        self._session = session
        # the name in Vault of each field of the document
        self._names = {field: config.fields.get(field, field) for field in FIELDS} if config.fields else _UNCHANGED
        self.replace_foreign = config.replace_foreign

    @property
    def name(self) -> str:
        """Such as `vault:secret/aca/bookings`, or `vault.NAME:…` in another Vault than main."""
        vault = "vault" if self._session.name == "main" else f"vault.{self._session.name}"
        return f"{vault}:{self._mount}/{self._path}"

    @property
    def pool(self) -> str:
        """One pool for each Vault."""
        return f"vault.{self._session.name}"

    def look(self) -> Seen:
        """Reads the latest version; a deleted or destroyed one counts as nothing. Raises LookError."""
        read = self._session.read_kv(self._mount, self._path)
        if read.fields is None:
            return Seen(None, read.version)
        fields = {field: read.fields[name] for field, name in self._names.items() if name in read.fields}
        try:
            return Seen(parse_document(fields), read.version)
        except NotADocumentError as error:
            return Seen(None, read.version, foreign=str(error))

    def publish(self, document: Document, seen: Seen) -> Seen:
        """Writes the next version, if the latest is still the one that was seen. Raises PublishError."""
        if not isinstance(seen.stamp, int):
            message = "this was not seen by a KV sink"
            raise TypeError(message)
        fields = {self._names[field]: value for field, value in document.fields().items()}
        return Seen(document, self._session.write_kv(self._mount, self._path, fields, seen.stamp))

    def read_record(self, name: str) -> SeenRecord:
        """Reads the secret beside the token's, such as `aca/bookings.attempts`. Raises LookError."""
        read = self._session.read_kv(self._mount, f"{self._path}.{name}")
        return SeenRecord(read.fields, read.version)

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        """Writes its next version, if the latest is still the one that was seen. Raises PublishError."""
        if not isinstance(stamp, int):
            message = "this was not seen by a KV sink"
            raise TypeError(message)
        return self._session.write_kv(self._mount, f"{self._path}.{name}", fields, stamp)
