"""The nodes of one Vault over HTTP: connections that are kept, one bound for a whole request, which node is asked.

It takes no proxy, CA or client certificate from the environment and keeps no cookies. A redirect is followed once, to
the same path of another node and never to less encryption. It knows nothing of what an answer means.
"""

from __future__ import annotations

import http.client
import io
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode, urlsplit

import requests
import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from aca_tokend.core.config import plain_http

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    from aca_tokend.core.config import VaultConfig

# A secret is 1 MiB at most by default, and what stands around it is small.
LARGEST_ANSWER = 1_048_576 + 65_536
_CHUNK = 65_536

# What a standby answers that would have another node asked instead of asking it itself.
_REDIRECTS = frozenset({307, 308})

# OpenBao and Vault Enterprise answer each write with how far the cluster had come by it. A standby that is told so with
# the next request, and has not come as far, says so. Without, it gives what is out of date, and refuses a write by
# check-and-set because of it.
_INDEX = "X-Vault-Index"
_BEHIND = {"X-Vault-Inconsistent": "forward-active-node"}


class RedirectError(Exception):
    """A node had the active one asked, and that gave no answer; its cause says why."""


class TooLargeError(Exception):
    """The answer is larger than anything we ask for; it was left where it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Request:
    """A request to whichever node can do it. `deadline` is when it must be over, on the monotonic clock."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    deadline: float

    @property
    def reads(self) -> bool:
        """Whether it asks for something and changes nothing."""
        return self.method == "GET"


class Nodes:
    """The nodes of one Vault, for all threads: their connections, which of them worked last, how far they had come."""

    def __init__(self, config: VaultConfig) -> None:
        self._addresses = config.addresses
        self._timeout = config.timeout
        self._plain_http = config.allow_plain_http
        self._first = 0
        self._index = ""
        self._size = config.max_concurrency
        # files are read again for each connection, so that a replaced one is taken up
        self._certificates: dict[str, Any] = {
            "cert_reqs": "CERT_REQUIRED",
            "ca_certs": config.ca_file or None,
            "cert_file": config.tls_cert or None,
            "key_file": config.tls_key or None,
        }
        self._pools: dict[str, HTTPConnectionPool] = {}
        self.session = requests.Session()  # which hvac wants to have, and nothing goes through

    def close(self) -> None:
        """Closes the connections; the next request opens others."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def request(self, method: str, path: str, headers: dict[str, str], options: Mapping[str, Any]) -> Request:
        """A request that begins now, with the `json` and `params` of requests.

        It is over after twice the timeout, whatever the nodes do.
        """
        body, params = options.get("json"), options.get("params")
        if params:
            path = f"{path}?{urlencode(params)}"
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        return Request(method.upper(), path, headers, content, time.monotonic() + 2 * self._timeout)

    def in_turn(self) -> Iterator[str]:
        """Each node once, the one that worked last before the others."""
        first, count = self._first, len(self._addresses)
        for number in range(first, first + count):
            yield self._addresses[number % count]

    def works(self, node: str) -> None:
        """This node is asked first from now on."""
        self._first = self._addresses.index(node)

    def fails(self, node: str) -> None:
        """The node after this one is asked first from now on."""
        self._first = (self._addresses.index(node) + 1) % len(self._addresses)

    def ask(self, node: str, request: Request) -> Answer:
        """Asks one node, and the active one where that node says so.

        Raises:
            OSError, HTTPError, RedirectError, TooLargeError: there is no answer.
        """
        index = self._index
        answer = self._follow(node, request, {_INDEX: index} if index else {})
        if index and _is_behind(answer):
            answer = self._follow(node, request, {_INDEX: index, **_BEHIND})
            if _is_behind(answer):  # it will not pass anything on: better out of date than nothing
                self._index = ""
        if not request.reads and not request.path.startswith("/v1/sys/"):
            self._index = answer.headers.get(_INDEX, self._index)
        return answer

    def _follow(self, node: str, request: Request, headers: Mapping[str, str]) -> Answer:
        answer = self._send(node, request, headers)
        if answer.status not in _REDIRECTS:
            return answer
        target = self._target(node, request, answer.headers.get("Location", ""))
        if target is None:
            return answer
        try:
            return self._send(target, request, headers)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise RedirectError from error

    def _target(self, node: str, request: Request, location: str) -> str | None:
        """The node that a redirect names, None where it is not to be followed: the Vault token would go along."""
        try:
            parts = urlsplit(location)
            named = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        except ValueError:
            return None
        there = f"{parts.scheme}://{parts.netloc}"
        encrypted = parts.scheme == "https"
        as_before = (
            parts.scheme == "http" and node.startswith("http://") and (self._plain_http or not plain_http(there))
        )
        same = unquote(location) == unquote(there + request.path)
        return there if named and same and (encrypted or as_before) else None

    def _send(self, node: str, request: Request, headers: Mapping[str, str]) -> Answer:
        """One request to one node."""
        left = max(request.deadline - time.monotonic(), 0.001)
        # nodes that swallow every packet must leave the others their share of the time
        connect = self._timeout / len(self._addresses)
        limit = urllib3.Timeout(total=min(self._timeout, left), connect=connect)
        # urllib3 itself: requests costs as much again, and adds nothing but redirects, cookies and the environment
        response = self._pool(node).urlopen(
            request.method,
            request.path,
            body=request.body,
            headers={**request.headers, **headers},
            timeout=limit,
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )
        try:
            body = _body(response)
        except BaseException:
            response.close()  # what is left of the answer must not be taken for the next one
            raise
        response.release_conn()
        return Answer(response.status, response.headers, body)

    def _pool(self, node: str) -> HTTPConnectionPool:
        """The connections to a node. Nothing is opened here, so it does no harm if two threads make them at once."""
        pool = self._pools.get(node)
        if pool is None:
            url = urllib3.util.parse_url(node)
            host = url.host or ""
            if url.scheme == "https":
                trusted = None if self._certificates["ca_certs"] else _public_authorities()
                made: HTTPConnectionPool = _TlsPool(
                    host, url.port, maxsize=self._size, ssl_context=trusted, **self._certificates
                )
            else:
                made = _PlainPool(host, url.port, maxsize=self._size)
            pool = self._pools.setdefault(node, made)
        return pool


def _public_authorities() -> ssl.SSLContext:
    """The authorities of the system and those that browsers know, as for an endpoint."""
    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return context


def _body(response: urllib3.BaseHTTPResponse) -> bytes:
    body = bytearray()
    while chunk := response.read(_CHUNK):
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise TooLargeError
    return bytes(body)


def _is_behind(answer: Answer) -> bool:
    """Whether a standby says that it has not come as far as the index: Vault by 412, OpenBao by a bare 429."""
    return answer.status == 412 or (answer.status == 429 and answer.body.split() == [b'{"errors":[]}'])  # noqa: PLR2004


class _Reader(io.RawIOBase):
    """Reads what a server answers until a deadline, however little comes at a time."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - any writable buffer
        left = self._deadline - time.monotonic()
        if left <= 0:
            message = "the time for the whole answer is over"
            raise TimeoutError(message)
        self._sock.settimeout(left)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Source:
    """What http.client takes for a socket to read an answer from."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._reader = _Reader(sock, deadline)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._reader)


def _answer(sock: socket.socket, method: str | None, seconds: float) -> http.client.HTTPResponse:
    return http.client.HTTPResponse(_Source(sock, time.monotonic() + seconds), method=method)  # type: ignore[arg-type]


def _give(connection: HTTPConnection) -> None:
    """Gives a kept connection all its time again, of which the last answer may have left hardly any."""
    if connection.sock is not None:
        connection.sock.settimeout(connection.timeout)


# What these are given is urllib3's own affair, and handed on as it comes.
class _PlainConnection(HTTPConnection):
    """Unencrypted. Its timeout is for the whole of an answer, not for each read of it."""

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        _give(self)
        super().request(*args, **kwargs)

    def response_class(self, sock: socket.socket, method: str | None = None) -> http.client.HTTPResponse:  # type: ignore[override]
        return _answer(sock, method, self.timeout or 0)


class _TlsConnection(HTTPSConnection):
    """Over TLS, and with the same timeout."""

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        _give(self)
        super().request(*args, **kwargs)

    response_class = _PlainConnection.response_class  # type: ignore[assignment]


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
