"""HTTP with one Vault through hvac: one request, and what became of it as a reason and a few words.

It takes no Vault token from the environment. Nothing of an answer reaches a message. A request goes to another node
only where the one before has done nothing of it, and to each node once.
"""

from __future__ import annotations

import json
import re
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import hvac
from hvac.adapters import Adapter

from aca_tokend import __version__
from aca_tokend.core.answer import LONGEST_RETRY_AFTER_SECONDS
from aca_tokend.core.errors import ReasonedError, TransportError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.vault_answers import absent_of, is_token
from aca_tokend.net.messages import Request
from aca_tokend.net.streams import Deadline

if TYPE_CHECKING:
    from aca_tokend.core.config import VaultConfig
    from aca_tokend.core.secret import Secret
    from aca_tokend.net.messages import Response
    from aca_tokend.vault.nodes import Nodes

# The only sentences that are looked for in the errors and warnings of an answer.
_BY_SENTENCE = (
    (
        400,
        "check-and-set parameter did not match the current version",
        Reason.CONFLICT,
        "it is no longer what was read",
    ),
    (400, "check-and-set parameter required", Reason.REQUEST_REFUSED, "the mount demands check-and-set"),
    (400, "error connecting to host", Reason.UNAVAILABLE, "Vault cannot reach the directory"),
    (404, "no handler for route", Reason.MOUNT_MISSING, "nothing is mounted there"),
    (
        404,
        "Invalid path for a versioned K/V",
        Reason.MOUNT_MISSING,
        "KV version 2 is mounted there; set kv_version = 2",
    ),
    (404, "unsupported path", Reason.MOUNT_MISSING, "what is mounted there is no KV engine"),
    (500, "active cluster node not found", Reason.UNAVAILABLE, "the cluster has no active node"),
    (503, "Vault is sealed", Reason.VAULT_SEALED, "Vault is sealed"),
)
# Where a node says one of these it did nothing, and another node may.
_ELSEWHERE = frozenset({"the cluster has no active node", "Vault is sealed"})

# After one of these the next request goes to the next node first: this one may be what is ill.
_ILL = frozenset(
    {
        Reason.TIMEOUT,
        Reason.CONNECTION_LOST,
        Reason.CONNECT_FAILED,
        Reason.SERVER_ERROR,
        Reason.UNAVAILABLE,
        Reason.REDIRECTED,
        Reason.NOT_JSON,
        Reason.RESPONSE_TOO_LARGE,
        Reason.UNEXPECTED_STATUS,
    }
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

# hvac wants one of requests, and nothing goes through it.
_NO_SESSION = SimpleNamespace(verify=None, cert=None, proxies=None)

# A megabyte of empty objects takes 25 in memory, for each request under way. The longest answer that is asked for, the
# capabilities on 500 paths, has half as many values.
_MOST_VALUES = 20_000

_DELTA_SECONDS = re.compile(r"[0-9]{1,9}")


class RequestFailedError(ReasonedError):
    """A request that did not succeed, as a reason and a few words.

    Attributes:
        version: of the KV secret which a 404 says is not there to read; None where it says nothing of a secret.
        elsewhere: whether nothing was done, and another node of the same cluster may do it.
    """

    version: int | None = None
    elsewhere: bool = False


def client_of(config: VaultConfig, nodes: Nodes, token: Secret | None) -> hvac.Client:
    """A client of this Vault that carries `token`, over the connections to its nodes. Raises RequestFailedError."""
    if token is not None and not is_token(token):
        raise RequestFailedError(Reason.VAULT_LOGIN_FAILED, "the token is empty or has characters that no token has")
    return hvac.Client(
        url=config.addresses[0],
        token=token.reveal() if token else "",  # None would make hvac look for one in the environment
        cert=False,  # None likewise
        session=_NO_SESSION,
        adapter=partial(_Adapter, nodes),
        namespace=config.namespace or None,
    )


class _Adapter(Adapter):  # type: ignore[misc]  # hvac publishes no types
    """Gives the JSON of an answer, or raises RequestFailedError.

    hvac's own requests and errors are not used: they read an answer of any size for any time, show a body that is not
    JSON, whatever it holds, and drop the Retry-After.
    """

    def __init__(self, nodes: Nodes, **settings: Any) -> None:  # noqa: ANN401  # as hvac passes them
        super().__init__(**settings)
        self._nodes = nodes

    def get_login_token(self, response: dict[str, Any]) -> str:
        raise NotImplementedError  # log-ins are ours, and hvac's is never called

    def request(self, method: str, url: str, headers: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        """Sends one request, to the next node where one has done nothing of it."""
        request = self._request(method, url, headers or {}, options)
        # it is over after twice the timeout, whatever the nodes do
        deadline = Deadline.after(2 * self._nodes.timeout)
        failures: list[tuple[str, RequestFailedError]] = []
        for node in self._nodes.in_turn():
            answer = self._answer(node, request, deadline)
            if not isinstance(answer, RequestFailedError):
                return answer
            failures.append((node, answer))
            if not answer.elsewhere:
                break
        try:
            raise _of_all(failures)
        finally:
            del failures, answer  # its traceback leads here, and to what was sent: nothing may lead back, and keep it

    def _request(self, method: str, url: str, more: dict[str, str], options: dict[str, Any]) -> Request:
        """What hvac would have sent, with the `json` and `params` of requests."""
        headers = [("Accept-Encoding", "identity"), ("User-Agent", f"aca-tokend/{__version__}"), *more.items()]
        headers.append(("X-Vault-Request", "true"))
        if self.token:
            headers.append(("X-Vault-Token", self.token))
        if self.namespace:
            headers.append(("X-Vault-Namespace", self.namespace))
        target, params, body = "/" + url.lstrip("/"), options.get("params"), options.get("json")
        if params:
            target += f"?{urlencode(params)}"
        content = b"" if body is None else json.dumps(body).encode()
        if content:
            headers.append(("Content-Type", "application/json"))
        if method.upper() != "GET":
            headers.append(("Content-Length", str(len(content))))
        return Request(method.upper(), target, headers, content)

    def _answer(self, node: str, request: Request, deadline: Deadline) -> dict[str, Any] | RequestFailedError:
        """What one node answers, or what failed: as a value, since an error would keep the answer alive."""
        failed: dict[str, Any] | RequestFailedError
        try:
            failed = _meaning(self._nodes.ask(node, request, deadline))
        except TransportError as error:
            failed = RequestFailedError(error.reason, error.message)
            failed.elsewhere = not error.sent
        if isinstance(failed, RequestFailedError) and (failed.elsewhere or failed.reason in _ILL):
            self._nodes.fails(node)
        else:
            self._nodes.works(node)
        return failed


def _of_all(failures: list[tuple[str, RequestFailedError]]) -> RequestFailedError:
    """What became of a request that no node did; of several nodes each is named."""
    failed = failures[-1][1]
    if failed.elsewhere and len(failures) > 1:
        # that one is sealed says more than that another does not answer
        failed = next((it for _, it in failures if it.reason is Reason.VAULT_SEALED), failed)
        failed.message = "; ".join(f"{node.partition('//')[2]}: {it.message}" for node, it in failures)
    return failed


def _meaning(answer: Response) -> dict[str, Any] | RequestFailedError:
    """The JSON of an answer, or what failed."""
    if answer.status == HTTPStatus.NO_CONTENT:
        return {}
    body = _json_object(answer.body)
    if answer.status == HTTPStatus.OK and body is not None:
        return body
    return _refusal(answer, body or {})


def _json_object(content: bytes) -> dict[str, Any] | None:
    if sum(content.count(sign) for sign in (b"{", b"[", b",")) > _MOST_VALUES:
        return None
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _refusal(answer: Response, body: dict[str, Any]) -> RequestFailedError:
    """What an answer that is no success means. Its body is searched for the sentences known above and left behind."""
    status = answer.status
    lists = [body.get("errors"), body.get("warnings")]
    said = [text for texts in lists if isinstance(texts, list) for text in texts if isinstance(text, str)]
    reason, text = _BY_STATUS.get(status) or _BY_CLASS.get(status // 100) or (Reason.UNEXPECTED_STATUS, "unexpected")
    if reason is Reason.REQUEST_REFUSED and "errors" not in body:
        reason = Reason.UNEXPECTED_STATUS  # of something before Vault: it says nothing of what was sent
    for its_status, sentence, its_reason, its_text in _BY_SENTENCE:
        if status == its_status and any(sentence in error for error in said):
            reason, text = its_reason, its_text
    failed = RequestFailedError(reason, f"{text} (HTTP {status})")
    if _DELTA_SECONDS.fullmatch(seconds := answer.headers.get("retry-after", "")):
        failed.retry_after_seconds = min(float(seconds), LONGEST_RETRY_AFTER_SECONDS)
    failed.version = absent_of(body) if reason is Reason.NOT_FOUND else None
    failed.elsewhere = text in _ELSEWHERE
    return failed
