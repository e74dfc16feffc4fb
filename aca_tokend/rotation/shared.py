"""What the tokens of one process share: a gate for each endpoint, what is known of each client and each user."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from aca_tokend.core.guard import REMEMBERED, Rules
from aca_tokend.core.outcome import Reason
from aca_tokend.rotation.admission import FIRST_SECONDS, Client, Credential, Gate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.config import Reference, TokenConfig
    from aca_tokend.rotation.credentials import Resolved

    # An application: its endpoint, and its id as it is configured.
    ClientKey = tuple[str, str | Reference]


T = TypeVar("T")


class Known(NamedTuple):
    """What is known of a credential: of the user's, of that with its scope, and of the client's."""

    user: Credential
    scope: Credential
    client: Credential

    def concerned(self, reason: Reason | None) -> Credential:
        """What of it a refusal for this reason concerns."""
        if reason is Reason.INVALID_CLIENT:
            return self.client
        return self.scope if reason is Reason.INVALID_SCOPE else self.user


class Shared:
    """What the tokens of one process share. Called by their attempts from several threads, and by reloads."""

    def __init__(self, now: float) -> None:
        self._first_until = now + FIRST_SECONDS
        self._gates: dict[str, Gate] = {}
        self._clients: dict[ClientKey, Client] = {}
        self._rules: dict[Rules, Rules] = {}  # equal ones are one: there are thousands of tokens
        # the latest by whose they are
        self._users: dict[str, tuple[Credential, ...]] = {}
        self._scopes: dict[str, tuple[Credential, ...]] = {}
        self._applications: dict[tuple[str, str], tuple[Credential, ...]] = {}
        self._queued: dict[str, Known] = {}  # the tokens that wait for another's request, or were woken after it
        self._lock = threading.Lock()

    def gate(self, endpoint: str, timeout: float, probe_cap: float, at_once: int) -> Gate:
        """The gate of an endpoint."""
        return self._gates.setdefault(endpoint, Gate(timeout, probe_cap, at_once))

    def known_gate(self, endpoint: str) -> Gate | None:
        """The gate of an endpoint, None while no token has it."""
        return self._gates.get(endpoint)

    def rules(self, token: TokenConfig, timeout: float) -> Rules:
        """How attempts with the credential of a token are limited."""
        rules = Rules.of(token.rotation, timeout)
        return self._rules.setdefault(rules, rules)

    def client_of(self, token: TokenConfig) -> Client:
        """The application of a token, as it is configured."""
        return self._clients.setdefault((token.acaengine, token.client_id), Client(token.name, self._first_until))

    def known(self, resolved: Resolved) -> Known:
        """What is known of a credential."""
        application = (resolved.host, resolved.credentials.client_id)
        return Known(
            self._credential(self._users, resolved.account, resolved.credential),
            self._credential(self._scopes, resolved.account, resolved.scoped),
            self._credential(self._applications, application, resolved.client),
        )

    def queue(self, token: str, known: Known, now: float) -> list[Wake]:
        """This token waits for another's request. Returns who goes on where it waited with another credential."""
        woken = [] if self._queued.get(token, known) == known else self.passed(token, now)
        self._queued[token] = known
        return woken

    def passed(self, token: str, now: float) -> list[Wake]:
        """An attempt of this token ended without waiting for another's. If it was its turn, another's comes."""
        return [wake for credential in self._queued.pop(token, ()) for wake in credential.passed(token, now)]

    def _credential(self, known: dict[T, tuple[Credential, ...]], owner: T, fingerprint: str) -> Credential:
        with self._lock:
            latest = known.get(owner, ())
            for credential in latest:
                if credential.fingerprint == fingerprint:
                    return credential
            credential = Credential(fingerprint)
            known[owner] = (*latest[1 - REMEMBERED :], credential)  # the oldest of too many is forgotten
            return credential

    def forget_endpoint(self, name: str) -> None:
        """The next token of it gets a new gate."""
        if (gate := self._gates.pop(name, None)) is not None:
            gate.retired = True

    def follow(self, tokens: Iterable[TokenConfig]) -> None:
        """After a reload with these tokens: forgets clients that left."""
        there = {(token.acaengine, token.client_id) for token in tokens}
        self._clients = {key: client for key, client in self._clients.items() if key in there}
