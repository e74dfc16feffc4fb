"""One ACAEngine endpoint over HTTP: sends a grant or a verification, and hands the answer to core/grant.py.

It follows no redirect, keeps no cookie, reads nothing of the environment, reads a bounded body, and is done within the
endpoint's timeout whatever the server does (network.py). It never tries again: core/policy.py decides about that. What
httpx raises is translated here, once, without a word that a server wrote.
"""

from __future__ import annotations

import ssl
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx

from aca_tokend import __version__
from aca_tokend.core.answer import Answer
from aca_tokend.core.errors import GrantError, ReachError, VerifyError
from aca_tokend.core.grant import MAX_BODY_BYTES, OK, form, read_answer, read_verification
from aca_tokend.core.outcome import Reason
from aca_tokend.core.token import fits_in_header
from aca_tokend.network import Certificates, CertificatesError, Deadline, NameNotResolvedError, Network, Pool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.config import EndpointConfig
    from aca_tokend.core.grant import Credentials, Grant
    from aca_tokend.core.secret import Secret

# identity: nothing to unpack, so no small body that unpacks to a huge one
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"aca-tokend/{__version__}",
}


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
        base = httpx.URL(config.url)
        named = httpx.URL(f"{base.scheme}://{config.host}") if config.host else base
        self._host = named.netloc.decode("ascii")
        self._address = base.netloc.decode("ascii")
        self._deadline = Deadline()
        certificates = Certificates(config.ca_file)
        network = Network(self._deadline, certificates, tls_name=named.raw_host.decode("ascii"))
        self._client = httpx.Client(
            transport=_Transport(Pool(network, config.proxy, config.max_concurrency)),
            headers={**_HEADERS, "Host": self._host},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none are kept, so none are sent
            timeout=config.timeout,
            follow_redirects=False,
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
        path = self._config.token_path
        content = urlencode(form(credentials)).encode("ascii")
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(content))}
        # As an iterator, which lets go of it once it is sent: httpx's requests and responses hold on to each other, and
        # with them to a body of bytes, until garbage is collected, which may be in hours.
        request = self._client.build_request("POST", self._url(path), content=iter((content,)), headers=headers)
        del content
        try:
            answer = self._send(request, self._place(path))
        except httpx.HTTPError as exc:
            reason, problem = self._what_failed(exc)
            raise GrantError(reason, f"{self._place(path)}: {problem}") from _tellable(exc)
        return read_answer(answer, credentials.scope)

    def verify(self, path: str, access_token: Secret) -> None:
        """Tries a token on an authenticated GET. Raises VerifyError, with TOKEN_REFUSED if the token does not work."""
        place = self._place(path.partition("?")[0])
        if not fits_in_header(access_token):
            raise VerifyError(Reason.TOKEN_REFUSED, f"{place}: the token does not fit in a header")
        headers = {"Authorization": f"Bearer {access_token.reveal()}"}
        try:
            answer = self._send(self._client.build_request("GET", self._url(path), headers=headers), place)
        except httpx.HTTPError as exc:
            reason, problem = self._what_failed(exc)
            raise VerifyError(reason, f"{place}: {problem}") from _tellable(exc)
        read_verification(answer)

    def authority(self) -> Authority:
        """Asks whether the server has a tenant of our Host; no credential is sent. Raises ReachError."""
        request = self._client.build_request("GET", self._url(AUTHORITY_PATH))
        self._deadline.start(self._config.timeout)
        try:
            with closing(self._client.send(request, stream=True)) as response:
                received_at = datetime.now(UTC)
                secured = response.extensions["network_stream"].get_extra_info("ssl_object")
                certificate = None if secured is None else secured.getpeercert()
        except httpx.HTTPError as exc:
            reason, problem = self._what_failed(exc)
            raise ReachError(reason, problem) from _tellable(exc)
        answer = Answer(self._place(AUTHORITY_PATH), response.status_code, response.headers, b"", received_at)
        return Authority(answer.status, answer.skew_seconds, certificate)

    def close(self) -> None:
        """Closes the connections that are kept for the next request."""
        self._client.close()

    def _url(self, path: str) -> str:
        return f"{self._config.url.rstrip('/')}/{path.lstrip('/')}"

    def _place(self, path: str) -> str:
        return f"acaengine.{self._name} ({self._address}{path})"

    def _send(self, request: httpx.Request, place: str) -> Answer:
        self._deadline.start(self._config.timeout)
        with closing(self._client.send(request, stream=True)) as response:
            received_at = datetime.now(UTC)
            body = _read_body(response)
        return Answer(place, response.status_code, response.headers, body, received_at)

    def _what_failed(self, exc: httpx.HTTPError) -> tuple[Reason, str]:
        """The reason for what httpx raised, and the problem in words of ours, the system's or OpenSSL's."""
        causes = _causes(exc)
        if problem := _tls_problem(causes):
            return Reason.TLS_FAILED, f"TLS failed: {problem}"
        if isinstance(exc, httpx.TimeoutException):
            return Reason.TIMEOUT, f"no whole answer within {self._config.timeout:g} s"
        if isinstance(exc, httpx.ConnectError):
            return self._not_connected(causes)
        if isinstance(exc, httpx.ProxyError):
            return Reason.PROXY_FAILED, "the proxy refused to connect to the server"
        return Reason.CONNECTION_LOST, f"the connection ended before a whole answer in HTTP{_system_problem(causes)}"

    def _not_connected(self, causes: list[BaseException]) -> tuple[Reason, str]:
        if self._config.proxy:
            return Reason.PROXY_FAILED, f"no connection to the proxy{_system_problem(causes)}"
        if any(isinstance(cause, NameNotResolvedError) for cause in causes):
            return Reason.NAME_NOT_RESOLVED, "the host name does not resolve"
        return Reason.CONNECT_FAILED, f"no connection{_system_problem(causes)}"


class _Transport(httpx.HTTPTransport):
    """httpx over a pool of ours."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool


def _read_body(response: httpx.Response) -> bytes:
    """The body, up to one byte more than is of interest.

    Only a token must be whole. For everything else the status is enough, and what came before a failure will do.
    """
    body = bytearray()
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                break
    except httpx.HTTPError:
        if response.request.method == "POST" and response.status_code == OK:
            raise
    return bytes(body[: MAX_BODY_BYTES + 1])


def _tellable(exc: httpx.HTTPError) -> httpx.HTTPError | None:
    """The cause to show in a traceback: none where its text quotes the other side, who may have echoed the request."""
    return None if isinstance(exc, httpx.ProtocolError | httpx.ProxyError) else exc


def _causes(exc: BaseException) -> list[BaseException]:
    """The exception and those it came of. httpcore cuts `__cause__` on the way up; `__context__` still leads there."""
    causes: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes


def _tls_problem(causes: list[BaseException]) -> str | None:
    for cause in causes:
        if isinstance(cause, CertificatesError):
            return str(cause)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message.rstrip(".")
        if isinstance(cause, ssl.SSLError):
            # once connected, an end without a farewell is a lost connection like any other
            lost = isinstance(cause, ssl.SSLEOFError) and not isinstance(causes[0], httpx.ConnectError)
            return None if lost else (cause.reason or "unknown").replace("_", " ").lower()
    return None


def _system_problem(causes: list[BaseException]) -> str:
    problem = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    return f": {problem.lower()}" if problem else ""
