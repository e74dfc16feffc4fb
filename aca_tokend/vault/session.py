"""The session with one Vault or OpenBao: calls with a live token of ours (token.py), and what went wrong.

Used from several threads at once. It logs in when first used; it never sleeps, and sends a request again only after a
log-in that replaced a dead token. What went wrong becomes an error of the caller's step, with its place and its reason.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from aca_tokend.core.errors import LookError, PublishError, ReasonedError, SecretError, VaultLoginError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.vault import kv
from aca_tokend.vault.client import RequestFailedError
from aca_tokend.vault.nodes import Nodes
from aca_tokend.vault.token import TokenRenewer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import hvac

    from aca_tokend.core.config import Reference, VaultConfig
    from aca_tokend.core.login import LoginEvent, OwnToken
    from aca_tokend.core.vault_answers import KvRead, KvWritten
    from aca_tokend.vault.login import Login

    Resolve = Callable[[Reference], Secret]
    OnLogin = Callable[[LoginEvent], None]

T = TypeVar("T")

# A policy may forbid everything, also to ask what it allows, which looks as if our token were dead. Where a new one met
# the same, no other is asked for so long: each would be one more that nobody needs.
UNEXPLAINED_SECONDS = 60.0

# A mount that was KV version 2 is asked about again after so long: enabled anew as version 1 it would take what is
# written to `data/PATH` for a secret of that name. Where many new secrets are looked at, it is not asked for each.
VERSIONED_SECONDS = 10.0

# Where Vault will not say what is mounted somewhere, or is too old to be asked.
_SAYS_NOTHING = frozenset({Reason.PERMISSION_DENIED, Reason.NOT_FOUND, Reason.MOUNT_MISSING, Reason.REQUEST_REFUSED})


class VaultSession:
    """One Vault and the token we hold for it. Every method may be called from several threads.

    Args:
        name: the name in `[vault.NAME]`.
        config: that table.
        resolve: gives the secret behind a reference now, or raises SecretError.
        wall: the wall clock, in seconds of the epoch.
        on_login: told of each log-in and each renewal of our token, and how it went.
        monotonic: the clock that deadlines go by, in seconds.
    """

    def __init__(
        self,
        name: str,
        config: VaultConfig,
        resolve: Resolve,
        *,
        wall: Callable[[], float],
        on_login: OnLogin,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.pool = f"vault.{name}"
        self._nodes = Nodes(config)
        self._own = TokenRenewer(name, config, self._nodes, resolve, monotonic, wall, on_login)
        self._monotonic = monotonic
        self._unexplained_until = -math.inf
        self._versioned_until: dict[str, float] = {}  # the mounts that were KV version 2 a moment ago

    @property
    def expires_at(self) -> float | None:
        """When our Vault token expires, in seconds of the epoch; None where it never does or where we hold none."""
        return self._own.expires_at

    @property
    def logged_in(self) -> bool:
        """Whether we hold a token."""
        return self._own.current is not None

    def keep(self) -> float:
        """Does what is due for our token, and returns when to come again, in monotonic seconds; infinity for never."""
        return self._own.keep()

    def retry(self) -> None:
        """Somebody mended something: a log-in that was refused is made again at once."""
        self._own.retry()

    def own_token(self) -> OwnToken:
        """What Vault says of our token, in one request. Raises VaultLoginError."""
        return self._own.own_token()

    def close(self) -> None:
        """Revokes our token if we logged in for it, and closes the connections."""
        self._own.close()
        self._nodes.close()

    def read_kv(self, mount: str, path: str) -> KvRead:
        """Reads the latest version of a KV version 2 secret, in one request. Raises LookError."""
        return self._read(mount, path, LookError)

    def write_kv(self, mount: str, path: str, fields: Mapping[str, object], cas: int) -> KvWritten:
        """Writes a new version over version `cas`, in one request.

        Raises:
            PublishError: nothing was written; CONFLICT where the latest version is not `cas`.
        """
        call = _Call(mount, f"{mount}/data/{path}", PublishError, "update" if cas else "create")
        return self._call(call, lambda client: kv.write(client, mount, path, fields, cas))

    def describe_kv(self, mount: str, path: str, about: Mapping[str, str]) -> None:
        """Writes the custom metadata of a KV version 2 secret if it can, in one request, and says nothing if not."""
        login = self._own.current
        if login is not None:
            with contextlib.suppress(RequestFailedError):
                kv.describe(login.client, mount, path, about)

    def read_kv1(self, mount: str, path: str) -> Mapping[str, object] | None:
        """Reads a KV version 1 secret, in one request; None where there is none. Raises LookError."""
        call = _Call(mount, f"{mount}/{path}", LookError, "read", version=1)
        return self._call(call, lambda client: kv.read1(client, mount, path))

    def write_kv1(self, mount: str, path: str, fields: Mapping[str, object], *, new: bool) -> None:
        """Replaces a KV version 1 secret, whatever it is by now, in one request; `new`: none was there.

        Raises PublishError.
        """
        call = _Call(mount, f"{mount}/{path}", PublishError, "create" if new else "update", version=1)
        self._call(call, lambda client: kv.write1(client, mount, path, fields))

    def read_secret(self, mount: str, path: str) -> Callable[[str], Secret]:
        """Reads a secret, in one request. Returns what gives a field of it by its name; both raise SecretError."""
        fields = self._read(mount, path, SecretError).fields
        if fields is None:
            raise SecretError(Reason.SECRET_MISSING, f"vault {self.name}: there is no secret at {mount}/{path}")
        return partial(self._field, f"{mount}/{path}", fields)

    def _field(self, secret: str, fields: Mapping[str, object], name: str) -> Secret:
        if name not in fields:
            raise SecretError(Reason.SECRET_MISSING, f"vault {self.name}: {secret} has no field {name}")
        value = fields[name]
        if not isinstance(value, str):
            raise SecretError(Reason.SECRET_NOT_TEXT, f"vault {self.name}: field {name} of {secret} is not text")
        return Secret(value)

    def capabilities(self, paths: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """What our token may do on each of these paths, in one request: `read`, `create`, …, or `deny`.

        Raises LookError.
        """
        call = _Call("", "sys/capabilities-self", LookError, "update")
        return self._call(call, lambda client: kv.capabilities(client, paths))

    def mount_version(self, mount: str) -> int | None:
        """The version of the KV engine mounted there; None where there is none, or where we may not know.

        Raises LookError.
        """
        call = _Call("", f"sys/internal/ui/mounts/{mount}", LookError, "read")
        return self._call(call, lambda client: self._mount_version(client, mount))

    def _mount_version(self, client: hvac.Client, mount: str) -> int | None:
        if self._monotonic() < self._versioned_until.get(mount, -math.inf):
            return 2
        try:
            version = kv.mount_version(client, mount)
        except RequestFailedError as failed:
            if failed.reason not in _SAYS_NOTHING:
                raise
            return None
        if version == 2:  # noqa: PLR2004 -- of the two versions there are
            self._is_versioned(mount)
        return version

    def _is_versioned(self, mount: str) -> None:
        self._versioned_until[mount] = self._monotonic() + VERSIONED_SECONDS

    def _read(self, mount: str, path: str, error: type[ReasonedError]) -> KvRead:
        call = _Call(mount, f"{mount}/data/{path}", error, "read")

        def send(client: hvac.Client) -> KvRead:
            read = kv.read(client, mount, path)
            if read.version:
                self._is_versioned(mount)
            elif self._mount_version(client, mount) == 1:  # to it, there is just no secret of this name
                raise RequestFailedError(Reason.MOUNT_MISSING, _other_version(1))
            return read

        return self._call(call, send)

    def _call(self, call: _Call, send: Callable[[hvac.Client], T]) -> T:
        """Sends a request with a live token; the one place where what went wrong is given its place and its class."""
        try:
            login = self._own.login()
            try:
                return self._send(login, call, send)
            except _DeadTokenError:
                if self._monotonic() < self._unexplained_until:
                    raise
            try:
                return self._send(self._own.instead_of(login), call, send)
            except _DeadTokenError:
                self._unexplained_until = self._monotonic() + UNEXPLAINED_SECONDS
                raise
        except VaultLoginError as error:
            raise call.error(error.reason, error.message, retry_after_seconds=error.retry_after_seconds) from error
        except _DeadTokenError as dead:
            message = (
                f'vault {self.name}: {call.path}: permission denied, also with a new token; it needs "{call.needs}", '
                "and the policy default would let Vault say what is missing"
            )
            raise call.error(Reason.PERMISSION_DENIED, message) from dead
        except RequestFailedError as failed:
            message = f"vault {self.name}: {call.path}: {failed.message}"
            raise call.error(failed.reason, message, retry_after_seconds=failed.retry_after_seconds) from failed

    def _send(self, login: Login, call: _Call, send: Callable[[hvac.Client], T]) -> T:
        """Sends a request. Where it is denied it is found out why; raises _DeadTokenError where it is our token."""
        try:
            return send(login.client)
        except RequestFailedError as failed:
            if failed.reason is not Reason.PERMISSION_DENIED:
                raise
            denied = failed.with_traceback(None)  # which leads here, and to what was sent
        try:
            may = kv.capabilities(login.client, [call.path])[call.path]
        except RequestFailedError as failed:
            if failed.reason is Reason.PERMISSION_DENIED:
                raise _DeadTokenError from denied
            raise
        if call.needs in may or "root" in may:
            raise RequestFailedError(
                Reason.PERMISSION_DENIED, f'permission denied, though the policy has "{call.needs}"'
            ) from denied
        version = self._mount_version(login.client, call.mount) if call.mount else None
        if version not in {None, call.version}:
            # a policy for the other version allows none of the paths of this one
            raise RequestFailedError(Reason.MOUNT_MISSING, _other_version(version)) from denied
        raise RequestFailedError(
            Reason.PERMISSION_DENIED, f'permission denied; the policy lacks "{call.needs}"'
        ) from denied


class _DeadTokenError(Exception):
    """Our token counts no more."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What a request is for: path and capability as a policy names them, and the error its failure becomes."""

    mount: str
    path: str
    error: type[ReasonedError]
    needs: str
    version: int = 2


def _other_version(version: int | None) -> str:
    return f"KV version {version} is mounted there; set kv_version = {version}"
