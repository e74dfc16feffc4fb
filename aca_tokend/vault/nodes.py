"""The nodes of one Vault: which of them is asked, where a redirect may lead, how far the cluster had come.

A redirect is followed once, to the same path of a node in `address` or of a name in `redirect_hosts`, and never to less
encryption: the Vault token goes along. It knows nothing of what an answer means.
"""

from __future__ import annotations

import re
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aca_tokend.core.config import plain_http
from aca_tokend.core.errors import TransportError
from aca_tokend.net.opening import Opener, Origin
from aca_tokend.net.transport import Transport
from aca_tokend.net.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.core.config import VaultConfig
    from aca_tokend.net.messages import Request, Response
    from aca_tokend.net.streams import Deadline

# A secret is 1 MiB at most by default, and what stands around it is small.
LARGEST_ANSWER = 1_048_576 + 65_536

# What a standby answers that would have another node asked instead of asking it itself.
_REDIRECTS = frozenset({307, 308})

# OpenBao and Vault Enterprise answer each write with how far the cluster had come by it. A standby that is told so with
# the next request, and has not come as far, says so. Without, it gives what is out of date, and refuses a write by
# check-and-set because of it.
_INDEX = "X-Vault-Index"
_AN_INDEX = re.compile(r"[\x21-\x7e]{1,4096}")
_BEHIND = ("X-Vault-Inconsistent", "forward-active-node")


class Nodes:
    """The nodes of one Vault, for all threads: their connections, which of them worked last, how far they had come."""

    def __init__(self, config: VaultConfig) -> None:
        self.timeout = config.timeout
        self._plain_http = config.allow_plain_http
        self._redirect_hosts = config.redirect_hosts
        self._first = 0
        self._index = ""
        self._opener = Opener(Trust(config.ca_file, config.tls_cert, config.tls_key))
        self._origins = {address: Origin.of(address) for address in config.addresses}
        self._transports = {it: Transport(self._opener, it, config.max_concurrency) for it in self._origins.values()}

    def close(self) -> None:
        """Closes the connections; the next request opens others."""
        for transport in self._transports.values():
            transport.close()

    def in_turn(self) -> Iterator[str]:
        """Each node once, the one that worked last before the others."""
        addresses, first = tuple(self._origins), self._first
        yield from addresses[first:] + addresses[:first]

    def works(self, node: str) -> None:
        """This node is asked first from now on."""
        self._first = tuple(self._origins).index(node)

    def fails(self, node: str) -> None:
        """The node after this one is asked first from now on, if this one was."""
        if tuple(self._origins)[self._first] == node:
            self._first = (self._first + 1) % len(self._origins)

    def ask(self, node: str, request: Request, deadline: Deadline) -> Response:
        """Asks one node, and the active one where that node says so. Raises TransportError."""
        index = self._index
        told = [(_INDEX, index)] if index else []
        answer = self._follow(node, _with(request, *told), deadline)
        if index and _is_behind(answer):
            answer = self._follow(node, _with(request, *told, _BEHIND), deadline)
            if _is_behind(answer):  # it will not pass anything on: better out of date than nothing
                self._index = ""
        elif index and answer.status == HTTPStatus.BAD_REQUEST and _INDEX.encode() in answer.body:
            # of another cluster, by now: nothing was done, and it would refuse a log-in as if that were wrong
            self._index = ""
            answer = self._follow(node, request, deadline)
        if request.method != "GET" and not request.target.startswith("/v1/sys/"):
            index = answer.headers.get(_INDEX.lower(), "")
            self._index = index if _AN_INDEX.fullmatch(index) else self._index
        return answer

    def _follow(self, node: str, request: Request, deadline: Deadline) -> Response:
        answer = self._send(self._origins[node], request, deadline)
        if answer.status not in _REDIRECTS:
            return answer
        target = self._target(self._origins[node], request, answer.headers.get("location", ""))
        if target is None:
            return answer
        try:
            return self._send(target, request, deadline)
        except TransportError as error:
            message = f"it redirects to the active node: {error.message}"
            raise TransportError(error.reason, message, sent=True) from error

    def _target(self, node: Origin, request: Request, location: str) -> Origin | None:
        """The node that a redirect names, None where it is not to be followed."""
        try:
            there = Origin.of(location)
        except ValueError:
            return None
        as_encrypted = there.tls or (not node.tls and (self._plain_http or not plain_http(f"http://{there}")))
        _, _, path = location.partition("//")[2].partition("/")
        same = unquote(path) == unquote(request.target.removeprefix("/"))
        return there if as_encrypted and same and self._may_lead_to(there) else None

    def _may_lead_to(self, there: Origin) -> bool:
        names = (name.strip("[]").lower() for name in self._redirect_hosts)
        return there in self._transports or any(
            there.host.endswith(name[1:]) if name.startswith("*.") else there.host == name for name in names
        )

    def _send(self, there: Origin, request: Request, deadline: Deadline) -> Response:
        """One request to one node; of one that is not in `address` no connection is kept."""
        transport = self._transports.get(there) or Transport(self._opener, there, 0)
        # nodes that swallow every packet must leave the others their share of the time
        opening = deadline.within(self.timeout / len(self._origins))
        whole = _with(request, ("Host", str(there)))
        answer = transport.send(whole, LARGEST_ANSWER, deadline.within(self.timeout), opening)
        answer.check_whole()
        return answer


def _with(request: Request, *headers: tuple[str, str]) -> Request:
    return replace(request, headers=[*request.headers, *headers])


def _is_behind(answer: Response) -> bool:
    """Whether a standby says that it has not come as far as the index: Vault by 412, OpenBao by a bare 429."""
    return answer.status == 412 or (answer.status == 429 and answer.body.split() == [b'{"errors":[]}'])  # noqa: PLR2004
