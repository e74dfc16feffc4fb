"""The fenced blocks of every page, and what each says of itself: which test runs it, or why none can.

The line right above a fence may be one of

    <!-- snippet: PATH -->                  the block is this file, whole: `make snippets` writes it
    <!-- test: tests/FILE.py::test_name --> this test runs the block, or compares with it
    <!-- not run: REASON -->

A test takes its blocks by `blocks_for`, so that it and the page cannot part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
# every page of the repository but those in hidden folders
PAGES = tuple(
    page
    for page in sorted(ROOT.rglob("*.md"))
    if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
)

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<info>[^`\n]*)$")
MARKER = re.compile(r"^ *<!-- (?P<kind>snippet|test|not run): (?P<what>.*\S) -->$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: where it stands, what its fence and the marker above it say, and what is in it."""

    page: Path
    line: int
    info: str
    kind: str
    what: str
    content: str

    @property
    def language(self) -> str:
        """The first word of the fence."""
        return self.info.split(" ")[0]

    def __str__(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The blocks of a page, from its beginning. Raises ValueError where a fence is never closed."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found = []
    number = 0
    while number < len(lines):
        opened = FENCE.match(lines[number])
        if opened is None:
            number += 1
            continue
        closed = re.compile(rf"^ *{re.escape(opened['fence'])}{opened['fence'][0]}* *$")
        end = next((at for at in range(number + 1, len(lines)) if closed.match(lines[at])), None)
        if end is None:
            message = f"{page}:{number + 1}: this block is never closed"
            raise ValueError(message)
        marker = MARKER.match(lines[number - 1]) if number else None
        indent = len(opened["indent"])
        content = "".join(f"{line[indent:] if line[:indent].isspace() else line}\n" for line in lines[number + 1 : end])
        kind, what = (marker["kind"], marker["what"]) if marker else ("", "")
        found.append(Block(page, number + 1, opened["info"].strip(), kind, what, content))
        number = end + 1
    return tuple(found)


def blocks_for(test: str, *, at_least: int = 1) -> list[Block]:
    """The blocks that name a test, `tests/FILE.py::test_name`, in the order of pages and lines."""
    found = [block for page in PAGES for block in blocks(page) if (block.kind, block.what) == ("test", test)]
    assert len(found) >= at_least, f"{len(found)} blocks are marked for {test}"
    return found
