"""A file with the document in one of the formats, replaced whole: a reader opens the old file or the new one.

Writers exclude each other by a lock beside the file. What a file in another format than JSON says is not the whole
document, so a record beside it holds the documents of the last two contents. The record is written first, and the
digest of the file decides which of them is there: a kill or a power cut between the two writes changes nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from aca_tokend.core.errors import LookError, PublishError
from aca_tokend.core.formats import RenderError, render
from aca_tokend.core.outcome import Reason
from aca_tokend.core.token import NotADocumentError, Seen, parse_document
from aca_tokend.sinks import json_files
from aca_tokend.sinks.atomic import PRIVATE, Access, digest, opened, read, replace, told_as, unchanged
from aca_tokend.sinks.json_files import decoded, encoded
from aca_tokend.sinks.mounts import pool_of
from aca_tokend.sinks.probe import probe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.config import FilePublish
    from aca_tokend.core.guard import SeenRecord
    from aca_tokend.core.token import Document


class FileSink:
    """One file that holds one token. What it stamps is a digest of the content, None where there is no file."""

    kind = "file"

    def __init__(self, config: FilePublish) -> None:
        self._config = config
        self._directory, self._name = os.path.split(config.path)
        self._access = Access(config.mode, config.owner, config.group)
        self.name = f"file:{config.path}"
        self.pool = pool_of(config.path)

    def look(self) -> Seen:
        """Reads the file; an empty one counts as nothing. Raises LookError.

        Where no document is found, it also tells what a publish would fail on, before a grant is made for nothing.
        """
        with told_as(LookError, self._config.path), opened(self._directory, os.O_DIRECTORY) as directory:
            content, stamp = read(self._name, directory)
            seen = self._seen(content, stamp, directory) if content else Seen(None, stamp)
            if seen.document is None:
                probe(directory, self._name, self._access)
        return seen

    def publish(self, document: Document, seen: Seen) -> Seen:
        """Replaces the file, if it still is what was seen. Raises PublishError."""
        try:
            content = render(document, self._config.format, self._config.template)
        except RenderError as error:
            raise PublishError(Reason.NOT_RENDERED, f"{self._config.path}: {error}") from error
        stamp = digest(content)
        with unchanged(self._name, seen.stamp, self._directory, self._beside) as directory:
            if self._config.format != "json":
                replace(self._published, _recording(seen, document, stamp), directory, PRIVATE, self._beside)
            replace(self._name, content, directory, self._access, self._beside)
            if self._config.format == "json":
                with suppress(FileNotFoundError):  # of an earlier format: nobody needs it any more
                    os.unlink(self._published, dir_fd=directory)
        return Seen(document, stamp)

    def read_record(self, name: str) -> SeenRecord:
        """Reads the file beside the token's, such as `.bookings.json.attempts`. Raises LookError."""
        return json_files.read_record(self._directory, self._beside, name)

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        """Replaces that file, if it still is what was seen. Raises PublishError."""
        return json_files.write_record(self._directory, self._beside, name, fields, stamp)

    @property
    def _beside(self) -> str:
        return f".{self._name}"

    @property
    def _published(self) -> str:
        return f"{self._beside}.published"

    def _seen(self, content: bytes, stamp: object, directory: int) -> Seen:
        """What a file holds, in whichever format it was written, by this configuration or an earlier one."""
        json = self._config.format == "json"
        try:
            document = parse_document(decoded(content))
        except NotADocumentError as error:
            document, why = None, str(error) if json else "no record tells that this token wrote it"
        else:
            if json:
                return Seen(document, stamp)  # whoever wrote it, perhaps a later version with further fields
        document = self._recorded(stamp, directory) or document
        if document is None:
            return Seen(None, stamp, foreign=why)
        try:
            outdated = digest(render(document, self._config.format, self._config.template)) != stamp
        except RenderError:
            outdated = True  # publish will say why
        return Seen(document, stamp, outdated=outdated)

    def _recorded(self, stamp: object, directory: int) -> Document | None:
        """The document that became this content, as far as the record tells."""
        if not isinstance(stamp, bytes):
            return None
        try:
            with told_as(LookError, f"{self._directory}/{self._published}"):
                content, _ = read(self._published, directory)
            fields = decoded(content).get(stamp.hex())
            return parse_document(fields) if isinstance(fields, dict) else None
        except NotADocumentError:
            return None


def _recording(seen: Seen, document: Document, stamp: bytes) -> bytes:
    """What `_recorded` reads: the fields of the last two documents, each under the digest of what it became."""
    known = {stamp.hex(): document.fields()}
    if isinstance(seen.stamp, bytes) and seen.document is not None and seen.stamp != stamp:
        known[seen.stamp.hex()] = seen.document.fields()
    return encoded(known)
