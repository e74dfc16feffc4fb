"""The worlds that are simulated: of each profile one for each of its seeds, with the faults that belong to it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.simulation import drawing
from tests.simulation.faults import Fault
from tests.simulation.scenario import DAY, HOUR, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable


def drawn(seed: int, **changed: object) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(seed)  # noqa: S311 -- to be repeatable is the point
    names = list(PROFILES)
    profile = names[seed % len(names)]
    scenario = PROFILES[profile](rng, Scenario(seed, profile))
    return replace(scenario, **changed)  # type: ignore[arg-type]  # by name


def _quiet(rng: random.Random, base: Scenario) -> Scenario:
    """Three replicas and nothing goes wrong."""
    return replace(base, tokens=30, replicas=3, seconds=14 * DAY, file=rng.random() < 0.3)


def _steady(rng: random.Random, base: Scenario) -> Scenario:
    """Ordinary days with some trouble in them."""
    base = replace(base, tokens=40, replicas=rng.choice((1, 2, 3)), seconds=10 * DAY, file=rng.random() < 0.3)
    kinds = ("outage", "sink", "kill", "kill amid", "freeze", "password", "reload")
    return replace(base, faults=drawing.faults(rng, base, kinds, 10))


def _stormy(rng: random.Random, base: Scenario) -> Scenario:
    """Everything fails now and then."""
    base = replace(
        base,
        tokens=rng.randint(3, 12),
        replicas=rng.randint(1, 3),
        seconds=rng.uniform(4, 12) * DAY,
        verify=rng.random() < 0.3,
        file=rng.random() < 0.5,
        latency=(rng.uniform(0.02, 0.4), rng.uniform(0.005, 0.05), 0.002),
    )
    return replace(
        base,
        faults=drawing.faults(rng, base, ("outage", "sink", "kill", "kill amid", "freeze", "crash loop", "reload"), 40),
    )


def _late(rng: random.Random, base: Scenario) -> Scenario:
    """Outages that end as late as the promise allows."""
    base = replace(base, tokens=rng.randint(2, 5), replicas=rng.randint(1, 3), seconds=rng.uniform(3, 5) * DAY)
    return replace(base, faults=drawing.faults(rng, base, ("until expiry", "until expiry", "kill amid"), 14))


def _race(rng: random.Random, base: Scenario) -> Scenario:
    """Replicas without jitter: all rotate at the same moment, each time."""
    base = replace(base, tokens=8, replicas=3, seconds=5 * DAY, jitter=0.0, latency=(0.3, 0.1, 0.002))
    return replace(base, faults=drawing.faults(rng, base, ("sink", "kill amid"), rng.randint(0, 6)))


def _locks(rng: random.Random, base: Scenario) -> Scenario:
    """Passwords change on one side before the other, and processes die meanwhile."""
    base = replace(
        base,
        tokens=rng.randint(2, 6),
        replicas=rng.randint(1, 3),
        seconds=6 * DAY,
        retry_rejected=rng.choice((0.0, HOUR, 4 * HOUR)),
    )
    return replace(
        base,
        faults=drawing.faults(rng, base, ("password", "password", "kill", "kill amid", "outage", "crash loop"), 24),
    )


def _clocks(rng: random.Random, base: Scenario) -> Scenario:
    """Wall clocks that differ, steps of an hour, clocks that are set after the start."""
    replicas = rng.randint(1, 3)
    skews = tuple(rng.choice((0.0, rng.uniform(-120, 120))) for _ in range(replicas))
    base = replace(base, tokens=5, replicas=replicas, seconds=8 * DAY, skews=skews)
    faults = drawing.faults(rng, base, ("step", "freeze", "outage", "kill amid"), 20)
    if rng.random() < 0.3:  # wrong at the start, and set a few seconds later
        base = replace(base, skews=tuple(rng.choice((-3.0, 3.0)) * HOUR for _ in range(replicas)))
        faults = (Fault("clocks set", rng.uniform(0.1, 20.0), 0.0), *faults)
    return replace(base, faults=faults)


def _lifetimes(rng: random.Random, base: Scenario) -> Scenario:
    """Tokens of a few seconds, of two weeks, of a year, that shrink, that are handed out again."""
    lifetime = rng.choice((15.0, 30.0, 60.0, 300.0, HOUR, 14 * DAY, 365 * DAY))
    base = replace(
        base,
        tokens=4,
        replicas=rng.randint(1, 3),
        lifetime=lifetime,
        seconds=min(max(lifetime * 40, HOUR), 400 * DAY),
        min_interval=rng.choice((1.0, 10.0)),
        reuse=rng.random() < 0.25,
    )
    return replace(base, faults=drawing.faults(rng, base, ("lifetime", "outage", "kill amid"), 6))


def _foreign(rng: random.Random, base: Scenario) -> Scenario:
    """Somebody else writes where this token is published."""
    base = replace(base, tokens=4, replicas=rng.randint(1, 2), seconds=6 * DAY)
    return replace(base, faults=drawing.faults(rng, base, ("deface", "kill"), 10))


def _deaths(rng: random.Random, base: Scenario) -> Scenario:
    """Accounts are logged out, and the API that tells so fails."""
    every = rng.choice((30.0, 60.0, 300.0))
    base = replace(base, tokens=4, replicas=rng.randint(1, 3), seconds=2 * DAY, verify=True, verify_every=every)
    return replace(base, faults=drawing.faults(rng, base, ("log-out", "log-out", "api", "outage", "kill amid"), 20))


def _hooks(rng: random.Random, base: Scenario) -> Scenario:
    """Something is run after each write, and it fails now and then, as processes do."""
    base = replace(
        base, tokens=rng.randint(2, 12), replicas=rng.randint(1, 2), seconds=rng.uniform(2, 4) * DAY, file=True
    )
    return replace(base, faults=drawing.faults(rng, base, ("hook", "hook", "kill", "kill amid", "sink", "reload"), 24))


def _accounts(rng: random.Random, base: Scenario) -> Scenario:
    """Tokens get other accounts and servers other names, with a restart and without."""
    base = replace(
        base,
        tokens=rng.randint(3, 8),
        replicas=rng.randint(1, 3),
        seconds=4 * DAY,
        file=rng.random() < 0.3,
        by_reference=rng.random() < 0.5,
        verify=rng.random() < 0.5,
        verify_every=rng.choice((0.0, 60.0, 300.0)),
        retry_rejected=rng.choice((0.0, HOUR)),
    )
    return replace(base, faults=drawing.faults(rng, base, ("account", "account", "account", "outage", "kill"), 18))


def _places(rng: random.Random, base: Scenario) -> Scenario:
    """Single places are gone from the start, or later, or hang; tokens share accounts and applications."""
    base = replace(
        base,
        tokens=rng.randint(4, 10),
        replicas=rng.randint(1, 2),
        seconds=3 * DAY,
        lifetime=rng.choice((HOUR, 2 * HOUR)),
        users=rng.choice((0, 2)),
        clients=rng.choice((1, 2)),
        files=rng.randint(1, 2),
        files_first=rng.random() < 0.5,
    )
    faults = drawing.faults(rng, base, ("place", "place", "place", "kill", "kill amid"), 20)
    if rng.random() < 0.5:
        faults = (Fault("place", 0.0, math.inf, how=rng.choice(("missing", "denied"))), *faults)
    return replace(base, faults=faults)


def _forgeries(rng: random.Random, base: Scenario) -> Scenario:
    """What others write bears all the marks of ours."""
    base = replace(
        base,
        tokens=4,
        replicas=rng.randint(1, 2),
        seconds=6 * DAY,
        files=rng.randint(0, 2),
        verify=rng.random() < 0.5,
        replace_foreign=rng.random() < 0.2,
    )
    return replace(base, faults=drawing.faults(rng, base, ("forge", "forge", "forge", "deface", "kill"), 16))


def _rivals(rng: random.Random, base: Scenario) -> Scenario:
    """One replica has another account for a token than the others."""
    base = replace(base, tokens=3, replicas=rng.randint(2, 3), seconds=6 * DAY, files=rng.randint(0, 1))
    return replace(base, faults=drawing.faults(rng, base, ("rival", "rival", "kill"), 14))


def _untried(rng: random.Random, base: Scenario) -> Scenario:
    """One replica cannot try its tokens, and what the other is granted lives for another time."""
    base = replace(
        base,
        tokens=4,
        replicas=2,
        seconds=4 * DAY,
        verify=True,
        verify_every=rng.choice((0.0, 300.0)),
        files=1,
        by_reference=rng.random() < 0.5,
    )
    kinds = ("api", "api of one", "api of one", "lifetime of one", "kill", "account", "account")
    faults = drawing.faults(rng, base, kinds, 40)
    if base.by_reference:  # what waits to be tried is not this account's any more
        at = rng.uniform(0.2, 0.8) * base.seconds
        changes = Fault("account", at + rng.uniform(0, 2) * HOUR, rng.uniform(2, 6) * HOUR, how="reference")
        faults = (*faults, Fault("api", at, 3 * HOUR, how="503"), replace(changes, target=rng.randrange(base.tokens)))
    return replace(base, faults=faults)


def _sharing(rng: random.Random, base: Scenario) -> Scenario:
    """Tokens share accounts and applications whose secrets change, and attempt records are lost."""
    base = replace(
        base,
        tokens=rng.randint(4, 9),
        replicas=rng.randint(1, 3),
        seconds=5 * DAY,
        users=rng.randint(1, 3),
        clients=rng.randint(1, 2),
        files=rng.randint(0, 1),
        retry_rejected=rng.choice((0.0, HOUR, 4 * HOUR)),
    )
    kinds = ["password", "password", "client secret", "client secret", "record", "kill", "kill amid", "crash loop"]
    if base.files:
        kinds.append("place")
    return replace(base, faults=drawing.faults(rng, base, tuple(kinds), 24))


def _surprises(rng: random.Random, base: Scenario) -> Scenario:
    """Calls raise what nobody foresaw, and the files of passwords do not answer."""
    base = replace(
        base, tokens=rng.randint(10, 16), replicas=rng.randint(1, 2), seconds=3 * DAY, files=rng.randint(0, 1)
    )
    kinds = ("reference", "kill", "surprise", "surprise", "surprise")
    return replace(base, faults=drawing.faults(rng, base, kinds, 12))


PROFILES: dict[str, Callable[[random.Random, Scenario], Scenario]] = {
    "quiet": _quiet,
    "steady": _steady,
    "stormy": _stormy,
    "late": _late,
    "race": _race,
    "locks": _locks,
    "clocks": _clocks,
    "lifetimes": _lifetimes,
    "foreign": _foreign,
    "deaths": _deaths,
    "hooks": _hooks,
    "accounts": _accounts,
    "places": _places,
    "forgeries": _forgeries,
    "rivals": _rivals,
    "untried": _untried,
    "sharing": _sharing,
    "surprises": _surprises,
}
