"""What `aca-tokend simulate` computes and shows. The invariants of the simulation itself are in tests/simulation/."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from aca_tokend.core.config import Config, parse
from aca_tokend.simulation.picture import MOST_SHOWN, OUT, REFUSED, show
from aca_tokend.simulation.run import Options, main, simulate

if TYPE_CHECKING:
    from collections.abc import Mapping

HOUR = 3600.0


def token(name: str, *, endpoint: str = "main", **keys: object) -> dict[str, object]:
    """A token whose secrets are nowhere to be found."""
    return {
        "name": name,
        "acaengine": endpoint,
        "authority": "authority-1",
        "username": {"file": "/nowhere/username"},
        "password": {"file": f"/nowhere/{name}"},
        "client_id": "client-1",
        "client_secret": {"vault": "secret/clients#one"},
        "publish": [{"to": "vault", "mount": "secret", "path": f"aca/{name}"}, {"to": "file", "path": f"/run/{name}"}],
        **keys,
    }


def config(*tokens: Mapping[str, object]) -> Config:
    """A configuration with two endpoints."""
    auth = {"method": "token", "token": {"file": "/nowhere/token"}}
    document = {
        "acaengine": {"main": {"url": "https://one.example.com"}, "other": {"url": "https://two.example.com"}},
        "vault": {"main": {"address": "https://vault.example.com:8200", "auth": auth}},
        "tokens": list(tokens),
    }
    return parse([("config.toml", document)])


def test_outage_within_the_tolerance_refuses_nobody() -> None:
    """An outage shorter than what is left after the rotation point is not noticed by any reader."""
    result = simulate(config(token("bookings")), Options(outage=1800.0, endpoints=("main",)))

    (bookings,) = result.tokens
    assert result.well
    assert bookings.refused == ()
    assert bookings.grants >= 18, "a day of two-hour tokens"


def test_outage_beyond_a_life_refuses_readers_until_it_ends() -> None:
    """Readers are refused from expiry until shortly after the end of an outage longer than a life."""
    result = simulate(config(token("bookings")), Options(outage=3 * HOUR, endpoints=("main",)))

    (bookings,) = result.tokens
    ((start, end),) = bookings.refused
    assert not result.well
    assert 2 * HOUR < start < 4 * HOUR
    assert 5 * HOUR <= end < 5 * HOUR + 60.0
    assert bookings.refused_attempts > 0
    assert bookings.refused_seconds == end - start


def test_outage_longer_than_the_time_asked_for_is_simulated_to_its_end() -> None:
    """The simulation goes on until the outage is over, however short a time was asked for."""
    asked = Options(outage=30 * HOUR, endpoints=("main",), duration=HOUR)

    (bookings,) = simulate(config(token("bookings")), asked).tokens
    assert bookings.refused[-1][1] >= 32 * HOUR
    assert bookings.refused[-1][1] < asked.until


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.667, 0.9])
def test_longest_outage_survived_is_what_the_policy_says(fraction: float) -> None:
    """From the worst moment on, a simulated token survives the outage that the policy computes, but for seconds."""
    result = simulate(
        config(token("bookings", rotation={"fraction": fraction})), Options(outage=60.0, endpoints=("main",))
    )

    (bookings,) = result.tokens
    assert bookings.tolerance_seconds == pytest.approx(2 * HOUR * (1 - fraction))
    assert bookings.tolerance_seconds - 5.0 <= bookings.survived_seconds <= bookings.tolerance_seconds


def test_only_tokens_of_the_endpoint_that_is_out_suffer() -> None:
    """Where one endpoint is out, the tokens of another are granted as ever."""
    both = config(token("here"), token("there", endpoint="other"))
    result = simulate(both, Options(outage=3 * HOUR, endpoints=("main",)))

    here, there = result.tokens
    assert here.refused
    assert there.refused == ()
    assert there.refused_attempts == 0


@pytest.mark.parametrize("begins", [2.0, 2.25, 2.5, 2.75, 3.0])
def test_outage_longer_than_what_is_survived_is_not_well_whenever_it_begins(begins: float) -> None:
    """Whether a token outlives it by luck of the phase or not, the verdict, the exit code and the picture say so."""
    asked = Options(outage=HOUR, endpoints=("main",), at=begins * HOUR)
    found = simulate(config(token("bookings"), token("elsewhere", endpoint="other")), asked)

    bookings, elsewhere = found.tokens
    phase = found.refused_if_begins(bookings)
    assert bookings.survived_seconds < asked.outage
    assert phase == (HOUR, 2 * HOUR - bookings.survived_seconds)
    assert found.refused_if_begins(elsewhere) is None
    assert not found.well
    out = io.StringIO()
    show(found, Console(file=out, width=160))
    assert "Readers of bookings are refused where the outage begins 1h to 1h20m after" in out.getvalue()
    assert "no reader would have been refused" not in out.getvalue()


def test_same_seed_gives_the_same_result() -> None:
    """The seed decides everything, and another one gives another course of events."""
    asked = Options(outage=HOUR, endpoints=("main",), replicas=3, seed=1)
    first, second = (simulate(config(token("bookings")), asked) for _ in range(2))
    third = simulate(config(token("bookings")), Options(outage=HOUR, endpoints=("main",), replicas=3, seed=2))

    assert first == second
    assert first != third


def test_exit_code_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json everything is printed as one object; the exit code is 1 if readers would have been refused."""
    code = main(config(token("bookings")), Options(outage=3 * HOUR, endpoints=("main",), json=True))
    told = json.loads(capsys.readouterr().out)

    assert code == 1
    assert told["well"] is False
    assert told["tokens"][0]["token"] == "bookings"
    (span,) = told["tokens"][0]["refused"]
    assert span["to_seconds"] > span["from_seconds"]
    assert main(config(token("bookings")), Options(outage=60.0, endpoints=("main",), json=True)) == 0


def test_picture_shows_the_worst_tokens() -> None:
    """The picture fits the terminal and shows a timeline for each of the worst twenty, outage and refused spans."""
    many = config(*(token(f"token-{number}") for number in range(MOST_SHOWN + 5)))
    found = simulate(many, Options(outage=3 * HOUR, endpoints=("main",)))
    for width in (80, 120, 200):
        out = io.StringIO()
        show(found, Console(file=out, width=width))
        lines = out.getvalue().splitlines()

        timelines = [line for line in lines if line.startswith("token-")]
        assert len(timelines) == MOST_SHOWN
        assert all(OUT in line and REFUSED in line for line in timelines)
        assert all(len(line) <= width for line in lines)
        assert "…" not in out.getvalue()
        assert any("25 tokens" in line for line in lines)
