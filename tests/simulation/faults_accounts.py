"""Faults of accounts: passwords, client secrets, accounts and addresses that change, references, surprises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.scene import CAP, ROLLOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aca_tokend.core.config import Config
    from aca_tokend.simulation.replica import Replica
    from tests.simulation.scene import Scene

# How long a process is away that is restarted with another configuration.
RESTART_SECONDS = 3.0


def _password(scene: Scene) -> None:
    """A new password, set on one side first and on the other after a while."""
    token, users = scene.token, scene.server.users
    user = scene.checker.accounts.of(token.name).user
    _rotate(scene, scene.scenario.user(token.name), str(token.password), lambda new: users.update({user: new}))


def _client_secret(scene: Scene) -> None:
    """The same for the secret of an application."""
    token, clients = scene.token, scene.server.clients
    client, key = str(token.client_id), scene.scenario.client(token.name)
    _rotate(scene, key, str(token.client_secret), lambda new: clients.update({client: new}))


def _rotate(scene: Scene, key: str, reference: str, accept: Callable[[str], None]) -> None:
    if scene.conditions.ill.get(key) or scene.checker.changing(scene.token.name):
        return
    new = f"{reference} since {scene.now}"
    resumes = CAP + 10.0 + 2 * scene.needs_after("hang")
    if scene.fault.how == "file first":
        resumes += scene.scenario.retry_rejected  # the same credential works later: a cautious attempt finds out
    scene.conditions.falls_ill(key, scene.now, resumes)

    def written() -> None:
        scene.secrets.values[reference] = new

    def accepted() -> None:
        accept(new)

    first, second = (accepted, written) if scene.fault.how == "server first" else (written, accepted)
    first()

    def other_side() -> None:
        second()
        scene.well(key)
        scene.cluster.world.note("fault", f"{key}: the same on both sides")

    scene.after(scene.fault.seconds, other_side)


def _account(scene: Scene) -> None:
    """A token gets another account, or the server another name; later it is as before.

    `how`: what changes, and `unknown` where the server learns of the account only after half of the time. `value` is 1
    where the processes are restarted with it.
    """
    what, _, unknown = scene.fault.how.partition(", ")
    token, before = scene.token, scene.scenario.config
    user = scene.scenario.user(token.name)
    if scene.reconfigured or scene.conditions.ill.get(user) or scene.checker.changing(token.name):
        return
    if what == "reference" and isinstance(token.username, str):
        return
    whose = scene.checker.accounts.of(token.name)
    other = {"reference": "username"}.get(what, what)
    new = whose._replace(**{other: f"{other}-{scene.now:.0f}"}) if what in _PARTS else whose
    if what == "host":
        moved = before.acaengine["main"].model_copy(update={"url": "https://aca-2.example.com"})
        changed = before.model_copy(update={"acaengine": {"main": moved}})
    else:
        changed = scene.scenario.config_with(
            token.name, **({} if what == "reference" else {other: getattr(new, other)})
        )

    def known() -> None:
        scene.server.users[new.user] = scene.server.users[whose.user]
        scene.server.clients[new.client_id] = scene.server.clients[whose.client_id]

    if unknown:
        scene.ill_for(user, scene.fault.seconds / 2, scene.scenario.retry_rejected + 2 * CAP)
        scene.after(scene.fault.seconds / 2, known)
    else:
        known()
    scene.checker.change(token.name)
    _roll_out(scene, changed, new.username if what == "reference" else None)

    def back() -> None:
        _roll_out(scene, before, whose.username if what == "reference" else None)
        scene.after(scene.scenario.settle, scene.checker.changed, token.name)

    scene.after(scene.fault.seconds, back)


_PARTS = frozenset({"reference", "username", "authority", "client_id"})


def _roll_out(scene: Scene, config: Config, referred: str | None) -> None:
    """Every replica takes it up, in its own time; `referred` is what the reference to the user name leads to then."""
    restarts = scene.fault.value == 1.0
    if referred is not None:
        scene.secrets.values[str(scene.token.username)] = referred
        scene.checker.accounts.refresh(by_reference=True)
    for replica in scene.cluster.replicas:
        if restarts:
            _restart(scene, replica, config)
        else:
            scene.after(ROLLOUT_SECONDS * scene.cluster.world.rng.random(), scene.swap, replica, config)
    if referred is None or restarts:
        scene.after(RESTART_SECONDS + ROLLOUT_SECONDS, scene.checker.account_changed, scene.token.name)


def _restart(scene: Scene, replica: Replica, config: Config) -> None:
    """The process ends, and another starts with what the files say by then."""
    if not scene.able(replica):
        scene.swap(replica, config)
        return
    scene.kill(replica)
    scene.swap(replica, config)
    scene.after(RESTART_SECONDS, scene.start, replica)


def _reference(scene: Scene) -> None:
    """The file of a password cannot be read; `value` says how long it takes to say so. It hits eight accounts then."""
    hangs = scene.fault.value
    names = {str(it.password): scene.scenario.user(it.name) for it in scene.scenario.config.tokens}
    first = scene.fault.target % len(names)
    chosen = list(names.items())[first : first + (8 if hangs else 1)]
    for reference, user in chosen:
        if reference in scene.secrets.faults or scene.conditions.ill.get(user):
            continue
        scene.secrets.faults[reference] = hangs
        needs = hangs + CAP + 2 * scene.needs_after()
        scene.conditions.falls_ill(user, scene.now, needs, scene.scenario.settle + hangs)
        scene.after(scene.fault.seconds, _readable, scene, reference, user)


def _readable(scene: Scene, reference: str, user: str) -> None:
    del scene.secrets.faults[reference]
    scene.well(user)


def _surprise(scene: Scene) -> None:
    """Calls of one token raise what nobody foresaw, with a likelihood of `value`, in one step or in all of them."""
    token, surprises = scene.token, scene.cluster.world.surprises
    steps = (scene.fault.how,) if scene.fault.how else STEPS
    whos = {token.name: f"token {token.name}", str(token.password): scene.scenario.user(token.name)}
    keys = {
        (who, step): what for who, what in whos.items() for step in steps if (step == "resolve") != (who == token.name)
    }
    if not keys or any(key in surprises for key in keys):
        return
    for key in keys:
        surprises[key] = scene.fault.value
    whats = sorted({*keys.values(), f"token {token.name}"})
    for what in whats:
        scene.conditions.falls_ill(what, scene.now, CAP + 2 * scene.needs_after(), scene.scenario.settle)
    scene.checker.unrecorded(token.name)

    def over() -> None:
        for key in keys:
            del surprises[key]
        for what in whats:
            scene.well(what)

    scene.after(scene.fault.seconds, over)


STEPS = ("look", "grant", "granted", "verify", "publish", "published", "read_record", "write_record", "resolve")

KINDS: Mapping[str, Callable[[Scene], None]] = {
    "password": _password,
    "client secret": _client_secret,
    "account": _account,
    "reference": _reference,
    "surprise": _surprise,
}
