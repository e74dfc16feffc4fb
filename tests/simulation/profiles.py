"""The worlds that are simulated: of each profile one for each of its seeds, with the faults that belong to it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from aca_tokend.simulation.server import REFUSES, REFUSES_YOUNG
from tests.simulation.faults import Fault
from tests.simulation.faults_accounts import STEPS
from tests.simulation.scenario import DAY, HOUR, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable


# Whether core/steps.py makes a value of what a call raises that nobody foresaw. Until then it ends the run.
SURPRISES_ARE_VALUES = False


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
    return replace(base, faults=_faults(rng, base, kinds, 10))


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
        base, faults=_faults(rng, base, ("outage", "sink", "kill", "kill amid", "freeze", "crash loop", "reload"), 40)
    )


def _late(rng: random.Random, base: Scenario) -> Scenario:
    """Outages that end as late as the promise allows."""
    base = replace(base, tokens=rng.randint(2, 5), replicas=rng.randint(1, 3), seconds=rng.uniform(3, 5) * DAY)
    return replace(base, faults=_faults(rng, base, ("until expiry", "until expiry", "kill amid"), 14))


def _race(rng: random.Random, base: Scenario) -> Scenario:
    """Replicas without jitter: all rotate at the same moment, each time."""
    base = replace(base, tokens=8, replicas=3, seconds=5 * DAY, jitter=0.0, latency=(0.3, 0.1, 0.002))
    return replace(base, faults=_faults(rng, base, ("sink", "kill amid"), rng.randint(0, 6)))


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
        base, faults=_faults(rng, base, ("password", "password", "kill", "kill amid", "outage", "crash loop"), 24)
    )


def _clocks(rng: random.Random, base: Scenario) -> Scenario:
    """Wall clocks that differ, steps of an hour, clocks that are set after the start."""
    replicas = rng.randint(1, 3)
    skews = tuple(rng.choice((0.0, rng.uniform(-120, 120))) for _ in range(replicas))
    base = replace(base, tokens=5, replicas=replicas, seconds=8 * DAY, skews=skews)
    faults = _faults(rng, base, ("step", "freeze", "outage", "kill amid"), 20)
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
    return replace(base, faults=_faults(rng, base, ("lifetime", "outage", "kill amid"), 6))


def _foreign(rng: random.Random, base: Scenario) -> Scenario:
    """Somebody else writes where this token is published."""
    base = replace(base, tokens=4, replicas=rng.randint(1, 2), seconds=6 * DAY)
    return replace(base, faults=_faults(rng, base, ("deface", "kill"), 10))


def _deaths(rng: random.Random, base: Scenario) -> Scenario:
    """Accounts are logged out, and the API that tells so fails."""
    every = rng.choice((30.0, 60.0, 300.0))
    base = replace(base, tokens=4, replicas=rng.randint(1, 3), seconds=2 * DAY, verify=True, verify_every=every)
    return replace(base, faults=_faults(rng, base, ("log-out", "log-out", "api", "outage", "kill amid"), 20))


def _hooks(rng: random.Random, base: Scenario) -> Scenario:
    """Something is run after each write, and it fails now and then, as processes do."""
    base = replace(
        base, tokens=rng.randint(2, 12), replicas=rng.randint(1, 2), seconds=rng.uniform(2, 4) * DAY, file=True
    )
    return replace(base, faults=_faults(rng, base, ("hook", "hook", "kill", "kill amid", "sink", "reload"), 24))


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
    return replace(base, faults=_faults(rng, base, ("account", "account", "account", "outage", "kill"), 18))


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
    faults = _faults(rng, base, ("place", "place", "place", "kill", "kill amid"), 20)
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
    return replace(base, faults=_faults(rng, base, ("forge", "forge", "forge", "deface", "kill"), 16))


def _rivals(rng: random.Random, base: Scenario) -> Scenario:
    """One replica has another account for a token than the others."""
    base = replace(base, tokens=3, replicas=rng.randint(2, 3), seconds=6 * DAY, files=rng.randint(0, 1))
    return replace(base, faults=_faults(rng, base, ("rival", "rival", "kill"), 14))


def _untried(rng: random.Random, base: Scenario) -> Scenario:
    """One replica cannot try its tokens, and what the other is granted lives for another time."""
    base = replace(
        base, tokens=4, replicas=2, seconds=4 * DAY, verify=True, verify_every=rng.choice((0.0, 300.0)), files=1
    )
    return replace(
        base, faults=_faults(rng, base, ("api of one", "api of one", "lifetime of one", "kill", "account"), 40)
    )


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
    kinds = ("password", "password", "client secret", "client secret", "record", "kill", "kill amid", "crash loop")
    return replace(base, faults=_faults(rng, base, kinds, 24))


def _surprises(rng: random.Random, base: Scenario) -> Scenario:
    """Calls raise what nobody foresaw, and the files of passwords do not answer."""
    base = replace(
        base, tokens=rng.randint(10, 16), replicas=rng.randint(1, 2), seconds=3 * DAY, files=rng.randint(0, 1)
    )
    kinds = ("reference", "kill", *(("surprise",) * 3 if SURPRISES_ARE_VALUES else ()))
    return replace(base, faults=_faults(rng, base, kinds, 12))


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


def _faults(rng: random.Random, base: Scenario, kinds: tuple[str, ...], count: int) -> tuple[Fault, ...]:
    """So many faults, spread over the run."""
    faults = []
    for number in range(count):
        at = base.seconds * (number + rng.random()) / count
        faults.append(_fault(rng, base, rng.choice(kinds), at))
    return tuple(faults)


def _fault(rng: random.Random, base: Scenario, kind: str, at: float) -> Fault:
    """One fault of a kind: what hits a token or a replica hits one of them."""
    token, replica = rng.randrange(base.tokens), rng.randrange(base.replicas)
    drawn_fault = _DRAWN[kind](rng, base)
    if kind == "kill amid":
        return replace(drawn_fault, at=at, target=replica, how=f"t{token}")
    if kind in OF_PLACES:
        places = base.file + base.files + 1
        return replace(drawn_fault, at=at, target=token + replica * base.tokens, value=float(rng.randrange(places)))
    return replace(drawn_fault, at=at, target=token if kind in OF_TOKENS else replica)


OF_TOKENS = frozenset(
    {
        "until expiry",
        "password",
        "client secret",
        "deface",
        "reload",
        "log-out",
        "account",
        "reference",
        "surprise",
        "rival",
    }
)
OF_PLACES = frozenset({"place", "forge", "record"})


def _outage(rng: random.Random, base: Scenario) -> Fault:
    how = rng.choice(("refuse", "503", "500", "429", "hang"))
    return Fault(
        "outage", 0.0, _while(rng, base), how=how, value=rng.choice((0.0, 5.0, 60.0, 600.0)) if how == "429" else 0.0
    )


def _password(rng: random.Random, base: Scenario) -> Fault:
    # without cautious attempts only an operator helps a credential that was refused and is right by now
    how = rng.choice(("server first", "file first")) if base.retry_rejected else "server first"
    return Fault("password", 0.0, rng.choice((rng.uniform(0, 600.0), rng.uniform(0, 4 * HOUR))), how=how)


def _client_secret(rng: random.Random, base: Scenario) -> Fault:
    return replace(_password(rng, base), kind="client secret")


def _account(rng: random.Random, base: Scenario) -> Fault:
    what = rng.choice(("username", "authority", "host", "client_id", *(("reference",) * 3 if base.by_reference else ())))
    # an account that the server learns of later is tried again by itself only where cautious attempts are allowed
    unknown = what != "host" and base.retry_rejected and rng.random() < 0.5
    seconds = rng.uniform(600.0, 4 * HOUR)
    return Fault("account", 0.0, seconds, how=f"{what}, unknown" if unknown else what, value=float(rng.random() < 0.5))


def _place_fault(rng: random.Random, base: Scenario) -> Fault:
    how = rng.choice(("missing", "denied", "read only", "hangs"))
    return Fault("place", 0.0, rng.choice((_while(rng, base), rng.uniform(HOUR, 8 * HOUR), math.inf)), how=how)


def _forge(rng: random.Random, base: Scenario) -> Fault:
    hows = ("2099", "future", "username", "alphabet", "types", *(("believable",) if base.verify else ()))
    return Fault("forge", 0.0, rng.uniform(60, 3 * HOUR), how=rng.choice(hows))


def _api_of_one(rng: random.Random, base: Scenario) -> Fault:
    how = rng.choice(("503", "refuse", "hang", "503", REFUSES, REFUSES_YOUNG))
    return Fault("api of one", 0.0, rng.choice((_while(rng, base), rng.uniform(2, 6) * HOUR)), how=how)


def _while(rng: random.Random, base: Scenario) -> float:
    """Seconds, minutes, or a good part of a life."""
    span = rng.choice((rng.uniform(1, 60), rng.uniform(60, 1800), rng.uniform(0.2, 1.0) * base.lifetime))
    return min(span, 4 * HOUR)


_DRAWN: dict[str, Callable[[random.Random, Scenario], Fault]] = {
    "outage": _outage,
    "until expiry": lambda rng, _: Fault("until expiry", 0.0, 0.0, how=rng.choice(("refuse", "503", "500", "hang"))),
    "sink": lambda rng, base: Fault(
        "sink", 0.0, min(_while(rng, base), 1200.0), how=rng.choice(("vault", "vault hangs", "disk"))
    ),
    "hook": lambda rng, base: Fault(
        "hook", 0.0, _while(rng, base), how=rng.choice(("command_failed", "command_timeout", "pid_file_stale"))
    ),
    "kill": lambda rng, base: Fault("kill", 0.0, rng.choice((0.0, rng.uniform(0, 60), _while(rng, base)))),
    "freeze": lambda rng, base: Fault("freeze", 0.0, rng.choice((0.0, rng.uniform(0, 60), _while(rng, base)))),
    "kill amid": lambda rng, _: Fault("kill amid", 0.0, rng.uniform(0, 30), value=rng.uniform(0, 1.5)),
    "crash loop": lambda rng, _: Fault("crash loop", 0.0, rng.uniform(5, 60), value=rng.choice((0.3, 0.7, 1.5, 5.0))),
    "password": _password,
    "log-out": lambda rng, _: Fault("log-out", 0.0, 0.0, how=rng.choice(("", "amid")), value=rng.uniform(0.0, 0.6)),
    "api": lambda rng, base: Fault("api", 0.0, _while(rng, base), how=rng.choice((REFUSES, "503", "500", "hang"))),
    "api of one": _api_of_one,
    "lifetime of one": lambda rng, base: Fault(
        "lifetime of one",
        0.0,
        rng.uniform(1, 8) * HOUR,
        value=rng.choice((0.15, 0.3, 0.6, 1.5, 3.0)) * base.lifetime,
    ),
    "client secret": _client_secret,
    "account": _account,
    "place": _place_fault,
    "forge": _forge,
    "record": lambda rng, _: Fault("record", 0.0, rng.uniform(60, 4 * HOUR), how=rng.choice(("gone", "older"))),
    "rival": lambda rng, _: Fault("rival", 0.0, rng.uniform(2, 10) * HOUR, how=rng.choice(("restart", "reload"))),
    "reference": lambda rng, _: Fault(
        "reference", 0.0, rng.choice((rng.uniform(60, 1800), 3 * HOUR)), value=rng.choice((0.0, 600.0, HOUR))
    ),
    "surprise": lambda rng, _: Fault(
        "surprise", 0.0, rng.uniform(60, 3 * HOUR), how=rng.choice(("", *STEPS)), value=rng.choice((0.1, 0.5, 1.0))
    ),
    "step": lambda rng, _: Fault("step", 0.0, 0.0, value=rng.choice((-3600.0, 3600.0, rng.uniform(-300, 300)))),
    "lifetime": lambda rng, _: Fault("lifetime", 0.0, 2 * HOUR, value=rng.choice((5.0, 20.0, 60.0, 600.0, HOUR))),
    "reload": lambda rng, base: Fault(
        "reload", 0.0, _while(rng, base), how=rng.choice(("token leaves", "endpoint changes"))
    ),
    "deface": lambda rng, _: Fault(
        "deface", 0.0, rng.uniform(60, 3 * HOUR), how=rng.choice(("text", "another account", "gone"))
    ),
}
