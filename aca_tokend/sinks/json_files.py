"""JSON objects in files: documents, and the records that the daemon keeps beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aca_tokend.core.formats import MAX_BYTES
from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.token import NotADocumentError
from aca_tokend.sinks.atomic import read

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


def record(name: str, directory: int) -> SeenRecord:
    """An attempt record in a file."""
    content, stamp = read(name, directory)
    try:
        return SeenRecord(decoded(content) if content else None, stamp)
    except NotADocumentError as error:
        return SeenRecord({"unreadable": str(error)}, stamp)  # which is no record, and can be cleared
