"""Between the listener and the application: what is refused at once, a request as WSGI has it, an answer as bytes.

It neither reads nor sends. No request that has a body, or asks for another method than GET and HEAD, gets through.
"""

from __future__ import annotations

import http
import io
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import WSGIApplication

    import h11

Answer = tuple[int, list[tuple[str, str]], bytes]

MAX_HEADERS = 100
# Of the address and all headers together.
MAX_HEAD_BYTES = 16_384
# What an answer has unless its page says otherwise.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "aca-tokend",
    "X-Content-Type-Options": "nosniff",
}
_METHODS = (b"GET", b"HEAD")
_VERSIONS = (b"1.0", b"1.1")


def refusal(request: h11.Request) -> int | None:
    """The status with which a request is refused before anything is made of it."""
    if request.http_version not in _VERSIONS:
        return 505
    if request.method not in _METHODS:
        return 405
    size = len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
    if len(request.headers) > MAX_HEADERS or size > MAX_HEAD_BYTES:
        return 431
    length = [value for name, value in request.headers if name == b"content-length"]
    if any(name == b"transfer-encoding" for name, _ in request.headers) or any(int(value) for value in length):
        return 413
    return None if request.target.startswith(b"/") else 400


def phrase(status: int) -> bytes:
    """The words of a status."""
    return http.HTTPStatus(status).phrase.encode()


def plain(status: int) -> Answer:
    """An answer without a page: its status says all, since who asked by HEAD may have no body."""
    headers = [("Cache-Control", "no-store"), ("Content-Length", "0")]
    if status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET, HEAD"))
    return status, headers, b""


def environment(request: h11.Request, address: str, port: int, *, secure: bool) -> dict[str, Any]:
    """A request as WSGI has it, from a client at this address."""
    path, _, query = request.target.partition(b"?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method.decode(),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": address,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if secure else "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers:
        if b"_" not in name:  # it would pass for another
            key = f"HTTP_{name.decode().upper().replace('-', '_')}"
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


def call(app: WSGIApplication, environ: dict[str, Any]) -> Answer:
    """What the application answers."""
    begun: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> Callable[[bytes], object]:
        begun.append((status, headers))
        return lambda _: None

    chunks = app(environ, start_response)
    try:
        body = b"".join(chunks)
    finally:
        if (close := getattr(chunks, "close", None)) is not None:
            close()
    status, headers = begun[-1]
    return int(status.split()[0]), list(headers), body
