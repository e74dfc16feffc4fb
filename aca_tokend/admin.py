"""The admin listener: `/metrics`, `/-/healthy` and `/-/ready`, by Flask on cheroot.

It shows what it is handed and decides nothing. It answers GET and HEAD alone, reads no body, and shows neither a
traceback nor a version. Flask takes a tenth of a second to import: import this module only where the listener is on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
import threading
from typing import TYPE_CHECKING

import structlog
from cheroot.errors import FatalSSLAlert
from cheroot.makefile import StreamReader, StreamWriter
from cheroot.server import HTTPConnection
from cheroot.ssl import Adapter
from cheroot.wsgi import Server as WsgiServer
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from aca_tokend.core.errors import TokendError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.config import AdminConfig

    Exposition = Callable[[str], tuple[bytes, str]]
    Problems = Callable[[], list[str]]

THREADS = 4
BACKLOG = 64
# For each read from and each write to a client, and for a connection that says nothing.
TIMEOUT_SECONDS = 10
MAX_HEADER_BYTES = 16_384
MAX_BODY_BYTES = 1_024
# Requests under way get this long when the daemon stops; then it no longer waits for them.
STOP_SECONDS = 1
GIVE_UP_SECONDS = 3.0

_log = structlog.get_logger("aca_tokend.admin")


class AdminServer:
    """Serves the pages from `start` until `stop`.

    Args:
        config: `[admin]`, with a `listen` that is not empty.
        metrics: gives the page of metrics and its content type for an Accept header.
        healthy: what is wrong that a restart would mend; empty when all is well.
        ready: what is not ready yet; empty when everything is.
    """

    def __init__(self, config: AdminConfig, metrics: Exposition, healthy: Problems, ready: Problems) -> None:
        self._config = config
        self._app = _pages(metrics, healthy, ready)
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; the one that the system chose where the configuration says 0."""
        return self._server.port if self._server else 0

    def start(self) -> None:
        """Listens and serves, in threads of its own.

        Raises:
            TokendError: the address cannot be listened on, or a file of the TLS configuration cannot be used.
        """
        tls = _tls(self._config) if self._config.tls_cert else None
        self._server = _Server(_listening(self._config.listen), self._app, tls)
        # Threads inherit being a daemon thread, so that none that hangs keeps the process from ending.
        threading.Thread(target=self._server.run, name="admin", daemon=True).start()

    def stop(self) -> None:
        """Stops listening, lets requests under way finish for a moment, and returns in any case."""
        server, self._server = self._server, None
        if server is not None:
            stopper = threading.Thread(target=server.stop_once_started, name="admin-stop", daemon=True)
            stopper.start()
            stopper.join(GIVE_UP_SECONDS)


def _pages(metrics: Exposition, healthy: Problems, ready: Problems) -> Flask:
    app = Flask(__name__, static_folder=None, template_folder=None)
    app.debug = False  # whatever FLASK_DEBUG says
    app.url_map.merge_slashes = False

    def page() -> Response:
        body, content_type = metrics(request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)

    pages = {
        "/metrics": page,
        "/-/healthy": lambda: _verdict("healthy", healthy()),
        "/-/ready": lambda: _verdict("ready", ready()),
    }
    for path, view in pages.items():
        app.add_url_rule(path, path, view, methods=["GET"], provide_automatic_options=False)  # HEAD comes with GET

    @app.errorhandler(HTTPException)
    def error(problem: HTTPException) -> Response:
        allowed = {name: value for name, value in problem.get_headers() if name == "Allow"}
        return Response(f"{problem.name}\n", problem.code, allowed, mimetype="text/plain")

    @app.after_request
    def harden(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return app


def _verdict(well: str, problems: list[str]) -> Response:
    lines = problems or [well]
    return Response("".join(f"{line}\n" for line in lines), 503 if problems else 200, mimetype="text/plain")


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


class _Connection(HTTPConnection):
    """A connection that lets go of what a client that is gone did not take."""

    def close(self) -> None:
        """Closes; else the writer would try once more when it is collected, and tell standard error that it failed."""
        try:
            super().close()
        finally:
            with contextlib.suppress(OSError, ValueError):
                self.wfile.close()


class _Server(WsgiServer):
    """cheroot, with a socket that listens already, and with clients that are slow or silent kept off its threads."""

    ConnectionClass = _Connection

    def __init__(self, listening: socket.socket, app: Flask, tls: ssl.SSLContext | None) -> None:
        super().__init__(
            listening.getsockname()[:2],
            app,
            numthreads=THREADS,
            server_name="aca-tokend",
            request_queue_size=BACKLOG,
            timeout=TIMEOUT_SECONDS,
            shutdown_timeout=STOP_SECONDS,
        )
        self.port: int = listening.getsockname()[1]
        self.max_request_header_size = MAX_HEADER_BYTES
        self.max_request_body_size = MAX_BODY_BYTES
        self.ssl_adapter = _Tls(tls) if tls else None
        self._listening = listening
        self._started = threading.Event()

    def run(self) -> None:
        """Serves until stopped."""
        os.environ.pop("LISTEN_PID", None)  # inherited from a socket unit, it would have cheroot take file descriptor 3
        self.prepare()
        self._started.set()
        self.serve()

    def stop_once_started(self) -> None:
        """Stops; before `run` has got that far cheroot would take no notice."""
        self._started.wait(GIVE_UP_SECONDS)
        self.stop()

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: A002, ARG002 -- the library's
        """Takes the socket that listens already: a port in use was told of by `start`."""
        self.socket = self._listening
        return self._listening

    def process_conn(self, conn: HTTPConnection) -> None:
        """Gives a connection to a thread once it has said something, so that silent ones occupy none."""
        if conn.last_used is None:
            self.put_conn(conn)
        else:
            super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: ARG002 -- the library's
        """Logs what clients did wrong for those who debug, and what we did wrong for everyone."""
        error = sys.exc_info()[1]
        if error is None or isinstance(error, (OSError, FatalSSLAlert)):
            _log.debug("admin_client_failed", message=msg)
        else:
            _log.error("admin_page_failed", message=msg, exc_info=error)


class _Tls(Adapter):
    """TLS whose handshake happens in the thread that serves the client.

    cheroot's own adapter does it in the thread that accepts, where one silent client holds up all others.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def bind(self, sock: socket.socket) -> socket.socket:
        """Leaves the listening socket as it is."""
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        """Wraps a connection; the first read from it does the handshake."""
        try:
            wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError as error:
            raise FatalSSLAlert(*error.args) from error
        return wrapped, self.get_environ()

    def get_environ(self) -> dict[str, str]:
        """Tells Flask that it is served over TLS."""
        return {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def makefile(self, sock: ssl.SSLSocket, mode: str = "r", bufsize: int = -1) -> StreamReader | StreamWriter:
        """Reads and writes as without TLS."""
        return (StreamReader if "r" in mode else StreamWriter)(sock, mode, bufsize)
