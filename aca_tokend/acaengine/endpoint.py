"""One ACAEngine endpoint over HTTP: sends a grant or a verification, and hands the answer to core/grant.py.

httpx makes the requests, and net/ below it sends them: bounded, within the endpoint's timeout, each once. It never
tries again: core/policy.py decides about that.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import httpx

from aca_tokend import __version__
from aca_tokend.core.answer import Answer
from aca_tokend.core.errors import GrantError, ReachError, TransportError, VerifyError
from aca_tokend.core.grant import MAX_BODY_BYTES, OK, form, read_answer, read_verification
from aca_tokend.core.outcome import Reason
from aca_tokend.core.token import fits_in_header
from aca_tokend.net.messages import Request, Response
from aca_tokend.net.opening import Opener, Origin
from aca_tokend.net.streams import Deadline
from aca_tokend.net.transport import Transport
from aca_tokend.net.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aca_tokend.core.config import EndpointConfig
    from aca_tokend.core.grant import Credentials, Grant
    from aca_tokend.core.secret import Secret

# identity: nothing to unpack, so no small body that unpacks to a huge one
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"aca-tokend/{__version__}",
}
# The headers of an answer that httpx gets to see: what it is not given (Location, Set-Cookie) it does not parse.
_TELLING = frozenset({"date", "retry-after", "x-request-id"})

AUTHORITY_PATH = "/auth/authority"


@dataclass(frozen=True, slots=True)
class Authority:
    """What the server says of itself.

    Attributes:
        status: 404 where it has no tenant of our Host.
        skew_seconds: its clock minus ours, None where it sends none.
        certificate: what it showed, as `ssl.SSLSocket.getpeercert` has it; None over plain HTTP.
    """

    status: int
    skew_seconds: float | None
    certificate: Mapping[str, Any] | None


class HttpTokenEndpoint:
    """Grants and verifies tokens at one `[acaengine.NAME]`. Used by several threads at once, one request in each."""

    def __init__(self, name: str, config: EndpointConfig) -> None:
        self._name = name
        self._config = config
        base = Origin.of(config.url)
        named = Origin.of(f"{base.scheme}://{config.host}") if config.host else base
        self._host = str(named)
        self._address = str(base)
        opener = Opener(Trust(config.ca_file), config.proxy)
        self._client = httpx.Client(
            transport=_Transport(Transport(opener, base, config.max_concurrency, named.host), config.timeout),
            headers={**_HEADERS, "Host": self._host},
            trust_env=False,
        )

    @property
    def name(self) -> str:
        """The name in `[acaengine.NAME]`; its calls run in the pool `acaengine.NAME`."""
        return self._name

    @property
    def host(self) -> str:
        """What the server is told as Host, in lower case and without the scheme's own port."""
        return self._host

    def grant(self, credentials: Credentials) -> Grant:
        """Asks for a token. Raises GrantError."""
        place = self._place(self._config.token_path)
        content = urlencode(form(credentials)).encode("ascii")
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(content))}
        # As an iterator, which lets go of it once it is sent: httpx's requests and responses hold on to each other, and
        # with them to a body of bytes, until garbage is collected, which may be in hours.
        url = self._url(self._config.token_path)
        request = self._client.build_request("POST", url, content=iter((content,)), headers=headers)
        del content
        try:
            answer = self._send(request, place)
        except TransportError as exc:
            raise GrantError(exc.reason, f"{place}: {exc.message}") from exc
        return read_answer(answer, credentials.scope)

    def verify(self, path: str, access_token: Secret) -> None:
        """Tries a token on an authenticated GET. Raises VerifyError, with TOKEN_REFUSED if the token does not work."""
        place = self._place(path.partition("?")[0])
        if not fits_in_header(access_token):
            raise VerifyError(Reason.TOKEN_REFUSED, f"{place}: the token does not fit in a header")
        headers = {"Authorization": f"Bearer {access_token.reveal()}"}
        try:
            answer = self._send(self._client.build_request("GET", self._url(path), headers=headers), place)
        except TransportError as exc:
            raise VerifyError(exc.reason, f"{place}: {exc.message}") from exc
        read_verification(answer)

    def authority(self) -> Authority:
        """Asks whether the server has a tenant of our Host; no credential is sent. Raises ReachError."""
        request = self._client.build_request("GET", self._url(AUTHORITY_PATH))
        try:
            with closing(self._client.send(request, stream=True)) as response:
                answer = Answer("", response.status_code, response.headers, b"", datetime.now(UTC))
        except TransportError as exc:
            raise ReachError(exc.reason, exc.message) from exc
        return Authority(answer.status, answer.skew_seconds, response.extensions["certificate"])

    def close(self) -> None:
        """Closes the connections that are kept for the next request."""
        self._client.close()

    def _url(self, path: str) -> str:
        return f"{self._config.url.rstrip('/')}/{path.lstrip('/')}"

    def _place(self, path: str) -> str:
        return f"acaengine.{self._name} ({self._address}{path})"

    def _send(self, request: httpx.Request, place: str) -> Answer:
        with closing(self._client.send(request, stream=True)) as response:
            received_at = datetime.now(UTC)
            body = b"".join(response.iter_raw())
        return Answer(place, response.status_code, response.headers, body, received_at)


class _Transport(httpx.BaseTransport):
    """What sends for httpx, each request within `timeout` seconds."""

    def __init__(self, transport: Transport, timeout: float) -> None:
        self._transport = transport
        self._timeout = timeout

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request. Raises TransportError."""
        target, content = request.url.raw_path.decode("ascii"), b"".join(cast("httpx.SyncByteStream", request.stream))
        sent = Request(request.method, target, request.headers.raw, content)
        answer = self._transport.send(sent, MAX_BODY_BYTES, Deadline.after(self._timeout))
        # Only a token must be whole. For everything else the status is enough, and what came before a failure will do.
        if request.method == "POST" and answer.status == OK and len(answer.body) <= MAX_BODY_BYTES:
            answer.check_whole()
        headers = {name: value for name, value in answer.headers.items() if name in _TELLING and value.isascii()}
        extensions = {"certificate": answer.certificate}
        return httpx.Response(answer.status, headers=headers, stream=_Body(answer), extensions=extensions)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer, which is released once it is read."""

    def __init__(self, answer: Response) -> None:
        self._body = iter((answer.body,))

    def __iter__(self) -> Iterator[bytes]:
        return self._body
