"""HTTP with one Vault through hvac: connections, one request, and what became of it as a reason and a few words.

It takes no proxy, token, CA or client certificate from the environment, and follows no redirect: the Vault token would
go along to wherever it points. Nothing of an answer's body reaches a message, and nothing is sent twice.
"""

from __future__ import annotations

import re
import ssl
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import hvac
import requests
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError, ReadTimeoutError

from aca_tokend.core.answer import LONGEST_RETRY_AFTER_SECONDS
from aca_tokend.core.outcome import Reason

if TYPE_CHECKING:
    from aca_tokend.core.config import VaultConfig
    from aca_tokend.core.secret import Secret

# The only sentences that are looked for in an answer's list of errors.
_BY_SENTENCE = (
    (
        400,
        "check-and-set parameter did not match the current version",
        Reason.CONFLICT,
        "it is no longer what was read",
    ),
    (404, "no handler for route", Reason.MOUNT_MISSING, "nothing is mounted there"),
    (503, "Vault is sealed", Reason.VAULT_SEALED, "Vault is sealed"),
)
_BY_STATUS = {
    200: (Reason.NOT_JSON, "the answer is not one of Vault"),
    403: (Reason.PERMISSION_DENIED, "permission denied"),
    404: (Reason.NOT_FOUND, "there is nothing"),
    429: (Reason.RATE_LIMITED, "too many requests"),
    502: (Reason.UNAVAILABLE, "not available"),
    503: (Reason.UNAVAILABLE, "not available"),
    504: (Reason.UNAVAILABLE, "not available"),
}
_BY_CLASS = {
    3: (Reason.REDIRECTED, "it redirects, which is not followed"),
    4: (Reason.REQUEST_REFUSED, "refused"),
    5: (Reason.SERVER_ERROR, "the server failed"),
}

# What a Vault token is made of. Anything else makes an invalid header, which requests would show in its error.
_TOKEN = re.compile(r"[\x21-\x7e]+")

_DELTA_SECONDS = re.compile(r"[0-9]{1,9}")


class RequestFailedError(Exception):
    """A request that did not succeed, as a reason and a few words.

    `version` is that of the KV secret which a 404 says is not there to read; None where it says nothing of a secret.
    """

    def __init__(
        self, reason: Reason, text: str, *, retry_after_seconds: float | None = None, version: int | None = None
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.retry_after_seconds = retry_after_seconds
        self.version = version


def http_session(config: VaultConfig) -> requests.Session:
    """The connections of all threads. They share its pool; without cookies no request changes the session itself."""
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.verify = config.ca_file or True
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=config.max_concurrency)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def client_of(config: VaultConfig, http: requests.Session, token: Secret | None) -> hvac.Client:
    """A client of this Vault that carries `token`, over the connections of `http`. Raises RequestFailedError."""
    if token is not None and not _TOKEN.fullmatch(token.reveal()):
        raise RequestFailedError(Reason.VAULT_LOGIN_FAILED, "the token is empty or has characters that no token has")
    return hvac.Client(
        url=config.address,
        token=token.reveal() if token else "",  # None would make hvac look for one in the environment
        cert=False,  # None likewise
        timeout=config.timeout,
        allow_redirects=False,
        session=http,
        adapter=_Adapter,
        namespace=config.namespace or None,
    )


class _Adapter(RawAdapter):  # type: ignore[misc]  # hvac publishes no types
    """Gives the JSON of an answer, or raises RequestFailedError.

    hvac's own errors are not used: they show a body that is not JSON, whatever it holds, and drop the Retry-After.
    """

    def request(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401  # as hvac passes them
        """Sends one request."""
        kwargs["raise_exception"] = False
        try:
            answer = _meaning(super().request(*args, **kwargs))
        except OSError as error:  # every error of requests is one
            raise _no_answer(error) from error
        if isinstance(answer, RequestFailedError):
            raise answer
        return answer


def _meaning(response: requests.Response) -> dict[str, Any] | RequestFailedError:
    """The JSON of an answer, or what failed: as a value, since an error raised here would keep the response alive."""
    if response.status_code == requests.codes.no_content:
        return {}
    body = _json_object(response)
    if response.status_code == requests.codes.ok and body is not None:
        return body
    return _refusal(response, body or {})


def _json_object(response: requests.Response) -> dict[str, Any] | None:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _refusal(response: requests.Response, body: dict[str, Any]) -> RequestFailedError:
    """What an answer that is no success means. Its body is searched for the sentences known above and left behind."""
    status = response.status_code
    errors = body.get("errors")
    said = [error for error in errors if isinstance(error, str)] if isinstance(errors, list) else []
    reason, text = _BY_STATUS.get(status) or _BY_CLASS.get(status // 100) or (Reason.UNEXPECTED_STATUS, "unexpected")
    for its_status, sentence, its_reason, its_text in _BY_SENTENCE:
        if status == its_status and any(sentence in error for error in said):
            reason, text = its_reason, its_text
    seconds = response.headers.get("Retry-After", "")
    return RequestFailedError(
        reason,
        f"{text} (HTTP {status})",
        retry_after_seconds=min(float(seconds), LONGEST_RETRY_AFTER_SECONDS)
        if _DELTA_SECONDS.fullmatch(seconds)
        else None,
        version=_version_not_there(body) if reason is Reason.NOT_FOUND else None,
    )


def _version_not_there(body: dict[str, Any]) -> int | None:
    """0 where a 404 says that there is no such secret, the version where it says that the latest one is deleted."""
    match body:
        case {"data": {"data": None, "metadata": {"version": int() as version}}}:
            return version
        case {"errors": []}:
            return 0
    return None


def _no_answer(error: OSError) -> RequestFailedError:
    """Why no answer came. What requests raises wraps what urllib3 knows better."""
    inner = error.args[0] if error.args else None
    if isinstance(inner, MaxRetryError):
        inner = inner.reason
    match error, inner:
        case (requests.Timeout(), _) | (_, ReadTimeoutError()):
            reason, text = Reason.TIMEOUT, "no whole answer within the timeout"
        case requests.exceptions.SSLError(), _:
            reason, text = Reason.TLS_FAILED, f"no TLS connection{_certificate_problem(inner)}"
        case _, NameResolutionError():
            reason, text = Reason.NAME_NOT_RESOLVED, "the host name does not resolve"
        case _, NewConnectionError():
            reason, text = Reason.CONNECT_FAILED, "no connection"
        case (requests.ConnectionError() | requests.exceptions.ChunkedEncodingError(), _):
            reason, text = Reason.CONNECTION_LOST, "the connection broke before the whole answer was there"
        case requests.RequestException(), _:
            reason, text = Reason.REQUEST_REFUSED, f"no request can be made of this ({type(error).__name__})"
        case _:
            reason, text = Reason.TLS_FAILED, "ca_file cannot be read"
    return RequestFailedError(reason, text)


def _certificate_problem(error: object) -> str:
    """What OpenSSL found wrong with the certificate, in its own words: they come from its fixed list."""
    cause = error.args[0] if isinstance(error, Exception) and error.args else None
    return f": {cause.verify_message}" if isinstance(cause, ssl.SSLCertVerificationError) else ""
