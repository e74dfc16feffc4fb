"""Short worlds made for one promise each: what broke an engine before, and what is most likely to break one again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.simulation.faults import Fault
from tests.simulation.scenario import DAY, HOUR, Scenario, run

FOR_EVER = math.inf
DAYS = Scenario(1, "directed", tokens=4, seconds=DAY)
TWO_PLACES = replace(DAYS, files=1)
TRIED = replace(DAYS, verify=True, verify_every=60.0)
SEEDS = range(3)


def _account(how: str, *, restart: bool) -> Fault:
    return Fault("account", 9000.0, 5 * HOUR, how=how, value=float(restart))


WORLDS = {
    **{
        f"the first place of the first token {how} from the start": replace(
            TWO_PLACES, faults=(Fault("place", 0.0, FOR_EVER, how=how),)
        )
        for how in ("missing", "denied", "read only", "hangs")
    },
    **{
        f"the only place of the first token {how}, and a restart": replace(
            DAYS, faults=(Fault("place", 9000.0, FOR_EVER, how=how), Fault("kill", 9100.0, 60.0))
        )
        for how in ("missing", "hangs")
    },
    **{
        f"{how} changes {'with' if restart else 'without'} a restart": replace(
            DAYS, by_reference=how == "reference", faults=(_account(how, restart=restart),)
        )
        for how in ("username", "authority", "client_id", "host", "reference")
        for restart in (True, False)
    },
    "another account, refused at first, with a canary": replace(
        TRIED, faults=(_account("username, unknown", restart=False),)
    ),
    **{
        f"a forgery: {how}": replace(TWO_PLACES, faults=(Fault("forge", 9000.0, 3 * HOUR, how=how, value=1.0),))
        for how in ("2099", "future", "username", "alphabet", "types")
    },
    "a forgery that can be believed, where tokens are tried": replace(
        TRIED, files=1, faults=(Fault("forge", 9000.0, 3 * HOUR, how="believable", value=1.0),)
    ),
    "a rival, whose place it is once it dies": replace(
        TWO_PLACES,
        replicas=2,
        faults=(Fault("rival", 9000.0, 10 * HOUR, how="restart"), Fault("kill", 12_000.0, 8 * HOUR, target=1)),
    ),
    "a rival, which is left alone": replace(
        DAYS, replicas=2, faults=(Fault("rival", 9000.0, 10 * HOUR, how="restart"), Fault("kill", 12_000.0, 8 * HOUR))
    ),
    "a pending token that is older than a replica's, which lives shorter": replace(
        TRIED,
        verify_every=0.0,
        replicas=2,
        faults=(
            Fault("api of one", 4000.0, 20 * HOUR, how="503"),
            Fault("lifetime of one", 4000.0, 20 * HOUR, target=1, value=1100.0),
            Fault("kill", 6000.0, 10 * HOUR, target=1),
        ),
    ),
    "a pending token of the account before": replace(
        TRIED,
        verify_every=0.0,
        by_reference=True,
        faults=(Fault("api", 4000.0, 6000.0, how="503"), Fault("account", 5000.0, 3 * HOUR, how="reference")),
    ),
    "files of passwords that hang for an hour": replace(
        DAYS, tokens=12, faults=(Fault("reference", 3600.0, 3 * HOUR, value=HOUR),)
    ),
    "a wrong password that tokens share": replace(
        DAYS, tokens=6, users=1, faults=(Fault("password", 4000.0, 6 * HOUR, how="server first"),)
    ),
    "a wrong client secret": replace(
        DAYS, tokens=6, faults=(Fault("client secret", 4000.0, 6 * HOUR, how="server first"),)
    ),
    **{
        f"a clock that is {hours:+.0f} hours wrong at the start": replace(
            DAYS, skews=(hours * HOUR,), faults=(Fault("clocks set", 5.0, 0.0),)
        )
        for hours in (-3.0, 3.0)
    },
}


@pytest.mark.parametrize("name", WORLDS)
def test_promise_is_kept(name: str) -> None:
    """In a world that is hard in one way no invariant is broken."""
    for seed in SEEDS:
        outcome = run(replace(WORLDS[name], seed=seed))

        assert outcome.violated is None, f"seed {seed}: {outcome.violated}"
        assert outcome.checker.checks > 0, "something was checked"
