"""The runbooks, which come with the program: whoever reads this page at night may have no other network."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from markdown_it.token import Token

_NAME = re.compile(r"[A-Za-z]{1,64}")
# what a page says of a block to the tests
_REMARK = re.compile(r"^<!--.*?-->\n", re.MULTILINE)
_SIBLING = re.compile(r"([A-Za-z]+)\.md(?:#.*)?")


def runbook(name: str) -> Markup | None:
    """A runbook as HTML, None where there is none of this name."""
    from markdown_it import MarkdownIt

    file = files("aca_tokend.pages") / "runbooks" / f"{name}.md"
    if not _NAME.fullmatch(name) or not file.is_file():
        return None
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    blocks = markdown.parse(_REMARK.sub("", file.read_text(encoding="utf-8")))
    for block in blocks:
        _relink(block.children or [])
    return Markup(markdown.renderer.render(blocks, markdown.options, {}))  # noqa: S704 -- our own text, without HTML


def _relink(parts: list[Token]) -> None:
    """Has links lead to where they do here: other runbooks are served, further pages of the documentation are not."""
    served = True
    for part in parts:
        if part.type == "link_open":
            target = str(part.attrs["href"])
            sibling = _SIBLING.fullmatch(target)
            served = sibling is not None or "://" in target
            if sibling:
                part.attrs["href"] = f"/runbooks/{sibling[1]}"
        if not served and part.type in {"link_open", "link_close"}:
            part.tag, part.attrs = "span", {}
