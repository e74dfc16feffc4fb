"""What people and programs are told of the daemon: the shapes of the status API, its schema, and what may be asked.

Pure. The shapes are a contract (docs/status.md, docs/status.schema.json): within version 1 fields may be added, and
none leaves or changes its meaning. No field holds a secret.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from aca_tokend.core.outcome import Reason, Step

VERSION = 1
PER_PAGE = 50
MOST_PER_PAGE = 1000
MOST_PAGES = 999_999
LONGEST_SEARCH = 200
SINGLE = ("q", "page", "per_page")


class State(StrEnum):
    """How a token is, worst first."""

    EXPIRED = "expired"
    SUSPENDED = "suspended"
    FAILING = "failing"
    STARTING = "starting"
    READY = "ready"


class Result(StrEnum):
    """How the last attempt of a token ended."""

    ROTATED = "rotated"
    ADOPTED = "adopted"
    FAILED = "failed"
    SKIPPED = "skipped"
    SUSPENDED = "suspended"


class Circuit(StrEnum):
    """How the breaker of an endpoint is: closed is well, open holds all tokens but the one that probes."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


def _moment(value: datetime) -> datetime:
    """A moment that can be told in each time zone, and from which others can be counted."""
    if value.tzinfo is None or not MINYEAR < value.year < MAXYEAR:
        message = "is no moment"
        raise ValueError(message)
    return value


def _number(value: float) -> float:
    """A number that can be rounded and counted from a moment."""
    if not abs(value) < _FAR:  # NaN is not either
        message = "is no number that there can be"
        raise ValueError(message)
    return value


# What is read back may come from anybody who listens there.
_FAR = 1e12
_Moment = Annotated[datetime, AfterValidator(_moment)]
_Number = Annotated[float, AfterValidator(_number)]


def _says(text: str) -> Any:  # noqa: ANN401 -- as pydantic has it
    return Field(description=text)


_Step = Annotated[Step | None, _says("The step that failed.")]
_Reason = Annotated[Reason | None, _says("Why, from the closed list of reasons.")]
_Message = Annotated[str | None, _says("What happened, for people: the place and the problem.")]
_Advice = Annotated[str | None, _says("What a person can do about this reason.")]
_Summary = Annotated[str | None, _says("What is wrong, in one sentence; null where all is well.")]
_Person = Annotated[bool, _says("Whether somebody has to do something: attempts alone will not mend it in time.")]
_Runbook = Annotated[str | None, _says("The name of the alert whose runbook fits.")]
_Names = Annotated[int, _says("How many tokens there are, of all states.")]


@dataclass(frozen=True, slots=True)
class LastResult:
    """How the last attempt ended."""

    at: Annotated[_Moment, _says("When it ended.")]
    result: Annotated[Result, _says("What became of it.")]
    step: _Step = None
    reason: _Reason = None
    message: _Message = None
    advice: _Advice = None
    request_id: Annotated[str | None, _says("The server's `x-request-id`, where it sent one.")] = None


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why no attempt is made, and what would change that."""

    reason: Annotated[Reason, _says("Why the server refused the credential.")]
    advice: Annotated[str, _says("What a person can do about this reason.")]
    resumes: Annotated[str, _says("What would resume it, for people.")]


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """One place that a token is published to."""

    name: Annotated[str, _says("The place, such as `vault:secret/aca/bookings` or `file:/run/aca/bookings.json`.")]
    kind: Annotated[str, _says("`vault` or `file`.")]
    issued_at: Annotated[_Moment | None, _says("When the token that it holds was issued; null for none of ours.")]
    expires_at: Annotated[_Moment | None, _says("When the token that it holds expires; null for none of ours.")]
    ok: Annotated[bool, _says("Whether it could be read and written when last tried.")]
    step: _Step = None
    reason: _Reason = None
    message: _Message = None
    advice: _Advice = None


@dataclass(frozen=True, slots=True)
class HookStatus:
    """A hook of the token that failed when it was last run."""

    name: Annotated[str, _says("The program, or the signal.")]
    failures: Annotated[int, _says("How many runs failed since the last that succeeded.")]
    step: _Step = None
    reason: _Reason = None
    message: _Message = None
    advice: _Advice = None


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """One token."""

    name: Annotated[str, _says("Its name in the configuration.")]
    state: Annotated[State, _says("How it is; the words are told above.")]
    needs_a_person: _Person
    summary: Annotated[str, _says("All that matters in one sentence, and until when readers are safe.")]
    endpoint: Annotated[str, _says("The `[acaengine.NAME]` that grants it.")]
    authority: Annotated[str, _says("The authority its account belongs to.")]
    username: Annotated[
        str | None, _says("The user name of its account; null with `admin.show_usernames = false`, or while unknown.")
    ]
    scope: Annotated[str, _says("The scope it asks for.")]
    issued_at: Annotated[_Moment | None, _says("When the token that we hold was issued; null while we hold none.")]
    rotate_at: Annotated[_Moment | None, _says("Its rotation point: when it was or is due for a new grant.")]
    expires_at: Annotated[_Moment | None, _says("When it expires.")]
    safe_until: Annotated[
        _Moment | None, _says("Until when every reader finds a valid token; null where a sink never held one.")
    ]
    next_attempt_at: Annotated[
        _Moment | None, _says("When the next attempt is due; null where none is made by itself, or one is under way.")
    ]
    outage_tolerance_seconds: Annotated[_Number | None, _says("Expiry minus rotation point.")]
    consecutive_failures: Annotated[int, _says("Failed attempts since the last success.")]
    last: Annotated[LastResult | None, _says("How its last attempt ended; null before the first.")]
    suspended: Annotated[Suspension | None, _says("Why no attempt is made with its credential; null where one is.")]
    sinks: Annotated[list[SinkStatus], _says("The places it is published to.")]
    hooks: Annotated[list[HookStatus], _says("Its hooks that failed when last run.")]
    shard: Annotated[int | None, _says("The shard that keeps it; null without shards.")] = None
    runbook: _Runbook = None


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One server that grants tokens."""

    name: Annotated[str, _says("The name in `[acaengine.NAME]`.")]
    url: Annotated[str, _says("Its address in the configuration.")]
    up: Annotated[bool | None, _says("Whether it answered the last grant as OAuth servers do; null before the first.")]
    breaker: Annotated[Circuit, _says("How its breaker is.")]
    held_until: Annotated[_Moment | None, _says("Until when no request is sent to it.")]
    waiting: Annotated[int, _says("How many tokens wait for it to work again.")]
    tokens: _Names
    clock_skew_seconds: Annotated[_Number | None, _says("Its clock minus ours; null while unknown.")]
    demand_ratio: Annotated[
        _Number | None,
        _says("Grants due a second as a share of what it gives: above 1 it falls behind. Null: unknown."),
    ]
    needs_a_person: _Person = False
    summary: _Summary = None
    reason: _Reason = None
    message: _Message = None
    advice: _Advice = None
    runbook: _Runbook = None


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """One Vault, and our own token there."""

    name: Annotated[str, _says("The name in `[vault.NAME]`.")]
    logged_in: Annotated[bool, _says("Whether we hold a token of our own; the first log-in is made when needed.")]
    method: Annotated[str, _says("How the daemon logs in.")]
    token_expires_at: Annotated[_Moment | None, _says("When our own token expires; null for never, or for none.")]
    failing: Annotated[int, _says("How many tokens have a place there that failed when last tried.")] = 0
    needs_a_person: _Person = False
    summary: _Summary = None
    reason: _Reason = None
    message: _Message = None
    advice: _Advice = None
    runbook: _Runbook = None


@dataclass(frozen=True, slots=True)
class ConfigStatus:
    """How the configuration was when it was last read."""

    ok: Annotated[bool, _says("Whether it was well; if not, the one before is in effect.")]
    loaded_at: Annotated[_Moment, _says("When the configuration in effect was taken up.")]
    problems: Annotated[list[str], _says("What is wrong with the files: place, problem, fix.")]
    runbook: _Runbook = None


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """The process."""

    version: Annotated[str, _says("Of the program.")]
    started_at: Annotated[_Moment, _says("When it started.")]
    shard: Annotated[int | None, _says("Which shard it is; null without shards.")]
    shards: Annotated[int | None, _says("How many shards there are; null without shards.")]
    tokens: _Names
    problems: Annotated[list[str], _says("What a restart would mend, as `/-/healthy` says it.")]
    not_ready: Annotated[int, _says("How many tokens have not been looked at yet.")]
    config: Annotated[ConfigStatus, _says("The configuration.")]


@dataclass(frozen=True, slots=True)
class StatusPage:
    """The answer of `/api/v1/status`."""

    version: Annotated[int, _says("Of this format: 1.")]
    now: Annotated[_Moment, _says("When this was so, by the daemon's clock.")]
    needs_a_person: Annotated[bool, _says("Whether anything needs one: a token (also on no page here), or the rest.")]
    need_a_person: Annotated[int, _says("How many tokens need a person, of all tokens.")]
    daemon: Annotated[DaemonStatus, _says("The process that answers.")]
    counts: Annotated[dict[State, int], _says("How many tokens are in each state, of all tokens.")]
    matching: Annotated[int, _says("How many tokens the query finds.")]
    page: Annotated[int, _says("Which page of them this is, from 1.")]
    pages: Annotated[int, _says("How many pages there are, at least 1.")]
    per_page: Annotated[int, _says("How many tokens a page has at most.")]
    tokens: Annotated[list[TokenStatus], _says("The tokens of this page: worst first, then what expires soonest.")]
    endpoints: Annotated[list[EndpointStatus], _says("All endpoints, by name.")]
    vaults: Annotated[list[VaultStatus], _says("All Vaults, by name.")]


@dataclass(frozen=True, slots=True)
class TokenPage:
    """The answer of `/api/v1/status/NAME`."""

    version: Annotated[int, _says("Of this format: 1.")]
    now: Annotated[_Moment, _says("When this was so, by the daemon's clock.")]
    daemon: Annotated[DaemonStatus, _says("The process that answers.")]
    token: Annotated[TokenStatus, _says("The token.")]
    endpoint: Annotated[EndpointStatus, _says("The endpoint that grants it.")]
    vaults: Annotated[list[VaultStatus], _says("The Vaults that it is published to or takes a secret from.")]


@dataclass(frozen=True, slots=True)
class ApiError:
    """Why a call was refused."""

    parameter: Annotated[str, _says("What is wrong: a parameter of the query, or `name`.")]
    problem: Annotated[str, _says("What is wrong with it.")]
    fix: Annotated[str, _says("What to do.")]
    shard: Annotated[int | None, _says("The shard that keeps the token that was asked for.")] = None


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """The answer to a call that is wrong, with status 400 or 404."""

    error: Annotated[ApiError, _says("What is wrong.")]


@dataclass(frozen=True, slots=True)
class Query:
    """Which tokens are asked for."""

    states: frozenset[State] = frozenset()  # empty: all
    search: str = ""
    page: int = 1
    per_page: int = PER_PAGE


class QueryError(ValueError):
    """A query that is wrong: `error` says how."""

    def __init__(self, parameter: str, problem: str, fix: str) -> None:
        super().__init__(f"{parameter}: {problem}; {fix}")
        self.error = ApiError(parameter, problem, fix)


def parse_query(pairs: Iterable[tuple[str, str]]) -> Query:
    """Reads the parameters of a query. Raises QueryError, which repeats no value."""
    states: set[State] = set()
    single: dict[str, str] = {}
    for name, value in pairs:
        if name == "state":
            states.add(_state(value))
        elif name not in SINGLE:
            parameter, fix = "query", f"use state, {', '.join(SINGLE)} alone"
            raise QueryError(parameter, "has an unknown parameter", fix)
        elif name in single:
            raise QueryError(name, "is given twice", "give it once")
        else:
            single[name] = value
    return Query(
        states=frozenset(states),
        search=_search(single.get("q", "")),
        page=_whole("page", single.get("page", "1"), MOST_PAGES),
        per_page=_whole("per_page", single.get("per_page", str(PER_PAGE)), MOST_PER_PAGE),
    )


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        parameter = "state"
        raise QueryError(parameter, "is no state", f"use one of {', '.join(State)}") from None


def _search(text: str) -> str:
    if len(text) > LONGEST_SEARCH:
        parameter = "q"
        raise QueryError(parameter, f"is longer than {LONGEST_SEARCH} characters", "search for a part of a name")
    return text


def _whole(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise QueryError(name, "is not a number in its range", f"use a whole number from 1 to {most}")
    return int(text)


STATUS = TypeAdapter(StatusPage)
TOKEN = TypeAdapter(TokenPage)
ERROR = TypeAdapter(ErrorPage)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of every answer of the API."""
    named = {"status": STATUS, "token": TOKEN, "error": ERROR}
    inputs = [(name, "serialization", adapter) for name, adapter in named.items()]
    _, document = TypeAdapter.json_schemas(inputs, title="Status API of aca-tokend, version 1")  # type: ignore[arg-type]  # the mode is a literal
    rules = document["$defs"]
    for rule in rules.values():
        rule.pop("title", None)
        if "properties" in rule:
            rule["required"] = list(rule["properties"])  # also what has a default is always there
        for field in rule.get("properties", {}).values():
            field.pop("title", None)
            field.pop("default", None)
    choices = [{"$ref": f"#/$defs/{name}"} for name in ("StatusPage", "TokenPage", "ErrorPage")]
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": document["title"], "anyOf": choices, "$defs": rules}
