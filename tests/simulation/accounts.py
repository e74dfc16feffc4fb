"""Whose each token is by the configuration of each replica, and the invariant that nobody else's is published."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.simulation.places import Hand
from aca_tokend.simulation.server import Whose, fingerprint

if TYPE_CHECKING:
    from aca_tokend.core.config import Reference, TokenConfig
    from aca_tokend.simulation.places import Place
    from aca_tokend.simulation.server import Minted
    from tests.simulation.checker import Checker

# An attempt under way goes to its end with the account that it began with; so long it takes where something hangs.
HANGING_SECONDS = 30.0


@dataclass
class Accounts:
    """The accounts of now, by token and replica, and those of before: when each was last configured.

    A name that a reference leads to is read again only before a token is asked for or taken up. So what is out already
    may be brought to further places until its rotation point; what is not out yet is somebody else's.
    """

    checker: Checker
    now: dict[str, dict[int, Whose]] = field(default_factory=lambda: defaultdict(dict))
    left: dict[str, dict[Whose, float]] = field(default_factory=lambda: defaultdict(dict))
    _referred: set[Whose] = field(default_factory=set)  # what a reference led to, and no longer does

    def refresh(self, *, by_reference: bool = False) -> None:
        """A configuration, or what a reference leads to, is another."""
        time = self.checker.cluster.world.now
        for replica in self.checker.cluster.replicas:
            for token in replica.config.tokens:
                whose, known = self._whose(token), self.now[token.name]
                before = known.get(replica.number)
                if before is not None and before != whose:
                    self.left[token.name][before] = time
                    (self._referred.add if by_reference else self._referred.discard)(before)
                known[replica.number] = whose

    def of(self, token: str) -> Whose:
        """Whose a token is to the first replica."""
        return self.now[token][0]

    def fingerprint(self, token: str, replica: int) -> str:
        """What a document of a token says of its account, if this replica writes it."""
        endpoint = self.checker.cluster.replicas[replica].config.acaengine["main"]
        return fingerprint(endpoint.host or endpoint.url.partition("://")[2], self.now[token][replica])

    def configured(self, token: str, whose: Whose) -> bool:
        """Whether any replica has this account for it now."""
        return whose in self.now[token].values()

    def ever(self, token: str) -> set[Whose]:
        """The accounts that it has or had."""
        return {*self.now[token].values(), *self.left[token]}

    def agreed(self, token: str, seconds: float = 0.0) -> bool:
        """Whether all replicas have one account for it, and have had for so many seconds."""
        since = max(self.left[token].values(), default=-math.inf)
        return len(set(self.now[token].values())) == 1 and self.checker.cluster.world.now - since >= seconds

    def published(self, place: Place, minted: Minted | None) -> None:
        """A daemon wrote this: is it this token's own?"""
        checker, time, token = self.checker, self.checker.cluster.world.now, place.token
        document = place.content
        if place.hand is not Hand.OURS or document is None:
            return
        if minted is None:
            checker.broken("own_tokens_only", f"{place.name} got what no server granted")
        if document.account != minted.account:
            checker.broken("own_tokens_only", f"{place.name}: the document names another account than its token has")
        if minted.token != token and not checker.cluster.servers["main"].reuse:
            checker.broken("own_tokens_only", f"{place.name} got the token of {minted.token}")
        if self.configured(token, minted.whose):
            return
        left = self.left[token].get(minted.whose, -math.inf)
        allowed = left + 2 * checker.scenario.longest_attempt + (HANGING_SECONDS if checker.scenario.hangs else 0.0)
        if minted.whose in self._referred and minted.published <= left:
            allowed = minted.expires
        if time > allowed:
            message = f"{place.name} got a token of {minted.whose.username}, which it had not since {left:.1f}"
            checker.broken("no_former_account", message)

    def _whose(self, token: TokenConfig) -> Whose:
        return Whose(token.authority, self._value(token.username), self._value(token.client_id))

    def _value(self, value: str | Reference) -> str:
        if isinstance(value, str):
            return value
        return self.checker.cluster.secrets.values.get(str(value), str(value))
