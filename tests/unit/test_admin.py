"""The admin listener, asked over real sockets."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask

from aca_tokend import log
from aca_tokend.admin import OTHER_HOST, AdminServer
from aca_tokend.core.config import AdminConfig
from aca_tokend.core.errors import TokendError
from aca_tokend.core.health import Check
from tests.certificates import make, private
from tests.fakes import log_bug

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CANARY = "canary-8f14e45f"
LIMIT = 30.0  # seconds that nothing here should come near
MANY = 15  # more than there are pages made at once


LOADED = """
import sys, urllib.error, urllib.request
from aca_tokend.admin import AdminServer
from aca_tokend.core.config import AdminConfig
from aca_tokend.core.health import Check

def ask(path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}").status
    except urllib.error.HTTPError as error:
        return error.code

def loaded():
    return sorted({"flask", "jinja2", "werkzeug"} & set(sys.modules))

unready = [Check("tokens", "one is not ready")]
config = AdminConfig(listen="127.0.0.1:0")
server = AdminServer(config, lambda *_: (b"", "text/plain"), list, lambda: unready, on_error=print)
server.start()
print(ask("/metrics"), ask("/-/ready"), loaded(), ask("/else"), loaded())
server.stop()
"""


@dataclass
class Parts:
    """What the daemon hands to the listener, changed by hand."""

    problems: list[Check] = field(default_factory=list)
    pending: list[Check] = field(default_factory=list)
    accepts: list[str] = field(default_factory=list)
    hold: Callable[[], None] = lambda: None

    def metrics(self, accept: str, compressed: bool) -> tuple[bytes, str]:
        self.accepts.append(accept)
        self.hold()
        return gzip.compress(b"up 1\n") if compressed else b"up 1\n", "text/plain; version=0.0.4; charset=utf-8"


@contextlib.contextmanager
def serving(parts: Parts, **config: object) -> Iterator[AdminServer]:
    settings = AdminConfig.model_validate({"listen": "127.0.0.1:0"} | config)
    server = AdminServer(settings, parts.metrics, lambda: parts.problems, lambda: parts.pending, on_error=log_bug)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str


def ask(
    server: AdminServer,
    path: str,
    method: str = "GET",
    *,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    connection: http.client.HTTPConnection
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=LIMIT, context=tls)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        text = response.read().decode()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)


def send(server: AdminServer, text: bytes) -> bytes:
    """Sends bytes as they are and returns the whole answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        return answer


@pytest.fixture(scope="module")
def shared() -> Iterator[AdminServer]:
    """A listener with nothing to tell, for the tests that change nothing."""
    with serving(Parts()) as server:
        yield server


# ── the pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_metrics_page_is_what_it_was_given() -> None:
    """`/metrics` answers with the page and content type it was handed for the client's Accept header."""
    parts = Parts()
    with serving(parts) as server:
        answer = ask(server, "/metrics?x=1", headers={"Accept": "application/openmetrics-text"})

    assert (answer.status, answer.body) == (200, "up 1\n")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert parts.accepts == ["application/openmetrics-text"]


def test_metrics_page_is_compressed_for_who_takes_it() -> None:
    """A scraper that accepts gzip, as Prometheus does, gets the page so, and one that refuses it does not."""
    with (
        serving(Parts()) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client,
    ):
        packed = client.get("/metrics", headers={"Accept-Encoding": "gzip"})
        plain = client.get("/metrics", headers={"Accept-Encoding": "gzip;q=0, identity"})

    assert (packed.headers["content-encoding"], packed.text) == ("gzip", "up 1\n")
    assert ("content-encoding" in plain.headers, plain.text) == (False, "up 1\n")


@pytest.mark.parametrize(("path", "well"), [("/-/healthy", "healthy\n"), ("/-/ready", "ready\n")])
def test_verdict_when_all_is_well(shared: AdminServer, path: str, well: str) -> None:
    """With no problem a probe gets 200 and one word."""
    answer = ask(shared, path)

    assert (answer.status, answer.body) == (200, well)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_problems_are_told_one_a_line() -> None:
    """With problems each probe gets 503 and its own problems, one a line, without names."""
    parts = Parts(
        problems=[Check("attempts", "1 overdue", ("token a",)), Check("calls", "1 pool hangs", ("pool file",))],
        pending=[Check("tokens", "1 of 2 not looked at yet", ("b",))],
    )
    with serving(parts) as server:
        healthy, ready = ask(server, "/-/healthy"), ask(server, "/-/ready?other=1")

    assert (healthy.status, healthy.body) == (503, "attempts: 1 overdue\ncalls: 1 pool hangs\n")
    assert (ready.status, ready.body) == (503, "tokens: 1 of 2 not looked at yet\n")


def test_verbose_probes_list_every_check() -> None:
    """With `?verbose` a probe lists each check, well or not, with the names of those concerned."""
    parts = Parts(problems=[Check("scheduler"), Check("attempts", "2 overdue", ("token a", "token b"))])
    with serving(parts) as server:
        bad = ask(server, "/-/healthy?verbose")
        parts.problems = [Check("scheduler"), Check("attempts")]
        well = ask(server, "/-/healthy?verbose=1")

    assert (bad.status, well.status) == (503, 200)
    assert bad.body == "[+]scheduler ok\n[-]attempts failed: 2 overdue: token a, token b\nnot healthy\n"
    assert well.body == "[+]scheduler ok\n[+]attempts ok\nhealthy\n"


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready"])
def test_head_has_no_body(shared: AdminServer, path: str) -> None:
    """HEAD is answered like GET, with the length of the body and without the body."""
    get, head = ask(shared, path), ask(shared, path, "HEAD")

    assert head.status == 200
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))
    assert head.body == ""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "NONSENSE"])
def test_other_methods_are_refused(shared: AdminServer, method: str) -> None:
    """Anything but GET and HEAD gets 405 and is told what is allowed."""
    answer = ask(shared, "/metrics", method)

    assert answer.status == 405
    assert sorted(answer.headers["allow"].split(", ")) == ["GET", "HEAD"]
    assert "up 1" not in answer.body


@pytest.mark.parametrize(
    "path", ["/metrics/", "/metrics%20", "/-//healthy", "/static/x", "/favicon.ico", "/..%2fetc/passwd", "/%ff%00"]
)
def test_other_paths_are_not_found(shared: AdminServer, path: str) -> None:
    """Any other path gets 404, in plain text that repeats nothing of the request."""
    answer = ask(shared, path)

    assert (answer.status, answer.body) == (404, "Not Found\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/nowhere"])
def test_headers_give_nothing_away(shared: AdminServer, path: str) -> None:
    """No answer names a version of what serves it; none may be cached, sniffed, framed or used by another site."""
    answer = ask(shared, path)

    assert answer.headers["server"] == "aca-tokend"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9464", "[::1]:9464", "[::1]", "localhost", "LocalHost.:9464", "a.localhost", "10.1.2.3"],
)
def test_hosts_that_are_ours(shared: AdminServer, host: str) -> None:
    """On a loopback address names that can only be the machine itself, and addresses, are answered."""
    assert ask(shared, "/-/healthy", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9464", "localhost.evil.example", "127.0.0.1.nip.example", "x]:1"]
)
def test_hosts_that_are_not_ours(shared: AdminServer, host: str) -> None:
    """A name that a web page had pointed at the loopback address (DNS rebinding) gets no page, but a hint."""
    answer = ask(shared, "/metrics", headers={"Host": host})

    assert (answer.status, answer.body) == (421, f"{OTHER_HOST}\n")


def test_any_host_where_others_may_come() -> None:
    """Where it listens for other machines, any name is answered."""
    with serving(Parts(), listen="0.0.0.0:0") as server:
        assert ask(server, "/-/healthy", headers={"Host": "tokend.example"}).status == 200


def test_pages_handed_over_are_served() -> None:
    """Further pages are served beside, with headers of their own where they set some."""

    def pages(app: Flask) -> None:
        headers = {"Content-Security-Policy": "default-src 'self'"}
        app.add_url_rule("/more", "more", lambda: ("more\n", 200, headers), methods=["GET"])

    settings = AdminConfig.model_validate({"listen": "127.0.0.1:0"})
    server = AdminServer(settings, Parts().metrics, list, list, pages, on_error=log_bug)
    server.start()
    try:
        answer = ask(server, "/more")
    finally:
        server.stop()

    assert (answer.status, answer.body) == (200, "more\n")
    assert answer.headers["content-security-policy"] == "default-src 'self'"
    assert answer.headers["cache-control"] == "no-store"


def test_bug_in_a_page_shows_no_traceback() -> None:
    """A page that fails answers 500 in two words; the log has the place in the code, and neither text nor values."""
    stream = io.StringIO()
    log.configure("debug", "json", stream)

    def fail() -> None:
        password = CANARY
        raise RuntimeError(password)

    with serving(Parts(hold=fail)) as server:
        answer = ask(server, "/metrics")
        assert ask(server, "/-/healthy").status == 200

    assert (answer.status, answer.body) == (500, "Internal Server Error\n")
    line = next(json.loads(text) for text in stream.getvalue().splitlines() if "internal_error" in text)
    assert (line["event"], line["level"], line["page"]) == ("internal_error", "error", "/metrics")
    assert line["error_type"] == "RuntimeError"
    assert line["trace"][-1].startswith("test_admin.py:")
    assert CANARY not in stream.getvalue()


def test_flask_debug_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLASK_DEBUG in the environment does not turn tracebacks on."""
    monkeypatch.setenv("FLASK_DEBUG", "1")

    def fail() -> str:
        raise RuntimeError(CANARY)

    stream = io.StringIO()
    log.configure("error", "json", stream)
    settings = AdminConfig.model_validate({"listen": "127.0.0.1:0"})
    pages = partial(Flask.add_url_rule, rule="/<name>", endpoint="fail", view_func=lambda name: fail() + name)
    server = AdminServer(settings, Parts().metrics, list, list, pages, on_error=log_bug)
    server.start()
    try:
        assert ask(server, f"/{CANARY}").body == "Internal Server Error\n"
    finally:
        server.stop()
    line = json.loads(stream.getvalue())
    assert (line["page"], line["error_type"]) == ("/<name>", "RuntimeError")
    assert CANARY not in stream.getvalue()


def test_flask_is_loaded_with_the_first_page() -> None:
    """Probes and scrapers are answered without what only the pages for people need."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["200", "503", "[]", "404", "['flask',", "'jinja2',", "'werkzeug']"]


# ── listening, stopping ───────────────────────────────────────────────────────────────────────────────────────────────


def test_port_in_use_names_the_key() -> None:
    """A port that is taken is an expected error that names admin.listen and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TokendError) as caught, serving(Parts(), listen=listen):
            pass

    assert str(caught.value) == (
        f"admin.listen: cannot listen on {listen}: Address already in use; "
        "stop what listens there or set another address"
    )


@pytest.mark.parametrize("host", ["nowhere.invalid", "x" * 64])
def test_name_that_does_not_resolve(host: str) -> None:
    """A name that does not resolve, or cannot, is an expected error that names admin.listen."""
    with pytest.raises(TokendError, match=rf"^admin\.listen: cannot listen on {host}:0: \w"):
        AdminServer(AdminConfig(listen=f"{host}:0"), Parts().metrics, list, list, on_error=log_bug).start()


def test_address_that_is_not_ours() -> None:
    """An address of another machine is an expected error that names admin.listen."""
    with pytest.raises(TokendError, match=r"^admin\.listen: cannot listen on 192\.0\.2\.1:0: "):
        AdminServer(AdminConfig(listen="192.0.2.1:0"), Parts().metrics, list, list, on_error=log_bug).start()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "0.0.0.0:0", "[::1]:0", "[::]:0"])
def test_addresses(listen: str) -> None:
    """IPv4, IPv6 and names can be listened on; a name that stands for both, and `[::]`, are reached over IPv4 too."""
    if ":" in listen.rpartition(":")[0] and not has_ipv6():
        pytest.skip("no IPv6 here")
    host = "::1" if listen == "[::1]:0" else "127.0.0.1"
    with serving(Parts(), listen=listen) as server, socket.create_connection((host, server.port), LIMIT) as client:
        client.sendall(b"GET /-/ready HTTP/1.0\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_stop_frees_the_port() -> None:
    """After `stop` nobody listens, and the port can be taken again; stopping twice does no harm."""
    with serving(Parts()) as server:
        port = server.port
        assert ask(server, "/-/ready").status == 200
        server.stop()
        server.stop()

    with socket.create_server(("127.0.0.1", port)):
        pass


def test_stop_right_after_start() -> None:
    """A listener that is stopped before it served anything stops."""
    with serving(Parts()) as server:
        port = server.port

    with socket.create_server(("127.0.0.1", port)):
        pass


def test_stop_does_not_wait_for_a_page_that_hangs() -> None:
    """`stop` returns while a page hangs and a client holds a connection open, and no thread keeps the process alive."""
    began, released = threading.Event(), threading.Event()
    others = set(threading.enumerate())

    def hang() -> None:
        began.set()
        released.wait(LIMIT)

    with serving(Parts(hold=hang)) as server, socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert began.wait(LIMIT)
        server.stop()
        assert not released.is_set()
        ours = set(threading.enumerate()) - others
        assert all(thread.daemon for thread in ours)
        released.set()
    for thread in ours:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_scrapes_at_once() -> None:
    """More clients than threads, asking at once over connections kept open, are all answered."""
    parts = Parts()
    failures: list[BaseException] = []

    def scrape(port: int) -> None:
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)) as connection:
                for _ in range(10):
                    connection.request("GET", "/metrics")
                    assert connection.getresponse().read() == b"up 1\n"
        except BaseException as error:  # noqa: BLE001 -- told of in the test's own thread
            failures.append(error)

    with serving(parts) as server:
        threads = [threading.Thread(target=scrape, args=(server.port,)) for _ in range(MANY)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)

    assert failures == []
    assert len(parts.accepts) == MANY * 10


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Certificates:
    """A certification authority, a server's and a client's certificate, and those of a stranger, as files."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]
    stranger: tuple[Path, Path]

    def trusting(self, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
        if client:
            context.load_cert_chain(*client)
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority = make(folder, "ca")
    other = make(folder, "other-ca")
    return Certificates(
        ca=authority.files[0],
        server=make(folder, "server", authority).files,
        client=make(folder, "client", authority).files,
        stranger=make(folder, "stranger", other).files,
    )


def test_tls(certificates: Certificates) -> None:
    """With a certificate the pages are served over TLS, 1.2 at least."""
    cert, key = map(str, certificates.server)
    with serving(Parts(), tls_cert=cert, tls_key=key) as server:
        answers = [ask(server, "/metrics", tls=certificates.trusting()) for _ in range(3)]
        old = certificates.trusting()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        answers.append(ask(server, "/metrics", tls=old))

    assert [answer.body for answer in answers] == ["up 1\n"] * 4


def test_plain_http_on_the_tls_port(certificates: Certificates) -> None:
    """A client that speaks plain HTTP to the TLS port gets no page, and the listener goes on."""
    cert, key = map(str, certificates.server)
    with serving(Parts(), tls_cert=cert, tls_key=key) as server:
        with contextlib.suppress(ConnectionError):
            assert b"up 1" not in send(server, b"GET /metrics HTTP/1.0\r\n\r\n")
        assert ask(server, "/-/ready", tls=certificates.trusting()).status == 200


def test_client_certificate_is_required(certificates: Certificates) -> None:
    """With a client CA only its clients are served: neither one without a certificate nor one of another CA."""
    cert, key = map(str, certificates.server)
    with serving(Parts(), tls_cert=cert, tls_key=key, tls_client_ca=str(certificates.ca)) as server:
        assert ask(server, "/metrics", tls=certificates.trusting(certificates.client)).body == "up 1\n"
        for nobody in (certificates.trusting(), certificates.trusting(certificates.stranger)):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                ask(server, "/metrics", tls=nobody)
        assert ask(server, "/metrics", tls=certificates.trusting(certificates.client)).status == 200


def test_failing_clients_are_no_errors_of_ours(certificates: Certificates) -> None:
    """What clients do wrong is logged for those who debug, and at no higher level."""
    stream = io.StringIO()
    log.configure("info", "json", stream)
    cert, key = map(str, certificates.server)
    with serving(Parts(), tls_cert=cert, tls_key=key, tls_client_ca=str(certificates.ca)) as server:
        with contextlib.suppress(ConnectionError):
            send(server, b"GET /metrics HTTP/1.0\r\n\r\n")
        with contextlib.suppress(OSError, http.client.HTTPException):
            ask(server, "/metrics", tls=certificates.trusting())

    assert stream.getvalue() == ""


@pytest.mark.parametrize("broken", ["missing", "garbage", "encrypted"])
def test_tls_files_that_cannot_be_used(certificates: Certificates, tmp_path: Path, broken: str) -> None:
    """A key that is missing, broken or encrypted is an expected error that names the setting and no part of it."""
    key = tmp_path / "key.pem"
    if broken == "garbage":
        key.write_text(CANARY)
    if broken == "encrypted":
        secret = ec.generate_private_key(ec.SECP256R1())
        key.write_bytes(private(secret, serialization.BestAvailableEncryption(CANARY.encode())))

    with pytest.raises(TokendError) as caught, serving(Parts(), tls_cert=str(certificates.server[0]), tls_key=str(key)):
        pass

    assert caught.value.message.startswith("admin.tls_cert: cannot use these files: ")
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert CANARY not in shown


def test_client_ca_that_cannot_be_used(certificates: Certificates, tmp_path: Path) -> None:
    """A file of client CAs that holds none is an expected error that names the setting."""
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing\n")
    cert, key = map(str, certificates.server)

    with pytest.raises(TokendError, match=r"^admin\.tls_client_ca: cannot use"):
        AdminServer(
            AdminConfig(listen="127.0.0.1:0", tls_cert=cert, tls_key=key, tls_client_ca=str(empty)),
            Parts().metrics,
            list,
            list,
            on_error=log_bug,
        ).start()


def test_new_certificates(certificates: Certificates, tmp_path: Path) -> None:
    """`reload_tls` has new connections go by the files as they are, and ends the others after an answer."""
    stream = io.StringIO()
    log.configure("info", "json", stream)
    cert, key = (tmp_path / file.name for file in certificates.server)
    for source, target in zip(certificates.server, (cert, key), strict=True):
        target.write_bytes(source.read_bytes())
    other = make(tmp_path, "other-ca")
    fresh = make(tmp_path, "fresh", other)
    with serving(Parts(), tls_cert=str(cert), tls_key=str(key)) as server:
        before = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=LIMIT, context=certificates.trusting())
        with contextlib.closing(before):
            before.request("GET", "/-/ready")
            assert before.getresponse().read() == b"ready\n"
            cert.write_bytes(fresh.files[0].read_bytes())
            server.reload_tls()
            assert ask(server, "/-/ready", tls=certificates.trusting()).status == 200, (
                "a pair that is none changes nothing"
            )
            key.write_bytes(fresh.files[1].read_bytes())
            server.reload_tls()
            assert ask(server, "/-/ready", tls=ssl.create_default_context(cafile=other.files[0])).status == 200
            with pytest.raises(ssl.SSLError):
                ask(server, "/-/ready", tls=certificates.trusting())

            before.request("GET", "/-/ready")
            answer = before.getresponse()
            assert (answer.status, answer.getheader("Connection")) == (200, "close")
        cert.unlink()
        server.reload_tls()
        assert ask(server, "/-/ready", tls=ssl.create_default_context(cafile=other.files[0])).status == 200

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["admin_tls_rejected", "admin_tls_reloaded", "admin_tls_rejected"]
    assert lines[2]["message"].startswith("admin.tls_cert: cannot use these files: No such file or directory; ")
    assert key.read_text().splitlines()[1] not in stream.getvalue()
