"""Faults planted in the guard, the breaker, verify and the canary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.admission import Gate
from aca_tokend.granting import Granter
from aca_tokend.guarding import Claims, Guard
from aca_tokend.publishing import Publisher
from aca_tokend.records import Records, Verdict
from aca_tokend.rotator import Rotator
from aca_tokend.simulation.places import SimSink
from tests.simulation.faults import Fault
from tests.simulation.planting import plant, rotator, sink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.errors import VerifyError
    from aca_tokend.core.guard import Claim, SeenRecord
    from aca_tokend.core.outcome import Failure
    from aca_tokend.credentials import Resolved
    from aca_tokend.guarding import Wait
    from aca_tokend.records import Ledger
    from aca_tokend.state import Minted, TokenState

HOUR = 3600.0
DAY = 24 * HOUR

# ── the guard ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class RejectionForgotten(Guard):
    """A refused attempt counts as none."""

    async def settle(self, state: TokenState, sent: Resolved, claims: Claims, verdict: Verdict) -> None:
        await super().settle(state, sent, claims, verdict if verdict.accepted else Verdict())


plant("rejection_not_counted", ["within_max_rejections"], "locks", rotator(guard=RejectionForgotten))


class ClaimsAfterwards(Guard):
    """An attempt is counted after its answer, not before its request."""

    async def claim(self, state: TokenState, resolved: Resolved) -> Claims | Failure | Wait:
        if await self.wait(state, resolved) == 0.0:
            return Claims(None, None)
        return await super().claim(state, resolved)


# The password is changed on the server alone, and the process dies and starts again every moment.
CRASHES = (
    Fault("password", 4200.0, 2000.0, how="server first"),
    Fault("crash loop", 4250.0, 600.0, value=0.7),
)
plant(
    "claimed_after_the_request",
    ["within_max_rejections"],
    "locks",
    rotator(guard=ClaimsAfterwards),
    tokens=1,
    replicas=1,
    seconds=DAY,
    faults=CRASHES,
)


class ForgetfulSink(SimSink):
    """Attempt records are lost: each process knows its own alone."""

    def read_record(self, name: str) -> SeenRecord:
        self.place.records.setdefault(name, (0, {}))
        return super().read_record(name)

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        written = super().write_record(name, fields, stamp)
        self.place.records[name] = (int(str(written)), {})
        return written


plant("records_lost", ["within_max_rejections"], "locks", sink(ForgetfulSink))


class AlwaysProven(Records):
    """A credential that worked once needs no claim ever again."""

    async def settle(
        self,
        ledger: Ledger,
        credential: str,
        claim: Claim | None,
        verdict: Verdict,
        urgency: float,
    ) -> None:
        proven = ledger.proven
        await super().settle(ledger, credential, claim, verdict, urgency)
        ledger.proven = ledger.proven or proven


class NeverProvenWrong(Publisher):
    """Adopting another's token leaves our own credential proven."""

    def _adopt(self, state: TokenState) -> None:
        proven = state.ledger.proven
        super()._adopt(state)
        state.ledger.proven = proven


plant(
    "proven_for_ever",
    ["within_max_rejections"],
    "locks",
    rotator(records=AlwaysProven, publisher=NeverProvenWrong),
    replicas=3,
)


class NeverResumes(Rotator):
    """A suspended token stays so."""

    async def _resume(self, state: TokenState) -> None:
        del state


plant("never_resumed", ["fresh_when_quiet", "never_stale"], "locks", rotator(NeverResumes), replicas=1)

# ── the breaker ───────────────────────────────────────────────────────────────────────────────────────────────────────


class NeverOpens(Gate):
    """Every token asks by itself, however long the endpoint has been out."""

    def admit(self, token: str, expires: float, now: float, *, probe: bool = True) -> bool:
        del token, expires, now, probe
        return True

    def failed(self, token: str, expires: float, now: float, retry_after: float | None, draw: float) -> list[Wake]:
        del token, expires, now, retry_after, draw
        return []


OUTAGE = (Fault("outage", 4000.0, 2000.0, how="503"),)
plant(
    "breaker_never_opens",
    ["few_probes"],
    "steady",
    rotator(gate=NeverOpens),
    tokens=40,
    replicas=1,
    seconds=DAY,
    faults=OUTAGE,
)


class NeverCloses(Gate):
    """Once it fails, an endpoint is asked by one token at a time for ever."""

    def answered(self, token: str, now: float) -> list[Wake]:
        del token, now
        return []


plant(
    "breaker_never_closes",
    ["fresh_after_outage", "never_stale"],
    "steady",
    rotator(gate=NeverCloses),
    replicas=1,
    seconds=DAY,
    faults=OUTAGE,
)


class ForgetsTheWaiting(Gate):
    """Nobody is told that the endpoint works again."""

    def answered(self, token: str, now: float) -> list[Wake]:
        super().answered(token, now)
        return []


plant(
    "wake_lost",
    ["fresh_after_outage", "never_stale"],
    "steady",
    rotator(gate=ForgetsTheWaiting),
    replicas=1,
    seconds=DAY,
    faults=OUTAGE,
)

# ── verify and canary ─────────────────────────────────────────────────────────────────────────────────────────────────


class PublishesUntried(Granter):
    """A new token is published whether it works or not."""

    async def verify(self, state: TokenState, minted: Minted) -> Failure | None:
        await super().verify(state, minted)
        self._hold(state, minted)
        return None


plant("published_though_refused", ["dead_not_published"], "deaths", rotator(granter=PublishesUntried), replicas=1)


class BlindCanary(Granter):
    """The token in use is tried, and what comes of it ignored."""

    async def death(self, state: TokenState) -> VerifyError | None:
        await super().death(state)
        return None


plant("early_death_ignored", ["death_noticed"], "deaths", rotator(granter=BlindCanary))


class Stormy(Rotator):
    """A token that is refused is replaced at once, again and again."""

    def _delay(self, state: TokenState, failure: Failure) -> float:
        del state, failure
        return 1.0


plant(
    "grant_storm",
    ["no_grant_storm", "no_tight_loop"],
    "deaths",
    rotator(Stormy),
    faults=(Fault("api", 4000.0, 9000.0, how="refuses"),),
)
