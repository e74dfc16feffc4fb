"""The command resume: which records are cleared, and what it says of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aca_tokend.core.config import Config, parse
from aca_tokend.resume import resume

if TYPE_CHECKING:
    from pathlib import Path


def config(folder: Path, *places: tuple[str, str, str]) -> Config:
    """Tokens by name, user and file."""
    tokens: list[dict[str, Any]] = [
        {
            "name": name,
            "authority": "authority-1",
            "username": user,
            "password": {"env": "PASSWORD"},
            "client_id": "client-1",
            "client_secret": {"env": "SECRET"},
            "publish": [{"to": "file", "path": str(folder / file)}],
        }
        for name, user, file in places
    ]
    return parse([("config.toml", {"acaengine": {"main": {"url": "https://aca.example.com"}}, "tokens": tokens})])


def record(folder: Path, file: str) -> Path:
    """Where the attempts of a token are recorded."""
    return folder / f".{file}.attempts"


def test_records_of_an_account_are_cleared(tmp_path: Path) -> None:
    """The records of the token and of the others of its account are left empty, also where one is gone or damaged."""
    cleared = config(tmp_path, ("a", "svc", "a.json"), ("b", "svc", "b.json"), ("c", "svc", "c.json"), ("d", "x", "d"))
    record(tmp_path, "a.json").write_text('{"f": {"spent": 2}}')
    record(tmp_path, "c.json").write_text("not a record")
    record(tmp_path, "d").write_text('{"f": {"spent": 2}}')

    said, problems = resume(cleared, cleared.tokens[1])

    for file in ("a.json", "b.json", "c.json"):
        assert json.loads(record(tmp_path, file).read_text()) == {}
    assert record(tmp_path, "d").read_text() == '{"f": {"spent": 2}}', "it is another account's"
    assert [line.rpartition(": ")[2] for line in said] == [
        "attempts cleared",
        "attempts was clear already",
        "attempts cleared",
    ]
    assert not problems


def test_record_that_cannot_be_cleared(tmp_path: Path) -> None:
    """A place that cannot be cleared is a problem by its name, and the other places are cleared all the same."""
    both = config(tmp_path, ("b", "svc", "missing/b.json"), ("a", "svc", "a.json"))

    said, problems = resume(both, both.tokens[0])

    assert [line.partition(": ")[0] for line in said] == [f"file:{tmp_path}/a.json"]
    assert [line.partition(": ")[0] for line in problems] == [f"file:{tmp_path}/missing/b.json"]
    assert "attempts not cleared" in problems[0]
    assert json.loads(record(tmp_path, "a.json").read_text()) == {}
