"""How the faults of a run are drawn: when each strikes, what it hits, for how long and how."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from aca_tokend.simulation.server import REFUSES, REFUSES_YOUNG
from tests.simulation.faults import Fault
from tests.simulation.faults_accounts import STEPS
from tests.simulation.scenario import HOUR

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.simulation.scenario import Scenario


def faults(rng: random.Random, base: Scenario, kinds: tuple[str, ...], count: int) -> tuple[Fault, ...]:
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
    what = rng.choice(
        ("username", "authority", "host", "client_id", *(("reference",) * 3 if base.by_reference else ()))
    )
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
