"""The levers of the ACAEngine look-alike: what it knows, how it mints, and which faults it shows.

Levers are one frozen value that is exchanged whole, so a request sees either the old set or the new one. Passwords and
client secrets are masked wherever levers are shown.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr

# Whole answers in place of the natural one; nothing is minted.
AnswerKind = Literal[
    "invalid_grant",
    "invalid_client",
    "unauthorized_client",
    "unauthorized_client_400",
    "invalid_scope",
    "invalid_request",
    "unsupported_grant_type",
    "unprocessable_422",
    "server_error_500",
    "rate_limited",
    "bad_gateway_html",
    "bad_gateway_empty",
    "unavailable_html",
    "unavailable_empty",
    "gateway_timeout_html",
    "gateway_timeout_empty",
    "not_found",
    "bad_request_html",
    "bad_request_json",
    "redirect_301",
    "redirect_302",
    "redirect_307",
    "redirect_308",
    "html_200",
    "empty_200",
    "deep_json",
    "gzip_bomb",
    "answer",
]
# The natural answer (a token is minted), spoilt.
SpoiltKind = Literal[
    "truncated_json",
    "not_utf8",
    "wrong_content_type",
    "wrong_charset",
    "duplicate_keys",
    "set_cookie",
    "delay",
]
# The natural answer (a token is minted), badly delivered on the bare connection.
DeliveryKind = Literal["cut_body", "drip_headers", "drip_body"]
# The bare connection without any natural answer; nothing is minted.
ConnectionKind = Literal["hang", "reset", "close", "endless_body", "huge_body"]

ANSWER_KINDS: frozenset[str] = frozenset(get_args(AnswerKind))
SPOILT_KINDS: frozenset[str] = frozenset(get_args(SpoiltKind))
DELIVERY_KINDS: frozenset[str] = frozenset(get_args(DeliveryKind))
CONNECTION_KINDS: frozenset[str] = frozenset(get_args(ConnectionKind))
FAULT_KINDS = ANSWER_KINDS | SPOILT_KINDS | DELIVERY_KINDS | CONNECTION_KINDS

# Which part of the server a request goes to.
Area = Literal["token", "authority", "api", "elsewhere"]

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class Account(BaseModel):
    """A user with a password. A `locked` one is refused with the very answer that a wrong password gets."""

    model_config = _STRICT

    password: SecretStr
    locked: bool = False


class Client(BaseModel):
    """A registered application, its scopes (the first is the default), and whether it may use the password grant."""

    model_config = _STRICT

    secret: SecretStr
    scopes: Annotated[tuple[str, ...], Field(min_length=1)] = ("public",)
    password_grant: bool = True


class Fault(BaseModel):
    """Something that goes wrong, with the requests it happens to and what its kind needs to know.

    Attributes:
        kind: what goes wrong.
        on: the part of the server it happens in.
        count: how many requests it happens to before it is over; None for all.
        username: only requests that name this user.
        share: the share of the requests it happens to, drawn anew for each.
        seconds: the pause between two bytes of a drip, or a `delay`.
        megabytes: the length of `huge_body`, and what `gzip_bomb` grows to.
        location: where the redirects point.
        retry_after: the text of `Retry-After`, in `rate_limited` and the kinds of 503.
        retry_after_date: the same as an HTTP date, so many seconds from the server's now.
        status: of `answer`, as are `body`, `content_type` and `headers`.
    """

    model_config = _STRICT

    kind: AnswerKind | SpoiltKind | DeliveryKind | ConnectionKind
    on: Area | Literal["any"] = "token"
    count: Annotated[int, Field(ge=1)] | None = None
    username: str | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    seconds: Annotated[float, Field(ge=0)] = 1.0
    megabytes: Annotated[int, Field(ge=1)] = 100
    location: str = "http://127.0.0.1:9/elsewhere"
    retry_after: str | None = None
    retry_after_date: float | None = None
    status: Annotated[int, Field(ge=200, le=599)] = 200
    body: str = ""
    content_type: str = "application/json; charset=utf-8"
    headers: dict[str, str] = Field(default_factory=dict)


class Levers(BaseModel):
    """Everything that can be set on the look-alike; what is left out keeps its value.

    Attributes:
        lifetime: seconds that a token works, counted from its issue and without any leeway.
        token_kind: 43 characters of base64url, 64 hexadecimal digits, or an RS256 JWT whose `exp` is in whole seconds.
        jwt_padding: further characters in each JWT, which make it as large as a real one with many claims.
        token_type: as it is spelt in the answer.
        expires_in: None gives the lifetime rounded to seconds, `{"value": X}` any JSON value, `{}` leaves it out.
        plain_answer: only the fields of the seed document, without `scope` and `created_at`.
        refresh_token: whether the answer holds one.
        reuse_access_token: the same token again, with a smaller `expires_in`, until it expires.
        tenants: the Hosts that are known, None for any. Where they are set, a token works on its own Host only.
        latency: seconds before the token endpoint answers.
        clock_offset: seconds that the server's clock is ahead of the machine's.
        clock_stopped_at: the server's clock stands still at this time since the epoch; None lets it run.
        accounts: users by name, added to those already there; None in place of an account removes it.
        clients: applications by `client_id`, added in the same way.
        faults: what goes wrong, of which the first that fits a request happens to it.
    """

    model_config = _STRICT

    lifetime: Annotated[float, Field(gt=0)] = 7200.0
    token_kind: Literal["opaque", "hex", "jwt"] = "opaque"  # noqa: S105 - no secret
    jwt_padding: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    token_type: str = "bearer"  # noqa: S105 - no secret
    expires_in: dict[Literal["value"], JsonValue] | None = None
    plain_answer: bool = False
    refresh_token: bool = False
    reuse_access_token: bool = False
    tenants: tuple[str, ...] | None = None
    latency: Annotated[float, Field(ge=0)] = 0.0
    clock_offset: float = 0.0
    clock_stopped_at: float | None = None
    accounts: dict[str, Account | None] = Field(default_factory=dict)
    clients: dict[str, Client | None] = Field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def merged(self, changes: str | bytes) -> Levers:
        """These levers with the changes, given as JSON.

        Raises:
            pydantic.ValidationError: a lever is unknown or its value is not of its kind.
        """
        new = Levers.model_validate_json(changes)
        update = {name: getattr(new, name) for name in new.model_fields_set}
        if "accounts" in update:
            accounts = self.accounts | new.accounts
            update["accounts"] = {name: account for name, account in accounts.items() if account is not None}
        if "clients" in update:
            clients = self.clients | new.clients
            update["clients"] = {name: client for name, client in clients.items() if client is not None}
        return self.model_copy(update=update)
