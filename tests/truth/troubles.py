"""The troubles of the matrix: what happens to a fleet that has been well for a while, and when it is over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Reason
from tests.truth.fleet import Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.simulation.places import Place
    from tests.truth.fleet import Daemon, Fleet

MINUTE = 60.0
HOUR = 3600.0
# Every trouble begins when the first tokens of two hours are some minutes before their rotation point.
BEGINS = 70 * MINUTE


ONE = Shape()


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong at `BEGINS`, and is over `lasts` seconds later; what readers feel may begin or end later.

    Attributes:
        name: for people.
        begin: does it; it may put the rest on the heap of the fleet's world.
        end: undoes it.
        follow: for how long the fleet is watched after the end.
    """

    name: str
    begin: Callable[[Fleet], object]
    end: Callable[[Fleet], object] = lambda _: None
    lasts: float = 30 * MINUTE
    shape: Shape = ONE
    follow: float = 2 * HOUR


def _server(fault: str, retry_after: float | None = None) -> Callable[[Fleet], None]:
    def set_fault(fleet: Fleet) -> None:
        for server in fleet.servers:
            server.fault, server.retry_after = fault, retry_after

    return set_fault


def _api(fault: str) -> Callable[[Fleet], None]:
    def set_fault(fleet: Fleet) -> None:
        for server in fleet.servers:
            server.api_fault = fault

    return set_fault


def _password(fleet: Fleet) -> None:
    """The password of the first account is changed at the server."""
    for server in fleet.servers:
        for token in fleet.config.tokens:
            known = str(token.password) if token.name != "svc-0" else "another"
            server.users[(token.authority, str(token.username))] = known


def _old_password(fleet: Fleet) -> None:
    for server in fleet.servers:
        server.users.clear()


def _client(fleet: Fleet) -> None:
    """The secret of the application is changed at the server."""
    for server in fleet.servers:
        server.clients["client-1"] = "another"


def _old_client(fleet: Fleet) -> None:
    for server in fleet.servers:
        server.clients.clear()


def _log_out(fleet: Fleet) -> None:
    """Somebody logs the first account out."""
    token = fleet.config.tokens[0]
    for server in fleet.servers:
        server.revoke((token.authority, str(token.username)))


def _again(act: Callable[[Fleet], None], every: float, lasts: float) -> Callable[[Fleet], None]:
    def begin(fleet: Fleet) -> None:
        for number in range(int(lasts / every)):
            fleet.world.at(fleet.world.now + number * every, act, fleet)

    return begin


def _place(fleet: Fleet, kind: str = "vault") -> Place:
    return next(it for it in fleet.places("svc-0") if it.name.startswith(kind))


def _emptied(kind: str) -> Callable[[Fleet], None]:
    return lambda fleet: _place(fleet, kind).put(None)


def _strangers(fleet: Fleet) -> None:
    _place(fleet).put(None, "it has no access_token")


def _rolled_back(fleet: Fleet) -> None:
    """What was there before it was last rotated is there again: a version of half an hour before, long expired."""
    place = _place(fleet)
    assert place.content is not None
    document, before = place.content, timedelta(hours=3)
    place.put(replace(document, issued_at=document.issued_at - before, expires_at=document.expires_at - before))


def _another_daemon(fleet: Fleet) -> None:
    """Another daemon publishes the token of another account under the same name, each time ours is there."""
    place = _place(fleet)
    if place.content is not None:
        now = place.content.issued_at + timedelta(seconds=fleet.world.now)
        place.put(replace(place.content, account="0" * 32, issued_at=max(now, place.content.issued_at)))


def _vault(reason: Reason | None) -> Callable[[Fleet], None]:
    def set_fault(fleet: Fleet) -> None:
        for cluster in fleet.clusters:
            for vault in cluster.vaults.values():
                vault.fault = reason

    return set_fault


def _disk(reason: Reason | None) -> Callable[[Fleet], None]:
    def set_fault(fleet: Fleet) -> None:
        _place(fleet, "file").fault = reason

    return set_fault


def _kill(number: int = 0) -> Callable[[Fleet], None]:
    return lambda fleet: fleet.daemons[number].kill()


def _start(number: int = 0) -> Callable[[Fleet], None]:
    return lambda fleet: fleet.daemons[number].start()


def _restart(fleet: Fleet) -> None:
    fleet.daemons[0].kill()
    fleet.daemons[0].start()


def _restart_without_vault(fleet: Fleet) -> None:
    _vault(Reason.VAULT_LOGIN_FAILED)(fleet)
    _restart(fleet)


def _undiscovered(number: int) -> Callable[[Fleet], None]:
    def vanish(fleet: Fleet) -> None:
        fleet.daemons[number].kill()
        fleet.daemons[number].discovered = False

    return vanish


def _discovered(number: int) -> Callable[[Fleet], None]:
    def appear(fleet: Fleet) -> None:
        fleet.daemons[number].discovered = True
        fleet.daemons[number].start()

    return appear


def _every_daemon(act: Callable[[Daemon], None]) -> Callable[[Fleet], None]:
    def each(fleet: Fleet) -> None:
        for daemon in fleet.daemons:
            act(daemon)

    return each


def _skew(seconds: float) -> Callable[[Fleet], None]:
    def set_skew(fleet: Fleet) -> None:
        for server in fleet.servers:
            server.skew = seconds

    return set_skew


def _removed_and_one_down(fleet: Fleet) -> None:
    """The last token leaves the configuration, then one of two replicas goes down."""
    for daemon in fleet.daemons:
        config = daemon.replica.config
        daemon.replica.reload(config.model_copy(update={"tokens": config.tokens[:-1]}))
    fleet.world.at(fleet.world.now + MINUTE, _kill(0), fleet)


TWO = Shape(replicas=2)
THREE_SHARDS = Shape(tokens=6, shards=3)
SHORT = Shape(lifetime=600.0)
LONG = Shape(lifetime=14 * 24 * HOUR, scrape=120.0)
FILES = Shape(files=True)
VERIFIED = Shape(verify_every=MINUTE)

TROUBLES = (
    Trouble("nothing", lambda _: None),
    Trouble("the endpoint is down for a minute", _server("refuse"), _server(""), MINUTE),
    Trouble("the endpoint answers 503 for half an hour", _server("503"), _server("")),
    Trouble("the endpoint hangs for two hours", _server("hang"), _server(""), 2 * HOUR),
    Trouble("the endpoint asks to come again in an hour", _server("429", HOUR), _server(""), 2 * HOUR),
    Trouble("the endpoint is down, tokens of ten minutes", _server("refuse"), _server(""), shape=SHORT),
    Trouble("the endpoint is down for two days, tokens of two weeks", _server("refuse"), _server(""), 48 * HOUR, LONG),
    Trouble("a password is changed", _password, _old_password, HOUR, follow=3 * HOUR),
    Trouble("the client secret is changed", _client, _old_client, HOUR, follow=3 * HOUR),
    Trouble("an account is logged out once", _log_out, shape=VERIFIED, lasts=MINUTE),
    Trouble(
        "an account is logged out every five minutes",
        _again(_log_out, 5 * MINUTE, 2 * HOUR),
        shape=VERIFIED,
        lasts=2 * HOUR,
    ),
    Trouble("the API refuses every token", _api("refuses"), _api(""), 2 * HOUR, VERIFIED),
    Trouble("a KV secret is deleted", _emptied("vault"), lasts=MINUTE),
    Trouble("a file is removed", _emptied("file"), lasts=MINUTE, shape=FILES),
    Trouble("a KV secret is rolled back", _rolled_back, lasts=MINUTE),
    Trouble("a stranger overwrites a KV secret", _strangers, _emptied("vault"), HOUR),
    Trouble("a KV secret is deleted every ten minutes", _again(_emptied("vault"), 600.0, 2 * HOUR), lasts=2 * HOUR),
    Trouble("another daemon has the same place", _again(_another_daemon, 600.0, 2 * HOUR), lasts=2 * HOUR),
    Trouble("two replicas, a KV secret is deleted, one cannot look", _emptied("vault"), lasts=MINUTE, shape=TWO),
    Trouble("Vault is sealed for half an hour", _vault(Reason.VAULT_SEALED), _vault(None)),
    Trouble("Vault is down for two hours", _vault(Reason.CONNECT_FAILED), _vault(None), 2 * HOUR),
    Trouble("a restart, and Vault refuses our log-in", _restart_without_vault, _vault(None), 30 * MINUTE),
    Trouble("the disk is full for two hours", _disk(Reason.DISK_FULL), _disk(None), 2 * HOUR, FILES),
    Trouble("the daemon is gone for two hours", _kill(), _start(), 2 * HOUR),
    Trouble("the daemon restarts once", _restart, lasts=MINUTE),
    Trouble("the daemon restarts every two minutes", _again(_restart, 2 * MINUTE, HOUR), lasts=HOUR),
    Trouble("one of two replicas is gone for two days", _kill(), _start(), 48 * HOUR, TWO),
    Trouble("one of three shards leaves discovery", _undiscovered(1), _discovered(1), 3 * HOUR, THREE_SHARDS),
    Trouble("a token is removed and one of two replicas goes", _removed_and_one_down, _start(), 3 * HOUR, TWO),
    Trouble("the clock of the server is two minutes ahead", _skew(120.0), _skew(0.0), 2 * HOUR),
)
