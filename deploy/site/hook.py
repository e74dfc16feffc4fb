"""Lets pages link out of docs/ as they do on a forge: the site gets what they link to, and the links lead there.

A Markdown file outside docs/ becomes a page below `repository/`, any other file lies there as it is. So the site needs
no address of a repository, and is whole without a network. MkDocs calls the functions whose names begin with `on_`.

In the nav `folder/` stands for all pages of a folder, its README first.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OUTSIDE = "repository"

# a fenced block, code in a line, or a link: only the last has a target
PIECE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}).*?^(?P=indent)(?P=fence) *$|`+[^`]+`+|(?<=\])\((?P<target>[^()\s]+)\)",
    re.MULTILINE | re.DOTALL,
)


def on_config(config: MkDocsConfig) -> None:
    """Writes out the folders of the nav."""
    config.nav = _written_out(config.nav)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds what lies outside docs/ and is linked to from a page, or from a page that is added for that."""
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    while pages:
        page = pages.pop()
        for target in _targets(page):
            uri = _uri(target)
            if target.is_relative_to(DOCS) or not target.is_file() or files.get_file_from_path(uri):
                continue
            content = target.read_bytes() if target.suffix != ".md" else target.read_text(encoding="utf-8")
            files.append(File.generated(config, uri, content=content))
            pages += [target] if target.suffix == ".md" else []


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:  # noqa: ANN401  # what MkDocs adds later
    """Turns the links of a page to where their targets are on the site."""
    source = _source(page.file.src_uri)

    def turned(found: re.Match[str]) -> str:
        target = _target(source, found["target"] or "")
        if target is None:
            return found[0]
        relative = os.path.relpath(_uri(target), Path(page.file.src_uri).parent)
        _, hash_, anchor = found["target"].partition("#")
        return f"({relative}{hash_}{anchor})"

    return PIECE.sub(turned, markdown)


def _targets(page: Path) -> set[Path]:
    """The files that a page links to."""
    found = PIECE.finditer(page.read_text(encoding="utf-8"))
    return {target for link in found if (target := _target(page, link["target"] or "")) is not None}


def _target(source: Path, link: str) -> Path | None:
    """The file that a link leads to; None for a link to another host or within the page."""
    path = link.partition("#")[0]
    if not path or re.match(r"[a-z]+:", path):
        return None
    target = (source.parent / path).resolve()
    return target / "README.md" if target.is_dir() else target


def _source(uri: str) -> Path:
    return ROOT / uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else DOCS / uri


def _uri(file: Path) -> str:
    inside = file.is_relative_to(DOCS)
    return str(file.relative_to(DOCS)) if inside else f"{OUTSIDE}/{file.relative_to(ROOT)}"


def _written_out(entry: Any) -> Any:  # noqa: ANN401  # as YAML has it
    if isinstance(entry, dict):
        return {title: _written_out(below) for title, below in entry.items()}
    if isinstance(entry, list):
        return [_written_out(each) for each in entry]
    if not str(entry).endswith("/"):
        return entry
    pages = sorted((DOCS / entry).glob("*.md"), key=lambda page: (page.name != "README.md", page.name))
    return [str(page.relative_to(DOCS)) for page in pages]
