"""The tokens of the rehearsal, and the configurations of its daemons.

A token, an endpoint, a Vault or a daemon has the name of the one fault that happens to it, so an alert tells by its
labels which fault it is about. `well` is a token to which nothing happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

COMMON = """
[admin]
listen = "127.0.0.1:0"
[log]
level = "debug"
[rotation]
fraction = 0.25
min_interval = "1s"
backoff = {{ initial = "1s", cap = "2s" }}
[acaengine.main]
url = "{main}"
[vault.main]
address = "{bao}"
auth = {{ method = "token", token = {{ file = "{directory}/root-token" }} }}
"""
FURTHER = """
[acaengine.endpoint-down]
url = "{down}"
[acaengine.endpoint-hangs]
url = "{main}"
timeout = "1s"
[acaengine.clock-wrong]
url = "{clock}"
[vault.policy-lost]
address = "{bao}"
auth = {{ method = "token", token = {{ file = "{directory}/policy-token" }} }}
[vault.login-lost]
address = "{bao}"
[vault.login-lost.auth]
method = "approle"
role_id = {{ file = "{directory}/role-id" }}
secret_id = {{ file = "{directory}/secret-id" }}
[vault.vault-sealed]
address = "{sealed}"
auth = {{ method = "token", token = {{ file = "{directory}/sealed-token" }} }}
"""
TOKEN = """
[[tokens]]
name = "{name}"
acaengine = "{endpoint}"
authority = "authority-1"
username = "svc-{name}"
password = {{ file = "{directory}/{name}.password" }}
client_id = "client-{name}"
client_secret = {{ file = "{directory}/{name}.client-secret" }}
"""
VAULT = """
[[tokens.publish]]
to = "vault"
vault_name = "{vault}"
mount = "secret"
path = "aca/{name}"
"""
FILE = """
[[tokens.publish]]
to = "file"
path = "{directory}/{folder}/{name}.json"
"""


class Token(NamedTuple):
    """A token of a daemon, with its endpoint and where it is published; attempts are noted beside the first place."""

    daemon: str
    name: str
    endpoint: str = "main"
    vault: str = "main"
    folder: str = ""

    def toml(self, directory: Path) -> str:
        """Its part of the configuration."""
        places = (VAULT if self.vault else "") + (FILE if self.folder else "")
        return (TOKEN + places).format(directory=directory, **self._asdict())


TOKENS = (
    Token("tokens", "well", folder="places"),
    Token("tokens", "password-wrong"),
    Token("tokens", "client-secret-expired"),
    Token("tokens", "grant-disabled", vault="", folder="places"),  # where `resume` is noticed within seconds
    Token("tokens", "endpoint-down", endpoint="endpoint-down"),
    Token("tokens", "endpoint-hangs", endpoint="endpoint-hangs"),
    Token("tokens", "vault-sealed", vault="vault-sealed"),
    Token("tokens", "login-lost", vault="login-lost"),
    Token("tokens", "policy-lost", vault="policy-lost"),
    Token("tokens", "disk-full", folder="disk"),
    Token("tokens", "place-gone", vault="", folder="place"),
    Token("tokens", "clock-wrong", endpoint="clock-wrong"),
    Token("reload-bad", "reload-bad"),
    Token("daemon-gone", "daemon-gone"),
)
