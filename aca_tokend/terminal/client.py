"""Asks the admin listener of a running daemon. One GET, to that listener alone: no proxy, no redirect, nothing sent.

What comes back is bounded in size and time, and is not trusted: it is checked against the shapes of core/status.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import ValidationError

from aca_tokend.core.errors import TokendError
from aca_tokend.core.status import ERROR, MOST_PER_PAGE, STATUS, TOKEN, VERSION, StatusPage, TokenPage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import TypeAdapter

    from aca_tokend.core.config import AdminConfig

T = TypeVar("T", StatusPage, TokenPage)

TIMEOUT_SECONDS = 10.0
MOST_BYTES = 16 * 1024 * 1024
# Listening everywhere, it is reached here.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 -- what is written in a configuration
_FIRST_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class AskError(TokendError):
    """The daemon could not be asked, or refused the question."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener is.

    Attributes:
        url: scheme, host and port.
        certificate: the file with the very certificate that it shows; empty where the system's authorities decide.
        client: files with a certificate to show to it and its key, both empty for none.
        timeout: how long a whole answer may take, in seconds.
    """

    url: str
    certificate: str = ""
    client: tuple[str, str] = ("", "")
    timeout: float = TIMEOUT_SECONDS

    @classmethod
    def of(cls, admin: AdminConfig) -> Address:
        """The listener of this configuration. Raises AskError where nobody could know where that is."""
        if not admin.listen:
            message = 'admin.listen is "", so the listener is off; set it, such as to "127.0.0.1:9464", and restart'
            raise AskError(message)
        host, _, port = admin.listen.rpartition(":")
        if port == "0":
            message = "admin.listen has port 0; give --url with the address that daemon_started has in the log"
            raise AskError(message)
        scheme = "https" if admin.tls_cert else "http"
        return cls(f"{scheme}://{_EVERYWHERE.get(host, host)}:{port}", admin.tls_cert)

    @classmethod
    def parse(cls, url: str) -> Address:
        """What somebody wrote as --url. Raises AskError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        plain = not (parts.username or parts.password or parts.query or parts.fragment or parts.path.strip("/"))
        if parts.scheme not in {"http", "https"} or not parts.hostname or not plain or not url.isprintable():
            message = "--url: is not the address of a listener; write scheme, host and port: http://127.0.0.1:9464"
            raise AskError(message)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(f"{parts.scheme}://{host}" + (f":{port}" if port else ""))


def ask_all(address: Address) -> tuple[StatusPage, Any]:
    """The first page, as large as there is, and the JSON that it was read from. Raises AskError."""
    return _ask(address, f"/api/v1/status?per_page={MOST_PER_PAGE}", STATUS)


def ask_one(address: Address, name: str) -> tuple[TokenPage, Any]:
    """One token, and the JSON that it was read from. Raises AskError."""
    return _ask(address, f"/api/v1/status/{quote(name, safe='')}", TOKEN, name)


def _ask(address: Address, path: str, shape: TypeAdapter[T], name: str = "") -> tuple[T, Any]:
    code, body = _get(address, path)
    try:
        read = json.loads(body)
        if code in {http.client.BAD_REQUEST, http.client.NOT_FOUND}:
            error = ERROR.validate_python(read).error
            message = f"{name or error.parameter} {error.problem}; {error.fix}"
            raise AskError(message)
        if code == http.client.OK and isinstance(read, dict) and read.get("version") == VERSION:
            return shape.validate_json(body), read
    except (ValueError, RecursionError, ValidationError):
        pass
    message = (
        f"{address.url} answered {code}, and not as this version of aca-tokend does; "
        "see what listens there, or give --url"
    )
    raise AskError(message)


def _get(address: Address, path: str) -> tuple[int, bytes]:
    """One request, within the time and size that there is."""
    connection = _connection(address)
    over, connected = threading.Event(), False
    try:
        with contextlib.closing(connection), contextlib.ExitStack() as stack:
            connection.connect()
            connected = True
            stack.enter_context(_ended(connection.sock, address.timeout, over))
            _same_certificate(address, connection.sock)
            connection.request("GET", path, headers={"Accept": "application/json", "Connection": "close"})
            response = stack.enter_context(connection.getresponse())
            body = bytearray()
            # piece by piece: a chunk of fewer than no bytes would be read to its end at once
            while len(body) <= MOST_BYTES and (piece := response.read1(MOST_BYTES)):
                body += piece
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise AskError(_why(address, TimeoutError() if over.is_set() else error, connected=connected)) from error
    if over.is_set() or len(body) > MOST_BYTES:
        why = (
            _why(address, TimeoutError())
            if over.is_set()
            else f"{address.url}: answers without end; see what listens there"
        )
        raise AskError(why)
    return response.status, bytes(body)


def _connection(address: Address) -> http.client.HTTPConnection:
    parts = urlsplit(address.url)
    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=address.timeout)
    return http.client.HTTPSConnection(host, parts.port, timeout=address.timeout, context=_context(address))


@contextlib.contextmanager
def _ended(sock: socket.socket, seconds: float, over: threading.Event) -> Iterator[None]:
    """Ends the connection when the time is over, also where it says a little all the time."""

    def end() -> None:
        over.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _context(address: Address) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if address.certificate:
        # it is compared with the file instead: it need not be made for the address it is reached by
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = address.client
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None, password="")
        except OSError as error:  # ssl.SSLError is one
            message = f"--cert: cannot use {certificate}: they must be PEM, readable, and the key not encrypted"
            raise AskError(message) from error
    return context


def _same_certificate(address: Address, sock: socket.socket) -> None:
    """Raises AskError where it is not the listener of the configuration that answers."""
    if not address.certificate or not isinstance(sock, ssl.SSLSocket):
        return
    try:
        first = _FIRST_CERTIFICATE.search(Path(address.certificate).read_text(encoding="ascii", errors="replace"))
        wanted = ssl.PEM_cert_to_DER_cert(first[0]) if first else b""
    except (OSError, ValueError) as error:
        message = f"admin.tls_cert: {address.certificate} cannot be read, so nobody knows who answers; call as its user"
        raise AskError(message) from error
    if sock.getpeercert(binary_form=True) != wanted:
        message = (
            f"{address.url} shows another certificate than that in admin.tls_cert; "
            "it was changed a moment ago, or something else listens there"
        )
        raise AskError(message)


def _why(address: Address, error: Exception, *, connected: bool = False) -> str:
    """What went wrong, and what to do."""
    if isinstance(error, TimeoutError):
        limit = f"no whole answer within {address.timeout:g} s"
        return f"{address.url}: {limit}; the daemon may hang: look at /-/healthy and its log"
    if isinstance(error, ConnectionRefusedError):
        return f"{address.url}: nobody listens there; start the daemon, or give --url"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted ({error.verify_message})"
        return f"{address.url}: {why}; name its authority in the variable SSL_CERT_FILE"
    if address.url.startswith("https:") and not address.client[0] and connected:
        return f"{address.url}: it ended the connection; where it has admin.tls_client_ca, give --cert and --key"
    if isinstance(error, ssl.SSLError):
        return f"{address.url}: no TLS there ({error.reason}); compare --url with [admin]"
    number = error.errno if isinstance(error, OSError) else None
    text = os.strerror(number) if number is not None and number > 0 else "no HTTP there"
    return f"{address.url}: {text.lower()}; see what listens there, or give --url"
