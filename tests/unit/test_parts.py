"""The parts of a configuration follow another one: what did not change stays, what left is closed when told to."""

from __future__ import annotations

import threading
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import parse
from aca_tokend.core.errors import HookError, LookError
from aca_tokend.parts import Parts
from tests.fakes import FakeClock
from tests.unit.test_scheduler import NO_STACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.config import Config
    from aca_tokend.rotation.managed import Wiring
    from aca_tokend.vault.session import VaultSession

Document = dict[str, Any]


def document() -> Document:
    """Two endpoints, two Vaults, and three tokens of one client."""
    auth = {"method": "token", "token": {"env": "VAULT_TOKEN"}}
    return {
        "acaengine": {"main": {"url": "https://aca.example.com"}, "other": {"url": "https://other.example.com"}},
        "vault": {
            "main": {"address": "https://vault.example.com:8200", "auth": auth},
            "other": {"address": "https://other.example.com:8200", "auth": auth},
        },
        "tokens": [
            {
                "name": f"t{number}",
                "acaengine": "main",
                "authority": "authority-1",
                "username": "svc",
                "password": {"env": "PASSWORD"},
                "client_id": "client-1",
                "client_secret": {"env": "CLIENT_SECRET"},
                "publish": [{"to": "vault", "vault_name": "main", "mount": "secret", "path": f"aca/t{number}"}],
            }
            for number in range(3)
        ],
    }


class Rig:
    """Parts, and what each token is made of."""

    def __init__(self) -> None:
        self.written, self.clock = document(), FakeClock()
        self.parts = Parts(self._config(), self.clock, lambda _: None)
        self.wirings = self._wirings()

    def _config(self) -> Config:
        return parse([("config.toml", self.written)])

    def _wirings(self) -> dict[str, Wiring]:
        return {token.name: self.parts.wire(token) for token in self.parts.config.tokens}

    def follow(self, edit: Callable[[Document], object]) -> list[Callable[[], None]]:
        """Another configuration, of which every token is made anew."""
        self.written = deepcopy(self.written)
        edit(self.written)
        closing = self.parts.follow(self._config())
        self.wirings = self._wirings()
        return closing


@pytest.fixture
def rig() -> Rig:
    """Parts of a configuration."""
    return Rig()


def test_what_did_not_change_stays(rig: Rig) -> None:
    """Only what changed is built anew; the pools have the new sizes."""
    endpoints, vaults = dict(rig.parts.endpoints), dict(rig.parts.vaults)

    def edit(it: Document) -> None:
        it["acaengine"]["main"]["max_concurrency"] = 3
        it["vault"]["other"]["timeout"] = "7s"

    rig.follow(edit)

    assert rig.parts.endpoints["main"] is not endpoints["main"]
    assert rig.parts.endpoints["other"] is endpoints["other"]
    assert rig.parts.vaults["main"] is vaults["main"]
    assert rig.parts.vaults["other"] is not vaults["other"]
    assert rig.parts.pools() == {
        "acaengine.main": 3,
        "acaengine.other": 8,
        "vault.main": 8,
        "vault.other": 8,
        "file": 4,
    }


def test_files_of_secrets_have_pools(rig: Rig) -> None:
    """Where a reference is to a file there is a pool for it, beside that of its endpoint."""

    def edit(it: Document) -> None:
        it["tokens"][0]["password"] = {"file": "/run/secrets/password"}

    rig.follow(edit)

    (own,) = rig.parts.pools().keys() - {"acaengine.main", "acaengine.other", "vault.main", "vault.other", "file"}
    assert own == rig.parts.secrets.pool(rig.parts.config.tokens[0].password)


def test_clients_from_two_vaults_are_two(rig: Rig) -> None:
    """References that read alike and lead into two Vaults are two clients."""

    def edit(it: Document) -> None:
        for number, vault in enumerate(("main", "other", "main")):
            it["tokens"][number]["client_id"] = {"vault": "secret/client#id", "vault_name": vault}

    rig.follow(edit)

    clients = [wiring.client for wiring in rig.wirings.values()]
    assert clients[0] is clients[2]
    assert clients[0] is not clients[1]


def test_added_and_removed(rig: Rig) -> None:
    """What is new is there at once; a Vault that left can be read by attempts under way until it is cleaned up."""

    def edit(it: Document) -> None:
        del it["acaengine"]["other"], it["vault"]["other"]
        it["acaengine"]["third"] = {"url": "https://third.example.com"}

    closing = rig.follow(edit)

    assert set(rig.parts.endpoints) == {"main", "third"}
    assert "other" in rig.parts.vaults
    assert rig.parts.methods() == {"main": "token"}
    for close in closing:
        close()
    assert set(rig.parts.vaults) == {"main"}


def test_changed_vault_is_not_forgotten(rig: Rig) -> None:
    """A Vault that left and came back before the clean-up stays."""
    kept = rig.written["vault"]["other"]
    closing = rig.follow(lambda it: it["vault"].pop("other"))
    closing += rig.follow(lambda it: it["vault"].update(other=kept))

    for close in closing:
        close()

    assert set(rig.parts.vaults) == {"main", "other"}


def test_session_that_a_reload_left_tells_nothing(rig: Rig) -> None:
    """What a session tells after it was left, by an attempt still under way, is not of the Vault that has its name."""
    told: list[object] = []
    rig.parts.on_login = told.append
    old, kept = rig.parts.vaults["other"], rig.written["vault"]["other"]

    def log_in(session: VaultSession) -> int:
        rig.clock.now += 100.0
        with pytest.raises(LookError):  # its secret is not set
            session.read_kv("secret", "aca/bookings")
        return len(told)

    assert log_in(old) == 1
    rig.follow(lambda it: it["vault"].pop("other"))
    assert log_in(old) == 1
    rig.follow(lambda it: it["vault"].update(other=kept))
    assert log_in(old) == 1
    assert log_in(rig.parts.vaults["other"]) == 2


def test_reloads_end_what_they_left_alone(rig: Rig) -> None:
    """The clean-up after one reload leaves a Vault alone that the next one left: attempts may use it."""
    first = rig.follow(lambda it: it["vault"].pop("other"))
    rig.follow(lambda it: it["vault"].update(third=it["vault"]["main"]))
    second = rig.follow(lambda it: it["vault"].pop("third"))

    for close in first:
        close()
    assert set(rig.parts.vaults) == {"main", "third"}
    for close in second:
        close()
    assert set(rig.parts.vaults) == {"main"}


def test_gate_and_client_outlive_what_does_not_concern_them(rig: Rig) -> None:
    """An endpoint that changed gives its tokens a new gate and leaves their client; the old gate knows that it left."""
    before = rig.wirings["t0"]
    rig.follow(lambda it: it["tokens"].pop())
    assert rig.wirings["t0"].gate is before.gate
    assert rig.wirings["t0"].client is before.client

    rig.follow(lambda it: it["acaengine"]["main"].update(timeout="7s"))
    assert rig.wirings["t0"].gate is not before.gate
    assert rig.wirings["t0"].gate is rig.wirings["t1"].gate
    assert rig.wirings["t0"].client is before.client

    assert before.gate.retired
    assert not rig.wirings["t0"].gate.retired


def test_client_that_left_is_forgotten(rig: Rig) -> None:
    """What is known of a client that no token has any more is not known of one that comes back."""
    client = rig.wirings["t0"].client
    for name in ("client-2", "client-1"):
        rig.follow(lambda it, name=name: [token.update(client_id=name) for token in it["tokens"]])  # type: ignore[misc] # bound now

    assert rig.wirings["t0"].client is not client


# ── hooks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_hooks(*commands: str) -> Callable[[Document], None]:
    """An edit: a file for each of the first tokens, with a hook of one of these commands."""

    def edit(it: Document) -> None:
        for token, command in zip(it["tokens"], commands, strict=False):
            place = {"to": "file", "path": f"/run/{token['name']}", "after": {"command": [command], "timeout": "20s"}}
            token["publish"] = [token["publish"][0], place]

    return edit


def test_equal_hooks_are_one(rig: Rig) -> None:
    """Sinks with the same `after` share one hook and its pool of one thread; others have their own."""
    rig.follow(with_hooks("a", "a", "b"))
    hooks = [rig.wirings[name].hooks[1] for name in ("t0", "t1", "t2")]

    assert rig.wirings["t0"].hooks[0] is None
    assert hooks[0] is not None
    assert hooks[2] is not None
    assert hooks[0] is hooks[1]
    assert hooks[0].tokens == {"t0", "t1"}
    assert {name: size for name, size in rig.parts.pools().items() if name.startswith("hook")} == {
        hooks[0].name: 1,
        hooks[2].name: 1,
    }


def test_hook_that_did_not_change_stays(rig: Rig) -> None:
    """A reload that leaves a hook to some token keeps what is known of it, and follows who has it."""
    rig.follow(with_hooks("a", "a"))
    before = rig.wirings["t0"].hooks[1]
    rig.follow(with_hooks("b"))

    after = rig.wirings["t1"].hooks[1]
    assert after is before
    assert after is not None
    assert after.tokens == {"t1"}


def test_hook_that_left_is_kept_until_its_run_is_over(rig: Rig) -> None:
    """A hook that no token has any more keeps its pool until it is forgotten, which one that came back is not."""
    rig.follow(with_hooks("a"))
    before = rig.wirings["t0"].hooks[1]
    assert before is not None
    rig.follow(with_hooks("b"))
    between = rig.wirings["t0"].hooks[1]
    assert before.name in rig.parts.pools()
    rig.follow(with_hooks("a"))
    assert rig.wirings["t0"].hooks[1] is before

    rig.parts.forget_hooks(list(rig.parts.hooks))

    assert between is not None
    assert between.name not in rig.parts.pools()
    assert list(rig.parts.hooks) == [before.name]


def test_hook_with_a_run_that_hangs_is_not_forgotten(rig: Rig) -> None:
    """While a run hangs its hook is known, so that no other is begun should the hook come back."""
    rig.follow(with_hooks("a"))
    before = rig.wirings["t0"].hooks[1]
    assert before is not None
    rig.follow(lambda it: it["tokens"].pop(0))
    before.out = True
    rig.parts.forget_hooks([before.name])
    assert list(rig.parts.hooks) == [before.name]
    before.out = False
    rig.parts.forget_hooks([before.name])
    assert rig.parts.hooks == {}


def test_close_lets_no_command_start(rig: Rig) -> None:
    """Once the parts are closed no command is started any more."""
    rig.follow(with_hooks("true"))
    hook = rig.wirings["t0"].hooks[1]
    assert hook is not None
    rig.parts.close()
    with pytest.raises(HookError, match="the daemon stops"):
        hook.hook.run([])


def test_close_without_a_thread(rig: Rig) -> None:
    """Where the system gives no thread to close something in, the end comes all the same."""
    before = threading.stack_size()
    threading.stack_size(NO_STACK)
    try:
        rig.parts.close([lambda: None])
    finally:
        threading.stack_size(before)
