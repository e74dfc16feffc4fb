"""Faults planted in the guard, the breaker, verify and the canary."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Reason
from aca_tokend.rotation import decide as rules_of
from aca_tokend.rotation.admission import Gate
from aca_tokend.rotation.grant import Granter
from aca_tokend.rotation.lockout import Lockout, Permit, Settled, Verdict
from aca_tokend.simulation.places import SimSink
from tests.simulation.faults import Fault
from tests.simulation.planting import plant, rotator, rules, sink, without

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.guard import SeenRecord
    from aca_tokend.core.outcome import Failure
    from aca_tokend.rotation.credentials import Resolved
    from aca_tokend.rotation.facts import Facts, Held
    from aca_tokend.rotation.lockout import Denial, Unrecorded, Wait
    from aca_tokend.rotation.managed import ManagedToken, Wiring

HOUR = 3600.0
DAY = 24 * HOUR

# ── the guard ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class RejectionForgotten(Lockout):
    """A refused attempt counts as none."""

    async def settle(self, wiring: Wiring, facts: Facts, permit: Permit, verdict: Verdict = None) -> Settled:
        return await super().settle(wiring, facts, permit, verdict if verdict is True else None)


plant("rejection_not_counted", ["within_max_rejections"], "locks", rotator(lockout=RejectionForgotten))


class ClaimsAfterwards(Lockout):
    """An attempt is counted after its answer, not before its request."""

    async def permit(self, wiring: Wiring, facts: Facts, resolved: Resolved) -> Permit | Wait | Denial | Unrecorded:
        permit = await super().permit(wiring, facts, resolved)
        if isinstance(permit, Permit) and permit.claim is not None:
            await super().settle(wiring, facts, permit)
            return Permit(resolved, permit.known, math.inf)
        return permit


# The password is changed on the server alone, and the process dies and starts again every moment.
CRASHES = (
    Fault("password", 4200.0, 2000.0, how="server first"),
    Fault("crash loop", 4250.0, 600.0, value=1.5),
)
plant(
    "claimed_after_the_request",
    ["within_max_rejections"],
    "locks",
    rotator(lockout=ClaimsAfterwards),
    tokens=1,
    replicas=1,
    seconds=DAY,
    latency=(1.0, 0.02, 0.002),
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


class ProvenForEver(Lockout):
    """A credential that worked once needs no claim ever again, whoever was granted a token since."""

    async def permit(self, wiring: Wiring, facts: Facts, resolved: Resolved) -> Permit | Wait | Denial | Unrecorded:
        known = wiring.shared.known(resolved)
        if known.user.accepted_at > 0.0:
            return Permit(resolved, known, math.inf)
        return await super().permit(wiring, facts, resolved)


plant("proven_for_ever", ["within_max_rejections"], "locks", rotator(lockout=ProvenForEver), replicas=3)
plant(
    "never_resumed",
    ["fresh_when_quiet", "never_stale", "attempt_in_time", "isolation"],
    "locks",
    rules(without(rules_of.poll)),
    replicas=1,
)

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

    async def _verified(self, token: ManagedToken, facts: Facts, granted: Held) -> Facts:
        tried = await super()._verified(token, facts, granted)
        if tried.held is not None and tried.held.document == granted.document:
            return tried
        return tried._replace(held=granted._replace(checked_at=self.clock.monotonic()), trouble=None, pending=None)


plant("published_though_refused", ["dead_not_published"], "deaths", rotator(granter=PublishesUntried), replicas=1)


class BlindCanary(Granter):
    """The token in use is tried, and what comes of it ignored."""

    async def check(self, token: ManagedToken) -> Facts:
        held = token.facts.held
        facts = await super().check(token)
        return facts._replace(held=held and held._replace(checked_at=self.clock.monotonic()))


plant("early_death_ignored", ["death_noticed"], "deaths", rotator(granter=BlindCanary))


class Stormy(Granter):
    """A token that is refused is replaced at once, again and again, as if each were the first."""

    def failed(self, facts: Facts, failure: Failure, *, asked: bool = True) -> Facts:
        facts = super().failed(facts, failure, asked=asked)
        if failure.reason is not Reason.TOKEN_REFUSED or facts.trouble is None:
            return facts
        return facts._replace(trouble=replace(facts.trouble, count=1))


plant(
    "grant_storm",
    ["no_grant_storm", "no_tight_loop"],
    "deaths",
    rotator(granter=Stormy),
    faults=(Fault("api", 4000.0, 9000.0, how="refuses"),),
)
