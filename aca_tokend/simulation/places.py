"""Simulated places: what readers read, the Vaults and disks it is on, and where references to secrets lead.

Whether a reader would have been refused is accounted here, by the server's own knowledge of each token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from aca_tokend.core.config import FileReference, VaultReference
from aca_tokend.core.errors import HookError, LookError, PublishError, ReasonedError, SecretError
from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document, NotADocumentError, Seen, parse_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aca_tokend.core.config import After, Reference
    from aca_tokend.core.grant import Credentials
    from aca_tokend.core.outcome import Event
    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.simulation.replica import Replica
    from aca_tokend.simulation.server import Minted, Server, SimEndpoint
    from aca_tokend.simulation.world import World

# Where file references are resolved.
SECRETS_POOL = "secrets"
# How long a hook that hangs takes.
HOOK_TIMEOUT = 10.0
# The record that the attempts of a place's own token keep there; another is shared by several.
OWN_RECORD = "attempts"


class Watch(Protocol):
    """Receives what happens: the tally that `simulate` shows, and the invariants of the tests."""

    def granted(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """The server minted a token."""

    def refused(self, endpoint: SimEndpoint, credentials: Credentials, reason: Reason) -> None:
        """The server refused the account, or the application."""

    def failed(self, endpoint: SimEndpoint, reason: Reason) -> None:
        """The server did not do its work."""

    def revoked(self, minted: Minted) -> None:
        """A token died early."""

    def written(self, place: Place, before: Hand, minted: Minted | None) -> None:
        """What is published changed, `before` by this hand; `minted` is None for what no server minted."""

    def told(self, replica: Replica, event: Event) -> None:
        """A rotation tells what happened."""

    def hooked(self, hook: SimHook, began: float) -> None:
        """A hook did its work: for whatever was written before it `began`."""

    def ended(self, replica: Replica, token: ManagedToken, next_at: float) -> None:
        """An attempt ended."""


class Hand(StrEnum):
    """Who wrote what a place holds."""

    NOBODY = "nobody"
    OURS = "ours"  # a daemon, for this token
    STRANGER = "stranger"  # somebody else, and it does not look like ours
    FORGER = "forger"  # somebody else, with all the marks of ours


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

    `refused` are the spans in which what is there did not work, from the first token on; `foreign` says why what is
    there is no document.

    Attributes:
        fault: why this place alone fails, a store that works notwithstanding; with `writes_only`, only for writes.
        hangs: how many seconds each call takes, of which half then fail.
        hand: who wrote what is there.
        asked: how many calls reached it for its own token.
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
    fault: Reason | None = None
    writes_only: bool = False
    hangs: float = 0.0
    hand: Hand = Hand.NOBODY
    asked: int = 0

    def reach(self, step: str, kind: type[ReasonedError], *, writes: bool = False) -> None:
        """A call reaches it. Raises an error of this kind while it or its store fails."""
        world = self.store.world
        self.asked += 1
        world.surprise(self.token, step)
        sent = world.instant
        self.store.reach(kind)
        if self.hangs:
            world.answered(sent + self.hangs)
            if world.rng.random() < 0.5:  # noqa: PLR2004 -- the other half succeeds, late
                raise kind(Reason.TIMEOUT, f"{self.name}: it took {self.hangs:.0f} s")
        if self.fault is not None and (writes or not self.writes_only):
            world.answered()
            raise kind(self.fault, f"{self.name}: {self.fault}")

    def loses_answer(self) -> bool:
        """Whether a write that cannot be answered is carried out all the same."""
        lost = self.hangs and self.store.world.rng.random() < self.store.lost_answers
        return bool(lost) or self.store.loses_answer()

    def forge(self, fields: Mapping[str, object], hand: Hand) -> None:
        """Somebody writes these fields; whether they are a document is for the engine's own reading to say."""
        try:
            self.put(parse_document(fields), hand=hand)
        except NotADocumentError as error:
            self.put(None, str(error), hand=Hand.STRANGER)

    def put(self, content: Document | None, foreign: str | None = None, *, hand: Hand = Hand.OURS) -> None:
        """Replaces what is there; `hand` says who does it."""
        now = self.store.world.now
        self.content, self.foreign = content, foreign
        before, self.hand = self.hand, hand
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

    def look(self) -> Seen:
        """Reads what is there. Raises LookError."""
        place = self.place
        place.reach("look", LookError)
        seen = Seen(place.content, place.version, place.foreign)
        place.store.world.answered()
        return seen

    def publish(self, document: Document, seen: Seen) -> Seen:
        """Replaces what `look` saw. Raises PublishError."""
        place = self.place
        world = place.store.world
        if place.loses_answer() and seen.stamp == place.version:
            place.put(document)
        place.reach("publish", PublishError, writes=True)
        if seen.stamp != place.version:
            world.answered()
            raise PublishError(Reason.CONFLICT, f"{self.name}: changed meanwhile")
        place.put(document)
        now = Seen(document, place.version)
        world.answered()
        world.surprise(place.token, "published")
        return now

    def read_record(self, name: str) -> SeenRecord:
        """Reads the record of that name beside the token. Raises LookError."""
        place = self.place
        place.asked -= name != OWN_RECORD
        place.reach("read_record", LookError)
        place.store.world.answered()
        version, fields = place.records.get(name, (0, None))
        return SeenRecord(fields, version)

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        """Replaces the record that was seen under `stamp`. Raises PublishError."""
        place = self.place
        version = place.records.get(name, (0, None))[0]
        if place.loses_answer() and stamp == version:
            place.records[name] = (version + 1, fields)
        place.asked -= name != OWN_RECORD
        place.reach("write_record", PublishError, writes=True)
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
    patience: float = 2 * HOOK_TIMEOUT

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
    """Fake values, one for each reference; what is set in `values` overrides them.

    `faults` are references that do not resolve, each with the seconds that it takes to say so.
    """

    vaults: Mapping[str, Store]
    world: World
    values: dict[str, str] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)

    def pool(self, reference: Reference) -> str | None:
        """That of its Vault, or of the files of secrets."""
        if isinstance(reference, VaultReference):
            return f"vault.{reference.vault_name}"
        return SECRETS_POOL if isinstance(reference, FileReference) else None

    def resolve_all(self, references: Iterable[Reference]) -> dict[Reference, Secret]:
        """The secrets as they are now. Raises SecretError."""
        return {reference: self.resolve(reference) for reference in references}

    def resolve(self, reference: Reference) -> Secret:
        """The secret as it is now. Raises SecretError."""
        name = str(reference)
        self.world.surprise(name, "resolve")
        if name in self.faults:
            sent = self.world.reached()
            self.world.answered(sent + self.faults[name])
            raise SecretError(Reason.SECRET_UNREADABLE, f"{name}: it cannot be read")
        if isinstance(reference, VaultReference):
            store = self.vaults[reference.vault_name]
            store.reach(SecretError)
            store.world.answered()
        return Secret(self.values.get(name, name))
