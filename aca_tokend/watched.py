"""What is remembered of events for those who look later: the last of each token, endpoint and Vault, and no more.

Written by whoever tells an event, from several threads; each entry is replaced whole, so nobody needs a lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Adopted, Failed, Failure, Granted, Rotated, Skipped, Step, Suspended
from aca_tokend.metrics import UP_CODES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aca_tokend.core.demand import Load
    from aca_tokend.core.login import LoginEvent
    from aca_tokend.core.outcome import Event
    from aca_tokend.core.ports import Clock
    from aca_tokend.rotation.managed import ManagedToken


class Watched:
    """What is remembered.

    Attributes:
        started_at: when the process started, and `loaded_at` when its configuration was taken up, in wall seconds.
        up: whether each endpoint answered its last grant as OAuth servers do.
        skew: the clock of each endpoint minus ours, in seconds.
        failures: why each endpoint gave no token; none where it did, or refused a credential.
        loads: what is asked of each endpoint and what it gives.
        logins: what was last told of our token in each Vault.
        told: what was last told of an attempt of each token that ended, and when, in wall seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.started_at = self.loaded_at = clock.wall()
        self.up: dict[str, bool] = {}
        self.skew: dict[str, float] = {}
        self.failures: dict[str, Failure] = {}
        self.loads: dict[str, Load] = {}
        self.logins: dict[str, LoginEvent] = {}
        self.told: dict[str, tuple[float, Event]] = {}

    def observe(self, token: ManagedToken, event: Event) -> None:
        """Remembers what is told of an attempt of this token.

        One that began before a reload changed its endpoint says nothing of what bears that name by now.
        """
        endpoint, retired = token.wiring.endpoint.name, token.wiring.gate.retired
        match event:
            case Granted() if retired:
                pass
            case Granted():
                self.up[endpoint] = event.code in UP_CODES
                self.failures.pop(endpoint, None)
                if event.skew_seconds is not None:
                    self.skew[endpoint] = event.skew_seconds
            case Rotated() | Adopted() | Failed() | Suspended():
                self.told[token.name] = (self.clock.wall(), event)
                if isinstance(event, Failed) and event.asked and not retired and _of_endpoint(event.failure):
                    self.failures[endpoint] = event.failure
            case Skipped() if token.facts.trouble is None and token.facts.suspension is None:
                # what made no request does not hide why the one before failed
                self.told[token.name] = (self.clock.wall(), event)
            case _:
                pass

    def observe_login(self, event: LoginEvent) -> None:
        """Remembers what became of our token in a Vault."""
        self.logins[event.vault] = event

    def observe_reload(self, succeeded: bool) -> None:
        """Notes when a configuration was taken up."""
        if succeeded:
            self.loaded_at = self.clock.wall()

    def follow(self, endpoints: Iterable[str], vaults: Iterable[str], removed: Iterable[str]) -> None:
        """These have changed, and these tokens left: what was known says nothing of what bears their names now."""
        for name in removed:
            self.told.pop(name, None)
        for name in endpoints:
            for known in (self.up, self.skew, self.failures, self.loads):
                known.pop(name, None)
        for name in vaults:
            self.logins.pop(name, None)


def _of_endpoint(failure: Failure) -> bool:
    """Whether the endpoint itself failed: a refusal of a credential is not its failure."""
    return failure.step is Step.GRANT and not failure.rejected
