"""What the status page may be asked to show, built by code with fixed times: for its tests and its pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import ADVICE, Reason, Step
from aca_tokend.core.status import (
    ApiError,
    Circuit,
    ConfigStatus,
    DaemonStatus,
    EndpointStatus,
    HookStatus,
    LastResult,
    Query,
    Result,
    SinkStatus,
    State,
    StatusPage,
    Suspension,
    TokenPage,
    TokenStatus,
    VaultStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 3, 14, 3, 12, 7, tzinfo=UTC)
MAIN = EndpointStatus(
    name="main",
    url="https://aca.example.com",
    up=True,
    breaker=Circuit.CLOSED,
    held_until=None,
    waiting=0,
    tokens=6,
    clock_skew_seconds=0.1,
    demand_ratio=0.02,
)
VAULT = VaultStatus(name="main", logged_in=True, method="kubernetes", token_expires_at=NOW + timedelta(minutes=51))
NAMES = ("bookings", "catering", "digital-signage", "lockers", "room-panels", "visitor-kiosk")


def minutes(number: float) -> datetime:
    """So many minutes from now."""
    return NOW + timedelta(minutes=number)


def ready(name: str, age: float = 10.0, life: float = 60.0) -> TokenStatus:
    """A token that is well, `age` minutes old, with a life of `life` minutes."""
    issued, expires = minutes(-age), minutes(life - age)
    rotate = issued + (expires - issued) * 0.64
    return TokenStatus(
        name=name,
        state=State.READY,
        needs_a_person=False,
        summary="Rotates in time.",
        endpoint="main",
        authority="authority-7f3a",
        username=f"svc-{name}",
        scope="public",
        issued_at=issued,
        rotate_at=rotate,
        expires_at=expires,
        safe_until=expires,
        next_attempt_at=rotate,
        outage_tolerance_seconds=(expires - rotate).total_seconds(),
        consecutive_failures=0,
        last=LastResult(issued, Result.ROTATED, request_id="req-5521"),
        suspended=None,
        sinks=[
            SinkStatus(f"vault:secret/aca/{name}", "vault", issued, expires, ok=True),
            SinkStatus(f"file:/run/aca/{name}.json", "file", issued, expires, ok=True),
        ],
        hooks=[],
    )


def suspended(name: str) -> TokenStatus:
    """A token whose password the server refuses."""
    token, reason = ready(name, age=47.0), Reason.INVALID_GRANT
    message = "the server answered 400 invalid_grant"
    return replace(
        token,
        state=State.SUSPENDED,
        needs_a_person=True,
        summary="The server refused the username and password; readers are safe for 13 min, until 03:25 UTC.",
        next_attempt_at=minutes(52),
        consecutive_failures=2,
        last=LastResult(
            minutes(-7), Result.SUSPENDED, Step.GRANT, reason, message, ADVICE[reason], request_id="req-5522"
        ),
        suspended=Suspension(
            reason,
            ADVICE[reason],
            "A changed credential is noticed within 5 seconds. After the server's side was mended call "
            f"`aca-tokend resume {name}`. By itself one cautious attempt is made at 04:04 UTC.",
        ),
        runbook="ACACredentialsRejected",
    )


def failing(name: str, age: float = 45.0) -> TokenStatus:
    """A token whose endpoint does not answer."""
    token, reason = ready(name, age=age), Reason.CONNECT_FAILED
    left = 60 - age
    return replace(
        token,
        state=State.FAILING,
        needs_a_person=left < 15,
        summary=f"The server cannot be reached; readers are safe for {left:.0f} min, until {minutes(left):%H:%M} UTC.",
        next_attempt_at=minutes(0.05),
        consecutive_failures=9,
        last=LastResult(
            minutes(-0.1), Result.FAILED, Step.GRANT, reason, "aca.example.com:443 refuses connections", ADVICE[reason]
        ),
        runbook="ACAEndpointDown",
    )


def expired(name: str) -> TokenStatus:
    """A token of which a sink holds one that expired."""
    token, reason = ready(name, age=68.0), Reason.DISK_FULL
    sink = SinkStatus(
        f"file:/run/aca/{name}.json",
        "file",
        minutes(-68),
        minutes(-8),
        ok=False,
        step=Step.PUBLISH,
        reason=reason,
        message="no space is left on the device",
        advice=ADVICE[reason],
    )
    return replace(
        token,
        state=State.EXPIRED,
        needs_a_person=True,
        summary=f"file:/run/aca/{name}.json: the disk is full; readers have had no valid token for 8 min.",
        safe_until=minutes(-8),
        next_attempt_at=minutes(0.4),
        consecutive_failures=14,
        last=LastResult(minutes(-0.5), Result.FAILED, Step.PUBLISH, reason, sink.message, ADVICE[reason]),
        sinks=[sink],
        hooks=[HookStatus("nginx", 3, Step.HOOK, Reason.COMMAND_FAILED, "ended with 1", ADVICE[Reason.COMMAND_FAILED])],
        runbook="ACATokenExpired",
    )


def starting(name: str) -> TokenStatus:
    """A token that was not looked at yet."""
    return replace(
        ready(name),
        state=State.STARTING,
        summary="Not looked at yet.",
        issued_at=None,
        rotate_at=None,
        expires_at=None,
        safe_until=None,
        next_attempt_at=NOW,
        outage_tolerance_seconds=None,
        last=None,
        sinks=[SinkStatus(f"vault:secret/aca/{name}", "vault", None, None, ok=True)],
    )


@dataclass(frozen=True)
class Scene:
    """A daemon to show. `status` and `token` answer as the daemon would."""

    tokens: tuple[TokenStatus, ...] = ()
    endpoints: tuple[EndpointStatus, ...] = (MAIN,)
    vaults: tuple[VaultStatus, ...] = (VAULT,)
    problems: tuple[str, ...] = ()
    config: ConfigStatus = field(default_factory=lambda: ConfigStatus(ok=True, loaded_at=minutes(-3011), problems=[]))
    shards: tuple[int, int] | None = None

    @property
    def daemon(self) -> DaemonStatus:
        shard, shards = self.shards or (None, None)
        looked = sum(token.state is State.STARTING for token in self.tokens)
        return DaemonStatus(
            "0.1.0", minutes(-3011), shard, shards, len(self.tokens), list(self.problems), looked, self.config
        )

    def status(self, query: Query) -> StatusPage:
        order = list(State)
        everything = sorted(self.tokens, key=lambda it: (order.index(it.state), it.expires_at or NOW, it.name))
        found = [
            token
            for token in everything
            if (not query.states or token.state in query.states) and query.search.lower() in token.name.lower()
        ]
        begin = (query.page - 1) * query.per_page
        needy = sum(token.needs_a_person for token in self.tokens)
        return StatusPage(
            version=1,
            now=NOW,
            needs_a_person=needy > 0,
            need_a_person=needy,
            daemon=self.daemon,
            counts={state: sum(token.state is state for token in self.tokens) for state in State},
            matching=len(found),
            page=query.page,
            pages=max(math.ceil(len(found) / query.per_page), 1),
            per_page=query.per_page,
            tokens=found[begin : begin + query.per_page],
            endpoints=list(self.endpoints),
            vaults=list(self.vaults),
        )

    def token(self, name: str) -> TokenPage | ApiError:
        found = next((token for token in self.tokens if token.name == name), None)
        if found is None:
            return ApiError("name", "is the name of no token in this configuration", "see the names in /api/v1/status")
        return TokenPage(1, NOW, self.daemon, found, self.endpoints[0], list(self.vaults))


def well() -> Scene:
    """All is well."""
    return Scene(tuple(ready(name, age=5.0 + 6.0 * number) for number, name in enumerate(NAMES)))


def one_suspended() -> Scene:
    """One password was changed."""
    return Scene((*well().tokens[1:], suspended("bookings")))


def endpoint_down() -> Scene:
    """An endpoint does not answer; tokens of another one are well."""
    down = replace(
        MAIN,
        up=False,
        breaker=Circuit.OPEN,
        waiting=3,
        tokens=4,
        needs_a_person=True,
        summary="The server cannot be reached; 3 tokens wait for it.",
        advice=ADVICE[Reason.CONNECT_FAILED],
        runbook="ACAEndpointDown",
    )
    second = replace(MAIN, name="west", url="https://west.example.com", tokens=2)
    ill = tuple(failing(name, age=44.0 + 3 * number) for number, name in enumerate(NAMES[:4]))
    fine = tuple(replace(ready(name, age=12.0), endpoint="west") for name in NAMES[4:])
    return Scene(ill + fine, endpoints=(down, second))


def everything_at_once() -> Scene:
    """Every state, and trouble wherever there can be some."""
    sealed = replace(
        VAULT,
        logged_in=False,
        token_expires_at=None,
        failing=2,
        needs_a_person=True,
        summary="Vault is sealed.",
        reason=Reason.VAULT_SEALED,
        advice=ADVICE[Reason.VAULT_SEALED],
        runbook="ACAVaultLoginFailing",
    )
    skewed = replace(
        MAIN,
        clock_skew_seconds=-47.0,
        summary="The server's clock is 47 s behind ours.",
        runbook="ACAClockSkew",
    )
    problem = "tokens[3].password: missing; add it"
    return Scene(
        (expired("lockers"), suspended("bookings"), failing("catering"), starting("room-panels"), ready("parking")),
        endpoints=(skewed,),
        vaults=(sealed,),
        problems=("pool file: a call hangs past every timeout",),
        config=ConfigStatus(ok=False, loaded_at=minutes(-90), problems=[problem], runbook="ACAConfigReloadFailed"),
        shards=(2, 4),
    )


def many(count: int = 10_000) -> Scene:
    """A large fleet with a few in trouble."""
    fleet = [ready(f"tenant-{number:05d}-bookings", age=number % 36) for number in range(count - 3)]
    ill = [suspended("tenant-20417-bookings"), suspended("tenant-31177-panels"), failing("tenant-27001-kiosk")]
    return Scene((*fleet, *ill), endpoints=(replace(MAIN, tokens=count, demand_ratio=0.31),))


SCENES: dict[str, Callable[[], Scene]] = {
    "well": well,
    "suspended": one_suspended,
    "endpoint-down": endpoint_down,
    "everything": everything_at_once,
    "many": many,
    "empty": lambda: Scene(endpoints=(replace(MAIN, up=None, tokens=0, demand_ratio=None),), vaults=()),
}
