"""What the tokens of one configuration share: a gate for each endpoint, a client for each application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.admission import Client, Gate
from aca_tokend.core.config import VaultReference
from aca_tokend.core.guard import CLIENT_RECORD, TOKEN_RECORD, Rules
from aca_tokend.credentials import references
from aca_tokend.records import Ledger
from aca_tokend.state import SinkState, TokenState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aca_tokend.core.config import Reference, TokenConfig
    from aca_tokend.core.ports import Sink, TokenEndpoint

    # An application: its endpoint, and its id as it is configured.
    ClientKey = tuple[str, str | Reference]


# How often a suspended token looks whether its credential changed; what Vault holds costs a request each time.
POLL_SECONDS = 3.0
POLL_VAULT_SECONDS = 60.0


class Shared:
    """What the tokens of one configuration share: a gate for each endpoint, a client for each application."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self._clients: dict[ClientKey, Client] = {}
        self._rules: dict[Rules, Rules] = {}  # equal ones are one: there are thousands of tokens
        self._homes: dict[str, tuple[Client, Sink]] = {}  # by token: its client, and its first sink

    def gate(self, endpoint: str) -> Gate | None:
        """The gate of an endpoint, None while no token has it."""
        return self._gates.get(endpoint)

    def state(self, token: TokenConfig, endpoint: TokenEndpoint, sinks: Sequence[Sink], timeout: float) -> TokenState:
        """The state of a token that nothing is known of yet; its `draw` and times are for the caller to set.

        The record of a client lives beside the first sink of the first token of it, in the order of the configuration:
        replicas with one configuration look for it in one place.
        """
        gate = self._gates.setdefault(endpoint.name, Gate(timeout, token.rotation.backoff.cap))
        key = (endpoint.name, token.client_id)
        client = self._clients.setdefault(key, Client(Ledger(sinks[0], CLIENT_RECORD)))
        self._homes[token.name] = (client, sinks[0])
        rules = Rules.of(token.rotation, timeout)
        in_vault = any(isinstance(reference, VaultReference) for reference in references(token))
        return TokenState(
            config=token,
            poll_seconds=POLL_VAULT_SECONDS if in_vault else POLL_SECONDS,
            endpoint=endpoint,
            sinks=tuple(SinkState(sink) for sink in sinks),
            gate=gate,
            client=client,
            ledger=Ledger(sinks[0], TOKEN_RECORD),
            rules=self._rules.setdefault(rules, rules),
        )

    def forget_endpoint(self, name: str, *, clients: bool) -> None:
        """The next state gets a new gate; with `clients`, where it is another server by now, new clients too."""
        if (gate := self._gates.pop(name, None)) is not None:
            gate.retired = True
        if clients:
            self._clients = {key: client for key, client in self._clients.items() if key[0] != name}

    def follow(self, tokens: Iterable[str]) -> None:
        """After a reload with these tokens, in their order: moves the records of clients, forgets clients that left."""
        self._homes = {name: self._homes[name] for name in tokens}
        homes: dict[Client, Sink] = {}
        for client, sink in self._homes.values():
            homes.setdefault(client, sink)
        self._clients = {key: client for key, client in self._clients.items() if client in homes}
        for client in self._clients.values():
            if client.ledger.sink is not homes[client]:
                client.ledger = Ledger(homes[client], CLIENT_RECORD, client.ledger.proven)
