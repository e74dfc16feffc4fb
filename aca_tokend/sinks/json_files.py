"""JSON objects in files: documents, and the records that the daemon keeps beside them.

A record of a sink is the file BESIDE.NAME, such as `.bookings.json.attempts`; only the daemon's user may read it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from aca_tokend.core.errors import LookError
from aca_tokend.core.formats import MAX_BYTES
from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.token import NotADocumentError
from aca_tokend.sinks.atomic import PRIVATE, digest, opened, read, replace, told_as, unchanged

if TYPE_CHECKING:
    from collections.abc import Mapping


def encoded(fields: Mapping[str, object]) -> bytes:
    """One line of JSON."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def decoded(content: bytes) -> dict[str, object]:
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


def read_record(path: str, beside: str, name: str) -> SeenRecord:
    """Reads a record of a sink in the directory at `path`. Raises LookError."""
    file = f"{beside}.{name}"
    with told_as(LookError, f"{path}/{file}"), opened(path, os.O_DIRECTORY) as directory:
        content, stamp = read(file, directory)
    try:
        return SeenRecord(decoded(content) if content else None, stamp)
    except NotADocumentError as error:
        return SeenRecord({"unreadable": str(error)}, stamp)  # which is no record, and can be cleared


def write_record(path: str, beside: str, name: str, fields: Mapping[str, object], stamp: object) -> object:
    """Replaces a record, if it still is what was seen, and returns its new stamp. Raises PublishError."""
    content, file = encoded(fields), f"{beside}.{name}"
    with unchanged(file, stamp, path, beside) as directory:
        replace(file, content, directory, PRIVATE, beside)
    return digest(content)
