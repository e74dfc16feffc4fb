"""`aca-tokend status`: whom it asks, what it believes, what it prints and how it exits."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from aca_tokend.admin import AdminServer
from aca_tokend.core.config import AdminConfig
from aca_tokend.core.outcome import Reason, Step
from aca_tokend.core.status import (
    STATUS,
    HookStatus,
    LastResult,
    Result,
    SinkStatus,
    State,
    StatusPage,
    Suspension,
    TokenPage,
    TokenStatus,
)
from aca_tokend.demo.child import wait_until
from aca_tokend.status import status_page, token_page
from aca_tokend.status_api import api
from aca_tokend.terminal import address, ask, picture
from aca_tokend.terminal.client import MOST_BYTES, Address, AskError, ask_all, ask_one
from tests.fakes import log_bug
from tests.unit.scripted_server import Authority, ScriptedServer, answers, response
from tests.unit.status_bench import NAME, Seen
from tests.unit.test_cli import CONFIG, call
from tests.unit.test_status import DOWN, REFUSED, due, rotated

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.scripted_server import Talk

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
EVIL = "\x1b[31m[bold]:smile:\u202e\x9b31m\r\nnext\x07"
LIMIT = 60.0


@contextlib.contextmanager
def listening(seen: Seen, **config: object) -> Iterator[AdminServer]:
    """The admin listener with the status of one token."""
    pages = api(lambda query: status_page(seen.subject(), query), lambda name: token_page(seen.subject(), name))
    settings = AdminConfig.model_validate({"listen": "127.0.0.1:0"} | config)
    server = AdminServer(settings, lambda *_: (b"", "text/plain"), list, list, pages, on_error=log_bug)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def url(server: AdminServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def drawn(shown: object, width: int = 100) -> str:
    """What a terminal of this width would show."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False, color_system=None)
    console.print(shown)
    return stream.getvalue()


# ── whom it asks ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("admin", "asked"),
    [
        ({}, "http://127.0.0.1:9464"),
        ({"listen": "0.0.0.0:9000"}, "http://127.0.0.1:9000"),
        ({"listen": "[::]:9000"}, "http://[::1]:9000"),
        ({"listen": "[::1]:9000"}, "http://[::1]:9000"),
        ({"listen": "status.example.com:80"}, "http://status.example.com:80"),
        ({"listen": "0.0.0.0:9000", "tls_cert": "/c.pem", "tls_key": "/k.pem"}, "https://127.0.0.1:9000"),
    ],
)
def test_listener_of_the_configuration(admin: dict[str, str], asked: str) -> None:
    """It asks where the configuration has the listener; one that listens everywhere is asked on this machine."""
    found = address(AdminConfig.model_validate(admin), "", ("", ""))
    assert (found.url, found.certificate) == (asked, admin.get("tls_cert", ""))


@pytest.mark.parametrize(
    ("listen", "said"), [("", "the listener is off; set it"), ("127.0.0.1:0", "has port 0; give --url")]
)
def test_listener_that_cannot_be_found(listen: str, said: str) -> None:
    """A listener that is off, or whose port nobody can know, is told with a way out."""
    with pytest.raises(AskError, match=said):
        address(AdminConfig(listen=listen), "", ("", ""))


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("http://127.0.0.1:9464", "http://127.0.0.1:9464"),
        ("https://aca.example.com/", "https://aca.example.com"),
        ("http://[::1]:9464", "http://[::1]:9464"),
    ],
)
def test_urls(text: str, asked: str) -> None:
    """A URL is scheme, host and port."""
    assert address(None, text, ("c", "k")) == Address(asked, client=("c", "k"))


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:9464",
        "ftp://a",
        "http://",
        "http://user:canary@a",
        "http://a/path",
        "http://a?x=1",
        "http://a:port",
        "http://a:99999",
        "http://[::1",
        "http://a\r\nX: y",
    ],
)
def test_what_is_no_url(text: str) -> None:
    """Anything else is refused by the name of the option, and not repeated."""
    with pytest.raises(AskError, match=r"^--url: is not the address of a listener") as caught:
        address(None, text, ("", ""))
    assert "canary" not in caught.value.message


def test_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the environment are not used."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with listening(rotated()) as server:
        assert ask_all(Address(url(server)))[0].counts[State.READY] == 1


# ── what it believes ──────────────────────────────────────────────────────────────────────────────────────────────────


def refused(script_url: str, timeout: float = LIMIT) -> str:
    """Why a server was not believed."""
    with pytest.raises(AskError) as caught:
        ask_all(Address(script_url, timeout=timeout))
    return caught.value.message


@pytest.mark.parametrize(
    "answer",
    [
        response(200, b"{}"),
        response(200, b'{"version": 2}'),
        response(200, b'{"version": 1}'),
        response(200, b"[1]"),
        response(200, b"<html>"),
        response(200, b"\xff\xfe"),
        response(200, b"[" * 100_000),
        response(404, b"Not Found\n", content_type="text/plain"),
        response(404, b'{"error": 1}'),
        response(503, b"no"),
        response(302, b"", ("Location: http://127.0.0.1:1/",)),
    ],
)
def test_other_servers_are_not_believed(answer: bytes) -> None:
    """What does not answer as the daemon does is refused in one line, and no redirect is followed."""
    with ScriptedServer(answers(answer)) as server:
        said = refused(server.url)
        assert re.fullmatch(r"\S+ answered \d+, and not as this version .* see what listens there, or give --url", said)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("key", "odd"),
    [
        ("expires_at", "0001-01-01T00:00:00+23:59"),
        ("safe_until", "9999-12-31T23:59:59-23:59"),
        ("rotate_at", "2026-01-01T00:00:00"),
        ("outage_tolerance_seconds", 10**400),
        ("outage_tolerance_seconds", "NaN"),
    ],
)
def test_moments_and_numbers_that_nobody_can_tell(key: str, odd: object) -> None:
    """A moment at the end of time, one without a zone, or a number without end is no answer of a daemon."""
    page = json.loads(STATUS.dump_json(rotated().page()))
    page["tokens"][0][key] = odd
    with ScriptedServer(answers(response(200, json.dumps(page).encode()))) as server:
        assert "not as this version of aca-tokend does" in refused(server.url)


@pytest.mark.parametrize("nonsense", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500])
def test_what_is_no_http(nonsense: bytes) -> None:
    """Something that speaks no HTTP is told of as such."""
    with ScriptedServer(answers(nonsense)) as server:
        assert "see what listens there, or give --url" in refused(server.url)


@pytest.mark.parametrize("framed", [b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n-5\r\n"])
def test_answer_without_end(framed: bytes) -> None:
    """An answer beyond the size that a page can have is cut off, also where a chunk has fewer than no bytes."""

    def endless(talk: Talk) -> None:
        talk.read_request()
        talk.send(b"HTTP/1.1 200 OK\r\n" + framed)
        piece = b"[" * 1_048_576
        for _ in range(MOST_BYTES // len(piece) + 2):
            talk.send(piece)

    with ScriptedServer(endless) as server:
        assert "answers without end" in refused(server.url)


@pytest.mark.parametrize("piece", [b"", b"H", b"HTTP/1.1 200 OK\r\n\r\n "])
def test_slow_servers(piece: bytes) -> None:
    """A server that is silent, or says a little all the time, is given up once the time is over."""

    def slow(talk: Talk) -> None:
        talk.read_request()
        if piece:
            talk.send(piece)
            talk.drip(b" ")
        talk.hang()

    with ScriptedServer(slow) as server:
        assert "no whole answer within 0.5 s; the daemon may hang" in refused(server.url, 0.5)


def test_nobody_answers() -> None:
    """Where nobody listens that is said, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert refused(f"http://127.0.0.1:{port}") == (
        f"http://127.0.0.1:{port}: nobody listens there; start the daemon, or give --url"
    )
    assert "see what listens there" in refused("http://nowhere.invalid:1")


def test_answer_of_a_later_daemon() -> None:
    """Fields that a later daemon added are no reason to refuse, and `--json` prints them."""
    page = json.loads(STATUS.dump_json(rotated().page()))
    page["later"] = page["tokens"][0]["later"] = "new"
    with ScriptedServer(answers(response(200, json.dumps(page).encode()))) as server:
        found, read = ask_all(Address(server.url))
    assert found.tokens[0].name == NAME
    assert read["later"] == "new"


def test_token_that_is_not_there() -> None:
    """A token that is not there is told by its name; a strange name asks for nothing else."""
    with listening(rotated()) as server:
        with pytest.raises(AskError, match=r"^nope is no token of this configuration; ask for all"):
            ask_one(Address(url(server)), "nope")
        for name in ("../../metrics", "a?page=1", "a b", "", "é"):
            with pytest.raises(AskError):
                ask_one(Address(url(server)), name)


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def served_over(context: ssl.SSLContext) -> ScriptedServer:
    return ScriptedServer(answers(response(200, STATUS.dump_json(rotated().page()))), context)


def test_the_very_certificate_is_believed(tmp_path: Path) -> None:
    """With the certificate of the configuration its names do not matter; another of the same authority is refused."""
    authority = Authority(tmp_path)
    context = authority.context("other.example.com")
    (ours,) = tmp_path.glob("server-*.pem")
    with served_over(context) as server:
        assert ask_all(Address(server.url, str(ours)))[0].daemon.tokens == 1
        with pytest.raises(AskError, match="is not trusted"):
            ask_all(Address(server.url))
        with pytest.raises(AskError, match=r"cannot be read, so nobody knows who answers"):
            ask_all(Address(server.url, str(tmp_path / "missing.pem")))
    with (
        served_over(authority.context("other.example.com")) as another,
        pytest.raises(AskError, match=r"shows another certificate than that in admin\.tls_cert"),
    ):
        ask_all(Address(another.url, str(ours)))
    assert not any(b"GET" in request for request in another.requests)


def test_no_tls_there(tmp_path: Path) -> None:
    """A listener without TLS that is asked over TLS is told of as that."""
    Authority(tmp_path).context("a")
    (ours,) = tmp_path.glob("server-*.pem")

    def in_plain_text(talk: Talk) -> None:
        talk.connection.recv(65536)
        talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with ScriptedServer(in_plain_text) as server, pytest.raises(AskError, match=r"no TLS there .*compare --url with"):
        ask_all(Address(server.url.replace("http:", "https:"), str(ours)))


def test_client_certificates(tmp_path: Path) -> None:
    """A listener that wants a client certificate is told of as that, and answers to one of its authority."""
    authority = Authority(tmp_path)
    authority.context("a")
    (pair,) = tmp_path.glob("server-*.pem")
    files = {"tls_cert": str(pair), "tls_key": str(pair), "tls_client_ca": str(authority.ca_file)}
    with listening(rotated(), **files) as server:
        where = Address(f"https://127.0.0.1:{server.port}", str(pair))
        with pytest.raises(AskError, match=r"where it has admin\.tls_client_ca, give --cert and --key"):
            ask_all(where)
        with pytest.raises(AskError, match="--cert: cannot use /nonexistent"):
            ask_all(replace(where, client=("/nonexistent", "")))
        assert ask_all(replace(where, client=(str(pair), "")))[0].daemon.tokens == 1


# ── what it prints ────────────────────────────────────────────────────────────────────────────────────────────────────


def evil() -> tuple[StatusPage, TokenPage]:
    """A status in which every text wants to take effect on a terminal."""
    trouble = {"step": Step.PUBLISH, "reason": Reason.DISK_FULL, "message": EVIL, "advice": EVIL}
    seen = rotated()
    page, alone = seen.page(), token_page(seen.subject(), NAME)
    assert isinstance(alone, TokenPage)
    token = replace(
        page.tokens[0],
        name=EVIL,
        state=State.FAILING,
        needs_a_person=True,
        summary=EVIL,
        endpoint=EVIL,
        authority=EVIL,
        username=EVIL,
        runbook=EVIL,
        last=LastResult(NOW, Result.FAILED, request_id=EVIL, **trouble),  # type: ignore[arg-type]  # as named
        suspended=Suspension(Reason.INVALID_GRANT, EVIL, EVIL),
        sinks=[SinkStatus(EVIL, "file", NOW, NOW, ok=False, **trouble)],  # type: ignore[arg-type]  # as above
        hooks=[HookStatus(EVIL, 3, **trouble)],  # type: ignore[arg-type]  # as above
    )
    server = {"name": EVIL, "summary": EVIL, "advice": EVIL, "needs_a_person": True}
    endpoints = [replace(page.endpoints[0], **server)]  # type: ignore[arg-type]  # as above
    vaults = [replace(page.vaults[0], **server)]  # type: ignore[arg-type]  # as above
    daemon = replace(page.daemon, problems=[EVIL], config=replace(page.daemon.config, ok=False, problems=[EVIL]))
    whole = replace(page, tokens=[token], endpoints=endpoints, vaults=vaults, daemon=daemon)
    return whole, replace(alone, token=token, endpoint=endpoints[0], vaults=vaults, daemon=daemon)


@pytest.mark.parametrize("width", [20, 80, 200])
def test_nothing_in_a_value_takes_effect(width: int) -> None:
    """No control character, markup, emoji or change of direction in any value reaches the terminal as such."""
    page, alone = evil()
    for text in (drawn(picture.page(page, width), width), drawn(picture.one(alone), width)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
        assert "[31m" in text.replace("\n", "").replace(" ", "")
        assert ":smile:" in text.replace("\n", "").replace(" ", "")


def token(name: str, state: State, **changes: object) -> TokenStatus:
    """A token as the daemon would tell of it."""
    ours = rotated().page().tokens[0]
    return replace(ours, name=name, state=state, **changes)  # type: ignore[arg-type]  # fields of TokenStatus


def test_worst_comes_first_and_what_is_well_is_counted() -> None:
    """Every token that is not well is listed, of the others as many as fit, and the rest is counted."""
    page = rotated().page()
    ill = [token(f"ill-{number}", State.FAILING) for number in range(45)]
    well = [token(f"well-{number}", State.READY) for number in range(100)]
    text = drawn(picture.page(replace(page, tokens=[*ill, *well], matching=5000), 100))
    assert all(f"ill-{number} " in text for number in range(45))
    assert "well-" not in text
    assert "… and 4955 more, no worse than the last of these" in text
    text = drawn(picture.page(replace(page, tokens=[*ill[:2], *well], matching=102), 100))
    assert ("well-37 " in text, "well-38 " in text) == (True, False)


def test_advice_that_is_said_above_is_not_repeated() -> None:
    """What to do about a server stands once above the tokens; what only one token needs stands with it."""
    seen = due(rotated())
    seen.bench.endpoint.broken = DOWN
    seen.bench.attempt()
    seen.bench.clock.advance(1200)
    text = drawn(picture.page(seen.page(), 100))
    assert text.count("→ nothing answers at this address") == 1
    lonely = due(rotated())
    lonely.bench.endpoint.broken = REFUSED
    lonely.bench.run_for(30)
    text = drawn(picture.page(lonely.page(), 200))
    assert "SUSPENDED" in text
    assert "→ check both, the Host it is reached by" in text


def test_bar_where_there_is_room() -> None:
    """A wide terminal shows how far each token has come; a narrow one does without."""
    seen = rotated()
    seen.bench.clock.advance(3600)
    assert "━" not in drawn(picture.page(seen.page(), 80), 80)
    wide = drawn(picture.page(seen.page(), 140), 140)
    assert "━━━━━━━━━━╸──┼──────" in wide
    late = token(NAME, State.FAILING, rotate_at=NOW, issued_at=NOW - timedelta(1), expires_at=NOW + timedelta(1))
    page = replace(seen.page(), tokens=[late], now=NOW + timedelta(5))
    assert "━━━━━━━━━━┿━━━━━━━━╸" in drawn(picture.page(page, 140), 140)
    none = replace(page, tokens=[token(NAME, State.STARTING, issued_at=None)])
    assert "····················" in drawn(picture.page(none, 140), 140)


def test_verdict() -> None:
    """The first line says whether somebody is needed, for how many tokens, and of which shard this is."""
    page = rotated().page()
    assert drawn(picture.page(page, 100)).startswith("nobody is needed  1 ready  at ")
    some = replace(page, need_a_person=1, needs_a_person=True)
    assert drawn(picture.page(some, 100)).startswith("1 of 1 token needs a person")
    other = replace(page, needs_a_person=True, daemon=replace(page.daemon, shard=2, shards=4))
    text = drawn(picture.page(other, 100))
    assert text.startswith("no token needs a person, but something else does")
    assert "shard 2 of 4" in text
    empty = replace(page, tokens=[], matching=0, counts={}, daemon=replace(page.daemon, tokens=0))
    assert drawn(picture.page(empty, 100)).startswith("nobody is needed  0 tokens")


def test_everything_of_one_token() -> None:
    """The details of a token have its times, its account, its last result and each of its places."""
    seen = due(rotated())
    seen.bench.endpoint.broken = REFUSED
    seen.bench.run_for(30)
    with listening(seen) as server:
        answer = ask(Address(url(server)), NAME, 100)
    text = drawn(answer.shown, 400)
    assert answer.code == 1
    for said in (
        "bookings  suspended  The server refused the username and password; readers are safe for",
        "rotation point",
        "svc-bookings of authority-1 at main",
        "invalid_grant; the server refused",
        "call `aca-tokend resume bookings`",
        "answered 400 invalid_grant; r-9",
        "vault:secret/aca/bookings",
        "ACACredentialsRejected",
    ):
        assert said in text


# ── as it is called ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_exit_codes(tmp_path: Path) -> None:
    """It exits 0 where nobody is needed, 1 where somebody is, 2 where nobody answers or the call is wrong."""
    seen = rotated()
    config = tmp_path / "config.toml"
    with listening(seen) as server:
        config.write_text(f'[admin]\nlisten = "127.0.0.1:{server.port}"\n{CONFIG}')
        well = call("status", "--config", str(config))
        unknown = call("status", "booking", "--url", url(server))
        due(seen).bench.endpoint.broken = REFUSED
        seen.bench.run_for(30)
        needed = call("status", "--url", url(server))
        alone = call("status", NAME, "--json", "--url", url(server))
    nobody = call("status", "--config", str(config))

    assert (well.returncode, well.stderr) == (0, "")
    assert well.stdout.splitlines()[0].startswith("nobody is needed  1 ready")
    assert all(line == line.rstrip() for line in well.stdout.splitlines())
    assert needed.returncode == 1
    assert "SUSPENDED  bookings  The server refused the username and password; readers are safe for" in needed.stdout
    assert (alone.returncode, json.loads(alone.stdout)["token"]["state"]) == (1, "suspended")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "booking is no token of this configuration" in unknown.stderr
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert "nobody listens there; start the daemon" in nobody.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--watch",), "--watch: needs a terminal"),
        (("--key", "/k.pem"), "--key: is of no use without --cert"),
        (("--url", "nowhere"), "--url: is not the address of a listener"),
        (("--config", "/nonexistent/config.toml"), "/nonexistent/config.toml"),
    ],
)
def test_wrong_calls(arguments: tuple[str, ...], said: str) -> None:
    """A call that is wrong exits 2 and says what would be right."""
    result = call("status", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr


def test_json_is_plain_ascii() -> None:
    """`--json` prints what was answered, with everything escaped that a terminal could take for more than text."""
    page = json.loads(STATUS.dump_json(evil()[0]))
    with ScriptedServer(answers(response(200, json.dumps(page, ensure_ascii=False).encode()))) as server:
        result = call("status", "--json", "--url", server.url)
    assert (result.returncode, json.loads(result.stdout)) == (0, page)
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout


def test_watch_goes_on_until_interrupted() -> None:
    """`--watch` shows what changed, says when nobody answers any more, and ends by Ctrl-C with the code of that."""
    seen = rotated()
    ours, theirs = pty.openpty()
    screen = bytearray()

    def read() -> None:  # to the end: a process whose terminal nobody reads stands still
        with contextlib.suppress(OSError):  # the terminal is closed
            while data := os.read(ours, 65_536):
                screen.extend(data)

    def wait_for(text: bytes) -> None:
        wait_until(lambda: text in screen, f"{text!r} on the screen")
        screen.clear()

    threading.Thread(target=read, daemon=True).start()
    with listening(seen) as server:
        command = [sys.executable, "-m", "aca_tokend", "status", "--watch", "--url", url(server)]
        environment = {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        try:
            wait_for(b"nobody is needed")
            due(seen).bench.endpoint.broken = REFUSED
            seen.bench.run_for(30)
            wait_for(b"SUSPENDED")
            server.stop()
            wait_for(b"nobody listens there")
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT) == 2
        finally:
            process.kill()
            process.wait()
            os.close(theirs)  # which ends the reader
