"""Facts of one token, drawn freely: each field near the thresholds that matter, and any of them with any other.

One draw of bytes decides about all of it, a byte for each choice and the plainest choice first: that is cheap, and what
fails shrinks towards a token of which nothing is known.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st

from aca_tokend.core.config import parse
from aca_tokend.core.outcome import Failure, Reason, Step
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document, Seen
from aca_tokend.rotation.facts import (
    Asked,
    Busy,
    Facts,
    Held,
    Identity,
    Moment,
    Place,
    Recorded,
    Suspension,
    Trouble,
    Waiting,
    Wrote,
)
from tests.changed import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aca_tokend.core.config import TokenConfig

T = TypeVar("T")

NOW, WALL = 100_000.0, 1_000_000.0  # small, so that both are exact
NAME, OURS, FORMER, THEIRS = "bookings", "account-ours", "account-former", "account-theirs"
USER, AUTHORITY, SCOPE = "svc-bookings", "authority-1", "public"
AGO = (0.0, 0.25, 0.875, 1.0, 1.5, 5.0, 9.875, 10.125, 59.0, 61.0, 700.0, 5000.0)
LIFETIMES = (7200.0, 600.0, 30.0, 5.0)
# How much of its life a token has behind it.
PHASES = (0.0, 0.01, 0.4, 0.6, 0.667, 0.7, 0.9, 0.95, 0.999, 1.0, 1.01, 2.0)
ROTATIONS: tuple[dict[str, object], ...] = (
    {},
    {"jitter": 0.0},
    {"fraction": 0.5, "min_interval": "1s"},
    {"min_interval": "2m"},
    {"backoff": {"initial": "10ms", "cap": "10ms"}},
    {"backoff": {"cap": "10m"}, "retry_rejected": "0s"},
    {"retry_rejected": "20s", "max_lifetime": "2h"},
)
PUBLISH: tuple[dict[str, object], ...] = (
    {"to": "vault", "mount": "secret", "path": "aca/bookings"},
    {"to": "file", "path": "/run/aca/bookings.json", "after": {"command": ["/bin/true"]}},
    {"to": "file", "path": "/run/aca/more.json", "replace_foreign": True},
)
LAYOUTS = ((0,), (1,), (2,), (0, 1), (1, 0), (1, 2), (0, 1, 2))
FAILED = Failure(Step.GRANT, Reason.CONNECT_FAILED, "down")
TROUBLES = (
    FAILED,
    Failure(Step.VERIFY, Reason.CONNECT_FAILED, "the API is down"),
    Failure(Step.VERIFY, Reason.TOKEN_REFUSED, "401"),
    Failure(Step.GRANT, Reason.INVALID_GRANT, "400"),
    Failure(Step.GRANT, Reason.RATE_LIMITED, "429", 30.0),
)


class Dice:
    """Choices, one for each byte; once they are used up, always the first option."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[next(self._bytes, 0) % len(options)]

    def ago(self) -> float:
        """A moment that has passed."""
        return NOW - self.pick(AGO)


dice = st.binary(min_size=160, max_size=160).map(Dice)


@cache
def configured(
    rotation: int = 0, layout: tuple[int, ...] = (0,), every: str = "", *, vault: bool = False
) -> TokenConfig:
    """One token. `every`: how often its token is tried, nothing for no verify. `vault`: its password lies in Vault."""
    token: dict[str, object] = {
        "name": NAME,
        "authority": AUTHORITY,
        "username": USER,
        "password": {"vault": "secret/aca/bookings#password"} if vault else {"env": "PASSWORD"},
        "client_id": "client-1",
        "client_secret": {"env": "CLIENT_SECRET"},
        "scope": SCOPE,
        "rotation": ROTATIONS[rotation],
        "publish": [PUBLISH[number] for number in layout],
    }
    if every:
        token["verify"] = {"path": "/api/me", "every": every}
    auth = {"method": "token", "token": {"env": "VAULT_TOKEN"}}
    document = {
        "acaengine": {"main": {"url": "https://aca.example.com"}},
        "vault": {"main": {"address": "https://vault.example.com:8200", "auth": auth}},
        "tokens": [token],
    }
    return parse([("config.toml", document)]).tokens[0]


def document(key: str, issued: float = 0.0, lifetime: float = 7200.0, **changed: object) -> Document:
    """A token of ours, issued so many seconds after `WALL`."""
    issued_at = datetime.fromtimestamp(WALL + issued, UTC)
    plain = Document(
        access_token=Secret(key),
        issued_at=issued_at,
        expires_at=issued_at + timedelta(seconds=lifetime),
        refresh_after=issued_at + timedelta(seconds=lifetime * 0.6543),
        expires_in=max(int(lifetime), 1),
        scope=SCOPE,
        username=USER,
        authority=AUTHORITY,
        account=OURS,
        token=NAME,
    )
    return replace(plain, **changed) if changed else plain


def held(key: str = "held", issued: float = 0.0, lifetime: float = 7200.0, **changed: object) -> Held:
    """A token that was granted to us so many seconds after `NOW`."""
    return replace(
        Held(document(key, issued, lifetime), NOW + issued, lifetime, NOW + issued, SCOPE),
        **changed,
    )


def moment(now: float, began: float | None = None) -> Moment:
    """The clocks at a monotonic time."""
    return Moment(now, WALL + (now - NOW), now if began is None else began)


def any_facts(roll: Dice) -> Facts:
    """Whatever may be known of a token at `NOW`."""
    layout = roll.pick(LAYOUTS)
    config = configured(
        roll.pick(range(len(ROTATIONS))), layout, roll.pick(("", "0s", "60s")), vault=roll.pick((False, True))
    )
    token = any_held(roll, "held") if roll.pick((True, True, True, False)) else None
    pending = any_held(roll, "pending") if roll.pick((False, False, True)) else None
    resolved = roll.pick((math.inf, NOW, NOW - 0.875, NOW - 60.0, None))
    return Facts(
        config,
        roll.pick((0.0, 0.5, 1.0)),
        None if resolved is None else Identity(OURS, USER, AUTHORITY, resolved),
        tuple(any_place(roll, token) for _ in layout),
        held=token,
        pending=pending and replace(pending, asked_at=pending.issued_at, revoked_at=None, reused_at=None),
        asked=Asked(roll.ago(), roll.pick((OURS, OURS, FORMER))) if roll.pick((False, True)) else None,
        trouble=any_trouble(roll) if roll.pick((False, False, True)) else None,
        suspended=any_suspension(roll) if roll.pick((False, False, False, True)) else None,
        waiting=any_waiting(roll) if roll.pick((False, False, False, True)) else None,
        turn_at=roll.pick((math.inf, math.inf, math.inf, NOW - 0.125, NOW + 0.25, NOW + 5.0)),
        revocations=roll.pick((0, 0, 1, 3)),
    )


def any_held(roll: Dice, key: str) -> Held:
    """A token, granted or adopted, of whichever account, at any time of its life."""
    lifetime = roll.pick(LIFETIMES)
    issued = -roll.pick(PHASES) * lifetime
    # the clock was set since, or another daemon's is wrong
    token = document(key, issued + roll.pick((0.0, 0.0, 0.0, -100.0, 100.0)), lifetime)
    account = roll.pick((OURS, OURS, OURS, OURS, FORMER))
    asked, checked = roll.pick((True, True, False)), roll.pick((None, None, roll.ago()))
    return Held(
        token if account == OURS else replace(token, account=account),
        NOW + issued,
        lifetime,
        NOW + issued if asked else None,
        roll.pick((SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, "other")),
        checked_at=checked,
        works=checked is not None and roll.pick((True, False)),
        revoked_at=roll.ago() if roll.pick((False, False, False, False, True)) else None,
        reused_at=roll.ago() if roll.pick((False, False, False, False, True)) else None,
        unreported_since=roll.pick((None, None, NOW - 5.0)),
        adopted_at=-math.inf if asked else roll.ago(),
    )


def any_trouble(roll: Dice) -> Trouble:
    """A failure."""
    return Trouble(
        roll.pick(TROUBLES),
        roll.pick((1, 2, 3, 9)),
        roll.ago(),
        roll.pick((0.0, 0.5, 1.0)),
        roll.pick((0.0, 2.0, 100.0, 7200.0)),
        roll.pick((math.inf, math.inf, math.inf, NOW - 0.125)),
    )


def any_suspension(roll: Dice) -> Suspension:
    """A credential that was refused."""
    refused, account = Failure(Step.GRANT, Reason.INVALID_GRANT, "400", suspends=True), roll.pick((OURS, OURS, FORMER))
    return Suspension(refused, account, "credential", roll.ago(), roll.ago(), roll.ago(), Recorded())


def any_waiting(roll: Dice) -> Waiting:
    """What a due grant waits for."""
    why = roll.pick(("endpoint_held", "claimed_elsewhere", "user_unproven"))
    look_before = roll.pick((-math.inf, NOW - 5.0)) if why == "endpoint_held" else -math.inf
    return Waiting(why, NOW + roll.pick((-1.0, 0.0, 0.25, 5.0, 60.0)), look_before)


def any_place(roll: Dice, token: Held | None) -> Place:
    """A place: read, not read, in trouble, or one at which a call hangs."""
    looked_at, known = roll.ago(), roll.pick(("read", "read", "read", "read", "unread", "trouble", "busy"))
    if known == "unread":
        return Place(conflicts=roll.pick((0, 1)))
    if known == "trouble":
        trouble = any_trouble(roll)
        return Place(looked_at=trouble.at, trouble=trouble, failures=trouble.count, reported=trouble.failure)
    seen = any_content(roll, token)
    busy = Busy(1, token.document if token and roll.pick((False, True)) else None)
    found = seen.document
    wrote = roll.pick((None, None, Wrote(seen.stamp, OURS, 0.0), Wrote(0, OURS, WALL - 60.0), Wrote(0, FORMER, 0.0)))
    return Place(
        seen=seen if known == "read" or roll.pick((False, True)) else None,
        looked_at=looked_at,
        first_seen=(hash(found), looked_at - roll.pick((0.0, 3600.0))),
        wrote=wrote,
        hooked=roll.pick((found, None, found)),
        busy=busy if known == "busy" else None,
    )


def any_content(roll: Dice, token: Held | None) -> Seen:
    """What a place may hold."""
    what = roll.pick(("nothing", "ours", "ours", "another", "another", "former", "stranger", "damaged"))
    outdated, ours = roll.pick((False, False, False, True)), token.document if token else document("held")
    match what:
        case "nothing":
            return Seen(None, 1)
        case "damaged":
            return Seen(None, 2, foreign="access_token is missing", token=roll.pick((NAME, "")))
        case "ours":
            return Seen(redated(ours, roll.pick((0.0, 0.0, 0.0, -50.0, 50.0))), 3, outdated=outdated)
    issued, lifetime = roll.pick((-7000.0, -100.0, -29.0, -5.0, -1.0, 100.0)), roll.pick(LIFETIMES)
    found = document(f"other-{issued}-{lifetime}", issued, lifetime)
    match what:
        case "another":
            forged: tuple[dict[str, object], ...] = (
                {},
                {},
                {},
                {"username": "x"},
                {"token_type": "MAC"},
                {"token": ""},
            )
            changed = roll.pick(forged)
            return Seen(replace(found, **changed) if changed else found, 4, outdated=outdated)
        case "former":
            return Seen(replace(found, account=FORMER), 5)
        case _:
            return Seen(replace(found, account=THEIRS, token=roll.pick(("other", ""))), 6)


def redated(token: Document, seconds: float) -> Document:
    """The same token with times set by another clock."""
    if not seconds:
        return token
    shift = timedelta(seconds=seconds)
    return replace(
        token,
        issued_at=token.issued_at + shift,
        expires_at=token.expires_at + shift,
        refresh_after=token.refresh_after + shift,
    )
