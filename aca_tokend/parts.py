"""What a configuration is made of: endpoints, sessions with Vaults, pools, and the state that each token begins with.

`follow` makes it follow a changed configuration: what did not change stays the same object. Nothing here opens a
connection, and what is no longer needed is handed back to be closed by whoever knows that nobody uses it any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend import sinks
from aca_tokend.credentials import endpoint_pool
from aca_tokend.oauth import HttpTokenEndpoint
from aca_tokend.secrets import SecretResolver
from aca_tokend.shared import FILE_POOL, FILE_POOL_SIZE, Shared
from aca_tokend.vault import VaultSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.config import Config, TokenConfig
    from aca_tokend.state import TokenState

    OnLogin = Callable[[str, str, bool, float | None], None]


@dataclass(slots=True)
class Parts:
    """The parts of `config`. `wall` is the wall clock; `on_login` is told of each log-in to a Vault."""

    config: Config
    wall: Callable[[], float]
    on_login: OnLogin
    endpoints: dict[str, HttpTokenEndpoint] = field(default_factory=dict)
    vaults: dict[str, VaultSession] = field(default_factory=dict)
    secrets: SecretResolver = field(init=False)
    shared: Shared = field(default_factory=Shared)

    def __post_init__(self) -> None:
        """Builds endpoints and sessions; states are built by `state`, one by one."""
        self.secrets = SecretResolver(self.vaults)
        for name in self.config.acaengine:
            self._build_endpoint(name)
        for name in self.config.vault:
            self._build_vault(name)

    def follow(self, config: Config) -> list[Callable[[], None]]:
        """Builds what is new or changed. Returns what closes the rest, for when no attempt uses it any longer."""
        before, self.config = self.config, config
        closing: list[Callable[[], None]] = []
        for name, known in before.acaengine.items():
            if config.acaengine.get(name) != known:
                endpoint = self.endpoints.pop(name)
                closing.append(endpoint.close)
                moved = name not in config.acaengine or self._build_endpoint(name).host != endpoint.host
                self.shared.forget_endpoint(name, clients=moved)
        for name in config.acaengine.keys() - before.acaengine.keys():
            self._build_endpoint(name)
        for name, vault in before.vault.items():
            if config.vault.get(name) != vault:
                closing.append(self.vaults[name].close)
        for name in config.vault:
            if config.vault[name] != before.vault.get(name):
                self._build_vault(name)
        return [*closing, self._forget_vaults]

    def _build_endpoint(self, name: str) -> HttpTokenEndpoint:
        endpoint = self.endpoints[name] = HttpTokenEndpoint(name, self.config.acaengine[name])
        return endpoint

    def _build_vault(self, name: str) -> None:
        self.vaults[name] = VaultSession(
            name, self.config.vault[name], self.secrets.resolve, wall=self.wall, on_login=self.on_login
        )

    def _forget_vaults(self) -> None:
        """Until now attempts under way could still find a secret in a Vault that left."""
        for name in self.vaults.keys() - self.config.vault.keys():
            del self.vaults[name]

    def state(self, token: TokenConfig) -> TokenState:
        """The state of a token that nothing is known of yet; its draw and times are for the caller to set."""
        built = [sinks.build(publish, self.vaults) for publish in token.publish]
        timeout = self.config.acaengine[token.acaengine].timeout
        return self.shared.state(token, self.endpoints[token.acaengine], built, timeout)

    def pools(self) -> dict[str, int]:
        """The size of each pool by its name."""
        pools = {endpoint_pool(self.endpoints[name]): it.max_concurrency for name, it in self.config.acaengine.items()}
        pools |= {f"vault.{name}": it.max_concurrency for name, it in self.config.vault.items()}
        return pools | {FILE_POOL: FILE_POOL_SIZE}

    def methods(self) -> dict[str, str]:
        """The log-in method of each Vault by its name."""
        return {name: vault.auth.method for name, vault in self.config.vault.items()}

    def timeouts(self) -> list[float]:
        """The time limits of all requests, in seconds."""
        endpoints, vaults = self.config.acaengine.values(), self.config.vault.values()
        return [*(it.timeout for it in endpoints), *(it.timeout for it in vaults)]

    def close(self) -> None:
        """Closes every connection."""
        for endpoint in self.endpoints.values():
            endpoint.close()
        for vault in self.vaults.values():
            vault.close()
