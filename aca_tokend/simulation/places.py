"""Simulated places: what readers read, the Vaults and disks it is on, and where references to secrets lead.

Whether a reader would have been refused is accounted here, by the server's own knowledge of each token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aca_tokend.core.config import VaultReference
from aca_tokend.core.errors import HookError, LookError, PublishError, ReasonedError, SecretError
from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document, Seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aca_tokend.core.config import After, Reference
    from aca_tokend.core.grant import Credentials
    from aca_tokend.core.outcome import Event
    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.simulation.replica import Replica
    from aca_tokend.simulation.server import Minted, Server, SimEndpoint
    from aca_tokend.simulation.world import World

# How long a hook that hangs takes.
HOOK_TIMEOUT = 10.0


class Watch(Protocol):
    """Who is told what happens: the tally that `simulate` shows, and the tests' invariants."""

    def granted(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """The server minted a token."""

    def refused(self, endpoint: SimEndpoint, credentials: Credentials) -> None:
        """The server refused a credential."""

    def failed(self, endpoint: SimEndpoint, reason: Reason) -> None:
        """The server did not do its work."""

    def revoked(self, minted: Minted) -> None:
        """A token died early."""

    def written(self, place: Place, before: object, minted: Minted | None) -> None:
        """What is published changed; `minted` is None for what no server minted."""

    def told(self, replica: Replica, event: Event) -> None:
        """A rotation tells what happened."""

    def hooked(self, hook: SimHook, began: float) -> None:
        """A hook did its work: for whatever was written before it `began`."""

    def ended(self, replica: Replica, token: ManagedToken, next_at: float) -> None:
        """An attempt ended."""


@dataclass(slots=True, eq=False)
class Store:
    """A Vault, or the disk of one machine.

    Attributes:
        fault: why it fails now; None while it works. `TIMEOUT` lets calls hang.
        lost_answers: the share of hanging writes that were carried out all the same.
    """

    name: str
    world: World
    timeout: float = 5.0
    fault: Reason | None = None
    lost_answers: float = 0.3

    def reach(self, kind: type[ReasonedError]) -> None:
        """A call reaches it. Raises an error of this kind while it fails."""
        sent = self.world.reached()
        if self.fault is not None:
            self.world.answered(sent + self.timeout if self.fault is Reason.TIMEOUT else None)
            raise kind(self.fault, f"{self.name}: {self.fault}")

    def loses_answer(self) -> bool:
        """Whether what cannot be answered is carried out all the same."""
        return self.fault is Reason.TIMEOUT and self.world.rng.random() < self.lost_answers


@dataclass(slots=True, eq=False)
class Place:
    """One published place of one token, and what its readers meet.

    `refused` are the spans in which what is there did not work, from the first token on; `foreign` is somebody else's.
    """

    token: str
    name: str
    store: Store
    server: Server
    watch: Watch
    content: Document | None = None
    foreign: str | None = None
    version: int = 0
    minted: Minted | None = None
    served_from: float | None = None
    refused: list[tuple[float, float]] = field(default_factory=list)
    records: dict[str, tuple[int, Mapping[str, object]]] = field(default_factory=dict)

    def put(self, content: Document | None, foreign: str | None = None) -> None:
        """Replaces what is there, whoever does it."""
        now = self.store.world.now
        before, self.content, self.foreign = self.content or self.foreign, content, foreign
        self.version += 1
        self.settle(now)
        self.minted = self.server.minted.get(content.access_token.reveal()) if content else None
        if self.served_from is None and self.minted is not None:
            self.served_from = now
        self.watch.written(self, before, self.minted)

    def settle(self, now: float) -> None:
        """Accounts for what readers met until now."""
        if self.served_from is None:
            return
        works_until = self.minted.works_until if self.minted else self.served_from
        if works_until < now:
            start = max(works_until, self.refused[-1][1] if self.refused else self.served_from)
            if start < now:
                self.refused.append((start, now))


@dataclass(slots=True, eq=False)
class SimSink:
    """The way from one token of one replica to a place: check-and-set on its version."""

    place: Place
    name: str
    kind: str
    pool: str
    replace_foreign: bool

    def look(self) -> Seen:
        """Reads what is there. Raises LookError."""
        place = self.place
        world = place.store.world
        place.store.reach(LookError)
        seen = Seen(place.content, place.version, place.foreign)
        world.answered()
        return seen

    def publish(self, document: Document, seen: Seen) -> Seen:
        """Replaces what `look` saw. Raises PublishError."""
        place = self.place
        world = place.store.world
        if place.store.loses_answer() and seen.stamp == place.version:
            place.put(document)
        place.store.reach(PublishError)
        if seen.stamp != place.version:
            world.answered()
            raise PublishError(Reason.CONFLICT, f"{self.name}: changed meanwhile")
        place.put(document)
        now = Seen(document, place.version)
        world.answered()
        return now

    def read_record(self, name: str) -> SeenRecord:
        """Reads the record of that name beside the token. Raises LookError."""
        self.place.store.reach(LookError)
        self.place.store.world.answered()
        version, fields = self.place.records.get(name, (0, None))
        return SeenRecord(fields, version)

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        """Replaces the record that was seen under `stamp`. Raises PublishError."""
        place = self.place
        version = place.records.get(name, (0, None))[0]
        if place.store.loses_answer() and stamp == version:
            place.records[name] = (version + 1, fields)
        place.store.reach(PublishError)
        place.store.world.answered()
        if stamp != version:
            raise PublishError(Reason.CONFLICT, f"{self.name}.{name}: changed meanwhile")
        place.records[name] = (version + 1, fields)
        return version + 1


@dataclass(slots=True, eq=False)
class SimHook:
    """What is run after a write, on the machine of one replica, which knows why it fails at the moment."""

    after: After
    replica: Replica
    start: int  # which of the processes of its replica runs it
    label: str = "hook"

    def run(self, secrets: Iterable[Secret]) -> str:
        """Runs it to its end. Raises HookError."""
        del secrets
        world = self.replica.cluster.world
        began = world.reached()
        fault = self.replica.ill_hooks.get(self.after)
        if fault is not None:
            world.answered(began + HOOK_TIMEOUT if fault is Reason.COMMAND_TIMEOUT else None)
            raise HookError(fault, f"{self.label}: {fault}")
        self.replica.cluster.watch.hooked(self, began)
        world.answered()
        return ""

    def close(self) -> None:
        """Nothing goes on after its answer."""


@dataclass(slots=True, eq=False)
class SimSecrets:
    """Fake values, one for each reference; what is set in `values` overrides them."""

    vaults: Mapping[str, Store]
    values: dict[str, str] = field(default_factory=dict)

    def pool(self, reference: Reference) -> str | None:
        """Vault's own pool for what is in Vault."""
        return f"vault.{reference.vault_name}" if isinstance(reference, VaultReference) else None

    def resolve(self, reference: Reference) -> Secret:
        """The secret as it is now. Raises SecretError."""
        if isinstance(reference, VaultReference):
            store = self.vaults[reference.vault_name]
            store.reach(SecretError)
            store.world.answered()
        name = str(reference)
        return Secret(self.values.get(name, name))
