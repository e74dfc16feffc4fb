"""The session with one Vault or OpenBao: log-in, log-in again where our token died, and the KV version 2 calls.

Used from several threads at once. It logs in when first used; it never sleeps, and sends a request again only after a
log-in that replaced a dead token. What went wrong becomes an error of the caller's step, with its place and its reason.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from aca_tokend import vault_kv
from aca_tokend.core.errors import LookError, PublishError, ReasonedError, SecretError, VaultLoginError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.vault_http import RequestFailedError, client_of, http_session
from aca_tokend.vault_login import Login, log_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import hvac

    from aca_tokend.core.config import Reference, VaultConfig
    from aca_tokend.vault_kv import KvRead

    Resolve = Callable[[Reference], Secret]
    OnLogin = Callable[[str, str, bool, float | None], None]

T = TypeVar("T")

# How Vault answers, in one way or another, to a log-in that it refuses.
_LOGIN_REFUSED = frozenset(
    {Reason.REQUEST_REFUSED, Reason.PERMISSION_DENIED, Reason.MOUNT_MISSING, Reason.NOT_FOUND, Reason.NOT_JSON}
)


class VaultSession:
    """One Vault and the token we hold for it. Every method may be called from several threads.

    Args:
        name: the name in `[vault.NAME]`.
        config: that table.
        resolve: gives the secret behind a reference now, or raises SecretError.
        wall: the wall clock, in seconds of the epoch.
        on_login: told of each log-in: vault, method, whether it succeeded, and when our token expires (None: never).
    """

    def __init__(
        self, name: str, config: VaultConfig, resolve: Resolve, *, wall: Callable[[], float], on_login: OnLogin
    ) -> None:
        self.name = name
        self._config = config
        self._resolve = resolve
        self._wall = wall
        self._on_login = on_login
        self._http = http_session(config)
        self._lock = threading.Lock()
        # the outcome of the latest log-in
        self._login: Login | VaultLoginError = VaultLoginError(Reason.VAULT_LOGIN_FAILED, "not logged in yet")

    @property
    def expires_at(self) -> float | None:
        """When our Vault token expires, in seconds of the epoch; None where it never does or where we hold none."""
        login = self._login
        return login.expires_at if isinstance(login, Login) else None

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def read_kv(self, mount: str, path: str) -> KvRead:
        """Reads the latest version of a secret, in one request. Raises LookError."""
        return self._read(mount, path, LookError)

    def write_kv(self, mount: str, path: str, fields: Mapping[str, object], cas: int) -> int:
        """Writes a new version over version `cas`, in one request, and returns its number.

        Raises:
            PublishError: nothing was written; CONFLICT where the latest version is not `cas`.
        """
        call = _Call(f"{mount}/data/{path}", '"create" and "update"', PublishError)
        return self._call(call, lambda client: vault_kv.write(client, mount, path, fields, cas))

    def read_field(self, mount: str, path: str, name: str) -> Secret:
        """Reads one field of a secret, in one request. Raises SecretError."""
        fields = self._read(mount, path, SecretError).fields
        if fields is None:
            raise SecretError(Reason.SECRET_MISSING, f"vault {self.name}: there is no secret at {mount}/{path}")
        if name not in fields:
            raise SecretError(Reason.SECRET_MISSING, f"vault {self.name}: {mount}/{path} has no field {name}")
        value = fields[name]
        if not isinstance(value, str):
            raise SecretError(Reason.SECRET_NOT_TEXT, f"vault {self.name}: field {name} of {mount}/{path} is not text")
        return Secret(value)

    def _read(self, mount: str, path: str, error: type[ReasonedError]) -> KvRead:
        return self._call(
            _Call(f"{mount}/data/{path}", '"read"', error), lambda client: vault_kv.read(client, mount, path)
        )

    def _call(self, call: _Call, send: Callable[[hvac.Client], T]) -> T:
        """Sends a request with a live token; the one place where what went wrong is given its place and its class."""
        try:
            login = self._login
            if not isinstance(login, Login):
                login = self._log_in_instead_of(login)
            try:
                return send(login.client)
            except RequestFailedError as failed:
                if failed.reason is not Reason.PERMISSION_DENIED or _is_alive(login):
                    raise
            return send(self._log_in_instead_of(login).client)
        except VaultLoginError as error:
            raise call.error(error.reason, error.message, retry_after_seconds=error.retry_after_seconds) from error
        except RequestFailedError as failed:
            text = f"{failed.text}; needs {call.needs}" if failed.reason is Reason.PERMISSION_DENIED else failed.text
            message = f"vault {self.name}: {call.path}: {text}"
            raise call.error(failed.reason, message, retry_after_seconds=failed.retry_after_seconds) from failed

    def _log_in_instead_of(self, old: Login | VaultLoginError) -> Login:
        """A log-in newer than `old`. Raises VaultLoginError.

        Of several threads that find `old` of no use one logs in and the others take its outcome, failure included: a
        Vault that refuses is asked once, not once a thread.
        """
        with self._lock:
            if self._login is old:
                self._login = self._log_in()
            login = self._login
        if isinstance(login, Login):
            return login
        # each thread raises an error of its own: one raised in several threads would gather all their tracebacks
        raise VaultLoginError(login.reason, login.message, retry_after_seconds=login.retry_after_seconds) from login

    def _log_in(self) -> Login | VaultLoginError:
        """One log-in and its outcome, of which `on_login` is told."""
        method = self._config.auth.method
        try:
            login = self._by_method()
        except VaultLoginError as error:
            self._on_login(self.name, method, False, None)
            return error
        self._on_login(self.name, method, True, login.expires_at)
        return login

    def _by_method(self) -> Login:
        what = f"vault {self.name}: log-in by {self._config.auth.method}"
        try:
            return log_in(self._config, self._client, self._resolve, self._wall)
        except SecretError as error:
            raise VaultLoginError(error.reason, f"{what}: {error.message}") from error
        except RequestFailedError as failed:
            reason = Reason.VAULT_LOGIN_FAILED if failed.reason in _LOGIN_REFUSED else failed.reason
            message = f"{what}: {failed.text}"
            raise VaultLoginError(reason, message, retry_after_seconds=failed.retry_after_seconds) from failed

    def _client(self, token: Secret | None) -> hvac.Client:
        """A client for one log-in: a thread in the middle of a call keeps the token that it began with."""
        return client_of(self._config, self._http, token)


@dataclass(frozen=True, slots=True)
class _Call:
    """What a request is for: the path and capabilities as a policy names them, and the error its failure becomes."""

    path: str
    needs: str
    error: type[ReasonedError]


def _is_alive(login: Login) -> bool:
    """Whether our token still counts: then it is the policy that denies, and a log-in would not help."""
    try:
        login.client.auth.token.lookup_self()
    except RequestFailedError as failed:
        if failed.reason is Reason.PERMISSION_DENIED:
            return False
        raise
    return True
