"""The admin listener: who may ask, `/metrics`, `/-/healthy` and `/-/ready`, and whatever pages it is handed beside.

It shows what it is handed and decides nothing. Every answer may be neither cached nor sniffed nor framed unless its
page says so, and none shows a traceback or a version. What clients can do to it stands in listener.py. Flask takes a
tenth of a second to import: import this module only where the listener is on.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MisdirectedRequest

from aca_tokend.core.errors import TokendError
from aca_tokend.core.health import report
from aca_tokend.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from aca_tokend.core.config import AdminConfig
    from aca_tokend.core.health import Check

    Exposition = Callable[[str, bool], tuple[bytes, str]]
    Checks = Callable[[], Sequence[Check]]
    Pages = Callable[[Flask], None]
    OnError = Callable[[str, BaseException], None]

BACKLOG = 1024
# What a response has unless its page says otherwise.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
OTHER_HOST = "not served under this name; ask for localhost, or for an IP address"

_log = structlog.get_logger("aca_tokend.admin")


class AdminServer:
    """Serves the pages from `start` until `stop`.

    Args:
        config: `[admin]`, with a `listen` that is not empty.
        metrics: gives the page of metrics and its content type for an Accept header.
        healthy: what is wrong that a restart would mend, as checks.
        ready: what is not ready yet, as checks.
        pages: each adds pages of its own to the application.
        on_error: told of an unexpected exception, and which page met it.
    """

    def __init__(
        self, config: AdminConfig, metrics: Exposition, healthy: Checks, ready: Checks, *pages: Pages, on_error: OnError
    ) -> None:
        self._config = config
        self._on_error = on_error
        self._app = _application(metrics, healthy, ready, on_error)
        for add in pages:
            add(self._app)
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
            self._app.before_request(lambda: _refuse_other_hosts(self._config.listen))
        # probes wait for no page, however many are being made
        self._listener = Listener(listening, self._app, urgent=b"/-/", tls=tls, on_error=self._on_error)
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


class _Application(Flask):
    """Flask, but for how it tells that a page failed, before it answers 500."""

    on_error: OnError

    def log_exception(self, exc_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None]) -> None:
        """Names the page as we do, since the client's words for it could be anything."""
        if exc_info[1] is not None:
            self.on_error(str(request.url_rule), exc_info[1])


def _application(metrics: Exposition, healthy: Checks, ready: Checks, on_error: OnError) -> Flask:
    app = _Application(__name__, static_folder=None, template_folder=None)
    app.on_error = on_error
    app.debug = False  # whatever FLASK_DEBUG says
    app.url_map.merge_slashes = False

    def page() -> Response:
        compressed = request.accept_encodings.quality("gzip") > 0
        body, content_type = metrics(request.headers.get("Accept", ""), compressed)
        encoding = {"Content-Encoding": "gzip"} if compressed else {}
        return Response(body, headers={**encoding, "Vary": "Accept, Accept-Encoding"}, content_type=content_type)

    views = {
        "/metrics": page,
        "/-/healthy": lambda: _verdict("healthy", healthy()),
        "/-/ready": lambda: _verdict("ready", ready()),
    }
    for path, view in views.items():
        app.add_url_rule(path, path, view, methods=["GET"], provide_automatic_options=False)  # HEAD comes with GET

    @app.errorhandler(HTTPException)
    def error(problem: HTTPException) -> Response:
        said = f"{problem.name}\n" if problem.code != MisdirectedRequest.code else f"{problem.description}\n"
        return Response(said, problem.code, mimetype="text/plain")

    @app.after_request
    def harden(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["Server"] = "aca-tokend"
        return response

    return app


def _verdict(word: str, checks: Sequence[Check]) -> Response:
    well = not any(check.problem for check in checks)
    text = report(word, checks, verbose="verbose" in request.args)
    return Response(text, 200 if well else 503, mimetype="text/plain")


def _refuse_other_hosts(listen: str) -> None:
    """On a loopback address, answers to no name that a web page could have had pointed here (DNS rebinding)."""
    host = request.headers.get("Host", "").strip().lower()
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    name = name.strip("[]").removesuffix(".")
    if name in {"", "localhost", listen.rpartition(":")[0].lower()} or name.endswith(".localhost"):
        return
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return
    raise MisdirectedRequest(OTHER_HOST)


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
