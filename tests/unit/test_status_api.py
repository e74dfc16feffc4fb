"""The status API over a real socket, its queries, its schema and its documentation."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.admin import AdminServer
from aca_tokend.core.config import AdminConfig
from aca_tokend.core.status import (
    MOST_PER_PAGE,
    STATUS,
    TOKEN,
    Query,
    QueryError,
    State,
    StatusPage,
    TokenPage,
    parse_query,
    schema,
)
from aca_tokend.status import status_page, token_page
from aca_tokend.status_api import api
from tests.fakes import log_bug
from tests.unit.status_bench import NAME, Seen
from tests.unit.test_docs import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs"
LIMIT = 30.0
CANARY = "canary-query-7be2"


@pytest.fixture(scope="module")
def server() -> Iterator[AdminServer]:
    """A listener with the status of one token that was rotated."""
    seen = Seen()
    seen.bench.attempt()
    pages = api(lambda query: status_page(seen.subject(), query), lambda name: token_page(seen.subject(), name))
    config = AdminConfig(listen="127.0.0.1:0")
    listening = AdminServer(config, lambda *_: (b"", "text/plain"), list, list, pages, on_error=log_bug)
    listening.start()
    try:
        yield listening
    finally:
        listening.stop()


def ask(server: AdminServer, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


# ── the routes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_status_is_json_of_the_schema(server: AdminServer) -> None:
    """`/api/v1/status` answers with JSON that reads back as the same page, and may not be cached."""
    code, headers, body = ask(server, "/api/v1/status")
    assert (code, headers["content-type"], headers["cache-control"]) == (200, "application/json", "no-store")
    page = STATUS.validate_json(body)
    assert isinstance(page, StatusPage)
    assert ([token.name for token in page.tokens], page.version) == ([NAME], 1)
    conforms(json.loads(body), schema()["$defs"]["StatusPage"], schema()["$defs"])


def test_times_are_rfc_3339_in_utc(server: AdminServer) -> None:
    """Every time in an answer is in UTC and says so by a Z."""
    read = json.loads(ask(server, "/api/v1/status")[2])
    token = read["tokens"][0]
    for text in (read["now"], token["issued_at"], token["expires_at"], token["last"]["at"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text)
        assert datetime.fromisoformat(text).tzinfo is not None


def test_one_token(server: AdminServer) -> None:
    """`/api/v1/status/NAME` answers with that token and what it depends on."""
    code, _, body = ask(server, f"/api/v1/status/{NAME}")
    page = TOKEN.validate_json(body)
    assert isinstance(page, TokenPage)
    assert (code, page.token.name, page.endpoint.name) == (200, NAME, "main")
    conforms(json.loads(body), schema()["$defs"]["TokenPage"], schema()["$defs"])


def test_unknown_token(server: AdminServer) -> None:
    """A token that there is not is a 404 that repeats nothing of what was asked."""
    code, headers, body = ask(server, f"/api/v1/status/{CANARY}")
    assert (code, headers["content-type"]) == (404, "application/json")
    assert json.loads(body)["error"] == {
        "parameter": "name",
        "problem": "is no token of this configuration",
        "fix": "ask for all of them to see the names",
        "shard": None,
    }
    conforms(json.loads(body), schema()["$defs"]["ErrorPage"], schema()["$defs"])


def test_schema_is_served(server: AdminServer) -> None:
    """`/api/v1/schema` is the published schema."""
    code, headers, body = ask(server, "/api/v1/schema")
    assert (code, headers["content-type"]) == (200, "application/schema+json")
    assert json.loads(body) == json.loads((DOCS / "status.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", ["/api/v1/status", f"/api/v1/status/{NAME}", "/api/v1/schema"])
def test_only_get_and_head(server: AdminServer, path: str) -> None:
    """HEAD has the headers of GET and no body; other methods are refused."""
    get, head = ask(server, path), ask(server, path, "HEAD")
    assert (head[0], head[2]) == (200, b"")
    assert abs(int(head[1]["content-length"]) - len(get[2])) <= 8  # a time may have fewer digits
    assert ask(server, path, "POST")[0] == 405


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (f"state={CANARY}", "state: is no state; use one of expired, suspended, failing, starting, ready"),
        ("state=", "state: is no state; use one of expired, suspended, failing, starting, ready"),
        (f"{CANARY}=1", "query: has an unknown parameter; use state, q, page, per_page alone"),
        ("page=0", "page: is not a number in its range; use a whole number from 1 to 999999"),
        ("page=-1", "page: is not a number in its range; use a whole number from 1 to 999999"),
        ("page=1.5", "page: is not a number in its range; use a whole number from 1 to 999999"),
        ("page=%D9%A1", "page: is not a number in its range; use a whole number from 1 to 999999"),
        ("page=", "page: is not a number in its range; use a whole number from 1 to 999999"),
        ("per_page=1001", "per_page: is not a number in its range; use a whole number from 1 to 1000"),
        ("per_page=" + "9" * 99, "per_page: is not a number in its range; use a whole number from 1 to 1000"),
        ("page=1&page=2", "page: is given twice; give it once"),
        ("q=a&q=b", "q: is given twice; give it once"),
        ("q=" + "a" * 201, "q: is longer than 200 characters; search for a part of a name"),
    ],
)
def test_wrong_queries(server: AdminServer, query: str, error: str) -> None:
    """A wrong parameter is a 400 that names it, the problem and the fix, and repeats no value."""
    code, _, body = ask(server, f"/api/v1/status?{query}")
    told = json.loads(body)["error"]
    assert code == 400
    assert f"{told['parameter']}: {told['problem']}; {told['fix']}" == error
    assert CANARY.encode() not in body


def test_one_token_takes_no_query(server: AdminServer) -> None:
    """A parameter with one token is refused, so that nobody believes that it counts."""
    code, _, body = ask(server, f"/api/v1/status/{NAME}?page=2")
    assert (code, json.loads(body)["error"]["parameter"]) == (400, "query")


def test_queries_that_are_well() -> None:
    """States may be repeated; what is left out has its default."""
    assert parse_query([]) == Query()
    found = parse_query([("state", "ready"), ("state", "failing"), ("q", "Ä b"), ("page", "7"), ("per_page", "1000")])
    assert found == Query(frozenset({State.READY, State.FAILING}), "Ä b", 7, MOST_PER_PAGE)
    with pytest.raises(QueryError):
        parse_query([("page", "seven")])


# ── what is published ─────────────────────────────────────────────────────────────────────────────────────────────────


def conforms(value: Any, rule: dict[str, Any], shapes: dict[str, Any]) -> None:  # noqa: ANN401 -- JSON
    """Asserts that a value is as the schema has it, with no field more and none less."""
    if "$ref" in rule:
        rule = shapes[rule["$ref"].rpartition("/")[2]]
    if "anyOf" in rule:
        options = [choice for choice in rule["anyOf"] if (choice.get("type") == "null") is (value is None)]
        rule = options[0]
        if "$ref" in rule:
            rule = shapes[rule["$ref"].rpartition("/")[2]]
    kinds: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "array": list,
        "object": dict,
    }
    if value is None:
        assert rule["type"] == "null"
        return
    assert isinstance(value, kinds[rule["type"]]), (value, rule)
    if "enum" in rule:
        assert value in rule["enum"]
    for item in value if isinstance(value, list) else ():
        conforms(item, rule["items"], shapes)
    if isinstance(value, dict) and "properties" in rule:
        assert set(value) == set(rule["properties"]) == set(rule["required"])
        for name, item in value.items():
            conforms(item, rule["properties"][name], shapes)


def test_schema_file_is_that_of_the_code() -> None:
    """docs/status.schema.json is what `make status-schema` writes."""
    text = (DOCS / "status.schema.json").read_text(encoding="utf-8")
    assert text == json.dumps(schema(), indent=2) + "\n"


def tables() -> dict[str, dict[str, str]]:
    """The fields of each shape and what they mean, as docs/status.md has them."""
    found: dict[str, dict[str, str]] = {}
    shape = ""
    for line in (DOCS / "status.md").read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"#+ .*`(\w+)`", line):
            shape = heading[1]
        elif row := re.fullmatch(r"\| `(\w+)` \| .+? \| (.+) \|", line):
            found.setdefault(shape, {})[row[1]] = row[2]
    return found


def test_page_has_every_field() -> None:
    """docs/status.md has each field of each shape in its order, with the words of the schema, and no other."""
    shapes = {
        name: {field: rule["description"] for field, rule in shape["properties"].items()}
        for name, shape in schema()["$defs"].items()
        if "properties" in shape
    }
    told = tables()
    assert told == shapes
    assert [list(fields) for fields in told.values()] == [list(shapes[name]) for name in told]


def test_example_is_an_answer() -> None:
    """The example of docs/status.md is an answer as the schema has it."""
    (example,) = blocks(DOCS / "status.md", "json")
    read = json.loads(example)
    conforms(read, schema()["$defs"]["StatusPage"], schema()["$defs"])
    page = STATUS.validate_python(read)
    assert sum(page.counts.values()) == page.daemon.tokens


def test_page_has_every_state() -> None:
    """docs/status.md explains each state, worst first."""
    text = (DOCS / "status.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \*\*(\w+)\*\* \|", text, re.MULTILINE) == list(State)


def test_runbooks_that_are_named_are_there() -> None:
    """Each runbook that the status points to is among those that are shipped."""
    package = DOCS.parent / "aca_tokend"
    named: set[str] = set()
    for module in ("core/condition.py", "status.py", "status_servers.py"):
        named |= set(re.findall(r'"(ACA\w+)"', (package / module).read_text(encoding="utf-8")))
    assert named
    assert named <= {page.stem for page in (DOCS / "runbooks").glob("ACA*.md")}
