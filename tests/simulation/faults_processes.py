"""Faults of processes and machines: killed, frozen, reloaded, with a wrong clock, or with another configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation import engine_view
from tests.simulation.scene import ROLLOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aca_tokend.simulation.replica import Replica
    from tests.simulation.scene import Scene


def _step(scene: Scene) -> None:
    scene.replica.step_clock(scene.fault.value)
    scene.conditions.disturbed_at = scene.now


def _set_clocks(scene: Scene) -> None:
    """Every clock that was wrong at the start is right from now on."""
    for replica in scene.cluster.replicas:
        replica.step_clock(-replica.clock.skew)
    scene.conditions.disturbed_at = scene.now


def _kill(scene: Scene) -> None:
    replica = scene.replica
    if scene.able(replica):
        scene.kill(replica)
        scene.after(scene.fault.seconds, scene.start, replica)


def _kill_amid(scene: Scene) -> None:
    """Waits for the next rotation of a token and kills its process some moments later."""
    state = scene.replica.tokens.by_name.get(scene.fault.how)
    if state is not None:
        at = max(engine_view.rotates_at(state), scene.now) + scene.fault.value
        if at < scene.now + scene.scenario.lifetime:
            scene.at(at, _kill, scene)


def _crash_loop(scene: Scene) -> None:
    """The process dies and is started again, every moment."""
    _crash(scene, scene.now + scene.fault.seconds)


def _crash(scene: Scene, until: float) -> None:
    if scene.now < until:
        if scene.able(scene.replica):
            scene.kill(scene.replica)
            scene.start(scene.replica)
        pause = scene.fault.value * (0.5 + scene.cluster.world.rng.random())
        scene.after(pause, _crash, scene, until)


def _freeze(scene: Scene) -> None:
    replica = scene.replica
    if not scene.able(replica) or not scene.fault.seconds:
        return
    replica.driver.freeze(scene.now + scene.fault.seconds)
    scene.checker.kills.append(scene.now)
    scene.down(replica)

    def wakes_up() -> None:
        scene.up(replica)
        replica.step_clock(0.0)

    scene.after(scene.fault.seconds, wakes_up)


def _reload(scene: Scene) -> None:
    """The configuration changes and later changes back, each replica in its own time."""
    before = scene.scenario.config
    if scene.reconfigured:
        return
    token = scene.token.name
    if scene.fault.how == "token leaves":
        changed = before.model_copy(update={"tokens": tuple(it for it in before.tokens if it.name != token)})
        needs = 2 * scene.scenario.longest_attempt + scene.skew + 0.6
        scene.conditions.falls_ill(f"configured {token}", scene.now, needs)
    else:
        endpoint = before.acaengine["main"].model_copy(update={"timeout": 11.0})
        changed = before.model_copy(update={"acaengine": {"main": endpoint}})
    for replica in scene.cluster.replicas:
        scene.after(ROLLOUT_SECONDS * scene.cluster.world.rng.random(), scene.swap, replica, changed)
        scene.after(10.0 + scene.fault.seconds, scene.swap, replica, before)
    if scene.fault.how == "token leaves":
        scene.after(10.0 + scene.fault.seconds, scene.well, f"configured {token}")


def _rival(scene: Scene) -> None:
    """One replica has another account for a token than the others, and publishes it to the same place."""
    replica, token = scene.cluster.replicas[-1], scene.token
    if scene.reconfigured or len(scene.cluster.replicas) == 1 or scene.checker.changing(token.name):
        return
    before, scenario = scene.scenario.config, scene.scenario
    username = f"rival-{token.name}"
    scene.server.users[token.authority, username] = scene.secrets.values.get(str(token.password), str(token.password))
    changed = scenario.config_with(token.name, username=username)
    restarts = scene.fault.how == "restart"
    scene.checker.rivals.begin(token.name)
    _runs(scene, replica, changed, restarts=restarts)

    def over() -> None:
        _runs(scene, replica, before, restarts=restarts)
        scene.checker.rivals.end(token.name)

    scene.after(scene.fault.seconds, over)


def _runs(scene: Scene, replica: Replica, config: object, *, restarts: bool) -> None:
    """A replica takes up another configuration."""
    if restarts and scene.able(replica):
        scene.kill(replica)
        scene.swap(replica, config)  # type: ignore[arg-type]
        scene.start(replica)
    else:
        scene.swap(replica, config)  # type: ignore[arg-type]


KINDS: Mapping[str, Callable[[Scene], None]] = {
    "step": _step,
    "clocks set": _set_clocks,
    "kill": _kill,
    "kill amid": _kill_amid,
    "crash loop": _crash_loop,
    "freeze": _freeze,
    "reload": _reload,
    "rival": _rival,
}
