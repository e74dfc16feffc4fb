"""The prose says what is so: its configuration loads, its links lead somewhere, its lists are complete."""

from __future__ import annotations

import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from aca_tokend.cli import app
from aca_tokend.config.files import load
from aca_tokend.core.config import parse
from aca_tokend.core.errors import ConfigError
from aca_tokend.core.formats import render
from aca_tokend.core.outcome import REJECTED, Reason
from aca_tokend.core.saying import SKIPPED
from aca_tokend.core.status import schema as status_schema
from aca_tokend.core.token import FIELDS, OWNER, Account, parse_document
from aca_tokend.core.vault_policy import policies
from aca_tokend.rotation.decide import CHAIN
from tests.blocks import PAGES, blocks_for

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CLIENT_ID = "d1be3a40ba9afbc1bb3e1bb0a4d1aa58"

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} (?P<text>.+)$", re.MULTILINE)
REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CODE = re.compile(r"`([^`\n]+)`")
TEST = re.compile(r"^def (test_\w+)", re.MULTILINE)
NAME = re.compile(r"[a-z]+(?:_[a-z0-9]+)+")

# names of others: Vault's, OAuth's, mypy's, curl's, nginx's, ACAEngine's
FOREIGN_NAMES = {"max_versions", "refresh_token", "ignore_missing_imports"}
FOREIGN_NAMES |= {"managed_by", "cas_required", "disable_standby_reads", "api_addr", "performance_multiplier"}
FOREIGN_NAMES |= {"jwks_url", "jwks_ca_pem", "oidc_discovery_url", "secret_id_num_uses", "token_reviewer_jwt"}
FOREIGN_NAMES |= {"vendor_completions"}
FOREIGN_NAMES |= {"http_code", "worker_shutdown_timeout", "bearer_token", "grant_flows", "reuse_access_token"}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [found["content"] for found in FENCE.finditer(read(page)) if found["language"] == language]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the places that show Markdown make them."""
    found: set[str] = set()
    for heading in HEADING.finditer(FENCE.sub("", read(page))):
        text = LINK.sub(lambda link: link[0].partition("](")[0].removeprefix("["), heading["text"])
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number, unique = 0, anchor
        while unique in found:
            number += 1
            unique = f"{anchor}-{number}"
        found.add(unique)
    return found


def first_cells(page: Path, header: str = "") -> list[str]:
    """The first cell of each row of the tables of a page, or of the one table with this header, without the header."""
    text = read(page)
    lines = (text.partition(header)[2].partition("\n\n")[0] if header else text).splitlines()
    cells = [
        line.split("|")[1].strip().strip("`")
        for line, after in pairwise([*lines, ""])
        if line.startswith("| ") and not after.startswith("|--")
    ]
    return [cell for cell in cells if cell]


def in_fences(page: Path) -> str:
    """All that stands in the fenced blocks of a page, such as the configuration of other programs."""
    return "\n".join(found["content"] for found in FENCE.finditer(read(page)))


def names_in(text: str) -> set[str]:
    """The names with an underscore that stand in code marks."""
    return {name for code in CODE.findall(text) for name in NAME.findall(code)}


def test_readme_configuration(tmp_path: Path) -> None:
    """The configuration of the README has ten lines and is valid as it stands."""
    (block,) = blocks(ROOT / "README.md", "toml")
    file = tmp_path / "config.toml"
    file.write_text(block, encoding="utf-8")

    config = load(file)

    assert len(block.splitlines()) == 10
    assert [token.name for token in config.tokens] == ["bookings"]


def test_registering_configuration(tmp_path: Path) -> None:
    """The configuration at the end of registering is valid, and refers to its two secrets."""
    (block,) = blocks(DOCS / "registering.md", "toml")
    file = tmp_path / "config.toml"
    file.write_text(block, encoding="utf-8")
    assert [token.name for token in load(file).tokens] == ["bookings"]
    assert block.count("{ file = ") == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    """Each relative link leads to a file that there is, and to a heading in it."""
    broken = []
    for link in LINK.finditer(FENCE.sub("", read(page))):
        path, _, anchor = link["target"].partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        known = target.exists() and target.is_relative_to(ROOT)
        if not known or (anchor and anchor not in anchors(target)):
            broken.append(link["target"])
    assert not broken


def test_anchors(tmp_path: Path) -> None:
    """Anchors are made as where the pages are shown: small letters, no punctuation, a number for the second."""
    page = tmp_path / "page.md"
    page.write_text("# `[[tokens]]`, with *a* `to`\n## Who owns a place\n```\n# no heading\n```\n## Who owns a place\n")
    assert anchors(page) == {"tokens-with-a-to", "who-owns-a-place", "who-owns-a-place-1"}


def test_dependencies() -> None:
    """docs/dependencies.md has each direct dependency once, and no other."""
    project: dict[str, Any] = tomllib.loads(read(ROOT / "pyproject.toml"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    for file in sorted((ROOT / "requirements").glob("*.in")):
        wanted += [line for line in read(file).splitlines() if line and not line.startswith(("#", "-"))]
    names = {found[0].lower().replace("_", "-") for line in wanted if (found := REQUIREMENT.match(line))}

    told = first_cells(DOCS / "dependencies.md")

    assert sorted(told) == sorted(names)


@pytest.mark.parametrize(
    "folder", [DOCS, DOCS / "decisions", DOCS / "readers", DOCS / "runbooks"], ids=lambda folder: folder.name
)
def test_index(folder: Path) -> None:
    """The index of a folder links to each of its pages, and decisions in the order of their numbers."""
    linked = [link["target"].partition("#")[0] for link in LINK.finditer(read(folder / "README.md"))]
    files = sorted(page.name for page in folder.glob("*.md") if page.name != "README.md")
    assert sorted({link for link in linked if "/" not in link}) == files
    if folder.name == "decisions":
        assert linked == files


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("0*.md")), ids=lambda page: page.stem[:4])
def test_form_of_a_decision(page: Path) -> None:
    """A decision has its number in its title, and says context, decision and consequences."""
    title, *headings = [heading["text"] for heading in HEADING.finditer(read(page))]
    assert title.startswith(f"{int(page.name[:4])}. ")
    assert headings == ["Context", "Decision", "Consequences"]
    assert f"[{title.partition('. ')[2]}]({page.name})" in read(page.parent / "README.md")


def test_contract_has_every_field() -> None:
    """The contract explains each published field in the order in which it is published, and no other."""
    assert tuple(first_cells(DOCS / "contract.md")) == (*FIELDS, OWNER)


def test_contract_example() -> None:
    """The example of the contract is a document as the daemon writes it, and its account is made as the page says."""
    page = DOCS / "contract.md"
    (example,) = blocks(page, "json")
    fields = json.loads(example)
    document = parse_document(fields)
    account = Account("aca.example.com", document.authority, document.username, CLIENT_ID)

    assert dict(document.fields()) == fields
    assert tuple(fields) == (*FIELDS, OWNER)
    assert account.fingerprint == document.account
    parts = ("aca.example.com", document.authority, document.username, CLIENT_ID)
    assert "".join(f"{len(part)}:{part}" for part in parts) + "\n" in blocks(page, "")


def test_formats() -> None:
    """What the page about files shows of each format is what that makes of the contract's example, its token cut."""
    (example,) = blocks(DOCS / "contract.md", "json")
    token = json.loads(example)["access_token"]
    document = parse_document(json.loads(example.replace(token, token[:16])))
    shown = [block.content for block in blocks_for("tests/unit/test_docs.py::test_formats")]
    bare, header, env = (render(document, form).decode() for form in ("token", "header", "env"))
    assert shown == [f"{bare}\n", header, env]


def entry(name: str, *places: dict[str, str]) -> dict[str, Any]:
    """A token as a parsed configuration has it."""
    secret = {"file": "/run/secrets/aca/secret"}
    return {
        "name": name,
        "authority": "authority-ID",
        "username": name,
        "password": secret,
        "client_id": CLIENT_ID,
        "client_secret": secret,
        "publish": list(places),
    }


def test_policies() -> None:
    """The policies on their page, for the daemon and for a reader, are what the program prints for two such tokens."""
    tokens = [entry(name, {"to": "vault", "mount": "secret", "path": f"aca/{name}"}) for name in ("bookings", "rooms")]
    auth = {"method": "token", "token": {"file": "/run/secrets/vault-token"}}
    config = parse(
        [
            (
                "config.toml",
                {
                    "acaengine": {"main": {"url": "https://aca.example.com"}},
                    "vault": {"main": {"address": "https://vault.example.com:8200", "auth": auth}},
                    "tokens": tokens,
                },
            )
        ]
    )
    (bookings,) = (token for token in config.tokens if token.name == "bookings")
    shown = [block.content for block in blocks_for("tests/unit/test_docs.py::test_policies")]
    assert shown == ["\n".join(policies(config, None, reader)) for reader in (None, bookings)]


def test_messages_of_check() -> None:
    """The messages on the page about the configuration are those of such mistakes."""
    place = {"to": "file", "path": "/run/aca/bookings.json"}
    main = {
        "acaengine": {"main": {"url": "https://aca.example.com", "timeot": "10s"}},
        "tokens": [entry("bookings", place)],
    }
    others = [entry(name, {"to": "file", "path": f"/run/aca/{name}.json"}) for name in ("foyer", "signage")]
    with pytest.raises(ConfigError) as caught:
        parse([("config.toml", main), ("tokens.d/rooms.toml", {"tokens": [*others, entry("rooms", place)]})])
    (shown,) = [block.content for block in blocks_for("tests/unit/test_docs.py::test_messages_of_check")]
    assert f"{caught.value.message}\n" == shown


def test_rules_are_told() -> None:
    """How it works has each rule that decides what is due, in the order in which they are asked, and rest at last."""
    told = first_cells(DOCS / "how-it-works.md", "| rule | when | what follows |\n|---|---|---|\n")
    assert told == [*(rule.__name__ for rule in CHAIN), "rest"]


def test_waits_are_told() -> None:
    """How it works explains each reason for which a token waits, and no other."""
    told = first_cells(DOCS / "how-it-works.md", "| why | it waits for |\n|---|---|\n")
    assert sorted(told) == sorted(SKIPPED)


def test_rejections_are_told() -> None:
    """The decision about rejections names each reason that counts as one, and no other."""
    (page,) = (DOCS / "decisions").glob("0007-*.md")
    assert sorted(first_cells(page)) == sorted(REJECTED)


def test_names_are_known() -> None:
    """Reasons, events, metrics, keys, fields and tests that prose names are those of the code and of the references."""
    known = {reason.value for reason in Reason} | set(FIELDS) | {rule.__name__ for rule in CHAIN}
    known |= set().union(*(names_in(read(DOCS / name)) for name in ("configuration.md", "logs.md", "metrics.md")))
    known |= FOREIGN_NAMES | {
        name for shape in status_schema()["$defs"].values() for name in shape.get("properties", {})
    }
    known |= {name for file in (ROOT / "tests").rglob("*.py") for name in (file.stem, *TEST.findall(read(file)))}
    known |= {file.stem for file in (ROOT / "aca_tokend").rglob("*.py")}
    unknown = {
        f"{page.name}: {name}"
        for page in (ROOT / "README.md", ROOT / "SECURITY.md", *DOCS.rglob("*.md"))
        for name in names_in(read(page))
        if name not in known and name not in in_fences(page)
    }
    assert not unknown


def test_commands_exist() -> None:
    """Each `make` target and each command of `aca-tokend` that a page names is there, or said not to be there yet."""
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # it is a group
    for page in PAGES:
        code = "\n".join([*CODE.findall(read(page)), *(found["content"] for found in FENCE.finditer(read(page)))])
        assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) <= targets, page
        assert set(re.findall(r"^aca-tokend ([a-z]+)", code, re.MULTILINE)) <= commands, page
