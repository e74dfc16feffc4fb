"""What a configuration is made of: endpoints, sessions with Vaults, pools, and what each token is made of.

`follow` makes it follow a changed configuration: what did not change stays the same object. Nothing here opens a
connection, and what is no longer needed is handed back to be closed by whoever knows that nobody uses it any more.
"""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend import sinks
from aca_tokend.acaengine.endpoint import HttpTokenEndpoint
from aca_tokend.config.references import SecretResolver
from aca_tokend.core.config import after_of, references
from aca_tokend.core.errors import SecretError, TokendError
from aca_tokend.core.shards import parse_index
from aca_tokend.process import wait_for_programs
from aca_tokend.rotation.credentials import endpoint_pool
from aca_tokend.rotation.hook_runner import HookState
from aca_tokend.rotation.managed import Wiring
from aca_tokend.rotation.shared import Shared
from aca_tokend.sinks import hooks
from aca_tokend.sinks.mounts import FILE_POOL, FILE_POOL_SIZE, pool_of
from aca_tokend.threads import Thread
from aca_tokend.vault.session import VaultSession

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from aca_tokend.core.config import After, Config, TokenConfig
    from aca_tokend.core.login import LoginEvent
    from aca_tokend.core.ports import Clock

    OnLogin = Callable[[LoginEvent], None]

# When the daemon ends, all Vaults together get this long to revoke our tokens, and the listener to end.
CLOSE_SECONDS = 3.0


@dataclass(slots=True)
class Parts:
    """The parts of `config`. `on_login` is told of each log-in to a Vault, and of what becomes of our token there."""

    config: Config
    clock: Clock
    on_login: OnLogin
    endpoints: dict[str, HttpTokenEndpoint] = field(default_factory=dict)
    vaults: dict[str, VaultSession] = field(default_factory=dict)
    secrets: SecretResolver = field(init=False)
    shared: Shared = field(init=False)
    hooks: dict[str, HookState] = field(default_factory=dict)
    _hook_names: dict[After, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        """Builds endpoints and sessions; tokens by `wire`, one by one."""
        self.secrets = SecretResolver(self.vaults, pool_of)
        self.shared = Shared(self.clock.monotonic())
        for name in self.config.acaengine:
            self._build_endpoint(name)
        for name in self.config.vault:
            self._build_vault(name)
        self._follow_hooks()

    def follow(self, config: Config) -> list[Callable[[], None]]:
        """Builds what is new or changed. Returns what closes the rest, for when no attempt uses it any longer.

        Hooks that no token has any more are left to `forget_hooks`.
        """
        before, self.config = self.config, config
        closing: list[Callable[[], None]] = []
        for name, known in before.acaengine.items():
            if config.acaengine.get(name) != known:
                closing.append(self.endpoints.pop(name).close)
                self.shared.forget_endpoint(name)
        for name in config.acaengine.keys() - self.endpoints.keys():
            self._build_endpoint(name)
        for name, vault in before.vault.items():
            if config.vault.get(name) != vault:
                closing.append(partial(self._end_vault, self.vaults[name]))
        for name in config.vault:
            if config.vault[name] != before.vault.get(name):
                self._build_vault(name)
        self._follow_hooks()
        self.shared.follow(config.tokens)
        return closing

    def _follow_hooks(self) -> None:
        """One hook for all sinks that have the same, however many they are; one that left has no token any more."""
        tokens: dict[After, set[str]] = {after: set() for after in self._hook_names}
        for token in self.config.tokens:
            for publish in token.publish:
                if (after := after_of(publish)) is not None:
                    tokens.setdefault(after, set()).add(token.name)
        for after, names in tokens.items():
            name, backoff = self._hook_names.get(after), self.config.rotation.backoff
            if name is None:
                # no token has a name with a space in it
                name = self._hook_names[after] = f"hook {next(self._numbers)}"
                self.hooks[name] = HookState(name, hooks.build(after), backoff)
            self.hooks[name].tokens, self.hooks[name].backoff = frozenset(names), backoff

    def forget_hooks(self, left: Collection[str]) -> None:
        """These owe nothing, and nothing asks for them any more, unless they have come back since."""
        self.hooks = {name: it for name, it in self.hooks.items() if it.tokens or it.out or name not in left}
        self._hook_names = {after: name for after, name in self._hook_names.items() if name in self.hooks}

    def _build_endpoint(self, name: str) -> None:
        self.endpoints[name] = HttpTokenEndpoint(name, self.config.acaengine[name])

    def _build_vault(self, name: str) -> None:
        vault = self.config.vault[name]

        def on_login(event: LoginEvent) -> None:
            # a session that a reload left may answer late, which says nothing of the Vault that has its name by now
            if self.vaults.get(name) is session and self.config.vault.get(name) == vault:
                self.on_login(event)

        session = self.vaults[name] = VaultSession(
            name,
            vault,
            self.secrets.resolve,
            wall=self.clock.wall,
            on_login=on_login,
            monotonic=self.clock.monotonic,
        )

    def _end_vault(self, session: VaultSession) -> None:
        """Until now attempts under way could still find a secret there. Another may bear its name since."""
        if self.vaults.get(session.name) is session:
            del self.vaults[session.name]
        _apart(session.close).start()

    def wire(self, token: TokenConfig) -> Wiring:
        """What a token is made of."""
        endpoint = self.config.acaengine[token.acaengine]
        hooks = (after_of(publish) for publish in token.publish)
        return Wiring(
            config=token,
            endpoint=self.endpoints[token.acaengine],
            sinks=tuple(sinks.build(publish, self.vaults) for publish in token.publish),
            hooks=tuple(None if after is None else self.hooks[self._hook_names[after]] for after in hooks),
            gate=self.shared.gate(
                token.acaengine, endpoint.timeout, token.rotation.backoff.cap, endpoint.max_concurrency
            ),
            client=self.shared.client_of(token),
            shared=self.shared,
            rules=self.shared.rules(token, endpoint.timeout),
        )

    def pools(self) -> dict[str, int]:
        """The size of each pool by its name."""
        pools = {endpoint_pool(self.endpoints[name]): it.max_concurrency for name, it in self.config.acaengine.items()}
        pools |= {f"vault.{name}": it.max_concurrency for name, it in self.config.vault.items()}
        # one run at a time of each hook, and a hook that hangs holds up no other
        pools |= dict.fromkeys(self.hooks, 1)
        places = (it.path for token in self.config.tokens for it in token.publish if it.to != "vault")
        pools |= dict.fromkeys((FILE_POOL, *map(pool_of, places)), FILE_POOL_SIZE)
        secrets = (self.secrets.pool(it) for token in self.config.tokens for it in references(token))
        return {**dict.fromkeys((pool for pool in secrets if pool), FILE_POOL_SIZE), **pools}

    def shard(self) -> int:
        """The number of this shard, 0 where there are none. Raises TokendError."""
        if self.config.shard is None:
            return 0
        index = self.config.shard.index
        if isinstance(index, int):
            return index
        try:
            return parse_index(self.secrets.resolve(index).reveal().strip(), self.config.shard.count)
        except SecretError as error:
            problem = error.message
        except ValueError as error:
            problem = f"{index} {error}"
        message = f"shard.index: {problem}"
        raise TokendError(message)

    def methods(self) -> dict[str, str]:
        """The log-in method of each Vault by its name."""
        return {name: vault.auth.method for name, vault in self.config.vault.items()}

    def close(self, besides: Iterable[Callable[[], None]] = ()) -> None:
        """Closes every connection, and what is `besides`, and ends the commands that still run."""
        for hook in self.hooks.values():
            hook.hook.close()
        for endpoint in self.endpoints.values():
            endpoint.close()
        ending, deadline = list[Thread](), time.monotonic() + CLOSE_SECONDS
        for close in (*(vault.close for vault in self.vaults.values()), *besides):
            with suppress(RuntimeError, MemoryError):  # what the machine gives no thread for ends with the process
                thread = _apart(close)
                thread.start()
                ending.append(thread)
        for thread in ending:
            thread.join(max(deadline - time.monotonic(), 0.0))
        wait_for_programs(max(deadline - time.monotonic(), 0.0))


def _apart(close: Callable[[], None]) -> Thread:
    """Closes it once started: to revoke our token takes a request, which may hang until its timeout."""
    return Thread(target=close, name="close", daemon=True)
