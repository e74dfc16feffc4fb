"""docs/security.md names tests and settings for its answers: each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = [code for code in re.findall(r"`([^`\n]+)`", PAGE) if re.match(r"[\w.-]+/\S+(::|: )", code)]
# Where the page means any test, or any setting.
EXAMPLES = {"tests/FILE.py::test", "FILE: what stands in it"}


def rows() -> list[list[str]]:
    """The cells of the rows of all tables, without headers and rules."""
    tables = re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")[1:-1]] for table in tables for row in table.splitlines()[2:]]


def test_what_is_named_is_there() -> None:
    """Each test that the page names is a test with a docstring, and each setting stands in its file."""
    missing = []
    for code in set(NAMED) - EXAMPLES:
        file, function, setting = (
            (*code.split("::"), "") if "::" in code else (code.partition(": ")[0], "", code.partition(": ")[2])
        )
        text = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else ""
        if function:
            found = [it for it in ast.parse(text).body if isinstance(it, ast.FunctionDef) and it.name == function]
            there = bool(found) and bool(ast.get_docstring(found[0]))
        else:
            there = setting in text
        missing += [] if there else [code]
    assert not missing


def test_every_answer_is_held() -> None:
    """The last cell of each row names a test or a setting, or a section of the page that does."""
    assert len(rows()) > 40
    assert not [row for row in rows() if not re.search(r"`[\w.-]+/\S+(::|: )|\]\(#", row[-1])]
