"""The admin listener: who may ask, `/metrics`, `/-/healthy` and `/-/ready`, and whatever pages it is handed beside.

It shows what it is handed and decides nothing. Every answer may be neither cached nor sniffed nor framed unless its
page says so, and none shows a traceback or a version. What clients can do to it stands in listener.py. Flask, with 6 MB
and a tenth of a second to import, is there once somebody asks for more than probes and scrapers do.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import structlog

from aca_tokend.core.errors import TokendError
from aca_tokend.core.health import report
from aca_tokend.listener import Listener
from aca_tokend.wsgi import HEADERS, phrase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask import Flask

    from aca_tokend.core.config import AdminConfig
    from aca_tokend.core.health import Check

    Exposition = Callable[[str, bool], tuple[bytes, str]]
    Checks = Callable[[], Sequence[Check]]
    Pages = Callable[[Flask], None]
    OnError = Callable[[str, BaseException], None]
    Shown = tuple[int, dict[str, str], bytes]  # status, headers, body
    View = Callable[[WSGIEnvironment], Shown]

BACKLOG = 1024
TEXT = "text/plain; charset=utf-8"
OTHER_HOST = "not served under this name; ask for localhost, or for an IP address"

_log = structlog.get_logger("aca_tokend.admin")


class AdminServer:
    """Serves the pages from `start` until `stop`.

    Args:
        config: `[admin]`, with a `listen` that is not empty.
        metrics: gives the page of metrics and its content type for an Accept header.
        healthy: what is wrong that a restart would mend, as checks.
        ready: what is not ready yet, as checks.
        pages: each adds pages of its own to the application of Flask, when the first of them is asked for.
        on_error: told of an unexpected exception, and which page met it.
    """

    def __init__(
        self, config: AdminConfig, metrics: Exposition, healthy: Checks, ready: Checks, *pages: Pages, on_error: OnError
    ) -> None:
        self._config = config
        self._on_error = on_error
        views: dict[str, View] = {
            "/metrics": partial(_exposition, metrics),
            "/-/healthy": partial(_verdict, "healthy", healthy),
            "/-/ready": partial(_verdict, "ready", ready),
        }
        self._site = _Site(views, pages, on_error)
        self._listener: Listener | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; the one that the system chose where the configuration says 0."""
        return self._listener.port if self._listener else 0

    @property
    def tls_files(self) -> tuple[str, ...]:
        """The files that `reload_tls` reads; none without TLS."""
        config = self._config
        return tuple(file for file in (config.tls_cert, config.tls_key, config.tls_client_ca) if file)

    def start(self) -> None:
        """Listens and serves, in threads of its own.

        Raises:
            TokendError: the address cannot be listened on, or a file of the TLS configuration cannot be used.
        """
        tls = _tls(self._config) if self._config.tls_cert else None
        listening = _listening(self._config.listen)
        if ipaddress.ip_address(listening.getsockname()[0]).is_loopback:
            self._site.host = self._config.listen
        # probes wait for no page, however many are being made
        self._listener = Listener(listening, self._site, urgent=b"/-/", tls=tls, on_error=self._on_error)
        self._listener.start()

    def reload_tls(self) -> None:
        """Reads the files of TLS again, for connections from now on. What is broken changes nothing."""
        if self._listener is None:
            return
        try:
            self._listener.tls = _tls(self._config)
        except TokendError as error:
            _log.error("admin_tls_rejected", message=error.message)
        else:
            _log.info("admin_tls_reloaded")

    def stop(self) -> None:
        """Stops listening, lets requests under way finish for a moment, and returns in any case."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()


class _Site:
    """What the listener serves: by itself what probes and scrapers ask for, and Flask's pages once somebody comes.

    `host` is the one listened on where that is this machine's own alone.
    """

    def __init__(self, views: Mapping[str, View], pages: Sequence[Pages], on_error: OnError) -> None:
        self.host: str | None = None
        self._views = views
        self._pages = pages
        self._on_error = on_error
        self._lock = threading.Lock()
        self._app: WSGIApplication | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request, as WSGI has it."""
        view, headers = self._views.get(environ["PATH_INFO"]), {"Content-Type": TEXT}
        if self.host is not None and _is_another_host(environ.get("HTTP_HOST", ""), self.host):
            status, body = 421, f"{OTHER_HOST}\n".encode()
        elif view is None:
            return self._flask()(environ, start_response)
        else:
            try:
                status, more, body = view(environ)
                headers |= more
            except Exception as error:  # noqa: BLE001 -- contained here for what Flask does not serve
                self._on_error(environ["PATH_INFO"], error)
                status, body = 500, b"Internal Server Error\n"
        headers = {**HEADERS, "Content-Length": str(len(body)), **headers}
        start_response(f"{status} {phrase(status).decode()}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _flask(self) -> WSGIApplication:
        with self._lock:
            if self._app is None:
                from aca_tokend.flask_app import application

                self._app = application(self._pages, self._on_error)
            return self._app


def _exposition(metrics: Exposition, environ: WSGIEnvironment) -> Shown:
    compressed = _takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", ""))
    body, content_type = metrics(environ.get("HTTP_ACCEPT", ""), compressed)
    encoding = {"Content-Encoding": "gzip"} if compressed else {}
    return 200, {**encoding, "Vary": "Accept, Accept-Encoding", "Content-Type": content_type}, body


def _takes_gzip(accepted: str) -> bool:
    """What Accept-Encoding says of gzip (RFC 9110, section 12.5.3)."""
    items = [item.partition(";q=") for item in accepted.replace(" ", "").lower().split(",")]
    quality = {coding: rest for coding, _, rest in items}
    wanted = quality.get("gzip", quality.get("*", "0"))
    return wanted == "" or wanted.strip("0.") != ""


def _verdict(word: str, checks: Checks, environ: WSGIEnvironment) -> Shown:
    found = checks()
    text = report(word, found, verbose="verbose" in parse_qs(environ["QUERY_STRING"], keep_blank_values=True))
    return 503 if any(check.problem for check in found) else 200, {}, text.encode()


def _is_another_host(said: str, listen: str) -> bool:
    """Whether a web page could have had this name pointed to a loopback address (DNS rebinding)."""
    host = said.strip().lower()
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    name = name.strip("[]").removesuffix(".")
    if name in {"", "localhost", listen.rpartition(":")[0].lower()} or name.endswith(".localhost"):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return True
    return False


def _listening(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name such as localhost may stand for both; most clients begin with IPv4.
        family, _, _, _, address = min(found, key=lambda info: info[0] is not socket.AF_INET)
        dual = family is socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that can be none
        why = getattr(error, "strerror", None) or "not a host name"
        if isinstance(error, OSError) and error.errno and error.errno > 0:
            why = os.strerror(error.errno)  # without the address, which the library adds
        message = f"admin.listen: cannot listen on {listen}: {why}; stop what listens there or set another address"
        raise TokendError(message) from error


def _tls(config: AdminConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    key = "tls_cert"
    try:
        # Without a password of ours OpenSSL would ask for that of an encrypted key on the terminal.
        context.load_cert_chain(config.tls_cert, config.tls_key, password="")
        if config.tls_client_ca:
            key = "tls_client_ca"
            context.load_verify_locations(config.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        what = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or type(error).__name__
        message = f"admin.{key}: cannot use these files: {what}; they must be PEM, readable, and the key not encrypted"
        raise TokendError(message) from error
    return context
