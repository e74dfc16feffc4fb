"""A file with the document in one of the formats, replaced whole: a reader opens the old file or the new one.

Writers exclude each other by a lock beside the file. What a file in another format than JSON says is not the whole
document, so a record beside it holds the documents of the last two contents. The record is written first, and the
digest of the file decides which of them is there: a kill or a power cut between the two writes changes nothing.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from aca_tokend.core.errors import LookError, PublishError
from aca_tokend.core.formats import RenderError, render
from aca_tokend.core.outcome import Reason
from aca_tokend.core.token import NotADocumentError, Seen, parse_document
from aca_tokend.sinks.atomic import PRIVATE, Access, digest, locked, opened, read, replace, temporary, told_as
from aca_tokend.sinks.json_files import decoded, encoded, record
from aca_tokend.sinks.mounts import pool_of
from aca_tokend.sinks.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aca_tokend.core.config import FilePublish
    from aca_tokend.core.guard import SeenRecord
    from aca_tokend.core.token import Document

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9]+-[0-9a-f]{16}\.tmp")


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

        def write(directory: int) -> None:
            if self._config.format != "json":
                self._write(f".{self._name}.published", _recording(seen, document, stamp), directory, PRIVATE)
            self._write(self._name, content, directory, self._access)
            if self._config.format == "json":
                with suppress(FileNotFoundError):  # of an earlier format: nobody needs it any more
                    os.unlink(f".{self._name}.published", dir_fd=directory)

        self._replace(self._name, seen.stamp, write)
        return Seen(document, stamp)

    def read_record(self, name: str) -> SeenRecord:
        """Reads the file beside the token's, such as `.bookings.json.attempts`. Raises LookError."""
        file = f".{self._name}.{name}"
        with told_as(LookError, f"{self._directory}/{file}"), opened(self._directory, os.O_DIRECTORY) as directory:
            return record(file, directory)

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        """Replaces that file, if it still is what was seen; only the daemon's user may read it. Raises PublishError."""
        content = encoded(fields)
        file = f".{self._name}.{name}"
        self._replace(file, stamp, lambda directory: self._write(file, content, directory, PRIVATE))
        return digest(content)

    def _replace(self, name: str, stamp: object, write: Callable[[int], None]) -> None:
        """Writes a file of this sink if it still has that stamp."""
        with (
            told_as(PublishError, f"{self._directory}/{name}"),
            opened(self._directory, os.O_DIRECTORY) as directory,
            locked(f".{self._name}.lock", directory),
        ):
            if read(name, directory)[1] != stamp:
                raise PublishError(Reason.CONFLICT, "it is no longer what was read")
            write(directory)

    def _write(self, name: str, content: bytes, directory: int, access: Access) -> None:
        replace(name, content, directory, access, temporary(self._name))

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
        file = f".{self._name}.published"
        try:
            with told_as(LookError, f"{self._directory}/{file}"):
                content, _ = read(file, directory)
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


def sweep(configs: Iterable[FilePublish]) -> None:
    """Removes the temporary files that a killed run of ours left beside these files. Reads each directory once."""
    names: dict[str, set[str]] = {}
    for config in configs:
        directory, name = os.path.split(config.path)
        names.setdefault(directory, set()).add(name)
    for directory, ours in names.items():
        # what cannot be swept hurts nobody, and publish will tell what is wrong with the directory
        with suppress(OSError), opened(directory, os.O_DIRECTORY) as opened_:
            for entry in os.listdir(opened_):  # noqa: PTH208  # pathlib lists no descriptor
                found = _TEMPORARY.fullmatch(entry)
                if found and found["name"] in ours:
                    with suppress(OSError), locked(f".{found['name']}.lock", opened_):  # locked: its writer is alive
                        os.unlink(entry, dir_fd=opened_)
