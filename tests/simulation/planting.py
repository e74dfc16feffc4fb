"""How a fault is planted: a part of the real engine with one method that does it wrong takes its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aca_tokend.granting import Granter
from aca_tokend.guarding import Guard
from aca_tokend.records import Records
from aca_tokend.rotator import Rotator

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from aca_tokend.simulation.places import SimSink
    from aca_tokend.simulation.replica import Replica


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


def rotator(kind: type[Rotator] = Rotator, **parts: type[Any]) -> dict[str, Any]:
    """An engine with this rotator, and with parts of these kinds: granter, publisher, guard, records, gate."""

    def build(replica: Replica, rng: random.Random) -> Rotator:
        built = kind(replica.clock, replica.cluster.secrets, rng, replica.observe, replica.wake)
        guard = built._guard
        if {"guard", "records"} & parts.keys():
            records = parts.get("records", Records)(replica.clock)
            guard = parts.get("guard", Guard)(replica.clock, records, replica.wake)
            object.__setattr__(built, "_guard", guard)
        granter = parts.get("granter", Granter)
        wired = granter(replica.clock, built._resolver, rng, replica.observe, replica.wake, guard)
        object.__setattr__(built, "_granter", wired)
        if "publisher" in parts:
            object.__setattr__(
                built, "_publisher", parts["publisher"](replica.clock, rng, replica.observe, replica.wake)
            )
        if "gate" in parts:
            shared = parts["gate"](10.0, 60.0)
            for state in replica.tokens.by_name.values():
                state.gate = shared
        return built

    return {"rotator": build}


def sink(kind: type[SimSink]) -> dict[str, Any]:
    """An engine whose sinks are of this kind."""
    return {"wrap_sink": lambda it: kind(it.place, it.name, it.kind, it.pool, it.replace_foreign)}
