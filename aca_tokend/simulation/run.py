"""`aca-tokend simulate`: what an outage of an endpoint would do to the readers of the operator's own tokens.

    run        every token in one world, as in the daemon: the outage comes at its time of day
    tolerance  each kind of token alone: its rotation point and the outage begin together, the worst moment there is

No connection is made, no secret is read.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from aca_tokend.core.policy import plan
from aca_tokend.simulation.replica import Cluster, Setup
from aca_tokend.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aca_tokend.core.config import Config, TokenConfig
    from aca_tokend.core.grant import Credentials
    from aca_tokend.core.outcome import Event, Reason
    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.simulation.places import Place, SimHook
    from aca_tokend.simulation.replica import Replica
    from aca_tokend.simulation.server import Minted, SimEndpoint

DAY = 86_400.0
HOUR = 3_600.0
# The longest outage that a token survives is found to a second.
RESOLUTION_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to simulate, in seconds. `endpoints`: the ones that are out; `at`: after midnight of the first day."""

    outage: float
    endpoints: tuple[str, ...]
    at: float = 2 * HOUR
    duration: float = DAY
    lifetime: float = 2 * HOUR
    replicas: int = 1
    seed: int = 0
    json: bool = False

    @property
    def until(self) -> float:
        """When the simulation ends: not before the outage is over and the tokens have recovered."""
        return max(self.duration, self.at + self.outage + HOUR)


@dataclass(frozen=True, slots=True)
class TokenResult:
    """What one token went through.

    Attributes:
        refused: spans in which readers of one of its places would have been refused, in seconds from the start.
        grants: tokens granted.
        refused_attempts: attempts that the endpoint refused or did not answer.
        tolerance_seconds: the longest outage it survives from the worst moment on, as the policy has it.
        survived_seconds: the longest that it survived from there in a simulation.
    """

    token: str
    endpoint: str
    refused: tuple[tuple[float, float], ...]
    grants: int
    refused_attempts: int
    tolerance_seconds: float
    survived_seconds: float

    @property
    def refused_seconds(self) -> float:
        """For how long readers would have been refused."""
        return sum(end - start for start, end in self.refused)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of every token."""

    options: Options
    tokens: tuple[TokenResult, ...]

    @property
    def well(self) -> bool:
        """Whether no reader would have been refused, whenever such an outage had begun."""
        return not any(token.refused or self.refused_if_begins(token) for token in self.tokens)

    def refused_if_begins(self, token: TokenResult) -> tuple[float, float] | None:
        """In which phase of a token's life such an outage would have to begin for its readers to be refused.

        From and to, in seconds after its issue; None where they would be refused in no phase.
        """
        options = self.options
        if token.endpoint not in options.endpoints or options.outage <= token.survived_seconds:
            return None
        return max(options.lifetime - options.outage, 0.0), options.lifetime - token.survived_seconds

    def worst(self, count: int) -> list[TokenResult]:
        """Those whose readers would have been refused longest, then those that survive least."""
        return sorted(self.tokens, key=lambda it: (-it.refused_seconds, it.survived_seconds, it.token))[:count]

    def as_json(self) -> dict[str, object]:
        """Everything, in seconds."""
        tokens = [{**asdict(token), "refused_seconds": token.refused_seconds} for token in self.tokens]
        for found, token in zip(self.tokens, tokens, strict=True):
            phase = self.refused_if_begins(found)
            token["refused_if_begins"] = {"from_seconds": phase[0], "to_seconds": phase[1]} if phase else None
            token["refused"] = [{"from_seconds": start, "to_seconds": end} for start, end in token["refused"]]
        return {"well": self.well, **asdict(self.options), "tokens": tokens}


class Tally:
    """Counts what endpoints were asked for each token."""

    def __init__(self) -> None:
        self.grants: dict[str, int] = {}
        self.refusals: dict[str, int] = {}

    def granted(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """The server minted a token."""
        del minted
        self.grants[endpoint.token] = self.grants.get(endpoint.token, 0) + 1

    def refused(self, endpoint: SimEndpoint, credentials: Credentials, reason: Reason) -> None:
        """The server refused the account, or the application."""
        del credentials, reason
        self.refusals[endpoint.token] = self.refusals.get(endpoint.token, 0) + 1

    def failed(self, endpoint: SimEndpoint, reason: Reason) -> None:
        """The server did not do its work."""
        del reason
        self.refusals[endpoint.token] = self.refusals.get(endpoint.token, 0) + 1

    def revoked(self, minted: Minted) -> None:
        """A token died early."""

    def written(self, place: Place, before: object, minted: Minted | None) -> None:
        """What is published changed."""

    def told(self, replica: Replica, event: Event) -> None:
        """A rotation tells what happened."""

    def hooked(self, hook: SimHook, began: float) -> None:
        """A hook did its work."""

    def ended(self, replica: Replica, token: ManagedToken, next_at: float) -> None:
        """An attempt ended."""


def main(config: Config, options: Options) -> int:
    """Simulates and shows. Returns 0 if no reader would have been refused, whenever it had begun, else 1."""
    result = simulate(config, options)
    if options.json:
        import json

        sys.stdout.write(json.dumps(result.as_json(), indent=2) + "\n")
    else:
        from rich.console import Console

        from aca_tokend.simulation.picture import show

        show(result, Console())
    return 0 if result.well else 1


def simulate(config: Config, options: Options) -> Result:
    """Runs the outage, and finds for each kind of token the longest one it survives."""
    tally = Tally()
    cluster = _cluster(config, options, tally)
    cluster.start()
    for name in options.endpoints:
        _take_out(cluster, name, options.at, options.outage)
    cluster.world.run(options.until)
    cluster.settle()
    survived: dict[object, float] = {}
    results = []
    for token in config.tokens:
        kind = (token.rotation, config.acaengine[token.acaengine], tuple(it.to for it in token.publish), token.verify)
        key = repr(kind)
        if key not in survived:
            survived[key] = longest_survived(config, token, options)
        spans = [span for place in cluster.places if place.token == token.name for span in place.refused]
        results.append(
            TokenResult(
                token=token.name,
                endpoint=token.acaengine,
                refused=tuple(_merged(spans)),
                grants=tally.grants.get(token.name, 0),
                refused_attempts=tally.refusals.get(token.name, 0),
                tolerance_seconds=_tolerance(token, options),
                survived_seconds=survived[key],
            )
        )
    return Result(options, tuple(results))


def longest_survived(config: Config, token: TokenConfig, options: Options) -> float:
    """The longest outage from the latest rotation point on that readers do not notice, found by halving."""
    # the latest rotation point that jitter allows: the least is left then
    latest = token.model_copy(update={"rotation": token.rotation.model_copy(update={"jitter": 0.0})})
    alone = config.model_copy(update={"tokens": (latest,)})
    low, high = 0.0, options.lifetime
    while high - low > RESOLUTION_SECONDS:
        middle = (low + high) / 2
        low, high = (middle, high) if _survives(alone, options, middle) else (low, middle)
    return float(int(low))


def _survives(alone: Config, options: Options, outage: float) -> bool:
    cluster = _cluster(alone, replace(options, replicas=1), Tally())
    cluster.start()
    (managed,) = cluster.replicas[0].tokens.by_name.values()
    while (life := managed.facts.life) is None:
        cluster.world.run(cluster.world.now + 1.0)
    # so that the request that falls due with the outage meets it already
    begins = life.rotate - RESOLUTION_SECONDS
    _take_out(cluster, alone.tokens[0].acaengine, begins, outage + RESOLUTION_SECONDS)
    cluster.world.run(max(begins + outage, life.expires) + options.lifetime)
    cluster.settle()
    return not any(place.refused for place in cluster.places)


def _cluster(config: Config, options: Options, tally: Tally) -> Cluster:
    setup = Setup(config, replicas=options.replicas, seed=options.seed, lifetime=options.lifetime)
    return Cluster(setup, tally, World(options.seed))


def _take_out(cluster: Cluster, endpoint: str, at: float, seconds: float) -> None:
    server = cluster.servers[endpoint]

    def fail(fault: str) -> None:
        server.fault = fault

    cluster.world.at(at, fail, "refuse")
    cluster.world.at(at + seconds, fail, "")


def _tolerance(token: TokenConfig, options: Options) -> float:
    return max(plan(0.0, options.lifetime, token.rotation, 0.0).outage_tolerance, 0.0)


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
