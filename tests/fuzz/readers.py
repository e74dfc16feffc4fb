"""The first phase: each function that reads a text of somebody else's, in this process."""

from __future__ import annotations

import base64
import json
import time
import tomllib
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import parse_qsl

from werkzeug.test import Client

from aca_tokend.admin import _exposition, _Site
from aca_tokend.config.files import load
from aca_tokend.core.answer import Answer
from aca_tokend.core.errors import ConfigError, GrantError, VerifyError
from aca_tokend.core.formats import Format, RenderError, render, template_problem
from aca_tokend.core.grant import read_answer, read_verification
from aca_tokend.core.guard import Attempts, parse_record
from aca_tokend.core.outcome import Reason
from aca_tokend.core.status import QueryError, parse_query
from aca_tokend.core.token import NotADocumentError, implausible, owned, parse_document
from aca_tokend.core.vault_answers import KvRead
from aca_tokend.metrics import Metrics
from aca_tokend.net.messages import Response
from aca_tokend.sinks.json_files import decoded, encoded
from aca_tokend.sinks.kv import _digest
from aca_tokend.vault.client import RequestFailedError, _meaning
from tests.fuzz.mutation import CANARY, odd_bytes, odd_data
from tests.fuzz.target import Outcome, Target, outcome
from tests.unit.test_vault_answers import ANSWERS
from tests.unit.told import DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
CPU_SECONDS = 1.0

TOKEN = {"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 7200, "scope": "s", "error": "invalid_grant"}
CONFIG = tomllib.loads("""
acaengine.main = { url = "https://aca.example.com", host = "", timeout = "10s" }
rotation = { fraction = 0.667, min_interval = "10s", backoff = { initial = "1s", cap = "60s" } }
admin.listen = "127.0.0.1:9464"
shard = { count = 1, index = 0 }
[vault.main]
address = ["https://vault.example.com:8200"]
redirect_hosts = ["*.vault-internal"]
auth = { method = "approle", role_id = "r", secret_id = { file = "/run/s" }, mount = "approle" }
[[tokens]]
name = "bookings"
authority = "a"
username = "u"
password = { vault = "secret/aca/p#f" }
client_id = { env = "ID" }
client_secret = { file = "/run/s" }
verify = { path = "/api", every = "5m" }
publish = [
  { to = "vault", mount = "secret", path = "aca/b", fields = { access_token = "t" } },
  { to = "file", path = "/run/t", mode = "0640", after = { command = ["true"], timeout = "1s" } },
  { to = "directory", path = "/run/d", files = { e = { format = "template", template = "{{ scope }}" } } },
]
""")
TIME = "2026-11-24T06:00:00Z"
RECORD = {"f": {"proven": False, "spent": 1, "reserved": False, "reason": "invalid_grant", "changed_at": TIME}}
DATE = b"Tue, 24 Nov 2026 06:00:00 GMT"


def _token_answer(case: bytes) -> None:
    for status in (401, 200):
        read_answer(Answer("place", status, {}, case, NOW), "public")


def _claims(case: bytes) -> None:
    token = f"e30.{base64.urlsafe_b64encode(case).decode()}.s"
    read_answer(Answer("place", 200, {}, json.dumps(TOKEN | {"access_token": token}).encode(), NOW), "public")


def _headers(case: bytes) -> None:
    lines = (line.partition(":") for line in case.decode("latin-1").split("\n"))
    answer = Answer("place", 503, {name: value for name, _, value in lines}, b"", NOW)
    assert answer.retry_after_seconds is None or 0 <= answer.retry_after_seconds <= 3600
    assert answer.skew_seconds is None or isinstance(answer.skew_seconds, float)
    for read in (partial(read_answer, answer, ""), partial(read_verification, answer)):
        try:
            read()
        except (GrantError, VerifyError) as error:
            assert CANARY not in str(error)  # noqa: PT017 -- it need not be raised


def _vault(read: Callable[[Any], object], case: bytes) -> None:
    answer = _meaning(Response(200, {}, case, None, None))
    if not isinstance(answer, dict):
        raise answer
    found = read(answer)
    if isinstance(found, KvRead):
        _digest(found.fields or {})


def _refusal(case: bytes) -> None:
    for status in (403, 404, 503):
        refusal = _meaning(Response(status, {"retry-after": "5"}, case, None, None))
        assert isinstance(refusal, RequestFailedError)
        assert CANARY not in refusal.message


def _document(case: bytes) -> None:
    fields = decoded(case)
    _digest(fields)
    document = parse_document(fields)
    implausible(document, username="u", authority="a", now=NOW, max_lifetime=86400.0)
    owned(document, token="t", account="a")
    for form in get_args(Format):
        render(document, form, "{{ scope }}")


def _attempts(case: bytes) -> None:
    record = parse_record(decoded(case))
    for entry in record.entries:  # as the next attempt counts it
        again = Attempts(entry.credential, False, entry.spent + 1, True, Reason.INVALID_GRANT, entry.changed_at)
        encoded(record.put(again).fields())


def _config(file: Path, case: bytes) -> None:
    file.write_bytes(case)
    load(file)


def _template(case: bytes) -> None:
    text = case.decode("utf-8", "replace")
    if template_problem(text) is None:
        render(DOCUMENT, "template", text)


def _query(case: bytes) -> None:
    parse_query(parse_qsl(case.decode("latin-1"), keep_blank_values=True))


def _listener() -> Callable[[bytes], None]:
    def fails(_page: str, error: BaseException) -> None:
        raise error

    metrics = Metrics(list, time.time, ["main"], {"main": "approle"})
    client = Client(_Site({"/metrics": partial(_exposition, metrics.exposition)}, (), fails))

    def ask(case: bytes) -> None:
        accept, _, encoding = case.replace(b"\r", b"").decode("latin-1").partition("\n")
        headers = {"Accept": accept, "Accept-Encoding": encoding.replace("\n", "")}
        response = client.get("/metrics", headers=headers)
        assert response.status_code == 200
        assert CANARY not in response.headers["Content-Type"]

    return ask


def targets(folder: Path) -> list[Target]:
    """All readers. What is read of a file is written into this folder."""
    refusal = {"errors": ["Vault is sealed", CANARY], "data": {"data": None, "metadata": {"version": 3}}}
    data: list[tuple[str, Callable[[bytes], object], Any]] = [
        ("token", _token_answer, TOKEN),
        ("claims", _claims, {"exp": 1_795_507_200, "iat": 1_795_500_000}),
        ("document", _document, DOCUMENT.fields() | {"access_token": "a.b"}),
        ("attempts", _attempts, RECORD),
        ("refusal", _refusal, refusal),
        *((f"vault {number}", partial(_vault, read), example) for number, (read, example) in enumerate(ANSWERS)),
    ]
    found = [_target(name, read, partial(_data, json.dumps(example).encode())) for name, read, example in data]
    config = partial(_config, folder / "config.toml")
    found.append(_target("config", config, partial(_data, json.dumps(CONFIG).encode(), toml=True)))
    return found + [_target(name, read, partial(odd_bytes, example, words)) for name, read, example, words in TEXTS]


def _target(name: str, read: Callable[[bytes], object], draw: Callable[[Random], bytes]) -> Target:
    def run(case: bytes) -> Outcome:
        return outcome(partial(read, case), time.thread_time, lambda: CPU_SECONDS)

    return Target(name, run, DECLARED, draw)


def _data(example: bytes, rng: Random, *, toml: bool = False) -> bytes:
    case = odd_data(example, rng, toml=toml)
    if toml:  # which its owner writes, and of which a number of a million digits takes 120 MB
        case = case[:100_000]
    if rng.random() > 0.3:
        # messages show what is called like a token, and this is not
        return case.replace(b"CANARY", b"!CANARY") if toml else case
    if toml:  # and they show keys, which anything becomes here
        case = case.replace(b"CANARY", b"value")
    return odd_bytes(case, (b"{", b"[", b'"', b"\\", b"\xff", b"\0", b"\n"), rng)


# each raises one of these alone: the others are of other rooms
DECLARED = (ConfigError, GrantError, NotADocumentError, QueryError, RenderError, RequestFailedError)

# each with a text that it reads, and with what is put into that
# fmt: off
TEXTS: list[tuple[str, Callable[[bytes], object], bytes, list[bytes]]] = [
    ("headers", _headers, b"Date:" + DATE + b"\nRetry-After:120\nretry-after:" + DATE + b"\nx-request-id:r-1\n",
     [DATE, *b"-0000 +2400 -9999 99999999999999999999 \xb2 0001 9999 : \0 Jan CANARY".split(b" ")]),
    ("accept", _listener(), b"application/openmetrics-text; version=1.0.0,text/plain;q=0.5\ngzip",
     b';version=x ;q=nan ;q=-1 version=1.0.0 */* " = , \n CANARY'.split(b" ")),
    ("query", _query, b"state=suspended&q=book&page=2&per_page=10",
     [b"9" * 5000, *b"& = %00 %ed%a0%80 \xb2 q=CANARY page=CANARY state=CANARY CANARY=1".split(b" ")]),
    ("template", _template, b'{% if scope %}{{ scope|replace("a", "b")|tojson }}{% endif %} {{ expires_in }}',
     [b" if ", b" else ", b"not ", b"is none", *b'{{[username]|tojson(indent= 999999999 |tojson( |default( |urlencode '
      b'|length |trim( {%if {{ }} {%endif%} ( ) [ ] { } - ~ + // /0 [::0] "\\ud800" expires_in 1e999 |replace( "x" '
      b'{%raw%} {# \0'.split(b" ")]),
]
# fmt: on
