"""Faults of the endpoint and its API: outages, log-outs, other lifetimes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.simulation.server import FAULTS, REFUSES
from tests.simulation import engine_view
from tests.simulation.scene import CAP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.simulation.scene import Scene

HOUR = 3600.0


def _outage(scene: Scene) -> None:
    _out_for(scene, scene.fault.seconds)


def _out_for(scene: Scene, seconds: float) -> None:
    server, how, wish = scene.server, scene.fault.how, scene.fault.value
    if server.fault:
        return
    server.fault, server.retry_after = how, wish or None
    scene.conditions.falls_ill("main", scene.now, scene.needs_after(how, wish), wish + scene.scenario.settle)
    scene.after(seconds, _outage_over, scene)


def _outage_over(scene: Scene) -> None:
    scene.server.fault, scene.server.retry_after = "", None
    scene.well("main")
    scene.cluster.world.note("fault", "outage over")
    if not scene.fault.value:
        scene.checker.outage_over(scene.needs_after(scene.fault.how))


def _until_expiry(scene: Scene) -> None:
    """An outage that ends as late before the expiry of a published token as the promise allows."""
    minted = scene.place.minted
    if minted is None:
        return
    seconds = minted.works_until - scene.now - scene.needs_after(scene.fault.how) - 1e-6
    if seconds > 0:
        _out_for(scene, seconds)


def _log_out(scene: Scene) -> None:
    """Somebody logs the account out: its token is dead, and the canary finds out."""
    scene.server.revoke(scene.checker.accounts.of(scene.token.name).user)
    # found at the next canary, then one grant at once, and another if it was made in the same second
    soon = scene.scenario.verify_every + 2 * scene.scenario.min_interval + 3 * scene.needs_after()
    scene.after(soon, scene.checker.found_dead, scene.place, scene.now)


def _log_out_somewhen(scene: Scene) -> None:
    """Now, or in the very second in which the next token is granted."""
    if scene.fault.how != "amid":
        _log_out(scene)
        return
    name = scene.token.name
    moments = [engine_view.rotates_at(it.tokens.by_name[name]) for it in scene.cluster.replicas if it.alive]
    at = min(moments, default=0.0) + scene.fault.value
    if scene.now < at < scene.now + scene.scenario.lifetime:
        scene.at(at, _log_out, scene)


def _api(scene: Scene) -> None:
    """The API fails, or refuses every token."""
    server, how = scene.server, scene.fault.how
    server.api_fault = how
    # what was refused is tried again at the cap, and deaths found in a row are replaced an hour apart at most
    key, needs = ("api", 2 * HOUR + CAP) if how == REFUSES else ("api answers", 0.0)
    scene.conditions.falls_ill(key, scene.now, needs)

    def works() -> None:
        server.api_fault = ""
        scene.well(key)

    scene.after(scene.fault.seconds, works)


def _api_of_one(scene: Scene) -> None:
    """The way of one replica to the API is down, or the API refuses the tokens of that replica alone."""
    server, replica, how = scene.server, scene.replica, scene.fault.how
    if replica.number in server.api_faults:
        return
    server.api_faults[replica.number] = how
    refuses = how not in FAULTS
    if refuses:
        scene.checker.unable.add(replica.number)
        scene.down(replica, needs=2 * HOUR + CAP)
    scene.conditions.falls_ill("api answers", scene.now, 0.0)

    def works() -> None:
        del server.api_faults[replica.number]
        scene.well("api answers")
        if refuses:
            scene.checker.unable.discard(replica.number)
            scene.up(replica)

    scene.after(scene.fault.seconds, works)


def _lifetime(scene: Scene) -> None:
    """Tokens that are granted from now on live for another time."""
    server, as_ever = scene.server, scene.scenario.lifetime
    server.lifetime = scene.fault.value
    scene.conditions.disturbed_at = scene.now

    def restore() -> None:
        server.lifetime = as_ever
        scene.conditions.disturbed_at = scene.now

    scene.after(scene.fault.seconds, restore)


def _lifetime_of_one(scene: Scene) -> None:
    """The same for what one replica is granted."""
    server, replica = scene.server, scene.replica.number
    server.lifetimes[replica] = scene.fault.value

    def restore() -> None:
        server.lifetimes.pop(replica, None)

    scene.after(scene.fault.seconds, restore)


KINDS: Mapping[str, Callable[[Scene], None]] = {
    "outage": _outage,
    "until expiry": _until_expiry,
    "log-out": _log_out_somewhen,
    "api": _api,
    "api of one": _api_of_one,
    "lifetime": _lifetime,
    "lifetime of one": _lifetime_of_one,
}
