"""Pages and tests cannot part: what pages show is the files that the tests run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.blocks import PAGES, ROOT
from tests.readers.snippets import READERS, filled, included

if TYPE_CHECKING:
    from pathlib import Path

# what a folder of snippets has beside them: needed to run them, not to be pasted
UNSHOWN = {"go.mod"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_shows_the_files(page: Path) -> None:
    """Each marked block of a page is its file, byte for byte; `make snippets` writes them."""
    included(page)
    assert filled(page) == page.read_text(encoding="utf-8")


def test_every_snippet_is_shown() -> None:
    """Each file below docs/readers is on a page."""
    shown = {path.resolve() for page in PAGES for path in included(page)}
    files = {
        path
        for path in READERS.glob("*/**/*")
        if path.is_file() and path.name not in UNSHOWN and "__pycache__" not in path.parts
    }
    assert files <= shown


def test_marker_without_a_block(tmp_path: Path) -> None:
    """A marker that no fenced block follows is an error, not a snippet that nobody compares."""
    page = tmp_path / "page.md"
    page.write_text("<!-- snippet: a.sh -->\n\n```sh\nold\n```\n")
    with pytest.raises(ValueError, match=r"page\.md: a snippet's marker needs"):
        included(page)


def test_block_is_filled(tmp_path: Path) -> None:
    """A block that is not its file becomes it, and the text around it stays."""
    (tmp_path / "a.sh").write_text("new\n")
    page = tmp_path / "page.md"
    page.write_text("# A\n\n<!-- snippet: a.sh -->\n```sh\nold\n```\n\nAfter.\n\n```sh\nold\n```\n")
    assert filled(page) == "# A\n\n<!-- snippet: a.sh -->\n```sh\nnew\n```\n\nAfter.\n\n```sh\nold\n```\n"
