"""What a rotation asks of the world: the Protocols that the adapters, the simulation and the tests' fakes implement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aca_tokend.core.config import Reference
    from aca_tokend.core.grant import Credentials, Grant
    from aca_tokend.core.guard import SeenRecord
    from aca_tokend.core.secret import Secret
    from aca_tokend.core.token import Document, Seen


class Clock(Protocol):
    """Deadlines are monotonic; what people and readers see is wall time. Both in seconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never stepped."""

    def wall(self) -> float:
        """Seconds since 1970 in UTC."""


class TokenEndpoint(Protocol):
    """Where tokens are granted. Its calls run in the pool `acaengine.NAME`."""

    @property
    def name(self) -> str:
        """The name in `[acaengine.NAME]`."""

    @property
    def host(self) -> str:
        """What the server is told as Host: part of the account."""

    def grant(self, credentials: Credentials) -> Grant:
        """Asks for a token. Raises GrantError."""

    def verify(self, path: str, access_token: Secret) -> None:
        """Tries a token. Raises VerifyError."""


class Sink(Protocol):
    """Where one token is published."""

    @property
    def name(self) -> str:
        """Unique among the sinks of a token, such as `vault:secret/aca/bookings` or `file:/run/aca/bookings.json`."""

    @property
    def kind(self) -> str:
        """`vault` or `file`."""

    @property
    def pool(self) -> str:
        """The pool its calls run in."""

    def look(self) -> Seen:
        """Reads what is there. Raises LookError."""

    def publish(self, document: Document, seen: Seen) -> Seen:
        """Replaces the whole of what `look` saw; CONFLICT if it is something else by now. Raises PublishError."""

    def read_record(self, name: str) -> SeenRecord:
        """Reads the record of that name beside the token. Raises LookError."""

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        """Replaces the record that was seen under `stamp`; returns its new stamp. Raises PublishError, as publish."""


class Hook(Protocol):
    """What is run after a write. It knows nothing of tokens."""

    @property
    def label(self) -> str:
        """What people are told: the program, or the signal. Nothing else of the configuration."""

    @property
    def patience(self) -> float:
        """For how many seconds a run is waited for, with what it may take to end it."""

    def run(self, secrets: Iterable[Secret]) -> str:
        """Runs it to its end and returns the end of what it said, without these secrets. Raises HookError."""

    def close(self) -> None:
        """Ends what still runs, from another thread."""


class Secrets(Protocol):
    """Resolves references to secrets."""

    def pool(self, reference: Reference) -> str | None:
        """The pool in which to resolve it, None where it needs none of its own."""

    def resolve_all(self, references: Iterable[Reference]) -> dict[Reference, Secret]:
        """The secrets as they are now; those that are parts of one are read at once. Raises SecretError."""
