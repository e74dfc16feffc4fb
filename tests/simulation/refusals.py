"""The invariants about refused credentials: how often a server may say no to one before it is left alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Reason

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from aca_tokend.core.grant import Credentials
    from aca_tokend.simulation.server import SimEndpoint
    from tests.simulation.checker import Checker

MOST_OF_A_CLIENT = 2


@dataclass(frozen=True)
class Limit:
    """How often `of` may be refused; each loss of what the records of these tokens say allows as much again."""

    name: str
    of: str
    most: int
    recorded: Sequence[str] = ()


@dataclass
class Refusals:
    """Refused requests, by whatever limits them: how many, and when the first was."""

    checker: Checker
    count: dict[Hashable, int] = field(default_factory=lambda: defaultdict(int))
    first: dict[Hashable, float] = field(default_factory=dict)
    # of each token: when what its record said was lost, or could not be written everywhere
    lost: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def refused(self, endpoint: SimEndpoint, credentials: Credentials, reason: Reason) -> None:
        """One more. In one process all tokens of an account count together; its record limits each over restarts."""
        most, token = self.checker.scenario.rotation.max_rejections, endpoint.token
        process = endpoint.replica, endpoint.start
        client = credentials.client_id, credentials.client_secret.reveal()
        if reason is Reason.INVALID_CLIENT:
            limit = Limit("client_left_alone", f"{credentials.client_id} for {token}", MOST_OF_A_CLIENT)
            self._count(limit, (process, client))
            return
        user = credentials.authority, credentials.username, credentials.password.reveal(), client
        self._unwritten(token)
        scenario = self.checker.scenario
        sharing = [it.name for it in scenario.config.tokens if scenario.user(it.name) == scenario.user(token)]
        # a record that allows it again has a suspended token go on: that is how an operator resumes it
        of = f"{credentials.username} for {token}"
        self._count(Limit("within_max_rejections", f"{of} and others in one process", most, sharing), (process, user))
        self._count(Limit("within_max_rejections", of, most, [token]), (token, user))

    def _unwritten(self, token: str) -> None:
        """A refusal that cannot be noted in every place of the token may be forgotten with the process."""
        checker = self.checker
        places = [place for replica in checker.cluster.replicas for place in replica.places[token]]
        if any(checker.conditions.ill.get(what) for place in places for what in (place.name, place.store.name)):
            self.lost[token].append(checker.cluster.world.now)

    def _count(self, limit: Limit, what: Hashable) -> None:
        """Allows more for each time after which a refused credential may be tried, and for each lost record."""
        checker, now = self.checker, self.checker.cluster.world.now
        self.count[what] += 1
        since = self.first.setdefault(what, now)
        most = limit.most * (1 + sum(moment >= since for token in limit.recorded for moment in self.lost[token]))
        period = checker.scenario.retry_rejected
        if period:
            most += int((now - since + 2 * checker.scenario.longest_grant) / period)
        if self.count[what] > most:
            checker.broken(limit.name, f"{limit.of} refused {self.count[what]} times, {most} allowed")
