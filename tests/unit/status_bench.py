"""A token, its rotator and what is remembered of its events, for the tests of what people are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aca_tokend.core.config import parse
from aca_tokend.core.status import Query
from aca_tokend.parts import Parts
from aca_tokend.status import status_page, token_page
from aca_tokend.survey import Subject
from aca_tokend.watched import Watched
from tests.fakes import Bench

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.config import Config
    from aca_tokend.core.outcome import Event
    from aca_tokend.core.status import StatusPage, TokenStatus
    from aca_tokend.rotation.managed import ManagedToken

NAME = "bookings"


def configured(**further: object) -> Config:
    """A configuration with one endpoint, one Vault and the token of the benches."""
    document: dict[str, object] = {
        "acaengine": {"main": {"url": "https://aca.example.com"}},
        "vault": {
            "main": {
                "address": "https://vault.example.com:8200",
                "auth": {"method": "token", "token": {"env": "VAULT_TOKEN"}},
            }
        },
        "tokens": [
            {
                "name": NAME,
                "authority": "authority-1",
                "username": "svc-bookings",
                "password": {"env": "PASSWORD"},
                "client_id": "client-1",
                "client_secret": {"env": "CLIENT_SECRET"},
                "publish": [{"to": "vault", "mount": "secret", "path": "aca/bookings"}],
            }
        ],
    }
    return parse([("config.toml", document | further)])


class _Events(list[Any]):
    """Hands each event on to whoever remembers it, at the moment it is told."""

    def __init__(self, owner: Seen) -> None:
        super().__init__()
        self._owner = owner

    def append(self, event: Event) -> None:
        super().append(event)
        self._owner.watched.observe(self._owner.bench.token, event)


@dataclass
class Seen:
    """A bench whose status can be asked for."""

    bench: Bench = field(default_factory=Bench)
    config: Config = field(default_factory=configured)
    parts: Parts = field(init=False)
    watched: Watched = field(init=False)
    more: dict[str, ManagedToken] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watched = Watched(self.bench.clock)
        self.bench.events = _Events(self)
        self.bench.restart()
        self.parts = Parts(self.config, self.bench.clock, lambda _: None)
        self.parts.shared = self.bench.shared

    def subject(self, **changes: Any) -> Subject:  # noqa: ANN401 -- the fields of Subject
        """What the status is told of, now."""
        clock = self.bench.clock
        tokens: Mapping[str, ManagedToken] = {NAME: self.bench.token, **self.more}
        known: dict[str, Any] = {
            "config": self.config,
            "parts": self.parts,
            "tokens": tokens,
            "watched": self.watched,
            "wall": clock.wall(),
            "monotonic": clock.monotonic(),
        }
        return Subject(**(known | changes))

    def page(self, query: Query | None = None, **changes: Any) -> StatusPage:  # noqa: ANN401 -- as above
        """The page."""
        return status_page(self.subject(**changes), query or Query())

    @property
    def token(self) -> TokenStatus:
        """The token, which is the same on its own page and among all."""
        (found,) = self.page(Query(search=NAME)).tokens
        alone = token_page(self.subject(), NAME)
        assert getattr(alone, "token", None) == found
        return found
