"""Faults of places: Vaults, disks and single places that fail or hang, what others write there, hooks, lost records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aca_tokend.core.config import after_of
from aca_tokend.core.outcome import Reason
from aca_tokend.core.token import rfc3339
from aca_tokend.simulation.places import Hand
from aca_tokend.simulation.world import START
from tests.simulation.scene import BUSY_SECONDS, CAP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aca_tokend.core.config import After
    from aca_tokend.simulation.places import Place, Store
    from aca_tokend.simulation.replica import Replica
    from tests.simulation.scene import Scene

# How long a call to a place takes that hangs.
HANG_SECONDS = 600.0


def _sink(scene: Scene) -> None:
    match scene.fault.how:
        case "vault":
            _break(scene, scene.cluster.vaults["main"], Reason.VAULT_SEALED)
        case "vault hangs":
            _break(scene, scene.cluster.vaults["main"], Reason.TIMEOUT)
        case "disk":
            _break(scene, scene.cluster.disks[scene.replica.number], Reason.IO_ERROR)


def _break(scene: Scene, store: Store, reason: Reason) -> None:
    if store.fault is not None:
        return
    store.fault = reason
    # what failed to be published is tried again at the cap; a hanging Vault delays looks on the way to other sinks
    needs = CAP + 2 * store.timeout + 2 * scene.needs_after()
    ill = [store, *(scene.cluster.disks if reason is Reason.TIMEOUT else ())]
    for it in ill:
        scene.conditions.falls_ill(it.name, scene.now, needs)

    def works() -> None:
        store.fault = None
        for it in ill:
            scene.well(it.name)
        scene.cluster.world.note("fault", f"{store.name} works again")

    scene.after(scene.fault.seconds, works)


def _place(scene: Scene) -> None:
    """One place of one token fails, or hangs: nothing else is concerned, not even its other places."""
    place, how = scene.place, scene.fault.how
    if place.fault is not None or place.hangs:
        return
    needs = CAP + 2 * place.store.timeout + 2 * scene.needs_after()
    if how == "hangs":
        place.hangs = HANG_SECONDS
        needs += HANG_SECONDS
        # an attempt under way has to notice first
        scene.ill_for(f"token {place.token}", 0.0, BUSY_SECONDS + scene.scenario.longest_attempt)
    else:
        place.fault = Reason.DIRECTORY_MISSING if how == "missing" else Reason.PERMISSION_DENIED
        place.writes_only = how == "read only"
    scene.conditions.falls_ill(place.name, scene.now, needs, scene.scenario.settle)
    scene.checker.unrecorded(place.token)

    def works() -> None:
        place.fault, place.writes_only, place.hangs = None, False, 0.0
        scene.well(place.name)
        scene.cluster.world.note("fault", f"{place.name} works again")

    scene.after(scene.fault.seconds, works)


def _hook(scene: Scene) -> None:
    """What is run after a write fails, or hangs, on one machine."""
    replica, config = scene.replica, scene.scenario.config
    afters = [it for publish in config.tokens[0].publish if (it := after_of(publish)) is not None]
    for after in afters:
        if after in replica.ill_hooks:
            return
        replica.ill_hooks[after] = Reason(scene.fault.how)
        what = f"hook {replica.number} {after}"
        scene.conditions.falls_ill(what, scene.now, 0.0)
        scene.after(scene.fault.seconds, _hook_works, scene, replica, after, what)


def _hook_works(scene: Scene, replica: Replica, after: After, what: str) -> None:
    del replica.ill_hooks[after]
    scene.well(what)


# ── what others write ─────────────────────────────────────────────────────────────────────────────────────────────────


def _deface(scene: Scene) -> None:
    """Somebody else writes into the place; later it is cleared, and the next look finds it empty."""
    place, how = scene.place, scene.fault.how
    if place.hand is not Hand.OURS or place.content is None or scene.checker.changing(place.token):
        return
    scene.conditions.falls_ill(place.name, scene.now, scene.scenario.lifetime + 2 * CAP)
    if how == "text":
        place.put(None, "access_token is missing", hand=Hand.STRANGER)
    elif how == "gone":
        place.put(None, hand=Hand.NOBODY)
    else:
        fields = _fields(place, access_token="other-1", account="0" * 32)
        place.forge(fields | ({"token": "another"} if "token" in fields else {}), Hand.STRANGER)
    scene.after(scene.fault.seconds, _cleared, scene, place)


def _forge(scene: Scene) -> None:
    """Somebody writes what bears all the marks of this token's documents, and is none."""
    place, how = scene.place, scene.fault.how
    if place.hand is not Hand.OURS or place.content is None or scene.checker.changing(place.token):
        return
    now = datetime.fromtimestamp(START + scene.now, UTC)
    changes: dict[str, object] = {
        "access_token": f"forged-{scene.now:.0f}",
        "issued_at": rfc3339(now),
        "expires_at": rfc3339(now + timedelta(seconds=scene.scenario.lifetime)),
    }
    match how:
        case "2099":
            changes |= dict.fromkeys(("expires_at", "refresh_after"), "2099-01-01T00:00:00Z")
        case "future":
            times = {"issued_at": 400, "refresh_after": 401, "expires_at": 402}
            changes |= {name: rfc3339(now + timedelta(days=days)) for name, days in times.items()}
        case "username":
            changes |= {"username": "mallory"}
        case "alphabet":
            changes |= {"access_token": 'forged";drop'}
        case "types":
            changes |= {"issued_at": 5, "expires_in": "soon"}
    needs = scene.scenario.lifetime + 2 * CAP
    scene.conditions.falls_ill(place.name, scene.now, needs, needs)
    place.forge(_fields(place, **changes), Hand.FORGER)
    if how in CLEARED:
        scene.after(scene.fault.seconds, _cleared, scene, place)
    else:
        scene.well(place.name)  # it bears our name and cannot be believed: the next rotation replaces it


# A forgery that need not be replaced: what cannot be read as a document, or can well be believed.
CLEARED = frozenset({"types", "alphabet", "believable"})


def _fields(place: Place, **changes: object) -> dict[str, object]:
    assert place.content is not None
    return {**place.content.fields(), **changes}


def _cleared(scene: Scene, place: Place) -> None:
    if place.hand in {Hand.STRANGER, Hand.FORGER}:
        place.put(None, hand=Hand.NOBODY)
    scene.well(place.name)


def _record(scene: Scene) -> None:
    """An attempt record vanishes, or what it was some time ago is restored."""
    place = scene.place
    then = dict(place.records) if scene.fault.how == "older" else {}

    def restore() -> None:
        names = place.records.keys() | then.keys()
        for name in names:
            version = place.records.get(name, (0, {}))[0] + 1
            if name in then:
                place.records[name] = (version, then[name][1])
            else:
                place.records.pop(name)
        scene.checker.unrecorded(place.token)
        scene.cluster.world.note("fault", f"{place.name}: records {scene.fault.how}")

    scene.after(scene.fault.seconds if then else 0.0, restore)


KINDS: Mapping[str, Callable[[Scene], None]] = {
    "sink": _sink,
    "place": _place,
    "hook": _hook,
    "deface": _deface,
    "forge": _forge,
    "record": _record,
}
