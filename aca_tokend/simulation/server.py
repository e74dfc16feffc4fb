"""A simulated ACAEngine: mints tokens, counts what it was asked, and fails as it is told to.

Its clock is the true one: how long a token really works is decided here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from aca_tokend.core.errors import GrantError, GrantRejected, GrantUnavailable, VerifyError
from aca_tokend.core.grant import Grant
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.simulation.world import START

if TYPE_CHECKING:
    from aca_tokend.core.grant import Credentials
    from aca_tokend.simulation.places import Watch
    from aca_tokend.simulation.world import SimClock, World

# What is left of a whole number of seconds after some arithmetic is that number.
ROUNDING = 1e-6
# How an endpoint fails: the reason, and the HTTP status (None: no answer).
FAULTS: dict[str, tuple[Reason, int | None]] = {
    "refuse": (Reason.CONNECT_FAILED, None),
    "503": (Reason.UNAVAILABLE, 503),
    "500": (Reason.SERVER_ERROR, 500),
    "429": (Reason.RATE_LIMITED, 429),
    "hang": (Reason.TIMEOUT, None),
    "404": (Reason.NOT_FOUND, 404),
}


@dataclass(slots=True, eq=False)
class Minted:
    """A token as the server knows it. Times are true; `sent` and `answered` frame the request it was minted by.

    `lost`: nobody got it, because its answer never came.
    """

    token: str
    replica: int
    sent: float
    issued: float
    answered: float
    expires: float
    lost: bool = False
    revoked: float = float("inf")

    @property
    def works_until(self) -> float:
        """When it ceases to work."""
        return min(self.expires, self.revoked)


@dataclass(slots=True, eq=False)
class Server:
    """One endpoint.

    Attributes:
        lifetime: of the tokens it mints; None: it names none, and they live for `unnamed_lifetime`.
        fault: how it fails now, a key of `FAULTS`; "" while it works.
        passwords: the right password of each token's account, where it is not the first one.
        reuse: hands out the same token again while it is valid.
        api_fault: how its API fails, a key of `FAULTS`; `api_refuses`: it answers 401 to every token.
        lost_mints: the share of hanging requests that were carried out all the same.
    """

    name: str
    host: str
    world: World
    watch: Watch
    timeout: float = 10.0
    lifetime: float | None = 7200.0
    unnamed_lifetime: float = 3600.0
    fault: str = ""
    retry_after: float | None = None
    passwords: dict[str, str] = field(default_factory=dict)
    reuse: bool = False
    api_fault: str = ""
    api_refuses: bool = False
    skew: float = 0.0
    lost_mints: float = 0.2
    minted: dict[str, Minted] = field(default_factory=dict)
    latest: dict[str, tuple[str, Minted]] = field(default_factory=dict)
    logged_out: dict[str, float] = field(default_factory=dict)
    asked: int = 0
    verified: int = 0
    recent: deque[float] = field(default_factory=deque)
    most_a_second: int = 0

    def grant(self, endpoint: SimEndpoint, credentials: Credentials) -> Grant:
        """Answers a password grant. Raises GrantError."""
        world = self.world
        sent = world.reached()
        self._count()
        if self.fault:
            self._fail(endpoint, credentials, sent)
        self._check(endpoint, credentials)
        value, minted = self._mint(endpoint, sent)
        world.answered()
        minted.answered = world.answer_at
        self.watch.granted(endpoint, minted)
        named = self.lifetime is not None
        left = minted.expires - (world.now if self.reuse else minted.issued)
        whole = int(left + ROUNDING)
        return Grant(
            access_token=Secret(value),
            expires_in=whole if named else None,
            lifetime_seconds=float(whole) if named else None,
            scope=credentials.scope,
            status=200,
            request_id=None,
            skew_seconds=START + world.now + self.skew - endpoint.clock.wall(),
        )

    def verify(self, access_token: Secret) -> None:
        """Answers an authenticated GET. Raises VerifyError."""
        world = self.world
        sent = world.reached()
        self.verified += 1
        fault = self.api_fault or self.fault
        if fault:
            reason, _ = FAULTS[fault]
            world.answered(sent + self.timeout if fault == "hang" else None)
            raise VerifyError(reason, f"{self.name} answered {reason}", retry_after_seconds=self.retry_after)
        world.answered()
        minted = self.minted.get(access_token.reveal())
        if minted is None or minted.works_until <= world.now or self.api_refuses:
            raise VerifyError(Reason.TOKEN_REFUSED, f"{self.name} refused the token")

    def revoke(self, token: str) -> None:
        """Somebody logs the account out: what was issued so far is dead, and what is issued in this very second."""
        self.logged_out[token] = self.world.now
        for minted in self.minted.values():
            if minted.token == token and minted.works_until > self.world.now:
                minted.revoked = self.world.now
                self.watch.revoked(minted)

    def forget(self, before: float) -> None:
        """Drops tokens that ceased to work long ago, so that a long run stays small."""
        self.minted = {value: minted for value, minted in self.minted.items() if minted.works_until > before}

    def _count(self) -> None:
        now, recent = self.world.now, self.recent
        self.asked += 1
        recent.append(now)
        while recent[0] <= now - 1.0:
            recent.popleft()
        self.most_a_second = max(self.most_a_second, len(recent))

    def _fail(self, endpoint: SimEndpoint, credentials: Credentials, sent: float) -> NoReturn:
        world = self.world
        reason, status = FAULTS[self.fault]
        hangs = self.fault == "hang"
        world.answered(sent + self.timeout if hangs else None)
        self.watch.failed(endpoint, reason)
        if hangs and world.rng.random() < self.lost_mints and self._right(endpoint, credentials):
            _, minted = self._mint(endpoint, sent)
            minted.lost = True
            self.watch.granted(endpoint, minted)
        error = GrantUnavailable(reason, f"{self.name} answered {reason}", retry_after_seconds=self.retry_after)
        error.status = status
        raise error

    def _right(self, endpoint: SimEndpoint, credentials: Credentials) -> bool:
        right = self.passwords.get(endpoint.token)
        return right is None or credentials.password.reveal() == right

    def _check(self, endpoint: SimEndpoint, credentials: Credentials) -> None:
        if self._right(endpoint, credentials):
            return
        self.world.answered()
        self.watch.refused(endpoint, credentials)
        error: GrantError = GrantRejected(Reason.INVALID_GRANT, f"{self.name} answered 400 invalid_grant")
        error.status = 400
        raise error

    def _mint(self, endpoint: SimEndpoint, sent: float) -> tuple[str, Minted]:
        now, token = self.world.now, endpoint.token
        if self.reuse and token in self.latest and self.latest[token][1].works_until > now:
            return self.latest[token]
        life = self.unnamed_lifetime if self.lifetime is None else self.lifetime
        value = f"{token}-{len(self.minted)}-{self.asked}"
        minted = Minted(token, endpoint.replica, sent, now, now, now + life)
        if int(self.logged_out.get(token, -1.0)) == int(now):
            minted.revoked = now
        self.minted[value] = minted
        self.latest[token] = (value, minted)
        return value, minted


@dataclass(slots=True, eq=False)
class SimEndpoint:
    """The way from one token of one process to a server. `start` tells the processes of one replica apart."""

    server: Server
    token: str
    replica: int
    start: int
    clock: SimClock

    @property
    def name(self) -> str:
        """The name in `[acaengine.NAME]`."""
        return self.server.name

    @property
    def host(self) -> str:
        """What the server is told as Host."""
        return self.server.host

    def grant(self, credentials: Credentials) -> Grant:
        """Asks for a token. Raises GrantError."""
        return self.server.grant(self, credentials)

    def verify(self, path: str, access_token: Secret) -> None:
        """Tries a token. Raises VerifyError."""
        del path
        self.server.verify(access_token)
