"""How the version before the field `token` read what is published: what a roll back, or a replica not upgraded, does.

Frozen: nothing here follows the program. It is the reading of documents, formats and the three kinds of places, as it
was, with what else they did left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Fields = dict[str, Any]

FIELDS = (
    "access_token",
    "token_type",
    "authorization",
    "expires_at",
    "issued_at",
    "refresh_after",
    "expires_in",
    "scope",
    "username",
    "authority",
    "account",
)


class ForeignError(Exception):
    """It would not have been taken for a document."""


def parsed(fields: Mapping[str, Any]) -> Fields:
    """The document it read: of the fields it knew, and of no other."""
    texts = ("access_token", "token_type", "scope", "username", "authority", "account")
    if not all(isinstance(fields.get(name), str) for name in texts):
        raise ForeignError
    if not re.fullmatch(r"[\x21-\x7E]+", fields["access_token"]):
        raise ForeignError
    if not isinstance(fields.get("expires_in"), int | None) or isinstance(fields.get("expires_in"), bool):
        raise ForeignError
    times = {}
    for name in ("issued_at", "expires_at", "refresh_after"):
        moment = datetime.fromisoformat(fields[name]).astimezone(UTC)
        times[name] = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    known = {name: fields[name] for name in (*texts, "expires_in")} | times
    known["authorization"] = f"{known['token_type']} {known['access_token']}"
    return {name: known[name] for name in FIELDS}


def rendered(fields: Fields, form: str) -> bytes:
    """What it would have written into a file of this format."""
    match form:
        case "json":
            return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        case "token":
            return str(fields["access_token"]).encode()
        case "header":
            return f"Authorization: {fields['authorization']}\n".encode()
    lines = []
    for name, value in fields.items():
        text = "" if value is None else str(value)
        quoted = "".join("\\" + character if character in '\\"$`' else character for character in text)
        lines.append(f'ACA_{name.upper()}="{quoted}"\n')
    return "".join(lines).encode()


def in_secret(held: Mapping[str, Any], names: Mapping[str, str]) -> Fields:
    """What it read in a KV secret whose fields were renamed so."""
    renamed = {field: names.get(field, field) for field in FIELDS}
    return parsed({field: held[name] for field, name in renamed.items() if name in held})


def in_file(path: Path, form: str) -> tuple[Fields, bool]:
    """What it read in a file, and whether it would have written the file anew."""
    content = path.read_bytes()
    if form == "json":
        return parsed(json.loads(content)), False
    record = json.loads(path.with_name(f".{path.name}.published").read_bytes())
    document = parsed(record[hashlib.sha256(content).hexdigest()])
    return document, rendered(document, form) != content


def in_directory(path: Path, files: Mapping[str, str]) -> tuple[Fields, bool]:
    """What it read in a directory with files of these formats, and whether it would have filled another folder."""
    data = path / "..data"
    document = parsed(json.loads((data / ".document.json").read_bytes()))
    return document, any((data / name).read_bytes() != rendered(document, form) for name, form in files.items())
