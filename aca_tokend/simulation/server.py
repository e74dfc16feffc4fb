"""A simulated ACAEngine: knows accounts and applications, mints tokens, counts requests, and fails on demand.

Its clock is the true one: how long a token really works is decided here. It checks the application before the account,
as Doorkeeper does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from aca_tokend.core.errors import GrantError, VerifyError
from aca_tokend.core.grant import Grant
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Account
from aca_tokend.simulation.world import START, Unforeseen

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
# The API answers 401: to every token, or to those that are younger than this, as one that lags behind would.
REFUSES = "refuses"
REFUSES_YOUNG = "refuses the young"
YOUNG_SECONDS = 120.0


class Whose(NamedTuple):
    """Whose a token is as the server knows it, whatever name the server was reached by."""

    authority: str
    username: str
    client_id: str

    @property
    def user(self) -> tuple[str, str]:
        """The account without the application."""
        return self.authority, self.username


@lru_cache(maxsize=4096)
def fingerprint(host: str, whose: Whose) -> str:
    """What a document says of whose token it is."""
    return Account(host, *whose).fingerprint


@dataclass(slots=True, eq=False)
class Minted:
    """A token as the server knows it. Times are true; `sent` and `answered` frame the request it was minted by.

    `token` and `replica` asked for it, for the account `whose`; a document with it has the fingerprint `account`.
    `lost`: nobody got it, because its answer never came. `published`: when it was first written to a place.
    """

    token: str
    replica: int
    whose: Whose
    account: str
    sent: float
    issued: float
    answered: float
    expires: float
    lost: bool = False
    revoked: float = float("inf")
    published: float = float("inf")

    @property
    def works_until(self) -> float:
        """When it ceases to work."""
        return min(self.expires, self.revoked)


@dataclass(slots=True, eq=False)
class Server:
    """One endpoint.

    Attributes:
        lifetime: of the tokens it mints; None: it names none, and they live for `unnamed_lifetime`.
        lifetimes: where the grants of a replica live for another time.
        fault: how it fails now, a key of `FAULTS`; "" while it works.
        users: the password of each account that it knows; where there are none it knows everybody.
        clients: the secret of each application that it knows; where there are none it knows all.
        reuse: hands out the same token again while it is valid.
        api_fault: how its API fails, a key of `FAULTS`, or `REFUSES` or `REFUSES_YOUNG`; `api_faults`: for one replica.
        lost_mints: the share of hanging requests that were carried out all the same.
        latest: of each account the last token, with its value.
    """

    name: str
    host: str
    world: World
    watch: Watch
    timeout: float = 10.0
    lifetime: float | None = 7200.0
    unnamed_lifetime: float = 3600.0
    lifetimes: dict[int, float] = field(default_factory=dict)
    fault: str = ""
    retry_after: float | None = None
    users: dict[tuple[str, str], str] = field(default_factory=dict)
    clients: dict[str, str] = field(default_factory=dict)
    reuse: bool = False
    api_fault: str = ""
    api_faults: dict[int, str] = field(default_factory=dict)
    skew: float = 0.0
    lost_mints: float = 0.2
    minted: dict[str, Minted] = field(default_factory=dict)
    latest: dict[Whose, tuple[str, Minted]] = field(default_factory=dict)
    logged_out: dict[tuple[str, str], float] = field(default_factory=dict)
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
        value, minted = self._mint(endpoint, credentials, sent)
        world.answered()
        minted.answered = world.answer_at
        minted.lost = world.surprised(endpoint.token, "granted")
        self.watch.granted(endpoint, minted)
        if minted.lost:
            message = f"{endpoint.token}: granted"
            raise Unforeseen(message)
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

    def verify(self, endpoint: SimEndpoint, access_token: Secret) -> None:
        """Answers an authenticated GET. Raises VerifyError."""
        world = self.world
        sent = world.reached()
        self.verified += 1
        fault = self.api_faults.get(endpoint.replica) or self.api_fault or self.fault
        if fault in FAULTS:
            reason, _ = FAULTS[fault]
            world.answered(sent + self.timeout if fault == "hang" else None)
            raise VerifyError(reason, f"{self.name} answered {reason}", retry_after_seconds=self.retry_after)
        world.answered()
        minted = self.minted.get(access_token.reveal())
        dead = minted is None or minted.works_until <= world.now
        young = minted is not None and world.now - minted.issued < YOUNG_SECONDS
        if dead or fault == REFUSES or (fault == REFUSES_YOUNG and young):
            raise VerifyError(Reason.TOKEN_REFUSED, f"{self.name} refused the token")

    def revoke(self, user: tuple[str, str]) -> None:
        """Somebody logs the account out: what was issued so far is dead, and what is issued in this very second."""
        self.logged_out[user] = self.world.now
        for minted in self.minted.values():
            if minted.whose.user == user and minted.works_until > self.world.now:
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
        if hangs and world.rng.random() < self.lost_mints and self._refusal(credentials) is None:
            _, minted = self._mint(endpoint, credentials, sent)
            minted.lost = True
            self.watch.granted(endpoint, minted)
        error = GrantError(reason, f"{self.name} answered {reason}", retry_after_seconds=self.retry_after)
        error.status = status
        raise error

    def _refusal(self, credentials: Credentials) -> Reason | None:
        """Why it refuses them; None where it knows both the application and the account."""
        if self.clients and self.clients.get(credentials.client_id) != credentials.client_secret.reveal():
            return Reason.INVALID_CLIENT
        user = (credentials.authority, credentials.username)
        if self.users and self.users.get(user) != credentials.password.reveal():
            return Reason.INVALID_GRANT
        return None

    def _check(self, endpoint: SimEndpoint, credentials: Credentials) -> None:
        reason = self._refusal(credentials)
        if reason is None:
            return
        self.world.answered()
        self.watch.refused(endpoint, credentials, reason)
        status = 401 if reason is Reason.INVALID_CLIENT else 400
        error = GrantError(reason, f"{self.name} answered {status} {reason}")
        error.status = status
        raise error

    def _mint(self, endpoint: SimEndpoint, credentials: Credentials, sent: float) -> tuple[str, Minted]:
        now, token = self.world.now, endpoint.token
        whose = Whose(credentials.authority, credentials.username, credentials.client_id)
        if self.reuse and whose in self.latest and self.latest[whose][1].works_until > now:
            return self.latest[whose]
        life = self.unnamed_lifetime if self.lifetime is None else self.lifetime
        life = self.lifetimes.get(endpoint.replica, life)
        value = f"{token}-{len(self.minted)}-{self.asked}"
        account = fingerprint(endpoint.host, whose)
        minted = Minted(token, endpoint.replica, whose, account, sent, now, now, now + life)
        if int(self.logged_out.get(whose.user, -1.0)) == int(now):
            minted.revoked = now
        self.minted[value] = minted
        self.latest[whose] = (value, minted)
        return value, minted


@dataclass(slots=True, eq=False)
class SimEndpoint:
    """The way from one token of one process to a server. `start` tells the processes of one replica apart.

    `called` is the name by which the configuration reaches the server; it may have several.
    """

    server: Server
    token: str
    replica: int
    start: int
    clock: SimClock
    called: str = ""

    @property
    def name(self) -> str:
        """The name in `[acaengine.NAME]`."""
        return self.server.name

    @property
    def host(self) -> str:
        """The Host that requests name."""
        return self.called or self.server.host

    def grant(self, credentials: Credentials) -> Grant:
        """Asks for a token. Raises GrantError."""
        world = self.server.world
        world.surprise(self.token, "grant")
        return self.server.grant(self, credentials)

    def verify(self, path: str, access_token: Secret) -> None:
        """Tries a token. Raises VerifyError."""
        del path
        self.server.world.surprise(self.token, "verify")
        self.server.verify(self, access_token)
