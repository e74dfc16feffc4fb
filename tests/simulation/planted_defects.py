"""The defects that were seen at real servers, planted again: each must be caught by what was added for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from aca_tokend.core.config import FileReference
from aca_tokend.core.errors import InternalError
from aca_tokend.rotation import decide as rules_of
from aca_tokend.rotation.attempts import AttemptRecords
from aca_tokend.rotation.decide import Action, Do, Rest, decide
from aca_tokend.rotation.grant import Granter
from aca_tokend.rotation.rotator import Rotator
from aca_tokend.simulation.driver import SimDriver
from aca_tokend.simulation.places import SimSink
from tests.simulation.planting import instead, plant, rotator, sink

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aca_tokend.core.config import Reference
    from aca_tokend.core.ports import Secrets, Sink
    from aca_tokend.core.secret import Secret
    from aca_tokend.core.token import Seen
    from aca_tokend.rotation.attempts import Book
    from aca_tokend.rotation.facts import Facts, Moment
    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.simulation.driver import _Round, _Task

HOUR = 3600.0


class OneRecordForAll(AttemptRecords):
    """The record of all tokens lies beside the first place of one of them."""

    homes: ClassVar[dict[int, Sink]] = {}

    async def read(self, sinks: Sequence[Sink]) -> Book:
        return await super().read([self.homes.setdefault(id(self.clock), sinks[0])])


plant("one_bad_place_stops_all", ["isolation", "never_stale"], "places", rotator(records=OneRecordForAll))


def forgets_its_failure(facts: Facts, moment: Moment) -> Action | Rest:
    """A token of the account that was configured before leads to attempt after attempt."""
    former = facts.held is not None and facts.current is None
    return decide(facts._replace(trouble=None, suspended=None) if former else facts, moment)


plant(
    "busy_loop_after_a_changed_account",
    ["no_tight_loop", "no_hammering", "rests_quietly", "within_max_rejections"],
    "accounts",
    rotator(decide=forgets_its_failure),
)


def clings_to_the_pending(facts: Facts, moment: Moment) -> Action | Rest:
    """No other token is asked for before the rotation point of a pending one, whatever was adopted since."""
    decision, pending = decide(facts, moment), facts.pending
    if pending is None or not isinstance(decision, Action) or decision.do is not Do.GRANT:
        return decision
    until = pending.life(facts.config, facts.jitter).rotate
    return Rest(until, Do.GRANT) if until > moment.now else decision


plant(
    "pending_token_outlives_its_reason",
    ["never_stale", "waits_for_no_expiry", "attempt_in_time", "isolation"],
    "untried",
    rotator(decide=clings_to_the_pending),
)


class OursByAccountAlone(SimSink):
    """A document does not tell which token it was written for."""

    def look(self) -> Seen:
        seen = super().look()
        return replace(seen, document=replace(seen.document, token="")) if seen.document else seen


plant("changed_address_is_an_outage", ["own_replaced"], "accounts", sink(OursByAccountAlone))


class WaitsForEver(SimDriver):
    """An attempt waits for each of its places, however long that hangs."""

    def _lose_patience(self, task: _Task, round_: _Round, patience: float) -> None:
        del task, round_, patience


plant(
    "place_that_hangs_stops_the_others",
    ["isolation", "never_stale", "always_scheduled"],
    "places",
    {"driver": WaitsForEver},
)


def tries_the_expired(facts: Facts, moment: Moment, grant: float) -> Action | None:
    """The canary tries what has expired."""
    held = facts.current
    if held is not None and held.revoked_at is None and held.expires_at <= moment.now and facts.config.verify:
        at = (held.checked_at or held.issued_at) + (facts.config.verify.every or HOUR)
        return Action(Do.CHECK, at=max(at, held.expires_at))
    return rules_of.canary(facts, moment, grant)


class TakesExpiryForRevocation(Granter):
    """What is refused is revoked, expired or not."""

    async def check(self, token: ManagedToken) -> Facts:
        facts = await super().check(token)
        held, now = facts.held, self.clock.monotonic()
        if held is not None and held.expires_at <= now and not held.revoked_at:
            return facts._replace(held=held._replace(revoked_at=now), revocations=facts.revocations + 1)
        return facts


TRIES_THE_EXPIRED = instead(rules_of.canary, tries_the_expired)
plant(
    "expiry_taken_for_revocation",
    ["revoked_is_true"],
    "deaths",
    rotator(decide=lambda facts, moment: decide(facts, moment, TRIES_THE_EXPIRED), granter=TakesExpiryForRevocation),
)


class EndsTheProcess(Rotator):
    """What nobody foresaw ends more than the attempt that met it."""

    def _contain(self, token: ManagedToken, error: Exception, began: float) -> float:
        if isinstance(error, InternalError):
            raise error
        return super()._contain(token, error, began)


plant("exception_ends_the_process", ["outlives_surprises"], "surprises", rotator(EndsTheProcess))


@dataclass(frozen=True)
class InThePoolOfTheEndpoint:
    """References are resolved where the requests to the endpoint are made."""

    secrets: Secrets

    def pool(self, reference: Reference) -> str | None:
        return "acaengine.main" if isinstance(reference, FileReference) else self.secrets.pool(reference)

    def resolve_all(self, references: Iterable[Reference]) -> dict[Reference, Secret]:
        return self.secrets.resolve_all(references)


plant(
    "references_that_hang_stop_the_endpoint",
    ["isolation", "never_stale", "always_scheduled"],
    "surprises",
    rotator(secrets=InThePoolOfTheEndpoint),
)
