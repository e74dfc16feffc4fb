"""The session with one Vault or OpenBao: log-in, log-in again where our token died, and the KV version 2 calls.

Used from several threads at once. It logs in when first used; it never sleeps, and sends a request again only after a
log-in that replaced a dead token. What went wrong becomes an error of the caller's step, with its place and its reason.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from aca_tokend.core.config import AppRoleAuth, TokenAuth
from aca_tokend.core.errors import LookError, PublishError, ReasonedError, SecretError, VaultLoginError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.vault_http import RequestFailedError, client_of, http_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import hvac

    from aca_tokend.core.config import Reference, VaultConfig

    Resolve = Callable[[Reference], Secret]
    OnLogin = Callable[[str, str, bool, float | None], None]

T = TypeVar("T")

# How Vault answers, in one way or another, to a log-in that it refuses.
_LOGIN_REFUSED = frozenset(
    {Reason.REQUEST_REFUSED, Reason.PERMISSION_DENIED, Reason.MOUNT_MISSING, Reason.NOT_FOUND, Reason.NOT_JSON}
)


@dataclass(frozen=True, slots=True)
class KvRead:
    """The latest version of one KV secret.

    Attributes:
        fields: None where there is nothing, or where the latest version is deleted or destroyed.
        version: what a write must name as the version it replaces; 0 where there is nothing.
        deleted: whether the latest version is deleted or destroyed.
    """

    fields: Mapping[str, object] | None = field(repr=False)
    version: int
    deleted: bool


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
        self._login: _Login | VaultLoginError = VaultLoginError(Reason.VAULT_LOGIN_FAILED, "not logged in yet")

    @property
    def expires_at(self) -> float | None:
        """When our Vault token expires, in seconds of the epoch; None where it never does or where we hold none."""
        login = self._login
        return login.expires_at if isinstance(login, _Login) else None

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
        return self._call(call, lambda client: _write(client, mount, path, fields, cas))

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
        return self._call(_Call(f"{mount}/data/{path}", '"read"', error), lambda client: _read(client, mount, path))

    def _call(self, call: _Call, send: Callable[[hvac.Client], T]) -> T:
        """Sends a request with a live token; the one place where what went wrong is given its place and its class."""
        try:
            login = self._login
            if not isinstance(login, _Login):
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

    def _log_in_instead_of(self, old: _Login | VaultLoginError) -> _Login:
        """A log-in newer than `old`. Raises VaultLoginError.

        Of several threads that find `old` of no use one logs in and the others take its outcome, failure included: a
        Vault that refuses is asked once, not once a thread.
        """
        with self._lock:
            if self._login is old:
                self._login = self._log_in()
            login = self._login
        if isinstance(login, _Login):
            return login
        # each thread raises an error of its own: one raised in several threads would gather all their tracebacks
        raise VaultLoginError(login.reason, login.message, retry_after_seconds=login.retry_after_seconds) from login

    def _log_in(self) -> _Login | VaultLoginError:
        """One log-in and its outcome, of which `on_login` is told."""
        method = self._config.auth.method
        try:
            login = self._by_method()
        except VaultLoginError as error:
            self._on_login(self.name, method, False, None)
            return error
        self._on_login(self.name, method, True, login.expires_at)
        return login

    def _by_method(self) -> _Login:
        """Asks Vault for a token. A method of log-in is one function from its configuration to a `_Login`."""
        auth = self._config.auth
        what = f"vault {self.name}: log-in by {auth.method}"
        try:
            match auth:
                case TokenAuth():
                    return self._by_token(auth)
                case AppRoleAuth():
                    return self._by_approle(auth)
        except SecretError as error:
            raise VaultLoginError(error.reason, f"{what}: {error.message}") from error
        except RequestFailedError as failed:
            reason = Reason.VAULT_LOGIN_FAILED if failed.reason in _LOGIN_REFUSED else failed.reason
            message = f"{what}: {failed.text}"
            raise VaultLoginError(reason, message, retry_after_seconds=failed.retry_after_seconds) from failed

    def _by_token(self, auth: TokenAuth) -> _Login:
        client = self._client(self._resolve(auth.token))
        asked_at = self._wall()
        match client.auth.token.lookup_self():
            case {"data": {"ttl": int() as lifetime}}:
                return _Login(client, _expiry(asked_at, lifetime))
        raise RequestFailedError(Reason.VAULT_LOGIN_FAILED, "the answer tells nothing of the token")

    def _by_approle(self, auth: AppRoleAuth) -> _Login:
        role_id = auth.role_id if isinstance(auth.role_id, str) else self._resolve(auth.role_id).reveal()
        secret_id = self._resolve(auth.secret_id)
        approle = self._client(None).auth.approle
        asked_at = self._wall()
        match approle.login(role_id, secret_id.reveal(), use_token=False, mount_point=auth.mount):
            case {"auth": {"client_token": str() as token, "lease_duration": int() as lifetime}}:
                return _Login(self._client(Secret(token)), _expiry(asked_at, lifetime))
        raise RequestFailedError(Reason.VAULT_LOGIN_FAILED, "the answer holds no token")

    def _client(self, token: Secret | None) -> hvac.Client:
        """A client for one log-in: a thread in the middle of a call keeps the token that it began with."""
        return client_of(self._config, self._http, token)


@dataclass(frozen=True, slots=True, eq=False)
class _Login:
    """A log-in that succeeded. Threads ask whether it is still the latest: one equals only itself."""

    client: hvac.Client
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class _Call:
    """What a request is for: the path and capabilities as a policy names them, and the error its failure becomes."""

    path: str
    needs: str
    error: type[ReasonedError]


def _expiry(asked_at: float, lifetime: int) -> float | None:
    """Counted from before the request, so never too late. Vault says 0 for a token that does not expire."""
    return asked_at + lifetime if lifetime else None


def _is_alive(login: _Login) -> bool:
    """Whether our token still counts: then it is the policy that denies, and a log-in would not help."""
    try:
        login.client.auth.token.lookup_self()
    except RequestFailedError as failed:
        if failed.reason is Reason.PERMISSION_DENIED:
            return False
        raise
    return True


def _read(client: hvac.Client, mount: str, path: str) -> KvRead:
    try:
        answer = client.secrets.kv.v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
    except RequestFailedError as failed:
        if failed.version is None:
            raise
        return KvRead(None, failed.version, deleted=failed.version > 0)
    match answer:
        case {"data": {"data": dict() as fields, "metadata": {"version": int() as version}}}:
            return KvRead(fields, version, deleted=False)
    raise RequestFailedError(Reason.MOUNT_MISSING, "what is mounted there is no KV version 2")


def _write(client: hvac.Client, mount: str, path: str, fields: Mapping[str, object], cas: int) -> int:
    match client.secrets.kv.v2.create_or_update_secret(path, secret=fields, cas=cas, mount_point=mount):
        case {"data": {"version": int() as version}}:
            return version
    raise RequestFailedError(Reason.MOUNT_MISSING, "what is mounted there is no KV version 2")
