"""Grants and verifications over real connections, to a server that does what the test's script says."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import socket
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import pytest

from aca_tokend import __version__
from aca_tokend.acaengine.endpoint import HttpTokenEndpoint
from aca_tokend.core.config import EndpointConfig
from aca_tokend.core.errors import GrantError, VerifyError
from aca_tokend.core.grant import Credentials
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from tests.unit.scripted_server import Authority, ScriptedServer, Talk, answers, response, tunnels_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.scripted_server import Script

PASSWORD = "canary-p&ss+w%rd ß€"
CLIENT_SECRET = "canary-client=secret"
TOKEN = "canary-token-5d41402abc4b2a76"
CANARIES = (PASSWORD, CLIENT_SECRET, TOKEN, "canary")
CREDENTIALS = Credentials("svc bookings", Secret(PASSWORD), "authority-1", "client/1", Secret(CLIENT_SECRET), "")

# Short, for tests in which the server never answers; long, for those in which it must; and some, for a bit of both.
SHORT = 0.3
SOME = 2.0
LONG = 30.0


def token(value: str = TOKEN, *headers: str) -> bytes:
    return response(200, json.dumps({"access_token": value, "expires_in": 7200}).encode(), headers)


@contextmanager
def endpoint(url: str, **config: object) -> Iterator[HttpTokenEndpoint]:
    """An endpoint of the name `main`, closed at the end."""
    made = HttpTokenEndpoint("main", EndpointConfig.model_validate({"url": url, "timeout": LONG, **config}))
    try:
        yield made
    finally:
        made.close()


@contextmanager
def serving(script: Script, **config: object) -> Iterator[tuple[HttpTokenEndpoint, ScriptedServer]]:
    """A server without TLS, and an endpoint for it."""
    with ScriptedServer(script) as server, endpoint(server.url, **config) as main:
        yield main, server


def failed_grant(main: HttpTokenEndpoint) -> GrantError:
    """The error of a grant, after a look for the canaries in all that could be shown of it."""
    with pytest.raises(GrantError) as caught:
        main.grant(CREDENTIALS)
    check_nothing_is_shown(caught.value)
    return caught.value


def failed_verification(main: HttpTokenEndpoint, path: str = "/api/me") -> VerifyError:
    with pytest.raises(VerifyError) as caught:
        main.verify(path, Secret(TOKEN))
    check_nothing_is_shown(caught.value)
    return caught.value


def check_nothing_is_shown(error: Exception) -> None:
    shown = "".join((str(error), repr(error), *traceback.format_exception(error)))
    assert not any(canary in shown for canary in CANARIES)
    assert "acaengine.main" in str(error)


# What is sent


def test_a_grant_is_a_form_with_exactly_the_parameters() -> None:
    """The credential goes out as a form, whatever characters it has, with few and constant headers."""
    with serving(answers(token())) as (main, server):
        grant = main.grant(CREDENTIALS)
    head, _, body = server.requests[0].decode("ascii").partition("\r\n\r\n")
    assert parse_qsl(body, keep_blank_values=True, strict_parsing=True) == [
        ("grant_type", "password"),
        ("username", "svc bookings"),
        ("password", PASSWORD),
        ("authority", "authority-1"),
        ("client_id", "client/1"),
        ("client_secret", CLIENT_SECRET),
    ]
    line, *headers = head.split("\r\n")
    assert line == "POST /auth/oauth/token HTTP/1.1"
    assert sorted(header.lower() for header in headers) == sorted(
        (
            f"host: 127.0.0.1:{server.address[1]}",
            "accept: application/json",
            "accept-encoding: identity",
            "connection: keep-alive",
            f"user-agent: aca-tokend/{__version__}",
            "content-type: application/x-www-form-urlencoded",
            f"content-length: {len(body)}",
        )
    )
    assert (grant.access_token, grant.expires_in, grant.status) == (Secret(TOKEN), 7200, 200)


def test_the_scope_and_another_path_are_sent_where_configured() -> None:
    """A scope is the seventh parameter, and `token_path` is where the form goes."""
    scoped = Credentials("u", Secret("p"), "a", "c", Secret("s"), "public admin")
    with serving(answers(token()), token_path="/oauth2/token") as (main, server):
        assert main.grant(scoped).scope == "public admin"
    assert server.requests[0].startswith(b"POST /oauth2/token HTTP/1.1\r\n")
    assert server.requests[0].endswith(b"&scope=public+admin")


def test_a_verification_is_a_get_with_the_token() -> None:
    """The token is sent as `Bearer` to the configured path, its query too, and 2xx is a yes."""
    with serving(answers(response(204))) as (main, server):
        main.verify("/api/me?fields=id", Secret(TOKEN))
    head = server.requests[0].decode("ascii")
    assert head.startswith("GET /api/me?fields=id HTTP/1.1\r\n")
    assert f"\r\nAuthorization: Bearer {TOKEN}\r\n" in head


def test_no_path_leads_to_another_server() -> None:
    """A path that looks like an address is asked of the configured server."""
    with serving(answers(response(200))) as (main, server):
        main.verify("//elsewhere.example/x", Secret(TOKEN))
    assert server.requests[0].startswith(b"GET /elsewhere.example/x HTTP/1.1\r\n")


@pytest.mark.parametrize("value", ["", "two words", "line\nbreak", "ünicode", "\ud800"])
def test_a_token_that_no_header_can_hold_is_refused_unsent(value: str) -> None:
    """A token that would break the header is refused before anything is sent."""
    with endpoint("http://127.0.0.1:9") as main, pytest.raises(VerifyError) as caught:
        main.verify("/api/me", Secret(f"{value}"))
    assert caught.value.reason is Reason.TOKEN_REFUSED


def test_host_is_what_the_server_is_told() -> None:
    """The configured `host` replaces the address in the Host header, and is part of the account."""
    with serving(answers(token()), host="ACA.example.com:8443") as (main, server):
        main.grant(CREDENTIALS)
        assert main.host == "aca.example.com:8443"
    assert b"\r\nHost: aca.example.com:8443\r\n" in server.requests[0]
    assert b"127.0.0.1" not in server.requests[0]


@pytest.mark.parametrize(
    ("url", "host", "told"),
    [
        ("https://ACA.example.com", "", "aca.example.com"),
        ("https://aca.example.com:443", "", "aca.example.com"),
        ("https://aca.example.com:8443", "", "aca.example.com:8443"),
        ("https://10.0.0.1", "aca.example.com:443", "aca.example.com"),
        ("https://[::1]:8443", "", "[::1]:8443"),
    ],
)
def test_the_effective_host(url: str, host: str, told: str) -> None:
    """Without a `host` it is that of the address; case and the scheme's own port make no difference."""
    with endpoint(url, host=host) as main:
        assert (main.name, main.host) == ("main", told)


# What is not done


def test_redirects_are_not_followed() -> None:
    """A redirect is a failure, and nothing is sent to where it points."""
    with ScriptedServer(answers(token())) as other:
        away = response(307, b"", (f"Location: {other.url}/auth/oauth/token",))
        with serving(answers(away, away)) as (main, server):
            assert failed_grant(main).reason is Reason.REDIRECTED
            assert failed_verification(main).reason is Reason.REDIRECTED
    assert (len(server.requests), other.requests) == (2, [])


def test_cookies_are_neither_kept_nor_sent() -> None:
    """A cookie that a server sets comes back in no later request."""
    cookie = "Set-Cookie: session=abc; Path=/"
    with serving(answers(token(TOKEN, cookie), response(200, b"", (cookie,)), token())) as (main, server):
        main.grant(CREDENTIALS)
        main.verify("/api/me", Secret(TOKEN))
        main.grant(CREDENTIALS)
    assert len(server.requests) == 3
    assert not any(b"cookie" in request.lower() for request in server.requests)


def test_the_environment_is_not_consulted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither proxies nor a .netrc of the environment change where or how a request goes."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    (tmp_path / ".netrc").write_text("default login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with serving(answers(token())) as (main, server):
        main.grant(CREDENTIALS)
    assert b"authorization" not in server.requests[0].lower()


@pytest.mark.parametrize(
    "location",
    ["mailto:x", "https://xn--/", "/" + "x" * 65_000, f":http://h:{TOKEN}", "http://[", "\xff", "http://h:99999999"],
)
def test_where_a_redirect_points_is_not_read(location: str) -> None:
    """Whatever a redirect names is a redirect that is not followed, and nothing of it is shown."""
    away = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location.encode("latin-1") + b"\r\n\r\n"
    with serving(answers(away, away)) as (main, _):
        assert failed_grant(main).reason is Reason.REDIRECTED
        assert failed_verification(main).reason is Reason.REDIRECTED


@pytest.mark.parametrize(
    "header", [b"Date: \xff", b"Retry-After: \xb2", b"Set-Cookie: \xff=;expires=\xff", b"X-Request-Id: \xe9"]
)
def test_a_header_that_nobody_can_read_is_left_out(header: bytes) -> None:
    """A header outside of ASCII, or a cookie that is none, is as if it were not there."""
    with serving(answers(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n" + header + b"\r\n\r\n")) as (main, _):
        error = failed_grant(main)
    assert (error.reason, error.retry_after_seconds, error.request_id) == (Reason.UNAVAILABLE, None, None)


def test_nothing_secret_is_in_the_librarys_own_log(caplog: pytest.LogCaptureFixture) -> None:
    """Even at debug level httpx logs neither the form nor the token."""
    caplog.set_level(logging.DEBUG, "httpx")
    with serving(answers(token(), response(401))) as (main, _):
        main.grant(CREDENTIALS)
        failed_verification(main)
    assert caplog.records
    assert not any(canary in caplog.text for canary in CANARIES)


# What comes back


def test_what_the_server_says_beside_the_status_is_on_the_error() -> None:
    """An error carries status, request id, what the server asked for, and how far its clock is from ours."""
    headers = ("Retry-After: 17", "X-Request-Id: req-42", "Date: Thu, 01 Jan 1970 00:00:00 GMT")
    with serving(answers(response(429, b"slow down, canary", headers, "text/plain"))) as (main, server):
        error = failed_grant(main)
    assert (error.reason, error.status, error.retry_after_seconds) == (Reason.RATE_LIMITED, 429, 17.0)
    assert error.request_id == "req-42"
    assert error.skew_seconds is not None
    assert error.skew_seconds < -(10**9)
    place = f"acaengine.main (127.0.0.1:{server.address[1]}/auth/oauth/token)"
    assert str(error) == f"{place} answered 429"


def test_a_known_code_is_a_rejection() -> None:
    """An OAuth error over the wire becomes a rejection with its reason."""
    body = json.dumps({"error": "invalid_grant", "error_description": f"canary {PASSWORD}"}).encode()
    with serving(answers(response(400, body, ('WWW-Authenticate: Bearer realm="canary"',)))) as (main, _):
        error = failed_grant(main)
    assert (type(error), error.reason) == (GrantError, Reason.INVALID_GRANT)


@pytest.mark.parametrize(("status", "reason"), [(401, Reason.TOKEN_REFUSED), (500, Reason.SERVER_ERROR)])
def test_a_failed_verification_has_its_reason(status: int, reason: Reason) -> None:
    """A token that is refused is told from a server that fails."""
    with serving(answers(response(status, b'{"error":"logged out, canary"}', ("X-Request-Id: r-1",)))) as (main, _):
        error = failed_verification(main, "/api/me?key=canary")
    assert (error.reason, error.request_id) == (reason, "r-1")


def endless(status: int) -> Script:
    """A body that never ends, sent as fast as it is taken."""

    def script(talk: Talk) -> None:
        talk.read_request()
        talk.send(f"HTTP/1.1 {status} Whatever\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while not talk.server.stopping.is_set():
            talk.send(b"1000\r\n" + b"canary. " * 512 + b"\r\n")

    return script


def test_a_body_without_end_is_read_only_so_far() -> None:
    """Of an endless 200 a bounded amount is read; it is a malformed answer, and the connection is given up."""
    with serving(endless(200)) as (main, server):
        errors = [failed_grant(main) for _ in range(2)]
    assert {(type(error), error.reason) for error in errors} == {(GrantError, Reason.RESPONSE_TOO_LARGE)}
    assert server.connections == 2


def test_an_endless_error_page_is_an_ordinary_failure() -> None:
    """The status decides, however long the page that comes with it."""
    with serving(endless(503)) as (main, _):
        assert failed_grant(main).reason is Reason.UNAVAILABLE


def test_a_body_is_not_unpacked() -> None:
    """A compressed body, which nobody asked for, is not unpacked: a small one could become a huge one."""
    body = gzip.compress(json.dumps({"access_token": TOKEN}).encode())
    packed = response(200, body, ("Content-Encoding: gzip",))
    with serving(answers(packed)) as (main, _):
        assert failed_grant(main).reason is Reason.NOT_JSON


# What takes too long


def silent(talk: Talk) -> None:
    talk.read_request()
    talk.hang()


def dripping_headers(talk: Talk) -> None:
    talk.read_request()
    talk.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    talk.drip(b"a")


def dripping_interim_responses(talk: Talk) -> None:
    talk.read_request()
    talk.drip(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def dripping_body(talk: Talk) -> None:
    talk.read_request()
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    talk.drip(b"a")


def unanswered_handshake(talk: Talk) -> None:
    talk.connection.recv(65536)
    talk.hang()


def dripping_handshake(talk: Talk) -> None:
    talk.connection.recv(65536)
    talk.send(b"\x16\x03\x03\x40\x00")  # a record of 16 KB follows
    talk.drip(b"\x02")


@pytest.mark.parametrize("script", [silent, dripping_headers, dripping_interim_responses, dripping_body])
def test_a_slow_server_cannot_hold_us(script: Script) -> None:
    """A server that says nothing, or a byte now and then, is given up when the whole request's time is over."""
    with serving(script, timeout=SHORT) as (main, _):
        error = failed_grant(main)
        assert (type(error), error.reason, error.status) == (GrantError, Reason.TIMEOUT, None)
        assert str(error).endswith("no whole answer within 0.3 s")


def test_a_slow_verification_cannot_hold_us() -> None:
    """The time for the whole request holds for a verification too."""
    with serving(dripping_headers, timeout=SHORT) as (main, _):
        assert failed_verification(main).reason is Reason.TIMEOUT


@pytest.mark.parametrize("script", [unanswered_handshake, dripping_handshake])
def test_a_slow_handshake_cannot_hold_us(script: Script) -> None:
    """The time for the whole request covers TLS."""
    with ScriptedServer(script) as server, endpoint(server.url.replace("http", "https"), timeout=SHORT) as main:
        assert failed_grant(main).reason is Reason.TIMEOUT


def test_where_the_status_is_known_it_counts() -> None:
    """A refusal whose page never ends arriving is still a refusal: the credential must not be tried again at once."""

    def script(talk: Talk) -> None:
        talk.read_request()
        talk.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 60000\r\n\r\n<html>")
        talk.drip(b"a")

    with serving(script, timeout=SOME) as (main, _):
        error = failed_grant(main)
    assert (type(error), error.reason, error.status) == (GrantError, Reason.UNAUTHORIZED, 401)


def test_a_failed_request_leaves_its_place_to_others() -> None:
    """After a timeout its place in the pool is free again, and the next request has the whole time."""

    def script(talk: Talk) -> None:
        if talk.server.connections == 1:
            silent(talk)
        else:
            answers(token())(talk)

    with serving(script, timeout=SOME, max_concurrency=1) as (main, _):
        assert failed_grant(main).reason is Reason.TIMEOUT
        assert main.grant(CREDENTIALS).status == 200


# What breaks


def test_nobody_listens() -> None:
    """A refused connection is named as such."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with endpoint(f"http://127.0.0.1:{port}") as main:
        error = failed_grant(main)
        assert failed_verification(main).reason is Reason.CONNECT_FAILED
    assert (type(error), error.reason) == (GrantError, Reason.CONNECT_FAILED)
    assert str(error).endswith("no connection: connection refused")


def test_a_name_that_cannot_be_resolved() -> None:
    """A host that is not found has a reason of its own."""
    with endpoint(f"https://{'a' * 64}.example") as main:
        error = failed_grant(main)
    assert (type(error), error.reason) == (GrantError, Reason.NAME_NOT_RESOLVED)


def echoed(talk: Talk) -> None:
    """Sends back the form, secrets and all, where a status line belongs."""
    request = talk.read_request() or b""
    talk.send(request.partition(b"\r\n\r\n")[2] + b"\r\n\r\n")


def echoed_in_header(talk: Talk) -> None:
    """Sends back the form where a header belongs."""
    request = talk.read_request() or b""
    talk.send(b"HTTP/1.1 200 OK\r\n" + request.partition(b"\r\n\r\n")[2] + b"\r\n\r\n")


def closed_at_once(talk: Talk) -> None:
    talk.read_request()


def closed_in_headers(talk: Talk) -> None:
    talk.read_request()
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Le")


def closed_in_body(talk: Talk) -> None:
    talk.read_request()
    talk.send(token()[:-10])


def reset(talk: Talk) -> None:
    talk.read_request()
    talk.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def endless_header(talk: Talk) -> None:
    talk.read_request()
    talk.send(b"HTTP/1.1 200 OK\r\nX-Long: " + b"canary. " * 64 * 1024)


@pytest.mark.parametrize(
    "script", [closed_at_once, closed_in_headers, closed_in_body, reset, echoed, echoed_in_header, endless_header]
)
def test_a_broken_answer_is_a_lost_connection(script: Script) -> None:
    """What ends early or is not HTTP is a lost connection, and what the server sent back is not shown."""
    with serving(script) as (main, _):
        error = failed_grant(main)
        assert (type(error), error.reason) == (GrantError, Reason.CONNECTION_LOST)
        assert "connection ended before a whole answer" in str(error)


def test_a_verification_needs_no_more_than_the_status() -> None:
    """A 200 whose body breaks off says that the token works all the same."""
    with serving(closed_in_body) as (main, _):
        main.verify("/api/me", Secret(TOKEN))


# Connections


def test_connections_are_kept_and_shared() -> None:
    """One request after another goes over one connection."""
    with serving(answers(token(), token(), response(200))) as (main, server):
        main.grant(CREDENTIALS)
        main.grant(CREDENTIALS)
        main.verify("/api/me", Secret(TOKEN))
    assert (len(server.requests), server.connections) == (3, 1)


def test_a_connection_that_the_server_closed_is_not_used() -> None:
    """A kept connection that was closed meanwhile is noticed before anything is sent, and costs no failure."""
    with serving(answers(token(), token(), keep_open=False)) as (main, server):
        main.grant(CREDENTIALS)
        server.wait_until_closed(1)
        assert main.grant(CREDENTIALS).status == 200
    assert server.connections == 2


def test_an_answer_is_never_that_of_another_request() -> None:
    """A second response that came with the first is not taken for the next account's: it would get another's token."""
    with serving(answers(token("a-first") + token("a-second"), token("b-own"))) as (main, server):
        assert main.grant(CREDENTIALS).access_token == Secret("a-first")
        assert main.grant(CREDENTIALS).access_token == Secret("b-own")
    assert server.connections == 2


def test_as_many_requests_at_once_as_configured() -> None:
    """With `max_concurrency` threads none waits for another's connection."""
    together = threading.Barrier(4)

    def script(talk: Talk) -> None:
        for _ in range(5):
            if talk.read_request() is None:
                return
            together.wait(timeout=30)
            talk.send(token())

    with serving(script, max_concurrency=4) as (main, server), ThreadPoolExecutor(4) as pool:
        grants = list(pool.map(main.grant, [CREDENTIALS] * 20))
    assert [grant.status for grant in grants] == [200] * 20
    assert server.connections <= 8


# TLS


def test_the_private_authority_and_the_name_are_checked(tmp_path: Path) -> None:
    """With `ca_file` and `host` the server at another address is known by its certificate; SNI asks for that name."""
    authority = Authority(tmp_path)
    asked: list[str | None] = []
    tls = authority.context("aca.example.com")
    tls.sni_callback = lambda _, name, __: asked.append(name)
    with (
        ScriptedServer(answers(token(), token()), tls) as server,
        endpoint(server.url, ca_file=str(authority.ca_file), host="aca.example.com:8443") as main,
    ):
        assert main.grant(CREDENTIALS).status == 200
        assert main.grant(CREDENTIALS).status == 200
    assert asked == ["aca.example.com"]
    assert server.connections == 1


def test_an_address_is_a_name_too(tmp_path: Path) -> None:
    """Without `host` the certificate must be of the address in `url`."""
    authority = Authority(tmp_path)
    with (
        ScriptedServer(answers(token()), authority.context("127.0.0.1")) as server,
        endpoint(server.url, ca_file=str(authority.ca_file)) as main,
    ):
        assert main.grant(CREDENTIALS).status == 200


@pytest.mark.parametrize(
    ("names", "valid_for", "problem"),
    [
        (("other.example.com", "127.0.0.1"), timedelta(days=1), "Hostname mismatch, certificate is not valid for"),
        (("aca.example.com",), timedelta(days=-1), "certificate has expired"),
    ],
)
def test_a_certificate_that_does_not_hold(
    tmp_path: Path, names: tuple[str, ...], valid_for: timedelta, problem: str
) -> None:
    """A certificate of another name (the address does not count beside `host`) or an expired one is refused, unsent."""
    authority = Authority(tmp_path)
    with (
        ScriptedServer(answers(token()), authority.context(*names, valid_for=valid_for)) as server,
        endpoint(server.url, ca_file=str(authority.ca_file), host="aca.example.com") as main,
    ):
        error = failed_grant(main)
    assert (type(error), error.reason) == (GrantError, Reason.TLS_FAILED)
    assert f"TLS failed: {problem}" in str(error)
    assert server.requests == []


def test_the_public_authorities_do_not_know_a_private_one(tmp_path: Path) -> None:
    """Without `ca_file` a private authority is not trusted, and with it no other one."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "another")
    with ScriptedServer(answers(token()), authority.context("127.0.0.1")) as server:
        for ca_file in ("", str(other.ca_file)):
            with endpoint(server.url, ca_file=ca_file) as main:
                error = failed_grant(main)
                assert error.reason is Reason.TLS_FAILED
                assert "unable to get local issuer certificate" in str(error)
    assert server.requests == []


def test_a_ca_file_is_read_when_it_is_there(tmp_path: Path) -> None:
    """A missing or broken `ca_file` fails the grant, not the daemon; once it is right, or replaced, it is taken up."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "another")
    ca_file = tmp_path / "mounted.pem"
    with (
        ScriptedServer(answers(*[token()] * 2, keep_open=False), authority.context("127.0.0.1")) as server,
        endpoint(server.url, ca_file=str(ca_file), max_concurrency=1) as main,
    ):
        error = failed_grant(main)
        assert (type(error), error.reason) == (GrantError, Reason.TLS_FAILED)
        assert str(error).endswith(f"ca_file {ca_file}: No such file or directory")
        ca_file.write_text("not a certificate\n")
        assert str(failed_grant(main)).endswith(f"ca_file {ca_file}: holds no certificate that can be read")
        for source, works in ((authority, True), (other, False), (authority, True)):
            shutil.copy(source.ca_file, tmp_path / "next.pem")
            (tmp_path / "next.pem").replace(ca_file)
            if works:
                before = server.closed
                assert main.grant(CREDENTIALS).status == 200
                server.wait_until_closed(before + 1)
            else:
                assert failed_grant(main).reason is Reason.TLS_FAILED


def test_a_server_that_does_not_speak_tls() -> None:
    """https:// to a plain server is a TLS failure, as is one that hangs up on the handshake."""

    def plain(talk: Talk) -> None:
        talk.connection.recv(65536)
        talk.send(response(400))

    def hangs_up(talk: Talk) -> None:
        talk.connection.recv(65536)

    for script in (plain, hangs_up):
        with ScriptedServer(script) as server, endpoint(server.url.replace("http", "https")) as main:
            assert failed_grant(main).reason is Reason.TLS_FAILED


# Proxies


def test_a_plain_request_goes_through_the_proxy() -> None:
    """With a `proxy` the request for an http:// server goes to the proxy, with the server's whole address."""
    with ScriptedServer(answers(token())) as proxy, endpoint("http://127.0.0.1:9", proxy=proxy.url) as main:
        assert main.grant(CREDENTIALS).status == 200
    assert proxy.requests[0].startswith(b"POST http://127.0.0.1:9/auth/oauth/token HTTP/1.1\r\n")


def test_tls_goes_through_the_proxy_to_the_named_server(tmp_path: Path) -> None:
    """Through a tunnel the certificate must be of `host`; the proxy learns the address and no secret."""
    authority = Authority(tmp_path)
    config = {"ca_file": str(authority.ca_file), "host": "aca.example.com"}
    with (
        ScriptedServer(answers(token(), token()), authority.context("aca.example.com")) as server,
        ScriptedServer(tunnels_to(server.address)) as proxy,
        endpoint("https://in-cluster.example:8443", proxy=proxy.url, **config) as main,
    ):
        assert main.grant(CREDENTIALS).status == 200
        assert main.grant(CREDENTIALS).status == 200
    assert len(proxy.requests) == 1
    assert proxy.requests[0].startswith(b"CONNECT in-cluster.example:8443 HTTP/1.1\r\n")
    assert b"canary" not in proxy.requests[0]
    assert b"\r\nHost: aca.example.com\r\n" in server.requests[0]


def test_an_encrypted_proxy_is_known_by_its_own_name(tmp_path: Path) -> None:
    """The certificate of an https:// proxy must be the proxy's, and that of the server behind it the server's."""
    authority = Authority(tmp_path)
    with (
        ScriptedServer(answers(token()), authority.context("aca.example.com")) as server,
        ScriptedServer(tunnels_to(server.address), authority.context("127.0.0.1")) as proxy,
        endpoint(
            "https://10.255.255.1", proxy=proxy.url, ca_file=str(authority.ca_file), host="aca.example.com"
        ) as main,
    ):
        assert main.grant(CREDENTIALS).status == 200


def test_failures_in_a_tunnel_use_up_no_connection(tmp_path: Path) -> None:
    """TLS that fails behind a proxy, more often than there are places in the pool, leaves them free."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "another")
    ca_file = tmp_path / "mounted.pem"
    shutil.copy(other.ca_file, ca_file)
    with (
        ScriptedServer(answers(token()), authority.context("127.0.0.1")) as server,
        ScriptedServer(tunnels_to(server.address)) as proxy,
        endpoint(server.url, proxy=proxy.url, ca_file=str(ca_file), max_concurrency=2) as main,
    ):
        assert [failed_grant(main).reason for _ in range(5)] == [Reason.TLS_FAILED] * 5
        shutil.copy(authority.ca_file, tmp_path / "next.pem")
        (tmp_path / "next.pem").replace(ca_file)
        assert main.grant(CREDENTIALS).status == 200


@pytest.mark.parametrize("status", [407, 403, 502])
def test_a_proxy_that_refuses(status: int) -> None:
    """A proxy that does not connect us is named as the cause, without its own words."""
    refusal = f"HTTP/1.1 {status} canary\r\nContent-Length: 0\r\n\r\n".encode()
    with ScriptedServer(answers(*[refusal] * 3)) as proxy, endpoint("https://127.0.0.1:9", proxy=proxy.url) as main:
        error = failed_grant(main)
        assert failed_verification(main).reason is Reason.PROXY_FAILED
    assert (type(error), error.reason) == (GrantError, Reason.PROXY_FAILED)


def test_a_proxy_that_is_down() -> None:
    """A proxy that nobody answers at is named as the cause, and not the server behind it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with endpoint("https://127.0.0.1:9", proxy=f"http://127.0.0.1:{port}") as main:
        error = failed_grant(main)
    assert error.reason is Reason.PROXY_FAILED
    assert str(error).endswith("the proxy: no connection: connection refused")


def test_a_proxy_whose_certificate_does_not_hold(tmp_path: Path) -> None:
    """TLS that fails with the proxy is the proxy's failure, and not the server's behind it."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "another")
    with (
        ScriptedServer(lambda _: None, other.context("127.0.0.1")) as proxy,
        endpoint("https://127.0.0.1:9", proxy=proxy.url, ca_file=str(authority.ca_file)) as main,
    ):
        error = failed_grant(main)
    assert error.reason is Reason.PROXY_FAILED
    assert str(error).endswith("the proxy: TLS failed: unable to get local issuer certificate")


def test_a_proxy_that_hangs() -> None:
    """The time for the whole request covers the proxy."""
    with ScriptedServer(silent) as proxy, endpoint("https://127.0.0.1:9", proxy=proxy.url, timeout=SHORT) as main:
        assert failed_grant(main).reason is Reason.TIMEOUT
