"""Puts files into the pages that show them, so that what a page shows is the file that the tests run.

A page has a line `<!-- snippet: PATH -->`, the path from the page's own folder, and a fenced block right after it. The
block is the whole file. `make snippets` rewrites the pages, `tests/unit/test_snippets.py` compares.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.blocks import PAGES

READERS = Path(__file__).parents[2] / "docs" / "readers"
MARKED = re.compile(
    r"^<!-- snippet: (?P<path>\S+) -->\n```(?P<language>\w*)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL
)
MARKER = re.compile(r"^ *<!-- snippet:", re.MULTILINE)


def included(page: Path) -> list[Path]:
    """The files that a page includes. Raises ValueError where a marker is not followed by a fenced block."""
    text = page.read_text(encoding="utf-8")
    found = [page.parent / marked["path"] for marked in MARKED.finditer(text)]
    if len(found) != len(MARKER.findall(text)):
        message = f"{page.name}: a snippet's marker needs a line of its own and a fenced block on the next"
        raise ValueError(message)
    return found


def filled(page: Path) -> str:
    """The text of a page with each marked block as its file has it."""

    def block(marked: re.Match[str]) -> str:
        content = (page.parent / marked["path"]).read_text(encoding="utf-8")
        return f"<!-- snippet: {marked['path']} -->\n```{marked['language']}\n{content}```"

    return MARKED.sub(block, page.read_text(encoding="utf-8"))


def main() -> None:
    """Rewrites the pages whose blocks are not their files."""
    for page in PAGES:
        included(page)
        text = filled(page)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(f"{page}: filled")


if __name__ == "__main__":
    main()
