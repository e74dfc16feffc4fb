"""The invariants about refused credentials: how often a server may say no to one before it is left alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Reason

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from aca_tokend.core.grant import Credentials
    from aca_tokend.simulation.server import SimEndpoint
    from tests.simulation.checker import Checker

MOST_OF_A_CLIENT = 2


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
        most = self.checker.scenario.rotation.max_rejections
        process = endpoint.replica, endpoint.start
        client = credentials.client_id, credentials.client_secret.reveal()
        if reason is Reason.INVALID_CLIENT:
            self._limit("client_left_alone", (process, client), MOST_OF_A_CLIENT)
            return
        user = credentials.authority, credentials.username, credentials.password.reveal(), client
        self._unwritten(endpoint.token)
        scenario = self.checker.scenario
        sharing = [it.name for it in scenario.config.tokens if scenario.user(it.name) == scenario.user(endpoint.token)]
        # a record that allows it again has a suspended token go on: that is how an operator resumes it
        self._limit("within_max_rejections", (process, user), most, sharing)
        self._limit("within_max_rejections", (endpoint.token, user), most, [endpoint.token])

    def _unwritten(self, token: str) -> None:
        """A refusal that cannot be noted in every place of the token may be forgotten with the process."""
        checker = self.checker
        places = [place for replica in checker.cluster.replicas for place in replica.places[token]]
        if any(checker.conditions.ill.get(what) for place in places for what in (place.name, place.store.name)):
            self.lost[token].append(checker.cluster.world.now)

    def _limit(self, name: str, what: Hashable, most: int, recorded: Iterable[str] = ()) -> None:
        """Counts, and allows more for each time after which a refused credential may be tried, and each lost record."""
        checker, now = self.checker, self.checker.cluster.world.now
        self.count[what] += 1
        since = self.first.setdefault(what, now)
        most *= 1 + sum(moment >= since for token in recorded for moment in self.lost[token])
        period = checker.scenario.retry_rejected
        if period:
            most += int((now - since + 2 * checker.scenario.longest_grant) / period)
        if self.count[what] > most:
            checker.broken(name, f"{_shown(what)} refused {self.count[what]} times, {most} allowed")


def _shown(what: Hashable) -> str:
    return str(what).replace("'", "")
