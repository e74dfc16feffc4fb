"""Every fenced block of every page is run by a test, checked by its language, or says why it cannot be run."""

from __future__ import annotations

import ast
import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from aca_tokend.core.config import Config, TokenConfig, parse
from tests.blocks import MARKER, PAGES, ROOT, Block, blocks, blocks_for

if TYPE_CHECKING:
    from pathlib import Path

CHECKED = {"toml", "json", "yaml", "promql"}
ALL = [block for page in PAGES for block in blocks(page)]

# what a fragment of a configuration may leave out
SERVER = {"url": "https://aca.example.com"}
VAULT = {
    "address": "https://vault.example.com:8200",
    "auth": {"method": "token", "token": {"file": "/run/secrets/vault-token"}},
}
TOKEN = {
    "name": "bookings",
    "authority": "authority-ID",
    "username": "svc-bookings",
    "password": {"file": "/run/secrets/aca/bookings-password"},
    "client_id": "d1be3a40ba9afbc1bb3e1bb0a4d1aa58",
    "client_secret": {"file": "/run/secrets/aca/client-secret"},
    "publish": [{"to": "file", "path": "/run/aca/bookings.json"}],
}


def of_language(*languages: str) -> list[Block]:
    """The blocks that are checked by their language, since they have no marker."""
    return [block for block in ALL if block.language in languages and not block.kind]


def whole(fragment: str) -> dict[str, Any]:
    """A configuration as it is; of a fragment of one, it and what a configuration needs beside.

    A table of a token alone, such as `[[tokens.publish]]`, and bare keys of one are that token's.
    """
    read = tomllib.loads(fragment)
    if {"acaengine", "tokens"} <= set(read):
        return read
    token = {
        key: read.pop(key) for key in list(read) if key in TokenConfig.model_fields and key not in Config.model_fields
    }
    tokens = read.pop("tokens", [{}])
    tokens = [tokens] if isinstance(tokens, dict) else tokens
    return {
        "acaengine": {"main": SERVER},
        **read,
        "vault": {name: {**VAULT, **vault} for name, vault in {"main": {}, **read.get("vault", {})}.items()},
        "tokens": [{**TOKEN, **each, **token} for each in tokens],
    }


def test_every_block_is_accounted_for() -> None:
    """A block has a marker, or is of a language that is checked."""
    assert not [
        f"{block}: a block of {block.info or 'no language'} needs a marker right above it, see tests/blocks.py"
        for block in ALL
        if not block.kind and block.language not in CHECKED
    ]


def test_every_marker_has_a_block() -> None:
    """A marker stands right above the fence it speaks of."""
    for page in PAGES:
        found = [line for line in page.read_text(encoding="utf-8").splitlines() if MARKER.match(line)]
        assert len(found) == len([block for block in blocks(page) if block.kind]), page


def test_named_tests_exist() -> None:
    """The test that a block names is there, and takes its blocks by that name or names the page."""
    for block in (block for block in ALL if block.kind == "test"):
        path, _, name = block.what.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        named = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
        assert name in named, f"{block}: there is no {block.what}"
        page = str(block.page.relative_to(ROOT)).removeprefix("docs/")
        assert f"::{name}" in text or page in text, f"{block}: {path} takes no blocks for {name}, nor names this page"


@pytest.mark.parametrize("block", of_language("toml"), ids=str)
def test_toml(block: Block) -> None:
    """A configuration on a page, or a fragment of one, is valid."""
    assert parse([(str(block), whole(block.content))]).tokens


@pytest.mark.parametrize("block", of_language("json"), ids=str)
def test_json(block: Block) -> None:
    """JSON on a page is JSON."""
    json.loads(block.content)


@pytest.mark.parametrize("block", of_language("yaml"), ids=str)
def test_yaml(block: Block) -> None:
    """YAML on a page is YAML, and something is in it."""
    assert all(yaml.safe_load_all(block.content))


def test_blocks(tmp_path: Path) -> None:
    """Fences of both kinds, of any length and in lists are found, with their markers; nothing within one is a fence."""
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: a drawing -->\n```\n<!-- test: x -->\n~~~\n```\n\n- a\n\n    <!-- snippet: b.sh -->\n"
        "    ````sh\n    if\n        ```\n    ````\n\n~~~ yaml title\na: 1\n~~~\n"
    )
    found = [(block.line, block.info, block.language, block.kind, block.what, block.content) for block in blocks(page)]
    assert found == [
        (2, "", "", "not run", "a drawing", "<!-- test: x -->\n~~~\n"),
        (10, "sh", "sh", "snippet", "b.sh", "if\n    ```\n"),
        (15, "yaml title", "yaml", "", "", "a: 1\n"),
    ]


def test_block_is_closed(tmp_path: Path) -> None:
    """A fence that is never closed is an error, not a page that is checked no further."""
    page = tmp_path / "page.md"
    page.write_text("```sh\nmake\n")
    with pytest.raises(ValueError, match="never closed"):
        blocks(page)


def test_marked_for_nobody() -> None:
    """A test that no block names any more fails."""
    with pytest.raises(AssertionError, match="0 blocks are marked"):
        blocks_for("tests/unit/test_blocks.py::test_nothing")
