"""Who may ask an endpoint now: its breaker, and one probe at a time for a client that is not proven.

Shared by all tokens of an endpoint and called from several threads; core/breaker.py decides.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.breaker import Breaker, Wake
from aca_tokend.core.guard import CLIENT_RECORD, TOKEN_RECORD, Rules
from aca_tokend.guarding import Ledger
from aca_tokend.state import SinkState, TokenState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aca_tokend.core.config import TokenConfig
    from aca_tokend.core.ports import Sink, TokenEndpoint


class Gate:
    """The breaker of one endpoint. `timeout` is the endpoint's, in seconds: a probe out for much longer is lost."""

    def __init__(self, timeout: float, probe_cap: float) -> None:
        self._lock = threading.Lock()
        self._breaker = Breaker(probe_lost_seconds=2.0 * timeout + 5.0, probe_cap=probe_cap)

    def admit(self, token: str, expires: float, now: float, *, probe: bool = True) -> bool:
        """Whether a request of this token may be sent now; one that may not is woken later. `probe`: it will be."""
        with self._lock:
            return self._breaker.admit(token, expires, now, probe=probe)

    def failed(self, token: str, expires: float, now: float, retry_after: float | None, draw: float) -> list[Wake]:
        """The endpoint did not do its work. Returns who is to probe it next, and when."""
        with self._lock:
            wake = self._breaker.failed(token, expires, now, retry_after, draw)
        return [wake] if wake else []

    def answered(self, token: str, now: float) -> list[Wake]:
        """The endpoint did its work, be it to refuse. Returns the tokens that waited, most urgent first."""
        with self._lock:
            return self._breaker.answered(token, now)

    def passed(self, token: str, now: float) -> list[Wake]:
        """The token made no request, or left. Returns whose turn it is then, if it was its own."""
        with self._lock:
            wake = self._breaker.passed(token, now)
        return [wake] if wake else []

    def forget(self, token: str) -> None:
        """The token left."""
        self.passed(token, 0.0)

    @property
    def is_open(self) -> bool:
        """Whether tokens wait behind a probe."""
        return self._breaker.open


class Shared:
    """What the tokens of one configuration share: a gate for each endpoint, a client for each application."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self._clients: dict[tuple[str, str], Client] = {}
        self._homes: dict[str, tuple[tuple[str, str], Sink]] = {}  # by token: its client, and its first sink

    def state(self, token: TokenConfig, endpoint: TokenEndpoint, sinks: Sequence[Sink], timeout: float) -> TokenState:
        """The state of a token that nothing is known of yet; its `draw` and times are for the caller to set.

        The record of a client lives beside the first sink of the first token of it, in the order of the configuration:
        replicas with one configuration look for it in one place.
        """
        gate = self._gates.setdefault(endpoint.name, Gate(timeout, token.rotation.backoff.cap))
        key = (endpoint.name, str(token.client_id))
        client = self._clients.setdefault(key, Client(Ledger(sinks[0], CLIENT_RECORD)))
        self._homes[token.name] = (key, sinks[0])
        return TokenState(
            config=token,
            endpoint=endpoint,
            sinks=tuple(SinkState(sink) for sink in sinks),
            gate=gate,
            client=client,
            ledger=Ledger(sinks[0], TOKEN_RECORD),
            rules=Rules.of(token.rotation, timeout),
        )

    def forget_endpoint(self, name: str, *, clients: bool) -> None:
        """The next state gets a new gate; with `clients`, where it is another server by now, new clients too."""
        self._gates.pop(name, None)
        if clients:
            self._clients = {key: client for key, client in self._clients.items() if key[0] != name}

    def follow(self, tokens: Iterable[str]) -> None:
        """After a reload with these tokens, in their order: moves the records of clients, forgets clients that left."""
        self._homes = {name: self._homes[name] for name in tokens}
        homes: dict[tuple[str, str], Sink] = {}
        for key, sink in self._homes.values():
            homes.setdefault(key, sink)
        self._clients = {key: client for key, client in self._clients.items() if key in homes}
        for key, client in self._clients.items():
            if client.ledger.sink is not homes[key]:
                client.ledger = Ledger(homes[key], CLIENT_RECORD, client.ledger.proven)


@dataclass(slots=True)
class Client:
    """One application at one endpoint: while its secret is not proven, its tokens wait behind a single attempt.

    Otherwise one wrong client secret would spend an attempt for each of its users.
    """

    ledger: Ledger
    _probing: str | None = None
    _waiting: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def try_probe(self, token: str, expires: float) -> bool:
        """Whether this token's attempt is the one; if not it is woken once that is over."""
        with self._lock:
            if self._probing not in {None, token}:
                self._waiting[token] = expires
                return False
            self._probing = token
            return True

    def probed(self, token: str, now: float) -> list[Wake]:
        """The attempt is over. Returns the tokens that waited, most urgent first."""
        with self._lock:
            if self._probing != token:
                return []
            self._probing = None
            order = sorted(self._waiting, key=self._waiting.__getitem__)
            self._waiting.clear()
            return [Wake(name, now) for name in order]
