"""How a fault is planted: a part of the real engine that does one thing wrong takes its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from aca_tokend.rotation.attempts import AttemptRecords
from aca_tokend.rotation.decide import CHAIN, Action, Rest, decide
from aca_tokend.rotation.grant import Granter
from aca_tokend.rotation.lockout import Lockout
from aca_tokend.rotation.look import PATIENCE_SECONDS, Looker
from aca_tokend.rotation.publish import Publisher
from aca_tokend.rotation.rotator import Rotator

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from aca_tokend.rotation.decide import Rule
    from aca_tokend.rotation.facts import Facts, Moment
    from aca_tokend.simulation.places import SimSink
    from aca_tokend.simulation.replica import Replica

    Decide = Callable[[Facts, Moment], Action | Rest]


@dataclass(frozen=True)
class Planted:
    """A fault: the parts that have it, the invariants of which one notices, and the days on which it shows.

    `profile` and what is `changed` in its scenarios; by default some seeds of the profile are tried.
    """

    engine: Mapping[str, Any]
    caught_by: frozenset[str]
    profile: str
    changed: Mapping[str, Any] = field(default_factory=dict)


PLANTED: dict[str, Planted] = {}


def plant(
    name: str,
    caught_by: Sequence[str],
    profile: str,
    engine: Mapping[str, Any],
    **changed: Any,  # noqa: ANN401 -- fields of Scenario
) -> None:
    """Adds one to the list."""
    PLANTED[name] = Planted(engine, frozenset(caught_by), profile, changed)


def rotator(kind: type[Rotator] = Rotator, decide: Decide = decide, **parts: type[Any]) -> dict[str, Any]:
    """An engine with this rotator, these rules, and parts of these kinds.

    granter, looker, publisher, lockout, records, secrets, gate.
    """

    def build(replica: Replica, rng: random.Random) -> Rotator:
        clock, observe, wake, late = replica.clock, replica.observe, replica.wake, replica.tokens.late
        secrets = parts["secrets"](replica.cluster.secrets) if "secrets" in parts else replica.cluster.secrets
        built = kind(clock, secrets, rng, observe, wake, late, decide)
        records = parts.get("records", AttemptRecords)(clock, PATIENCE_SECONDS)
        lockout = parts.get("lockout", Lockout)(clock, records, wake)
        resolver = built.granter.resolver
        looker = parts.get("looker", Looker)(clock, rng, observe, late)
        granter = parts.get("granter", Granter)(clock, resolver, rng, observe, wake, lockout)
        object.__setattr__(built, "granter", granter)
        object.__setattr__(built, "looker", looker)
        object.__setattr__(built, "publisher", parts.get("publisher", Publisher)(clock, observe, looker))
        if "gate" in parts:
            replica.shared._gates["main"] = parts["gate"](10.0, 60.0, 8)
        return built

    return {"rotator": build}


def rules(chain: Sequence[Rule]) -> dict[str, Any]:
    """An engine that decides by these rules."""
    return rotator(decide=partial(decide, chain=tuple(chain)))


def without(dropped: Rule) -> tuple[Rule, ...]:
    """All rules but one."""
    return tuple(rule for rule in CHAIN if rule is not dropped)


def instead(of: Rule, planted: Rule, chain: tuple[Rule, ...] = CHAIN) -> tuple[Rule, ...]:
    """All rules, one of them replaced."""
    return tuple(planted if rule is of else rule for rule in chain)


def moved(rule: Rule, before: Rule) -> tuple[Rule, ...]:
    """All rules, one of them asked before another that it follows."""
    rest = [it for it in CHAIN if it is not rule]
    return (*rest[: rest.index(before)], rule, *rest[rest.index(before) :])


def sink(kind: type[SimSink]) -> dict[str, Any]:
    """An engine whose sinks are of this kind."""
    return {"wrap_sink": lambda it: kind(it.place, it.name, it.kind, it.pool)}
