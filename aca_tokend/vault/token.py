"""Our own token in one Vault: obtained when first needed, kept alive, replaced before it ends, revoked when we leave.

Used from several threads at once; one log-in or renewal is under way at a time, and whoever needs its outcome waits for
it. It never sleeps: `keep` does what is due and says when to come again. Every deadline comes from core/login.py.
"""

from __future__ import annotations

import os
import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.config import CertAuth, TokenAuth
from aca_tokend.core.errors import SecretError, VaultLoginError
from aca_tokend.core.login import (
    Fault,
    HoldOff,
    LoggedIn,
    LoginEvent,
    LoginFailed,
    OwnToken,
    RenewalFailed,
    Renewed,
    Verdict,
    hold_off,
)
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret, fingerprint
from aca_tokend.vault.client import RequestFailedError, client_of
from aca_tokend.vault.login import (
    REFUSED,
    Request,
    explained,
    log_in,
    own_token,
    place,
    prepare,
    renew,
    revoke,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.config import Reference, VaultConfig
    from aca_tokend.core.login import TokenLife
    from aca_tokend.vault.login import Login
    from aca_tokend.vault.nodes import Nodes

_SUSPENDED = (
    "refused as often as it may be without being locked out, so this credential is not sent again before it changes, "
    "the configuration is reloaded by SIGHUP, or an hour is over"
)
_NOT_TRIED = VaultLoginError(Reason.VAULT_LOGIN_FAILED, "not logged in yet")


@dataclass(slots=True)
class TokenRenewer:
    """Our token in the Vault of `config`. Every method may be called from several threads.

    Attributes:
        name: the name in `[vault.NAME]`.
        nodes: its connections.
        resolve: gives the secret behind a reference now, or raises SecretError.
        monotonic, wall: the clocks, in seconds.
        tell: told of each log-in and renewal, and how it went.
        rng: draws jitter.
        draw: the share of the jitter that this process keeps.
    """

    name: str
    config: VaultConfig
    nodes: Nodes
    resolve: Callable[[Reference], Secret]
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    tell: Callable[[LoginEvent], None]
    rng: random.Random = field(default_factory=random.SystemRandom)
    draw: float = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _key: Secret = field(default_factory=lambda: Secret(os.urandom(16).hex()))
    _login: Login | None = None
    _doubted: Login | None = None  # one that looked dead to somebody, and could not be replaced
    _held: HoldOff | None = None  # why no log-in is made, None where the last one succeeded
    _error: VaultLoginError = _NOT_TRIED  # how the last one failed
    _keep_at: float = float("inf")
    _renewal_failures: int = 0
    _asked: bool = False
    _closed: bool = False

    def __post_init__(self) -> None:
        """Draws the jitter; opens no connection."""
        self.draw = self.rng.random()

    @property
    def expires_at(self) -> float | None:
        """When our token expires, in wall seconds; None where it never does or where we hold none."""
        login = self.current
        return self._in_wall(login.life) if login else None

    @property
    def current(self) -> Login | None:
        """The log-in we have, if any, and unless it looks dead."""
        return self._login if self._login is not self._doubted else None

    def login(self) -> Login:
        """The log-in we have, else a new one. Raises VaultLoginError."""
        return self._login or self.instead_of(None)

    def instead_of(self, old: Login | None) -> Login:
        """A log-in newer than `old`, which looks dead. Raises VaultLoginError.

        A policy can make it look so while it serves others: it is kept until there is another. Of several threads that
        find it of no use one logs in and the others take its outcome, failure included: a Vault that refuses is asked
        once, not once a thread. Until the hold-off is over it is not asked at all.
        """
        with self._lock:
            if self._login is old and (self._held is None or self.monotonic() >= self._held.until):
                self._log_in()
            if self._login is old:
                self._doubted = old
            elif self._login is not None:
                return self._login
            wait = self._held.until - self.monotonic() if self._held else 0.0
        # each thread raises an error of its own: one raised in several threads would gather all their tracebacks
        raise VaultLoginError(self._error.reason, self._error.message, retry_after_seconds=max(wait, 0.0))

    def keep(self) -> float:
        """Does what is due for our token, and returns when to come again, in monotonic seconds; infinity for never."""
        with self._lock:
            now = self.monotonic()
            if self._asked:
                self._asked = False
                if self._held is not None:
                    self._held = replace(self._held, rejections=0, until=now)
                    self._keep_at = now
            if self._login is not None:
                if now >= self._keep_at:
                    self._keep(self._login, now)
            elif self._held is not None and not self._closed:
                self._log_in_if_it_may_help(now)
            return self._keep_at

    def retry(self) -> None:
        """Somebody mended something: with the next `keep` a log-in that failed is made again, whatever was refused."""
        self._asked = True  # without the lock, which a log-in that hangs would hold

    def own_token(self) -> OwnToken:
        """What Vault says of our token, in one request. Raises VaultLoginError."""
        try:
            return own_token(self.login().client, self.wall)
        except RequestFailedError as failed:
            what = f"vault {self.name}: our own token"
            raise self._failed(what, failed, failed.message) from failed

    def close(self) -> None:
        """Revokes our token if we logged in for it. It logs in no more."""
        self._closed = True
        # whoever hangs in a log-in holds the lock until the Vault's timeout
        if self._lock.acquire(timeout=2 * self.config.timeout):
            login, self._login, self._held, self._keep_at = self._login, None, None, float("inf")
            self._lock.release()
            if login is not None:
                self._end(login)

    # ── what is done while the lock is held ───────────────────────────────────────────────────────────────────────

    def _keep(self, login: Login, now: float) -> None:
        """Replaces our token where it looks dead, and keeps it alive as long as it is not replaced."""
        look_at = float("inf")
        if self._doubted is login:
            if self._log_in_if_it_may_help(now):
                return
            look_at = self._keep_at
        if self._doubted is not login or now >= login.life.due_at(self.draw):
            self._prolong(login, now)
        self._keep_at = min(self._keep_at, look_at)

    def _prolong(self, login: Login, now: float) -> None:
        """Renews our token, or replaces it while it still serves."""
        given = isinstance(self.config.auth, TokenAuth)
        # a connection that was kept would renew by the certificate it was opened with
        replaceable = given or isinstance(self.config.auth, CertAuth)
        another = replaceable and self._credential() not in {"", login.credential}
        if another and self._log_in_if_it_may_help(now):
            return
        if now < login.life.expires_at:
            if login.life.renewable and not login.life.capped:
                if self._renew(login, now):
                    return
            elif given:
                self._wait_for_another(login, now)
                return
        else:
            self._login = None
        self._log_in_if_it_may_help(now)

    def _renew(self, login: Login, now: float) -> bool:
        """Asks for more life. False where Vault refuses: only another token helps."""
        try:
            login.life = renew(login, self.monotonic)
        except RequestFailedError as failed:
            if failed.reason in REFUSED:
                login.life = replace(login.life, renewable=False)
                return isinstance(self.config.auth, TokenAuth) and self._wait_for_another(login, now)
            self._renewal_failures += 1
            self._keep_at = login.life.retry_at(self._renewal_failures, self.monotonic(), self.rng.random())
            if self._renewal_failures == 1:
                message = f"vault {self.name}: renewal of our token: {failed.message}"
                self.tell(RenewalFailed(self.name, failed.reason, message, self._in_wall(login.life)))
            return True
        self._renewal_failures = 0
        self._keep_at = login.life.due_at(self.draw)
        self.tell(Renewed(self.name, self._in_wall(login.life)))
        return True

    def _wait_for_another(self, login: Login, now: float) -> bool:
        """A token that was given to us and cannot be renewed: whoever gave it has to give another. Told once."""
        self._keep_at = login.life.poll_at(now)
        self._renewal_failures += 1
        if self._renewal_failures == 1:
            message = (
                f"vault {self.name}: our token cannot be renewed; put another one where the reference points, or give "
                "it a period"
            )
            self.tell(RenewalFailed(self.name, Reason.VAULT_LOGIN_FAILED, message, self._in_wall(login.life)))
        return True

    def _log_in_if_it_may_help(self, now: float) -> bool:
        """A log-in, unless one failed a moment ago or what would be sent was refused. Whether there is a new one."""
        held = self._held
        if held is None or now >= held.until or self._changed(held):
            return self._log_in()
        self._keep_at = held.look_at(now)
        return False

    def _changed(self, held: HoldOff) -> bool:
        """Whether what was refused is another credential by now. That a Vault was away has nothing to do with it."""
        return held.verdict is not Verdict.UNAVAILABLE and self._credential() not in {"", held.credential}

    def _credential(self) -> str:
        """The fingerprint of what the next log-in would send; empty where that cannot be had."""
        try:
            return self._fingerprint(prepare(self.config, self.resolve))
        except SecretError:
            return ""

    def _fingerprint(self, request: Request) -> str:
        return fingerprint(request.credential, self._key)

    def _log_in(self) -> bool:
        """One log-in. If it fails what we hold stays, if we hold anything."""
        if self._closed:
            self._error = VaultLoginError(Reason.VAULT_LOGIN_FAILED, f"vault {self.name}: the session is closed")
            return False
        what, credential = f"vault {self.name}: log-in by {place(self.config)}", ""
        try:
            request = prepare(self.config, self.resolve)
            credential = self._fingerprint(request)
            # clients of its own: a thread in the middle of a call keeps the token that it began with
            connect = partial(client_of, self.config, self.nodes)
            login = log_in(request, credential, connect, self.monotonic)
        except SecretError as error:
            self._refused(VaultLoginError(error.reason, f"{what}: {error.message}"), Fault(Verdict.UNAVAILABLE, ""))
        except RequestFailedError as failed:
            fault = Fault(verdict(self.config, failed), credential, failed.retry_after_seconds)
            why = explained(self.config, failed)
            self._refused(self._failed(what, failed, why), fault)
        else:
            self._accepted(login)
            return True
        return False

    def _accepted(self, login: Login) -> None:
        before, recovered = self._login, self._held is not None
        self._held, self._login, self._renewal_failures = None, login, 0
        self._keep_at = login.life.due_at(self.draw)
        if before is not None:
            self._end(before)
        method = self.config.auth.method
        self.tell(LoggedIn(self.name, method, self._in_wall(login.life), self._keep_at, recovered))

    def _end(self, login: Login) -> None:
        if login.revocable:
            with suppress(RequestFailedError):  # then it expires by itself
                revoke(login)

    def _refused(self, error: VaultLoginError, fault: Fault) -> None:
        now = self.monotonic()
        held = self._held = hold_off(self._held, fault, now, self.rng.random())
        if held.suspended:
            error.message += f"; {_SUSPENDED}"
        self._error, self._keep_at = error, held.look_at(now)
        self.tell(
            LoginFailed(
                vault=self.name,
                method=self.config.auth.method,
                reason=error.reason,
                message=error.message,
                next_seconds=held.until - now,
                keep_at=self._keep_at,
                suspended=held.suspended,
            )
        )

    def _failed(self, what: str, failed: RequestFailedError, text: str) -> VaultLoginError:
        reason = Reason.VAULT_LOGIN_FAILED if failed.reason in REFUSED else failed.reason
        return VaultLoginError(reason, f"{what}: {text}", retry_after_seconds=failed.retry_after_seconds)

    def _in_wall(self, life: TokenLife) -> float | None:
        if life.ttl_seconds is None:
            return None
        return self.wall() + life.expires_at - self.monotonic()
