"""What is due by what is known: a table of facts and decisions, which also pins the order of the rules.

Each row is the plain case, a token that rests, with what differs. Times are in seconds from `NOW`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.outcome import Failure, Reason, Step
from aca_tokend.core.token import Document, Seen
from aca_tokend.rotation.decide import CHAIN, Action, Do, Rest, decide, grant_at, next_token_at, records_at
from aca_tokend.rotation.facts import Asked, Busy, Facts, Identity, Place, Recorded, Suspension, Trouble, Waiting, Wrote
from aca_tokend.rotation.standing import fenced
from tests.changed import replace
from tests.properties.facts import (
    AUTHORITY,
    FORMER,
    NOW,
    OURS,
    THEIRS,
    USER,
    WALL,
    configured,
    document,
    held,
    moment,
    redated,
)

if TYPE_CHECKING:
    from aca_tokend.rotation.decide import Rule
    from aca_tokend.rotation.facts import Held

Expected = tuple[object, ...]
VAULT, FILE, FREE = 0, 1, 2  # of PUBLISH: a KV secret, a file with a hook, a file that may be replaced
DOWN = Failure(Step.GRANT, Reason.CONNECT_FAILED, "down")
UNTRIED = Failure(Step.VERIFY, Reason.CONNECT_FAILED, "the API is down")
REFUSED = Failure(Step.GRANT, Reason.INVALID_GRANT, "400", suspends=True)
TOKEN = held(issued=-100.0)
ADOPTED = replace(TOKEN, asked_at=None)
TAKEN = replace(ADOPTED, adopted_at=NOW - 80.0)
ROTATION = -100.0 + 7200.0 * 0.667
WORN = held(issued=-5000.0)  # past its rotation point
OLD = held(issued=-18200.0, lifetime=20000.0)  # past that of the token after it
STALE = Identity(OURS, USER, AUTHORITY, NOW - 60.0)


def has(found: Document | None = TOKEN.document, looked: float = -50.0, **changed: object) -> Place:
    """A place that was read, and what it held."""
    seen = Seen(found, 1)
    return replace(Place(seen, NOW + looked, hooked=found), **changed)


def junk(name: str = "") -> Place:
    """A place that holds something damaged, or of somebody else's."""
    return has(seen=Seen(None, 1, foreign="access_token is missing", token=name))


def failed(ago: float, failure: Failure = DOWN, count: int = 3) -> Trouble:
    """A failure, of which the third is followed by a wait of 2 to 4 seconds; here 3."""
    return Trouble(failure, count, NOW - ago, 0.5, 0.0)


def places(*them: Place, layout: tuple[int, ...] = (VAULT, FILE), **changed: object) -> Facts:
    """A token that rests, but for its places."""
    it = Facts(
        configured(1, layout[: len(them)]),
        0.0,
        Identity(OURS, USER, AUTHORITY, math.inf),
        them,
        TOKEN,
        asked=asked(-100.0),
    )
    return replace(it, **changed)


def known(**changed: object) -> Facts:
    """A token that rests with one place, a KV secret."""
    return places(has(), layout=(VAULT,), **changed)


def worn(looked: float, **changed: object) -> Facts:
    """One that is past its rotation point."""
    return places(has(WORN.document, looked=looked), layout=(VAULT,), held=WORN, **changed)


def asked(at: float, account: str = OURS) -> Asked:
    """A request that gave us a token."""
    return Asked(NOW + at, account)


def tried(every: str = "60s", **changed: object) -> Facts:
    """A token that rests and is tried."""
    facts = known(**changed)
    layout = (VAULT, FILE)[: len(facts.places)]
    return replace(facts, config=configured(1, layout, every))


def untried(**changed: object) -> Facts:
    """One that is past its rotation point, and whose next token has to be tried first."""
    return tried("0s", **{"held": WORN, "places": (has(WORN.document, looked=-0.5),), **changed})


def suspended(read: float = -1.0, polled: float = -1.0, account: str = OURS, refused: float = -100.0) -> Suspension:
    """A credential that was refused as often as it may be; one cautious attempt comes an hour after."""
    return Suspension(REFUSED, account, "credential", NOW + refused, NOW + polled, NOW + read, Recorded())


def another(issued: float, lifetime: float = 7200.0, **changed: object) -> Document:
    """A token that another replica was granted."""
    return document("another", issued, lifetime, **changed)


def do(what: Do, *where: int) -> Expected:
    """This is due now."""
    return (what, where)


def rest(seconds: float, then: Do | None) -> Expected:
    """Nothing is due for so long; then this is."""
    return ("rest", seconds, then)


ALONE = rest(ROTATION, Do.LOOK)  # nothing but the next rotation point
LATE = held(issued=-7180.0, checked_at=NOW - 30.0)
PENDING = held("pending", -10.0)
BUSY = Busy(1, None)
FORMERS = document("former", -600.0, account=FORMER)
WROTE = Wrote(0, OURS, WALL - 300.0)
RIVALS = replace(FORMERS, issued_at=document("", -200.0).issued_at, refresh_after=document("", 500.0).issued_at)
STRANGERS = document("theirs", -600.0, account=THEIRS, token="other")

ROWS: dict[str, tuple[Facts, Expected]] = {
    "a token that is everywhere rests until its rotation point": (known(), ALONE),
    # ── whose turn it is ──
    "who waits for the endpoint asks for its turn before it resolves or reads anything": (
        worn(-50.0, identity=STALE, waiting=Waiting("endpoint_held", NOW)),
        do(Do.ASK_TURN),
    ),
    "and not before": (worn(-50.0, waiting=Waiting("endpoint_held", NOW + 5.0)), rest(5.0, Do.ASK_TURN)),
    "it is woken by another's attempt": (
        worn(-50.0, waiting=Waiting("endpoint_held", NOW + 5.0), turn_at=NOW - 0.1),
        do(Do.ASK_TURN),
    ),
    "no turn is asked for while no token is needed": (
        known(waiting=Waiting("endpoint_held", NOW)),
        rest(ROTATION, Do.ASK_TURN),
    ),
    "who waits for something else goes on when the time is over": (
        worn(-50.0, waiting=Waiting("claimed_elsewhere", NOW)),
        do(Do.LOOK, 0),
    ),
    # ── whose token it is ──
    "an account by reference is resolved first": (known(identity=None), do(Do.IDENTIFY)),
    "and again by the backoff": (known(identity=None, trouble=failed(1.0)), rest(2.0, Do.IDENTIFY)),
    "meanwhile places are read": (places(Place(), identity=None, trouble=failed(1.0)), do(Do.LOOK, 0)),
    "but nothing is published": (places(has(None), identity=None, trouble=failed(1.0)), rest(2.0, Do.IDENTIFY)),
    "before a grant the account is resolved anew, and then the places read": (
        worn(-50.0, identity=STALE),
        do(Do.IDENTIFY),
    ),
    "one that was resolved a moment ago is good for the grant": (
        worn(-50.0, identity=replace(STALE, resolved_at=NOW - 0.9)),
        do(Do.LOOK, 0),
    ),
    "and so before a pending token is tried": (
        untried(identity=STALE, pending=PENDING, trouble=failed(3.0, UNTRIED)),
        do(Do.IDENTIFY),
    ),
    # ── what places hold ──
    "places are read at the start": (places(Place(), Place(), held=None), do(Do.LOOK, 0, 1)),
    "a place that could not be read is tried again by the backoff": (
        places(has(), Place(trouble=failed(1.0))),
        rest(2.0, Do.LOOK),
    ),
    "alone": (places(has(), Place(trouble=failed(3.0))), do(Do.LOOK, 1)),
    "sooner where a message asked for it": (
        places(has(), Place(trouble=replace(failed(1.0), hastened_to=NOW))),
        do(Do.LOOK, 1),
    ),
    "however short the backoff, not in the same half second": (
        replace(places(Place(trouble=failed(0.1))), config=configured(4)),
        rest(0.5, Do.LOOK),
    ),
    "a place that another writer changed is read at once": (places(Place(conflicts=1)), do(Do.LOOK, 0)),
    "before a grant the places are read": (worn(-50.0), do(Do.LOOK, 0)),
    "those that were not read a moment ago": (places(has(looked=-0.9), has(), held=WORN), do(Do.LOOK, 1)),
    "a place where a call hangs is not read": (
        places(has(WORN.document, looked=-0.5), has(busy=BUSY), held=WORN),
        do(Do.GRANT),
    ),
    "nor does it hold up another": (places(has(busy=BUSY), has(None)), do(Do.PUBLISH, 1)),
    "a stranger's document is looked at every minute": (places(has(STRANGERS)), rest(10.0, Do.LOOK)),
    "and not earlier for another's trouble": (
        places(has(STRANGERS), Place(looked_at=NOW, trouble=failed(0.0))),
        rest(3.0, Do.LOOK),
    ),
    "who waited for the endpoint and was not woken looks for a replica's token": (
        worn(-50.0, waiting=Waiting("endpoint_held", NOW + 5.0, look_before=NOW - 1.0)),
        do(Do.LOOK, 0),
    ),
    "every ten seconds at most": (
        places(
            has(WORN.document, looked=-6.0),
            held=WORN,
            waiting=Waiting("endpoint_held", NOW + 5.0, look_before=NOW - 1.0),
        ),
        rest(4.0, Do.LOOK),
    ),
    "once": (
        worn(-50.0, waiting=Waiting("endpoint_held", NOW + 5.0, look_before=NOW - 51.0)),
        rest(5.0, Do.ASK_TURN),
    ),
    "a suspended token that needs another looks for a replica's": (
        worn(-60.0, suspended=suspended()),
        do(Do.LOOK, 0),
    ),
    "also where a rival's document is": (
        places(has(RIVALS, looked=-60.0, wrote=WROTE), held=WORN, suspended=suspended()),
        do(Do.LOOK, 0),
    ),
    "and one whose next token could not be tried": (
        untried(places=(has(WORN.document, looked=-60.0),), pending=PENDING, trouble=failed(1.0, UNTRIED)),
        do(Do.LOOK, 0),
    ),
    "not for another account's suspension": (
        worn(-60.0, suspended=suspended(account=FORMER), trouble=failed(1.0)),
        rest(2.0, Do.LOOK),
    ),
    "as often as the backoff's longest wait": (
        worn(-59.0, suspended=suspended()),
        rest(1.0, Do.LOOK),
    ),
    "each place by its own last look": (
        places(
            has(WORN.document, looked=-60.0),
            Place(looked_at=NOW, trouble=failed(0.0)),
            held=WORN,
            suspended=suspended(),
        ),
        do(Do.LOOK, 0),
    ),
    "a suspended token that needs none looks for none": (known(suspended=suspended()), rest(2.0, Do.POLL)),
    # ── adopting ──
    "places that were not read are, before a token is adopted": (places(Place(), has(another(-5.0))), do(Do.LOOK, 0)),
    "a later token of ours is adopted before ours is published": (
        places(has(None), has(another(-5.0))),
        do(Do.ADOPT, 1),
    ),
    "the latest": (places(has(another(-5.0)), has(document("latest", -1.0))), do(Do.ADOPT, 1)),
    "also by a suspended token": (places(has(another(-5.0)), suspended=suspended(polled=-60.0)), do(Do.ADOPT, 0)),
    "also in place of one that was refused": (
        places(has(another(-5.0), looked=-0.5), held=replace(TOKEN, revoked_at=NOW)),
        do(Do.ADOPT, 0),
    ),
    "any that is valid where none is held": (places(has(another(-5000.0), looked=-0.5), held=None), do(Do.ADOPT, 0)),
    "as where the one in use is another account's": (
        places(has(another(-5000.0), looked=-0.5), held=replace(TOKEN, document=FORMERS)),
        do(Do.ADOPT, 0),
    ),
    "a document from before the field `token` is ours where its account is": (
        places(has(another(-5.0, token=""))),
        do(Do.ADOPT, 0),
    ),
    "none that has expired": (places(has(another(-60.0, 30.0), looked=-0.5), held=None), do(Do.GRANT)),
    "none of another account, which is replaced": (
        places(has(another(-5.0, account=FORMER), looked=-0.5), held=None),
        do(Do.GRANT),
    ),
    "none for another user": (places(has(another(-5.0, username="x"), looked=-0.5), held=None), do(Do.GRANT)),
    "none that was issued in the future when it was read": (
        places(has(another(299.0), looked=-10.0), held=None, asked=asked(0.0)),
        rest(10.0, Do.LOOK),
    ),
    "the times of a token that we were granted are ours to say": (
        places(has(redated(TOKEN.document, 50.0))),
        do(Do.PUBLISH, 0),
    ),
    "those of an adopted one are another's": (
        places(has(redated(TOKEN.document, 50.0)), held=ADOPTED),
        do(Do.ADOPT, 0),
    ),
    "and are left as they are where they look earlier": (
        places(has(redated(TOKEN.document, -50.0)), held=ADOPTED),
        ALONE,
    ),
    "what was refused is not adopted again": (
        places(has(redated(TOKEN.document, 50.0), looked=-0.5), held=replace(ADOPTED, revoked_at=NOW)),
        do(Do.GRANT),
    ),
    # ── publishing ──
    "the token in use is brought to places that lack it before hooks are asked for": (
        places(has(None), has(hooked=None), has(None), layout=(VAULT, FILE, FREE)),
        do(Do.PUBLISH, 0, 2),
    ),
    "by a suspended token too": (places(has(None), suspended=suspended(polled=-60.0)), do(Do.PUBLISH, 0)),
    "also past its rotation point": (places(has(None), held=WORN), do(Do.LOOK, 0)),
    "as soon as the places were read": (places(has(None, looked=-0.5), held=WORN), do(Do.PUBLISH, 0)),
    "what is there in another form is written anew": (
        places(has(seen=Seen(TOKEN.document, 1, outdated=True))),
        do(Do.PUBLISH, 0),
    ),
    "one that was refused is not": (
        places(has(None, looked=-0.5), held=replace(TOKEN, revoked_at=NOW)),
        do(Do.GRANT),
    ),
    "one that has expired is not": (places(has(None, looked=-0.5), held=held(issued=-7200.0)), do(Do.GRANT)),
    "one of another account is not": (
        places(has(None, looked=-0.5), held=replace(TOKEN, document=FORMERS)),
        do(Do.GRANT),
    ),
    "a token read before ours was asked for is older, whatever its times say": (
        places(has(another(50.0, username="x"), looked=-100.0)),
        do(Do.PUBLISH, 0),
    ),
    "one that came since and is later stays": (places(has(another(50.0, 60.0, username="x"))), rest(110.0, Do.PUBLISH)),
    "until it has expired": (places(has(another(-60.0, 60.0, username="x"))), do(Do.PUBLISH, 0)),
    "of two issued at once that which expires later stays": (
        places(has(another(-100.0, 7300.0, username="x"))),
        ALONE,
    ),
    "one that came since and is earlier does not": (places(has(another(-200.0))), do(Do.PUBLISH, 0)),
    "an adopted token replaces no later one": (
        places(has(another(50.0, 60.0, username="x"), looked=-5000.0), held=ADOPTED),
        rest(110.0, Do.PUBLISH),
    ),
    "but one that cannot be believed and was read before ours was adopted": (
        places(has(another(900.0), looked=-80.0), held=TAKEN),
        do(Do.PUBLISH, 0),
    ),
    "not one that came since, for it may be our clock that is wrong": (
        places(has(another(900.0)), held=TAKEN),
        ALONE,
    ),
    "the same token is never kept out, though dates set anew look earlier": (
        places(has(redated(TOKEN.document, 500.0))),
        do(Do.PUBLISH, 0),
    ),
    "a document of another account under our name is replaced": (places(has(FORMERS)), do(Do.PUBLISH, 0)),
    "also with the same token, which a server handed out again": (
        places(has(replace(TOKEN.document, account=FORMER)), held=ADOPTED),
        do(Do.PUBLISH, 0),
    ),
    "one without a name is a stranger's": (places(has(replace(FORMERS, token=""))), rest(10.0, Do.LOOK)),
    "unless we wrote it": (places(has(replace(FORMERS, token=""), wrote=Wrote(1, FORMER, 0.0))), do(Do.PUBLISH, 0)),
    "a stranger's is not replaced": (places(has(STRANGERS), has()), rest(10.0, Do.LOOK)),
    "but where the place is said to be ours": (places(has(STRANGERS), layout=(FREE,)), do(Do.PUBLISH, 0)),
    "what is damaged and has our name is replaced": (places(junk("bookings")), do(Do.PUBLISH, 0)),
    "what is damaged and has none is a stranger's": (places(junk()), rest(10.0, Do.LOOK)),
    "two daemons with one name do not overwrite each other: the later stays till it is to be refreshed": (
        places(has(RIVALS, wrote=WROTE)),
        rest(500.0, Do.LOOK),
    ),
    "then it is read again before it is replaced": (
        places(has(replace(RIVALS, refresh_after=document("", 0.0).issued_at), wrote=WROTE)),
        do(Do.LOOK, 0),
    ),
    "and replaced": (
        places(has(replace(RIVALS, refresh_after=document("", -1.0).issued_at), looked=-0.5, wrote=WROTE)),
        do(Do.PUBLISH, 0),
    ),
    "what was issued before our own write is no rival's": (places(has(FORMERS, wrote=WROTE)), do(Do.PUBLISH, 0)),
    "nor what came before we had this account": (
        places(has(RIVALS, wrote=replace(WROTE, account=FORMER))),
        do(Do.PUBLISH, 0),
    ),
    "no rival is believed for longer than a token of ours": (
        replace(
            places(
                has(
                    replace(RIVALS, refresh_after=document("", 1e8).issued_at),
                    wrote=WROTE,
                    first_seen=(0, NOW - 7100.0),
                )
            ),
            config=configured(6),
        ),
        rest(100.0, Do.LOOK),
    ),
    "an adopted token is tried before it replaces a valid one": (
        tried("0s", held=ADOPTED, places=(has(another(-7000.0)), has())),
        do(Do.CHECK),
    ),
    "and before it is brought anywhere": (tried("0s", held=ADOPTED, places=(has(None), has())), do(Do.CHECK)),
    "where it could not be tried it is better than none": (
        tried("0s", held=replace(ADOPTED, checked_at=NOW - 1.0), places=(has(None), has())),
        do(Do.PUBLISH, 0),
    ),
    "but not than a valid one": (
        tried("0s", held=replace(ADOPTED, checked_at=NOW - 1.0), places=(has(another(-5000.0)), has())),
        rest(59.0, Do.CHECK),
    ),
    "than one that has expired": (
        tried("0s", held=replace(ADOPTED, checked_at=NOW - 1.0), places=(has(another(-200.0, 30.0)), has())),
        do(Do.PUBLISH, 0),
    ),
    "once it works it replaces what is earlier": (
        tried("0s", held=replace(ADOPTED, checked_at=NOW - 1.0, works=True), places=(has(another(-200.0)), has())),
        do(Do.PUBLISH, 0),
    ),
    # ── hooks ──
    "a hook runs for what is there at the start, before a suspended token is looked after": (
        places(has(hooked=None), layout=(FILE,), suspended=suspended(polled=-60.0)),
        do(Do.ASK_HOOKS, 0),
    ),
    "not for another account's": (places(has(RIVALS, wrote=WROTE, hooked=None), layout=(FILE,)), rest(500.0, Do.LOOK)),
    "not where there is none": (places(has(hooked=None), layout=(VAULT,)), ALONE),
    # ── a suspended token ──
    "a suspended token looks whether its credential changed, before a pending token is tried": (
        untried(suspended=suspended(polled=-3.0), pending=PENDING),
        do(Do.POLL),
    ),
    "every three seconds": (known(suspended=suspended(polled=-1.0)), rest(2.0, Do.POLL)),
    "every minute where it lies in Vault": (
        replace(known(suspended=suspended(polled=-1.0)), config=configured(1, vault=True)),
        rest(59.0, Do.POLL),
    ),
    "and when a cautious attempt is due": (
        replace(known(suspended=suspended(polled=-1.0, refused=-3590.0)), config=configured(1, vault=True)),
        rest(10.0, Do.POLL),
    ),
    "for which it does not come sooner each time": (
        replace(known(suspended=suspended(polled=-1.0, refused=-3601.0)), config=configured(1, vault=True)),
        rest(59.0, Do.POLL),
    ),
    "no request is sent meanwhile": (
        worn(-0.5, suspended=suspended()),
        rest(2.0, Do.POLL),
    ),
    "another account's suspension says nothing": (
        worn(-0.5, suspended=suspended(polled=-60.0, account=FORMER)),
        do(Do.GRANT),
    ),
    # ── a pending token ──
    "a token that could not be tried is tried again by the backoff": (
        untried(pending=PENDING, trouble=failed(1.0, UNTRIED)),
        rest(2.0, Do.TRY),
    ),
    "and then": (untried(pending=PENDING, trouble=failed(3.0, UNTRIED)), do(Do.TRY)),
    "and not before one is needed: a replica's may have been adopted that was issued before it": (
        tried("0s", pending=PENDING),
        ALONE,
    ),
    "a last time by its rotation point, before another is asked for": (
        untried(
            held=OLD,
            places=(has(OLD.document, looked=-0.5),),
            pending=replace(PENDING, issued_at=NOW - 4803.0),
            trouble=failed(4.0, UNTRIED),
        ),
        do(Do.TRY),
    ),
    "no grant is made while it may turn out to work": (
        untried(pending=PENDING, trouble=failed(1.0, UNTRIED)),
        rest(2.0, Do.TRY),
    ),
    "also where another's attempt lets it go on": (
        untried(
            pending=PENDING,
            trouble=failed(1.0, UNTRIED),
            turn_at=NOW,
        ),
        rest(2.0, Do.TRY),
    ),
    "nor is anything read for one": (
        untried(places=(has(WORN.document),), pending=PENDING, trouble=failed(3.0, UNTRIED)),
        do(Do.TRY),
    ),
    "one that has expired is of no use": (
        untried(pending=replace(PENDING, issued_at=NOW - 7200.0)),
        do(Do.GRANT),
    ),
    "and holds up no other though it was to be kept for longer": (
        replace(
            worn(-0.5, pending=replace(PENDING, issued_at=NOW - 60.0, lifetime=60.0), asked=None),
            config=configured(3, (VAULT,), "0s"),
        ),
        do(Do.GRANT),
    ),
    "where the backoff reaches beyond its rotation point another is asked for": (
        untried(
            held=OLD,
            places=(has(OLD.document, looked=-0.5),),
            pending=replace(PENDING, issued_at=NOW - 4802.0),
            trouble=failed(1.0, UNTRIED),
        ),
        rest(2.0, Do.GRANT),
    ),
    "a token that was adopted since outlives its reason while it need not be replaced, though it was issued before": (
        known(held=replace(ADOPTED, checked_at=NOW), pending=PENDING, trouble=failed(3.0, UNTRIED)),
        ALONE,
    ),
    "and by then another is asked for": (
        places(
            has(WORN.document, looked=-0.5), held=replace(ADOPTED, issued_at=NOW - 15.0, lifetime=15.0), pending=PENDING
        ),
        do(Do.GRANT),
    ),
    "it is another account's now": (
        worn(-0.5, pending=replace(PENDING, document=replace(PENDING.document, account=FORMER))),
        do(Do.GRANT),
    ),
    "it was asked for with another scope": (worn(-0.5, pending=replace(PENDING, scope="other")), do(Do.GRANT)),
    # ── a grant ──
    "a token is asked for where none is held, once the places were read": (
        places(has(None, looked=-0.5), held=None, asked=None),
        do(Do.GRANT),
    ),
    "at the rotation point, before the one in use is tried": (
        tried(held=replace(WORN, checked_at=NOW - 60.0), places=(has(WORN.document, looked=-0.5),)),
        do(Do.GRANT),
    ),
    "with another scope": (places(has(looked=-0.5), held=replace(TOKEN, scope="other")), do(Do.GRANT)),
    "for another account": (
        places(has(FORMERS, looked=-0.5), held=replace(TOKEN, document=FORMERS), asked=asked(-1.0, FORMER)),
        do(Do.GRANT),
    ),
    "for the same one not within min_interval": (places(has(None), held=None, asked=asked(-1.0)), rest(9.0, Do.LOOK)),
    "in place of one that was refused before its time": (
        places(has(looked=-0.5), held=replace(TOKEN, revoked_at=NOW), revocations=1),
        do(Do.GRANT),
    ),
    "the third time in a row after a wait": (
        places(has(), held=replace(TOKEN, revoked_at=NOW), revocations=3),
        rest(40.0, Do.LOOK),
    ),
    "but not beyond its expiry, when any token is replaced": (
        places(has(), held=replace(held(issued=-100.0, lifetime=130.0), revoked_at=NOW), revocations=3),
        rest(30.0, Do.LOOK),
    ),
    "a server that hands out a token again has another once it has expired": (
        places(has(), held=replace(held(issued=-100.0, lifetime=104.0), reused_at=NOW)),
        rest(4.25, Do.LOOK),
    ),
    "or after the same share of what is left": (
        places(has(), held=replace(TOKEN, reused_at=NOW)),
        rest(7100.0 * 0.667, Do.LOOK),
    ),
    "one that it hands out again though it was refused is asked for in growing steps": (
        places(has(), held=replace(TOKEN, revoked_at=NOW - 50.0, reused_at=NOW), revocations=2),
        rest(20.0, Do.LOOK),
    ),
    "after a failure by the backoff": (worn(-50.0, trouble=failed(1.0)), rest(2.0, Do.LOOK)),
    "sooner where a message says that it may succeed": (
        worn(-50.0, trouble=replace(failed(1.0), hastened_to=NOW)),
        do(Do.LOOK, 0),
    ),
    "or another's attempt lets it go on": (worn(-50.0, trouble=failed(1.0), turn_at=NOW), do(Do.LOOK, 0)),
    "not for a place that holds a stranger's document": (places(has(STRANGERS), held=None), rest(10.0, Do.LOOK)),
    "for the other one": (places(has(STRANGERS, looked=-0.5), has(None, looked=-0.5), held=None), do(Do.GRANT)),
    "not where no place could be read and none is held, for what is there may be good": (
        places(Place(looked_at=NOW, trouble=failed(0.0)), held=None),
        rest(3.0, Do.LOOK),
    ),
    "but where we know that ours must be replaced": (
        places(Place(looked_at=NOW, trouble=failed(0.0)), held=WORN),
        do(Do.GRANT),
    ),
    "for a rival's place once that is free": (
        places(has(RIVALS, wrote=WROTE), held=None, asked=None),
        rest(500.0, Do.LOOK),
    ),
    # ── the canary ──
    "the token in use is tried": (tried(), do(Do.CHECK)),
    "from time to time": (tried(held=replace(TOKEN, checked_at=NOW - 10.0)), rest(50.0, Do.CHECK)),
    "where that is configured": (tried("0s"), ALONE),
    "one that we were granted was tried before: not more often where it may not be written": (
        tried("0s", places=(has(another(50.0, 60.0, username="x")),)),
        rest(110.0, Do.PUBLISH),
    ),
    "not where it was refused": (
        tried(held=replace(TOKEN, revoked_at=NOW, checked_at=NOW - 60.0), revocations=3),
        rest(40.0, Do.LOOK),
    ),
    "an expired one says nothing": (
        tried(held=held(issued=-7300.0, checked_at=NOW - 200.0), trouble=failed(1.0), places=(has(None),)),
        rest(2.0, Do.LOOK),
    ),
    "one that expires first is left alone": (
        tried(held=LATE, trouble=failed(0.0, count=9), places=(has(LATE.document),)),
        rest(45.0, Do.LOOK),
    ),
    "after a change of the account the former token is not tried, whatever was due for it": (
        tried(
            held=replace(TOKEN, document=FORMERS, checked_at=NOW - 90.0, revoked_at=NOW - 80.0),
            trouble=failed(1.0),
            places=(has(FORMERS),),
        ),
        rest(2.0, Do.LOOK),
    ),
}


def decided(facts: Facts, chain: tuple[Rule, ...] = CHAIN) -> Expected:
    """What is due at `NOW`."""
    decision = decide(facts, moment(NOW), chain)
    if isinstance(decision, Rest):
        return ("rest", pytest.approx(decision.until - NOW, abs=1e-5), decision.then)
    return (decision.do, decision.places)


@pytest.mark.parametrize("row", ROWS)
def test_what_is_due(row: str) -> None:
    """By these facts this is due, or the token rests until that."""
    facts, expected = ROWS[row]
    assert expected == decided(facts)


@pytest.mark.parametrize(
    "first", range(len(CHAIN) - 1), ids=lambda it: f"{CHAIN[it].__name__}-{CHAIN[it + 1].__name__}"
)
def test_the_order_of_rules_is_decided(first: int) -> None:
    """No two neighbouring rules can change places without a row of the table that says otherwise."""
    swapped = (*CHAIN[:first], CHAIN[first + 1], CHAIN[first], *CHAIN[first + 2 :])
    assert [row for row, (facts, expected) in ROWS.items() if expected != decided(facts, swapped)]


def test_what_an_attempt_failed_at_waits_for_the_next() -> None:
    """What became due while an attempt was under way holds up none of its later rules, and is done by the next."""
    facts = places(Place(looked_at=NOW + 1.0, trouble=failed(-1.0)), has(None))

    assert decide(facts, moment(NOW + 9.0, NOW)) == Action(Do.PUBLISH, (1,))
    assert decide(facts, moment(NOW + 9.0)) == Action(Do.LOOK, (0,), NOW + 4.0)
    slow = worn(0.0, identity=replace(STALE, resolved_at=NOW))
    assert decide(slow, moment(NOW + 9.0, NOW)) == Action(Do.GRANT, (), grant_at(slow, moment(NOW)))


def test_rest_is_not_over_before_it_began() -> None:
    """A rest is half a second at least, from the beginning of the attempt, and ends no sooner than the attempt."""
    soon = places(has(), Place(trouble=failed(2.9)))

    assert decide(soon, moment(NOW)) == Rest(NOW + 0.5, Do.LOOK)
    assert decide(soon, moment(NOW + 9.0, NOW)) == Rest(NOW + 9.0, Do.LOOK)
    assert decide(places(Place(busy=BUSY), held=None), moment(NOW)) == Rest(math.inf, None), "a message must come"


@pytest.mark.parametrize(
    ("suspension", "layout", "seconds"),
    [
        (suspended(read=-1.0), (FILE,), 2.0),
        (suspended(read=-1.0), (FILE, VAULT), 59.0),
        (suspended(read=-1.0, refused=-3590.0), (VAULT,), 10.0),
        (suspended(read=-1.0, refused=-3601.0), (VAULT,), 59.0),
    ],
)
def test_attempt_records_of_a_suspended_token_are_read_now_and_then(
    suspension: Suspension, layout: tuple[int, ...], seconds: float
) -> None:
    """Records are read as often as their place allows, and once when a cautious attempt is due."""
    facts = places(*(has() for _ in layout), layout=layout, suspended=suspension)
    assert records_at(facts) == pytest.approx(NOW + seconds)


@pytest.mark.parametrize(
    ("facts", "seconds"),
    [
        (known(), ROTATION),
        (worn(-50.0), 0.0),
        (known(identity=None, trouble=failed(1.0)), 2.0),
        (untried(pending=PENDING, trouble=failed(1.0, UNTRIED)), 2.0),
        (known(suspended=suspended(refused=-100.0)), 3500.0),
    ],
)
def test_when_another_token_is_next_asked_for_or_tried(facts: Facts, seconds: float) -> None:
    """Status and log tell the moment by the rules, and of a suspended token its cautious attempt."""
    assert next_token_at(facts, moment(NOW)) == pytest.approx(NOW + seconds, abs=1e-5)


LATER = has(another(50.0, 60.0))
UNBELIEVED = has(another(50.0, 60.0, username="x"))


@pytest.mark.parametrize(
    ("token", "place", "told"),
    [
        (replace(TOKEN, unreported_since=NOW), LATER, True),
        (TOKEN, LATER, False),
        (TOKEN, UNBELIEVED, True),
        (ADOPTED, UNBELIEVED, False),
        (TOKEN, has(another(-200.0, username="x")), False),
        (TOKEN, has(another(50.0, 60.0, username="x"), looked=-100.0), False),
        (TOKEN, has(STRANGERS), False),
        (None, UNBELIEVED, False),
    ],
)
def test_what_is_told_as_fenced(token: Held | None, place: Place, told: bool) -> None:
    """A token that was granted to us and a later one keeps out, unless that is simply a replica's to adopt."""
    assert fenced(places(place, held=token), 0, moment(NOW)) is told
