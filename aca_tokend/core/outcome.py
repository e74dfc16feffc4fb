"""What can happen to a token, as values: the steps, the closed list of reasons, and the events a rotation tells of.

A reason is a metric label and a log field, so the list is closed: no free text. What a person should do about each
reason stands beside it in `ADVICE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from aca_tokend.core.token import Document


class Step(StrEnum):
    """The steps of one rotation, in their order, and the hook that is run after it."""

    LOOK = "look"
    GRANT = "grant"
    VERIFY = "verify"
    PUBLISH = "publish"
    HOOK = "hook"


class Component(StrEnum):
    """What met an unexpected exception. `reload` is all that the main thread does, reloads first."""

    ATTEMPT = "attempt"
    VAULT = "vault"
    HOOK = "hook"
    PAGE = "page"
    RELOAD = "reload"


class Reason(StrEnum):
    """Why a step failed."""

    # The server refused the credential or the request: asking again with the same one cannot help.
    INVALID_GRANT = "invalid_grant"
    INVALID_CLIENT = "invalid_client"
    UNAUTHORIZED_CLIENT = "unauthorized_client"
    INVALID_SCOPE = "invalid_scope"
    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    UNAUTHORIZED = "unauthorized"  # 401 without a known OAuth code: it may have counted against the account
    ATTEMPTS_SPENT = "attempts_spent"  # earlier attempts ended without anybody knowing how

    # The server, or the way to it, did not do its work: the same request may succeed later.
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"  # 502, 503, 504
    SERVER_ERROR = "server_error"  # any other 5xx
    TIMEOUT = "timeout"
    CONNECT_FAILED = "connect_failed"
    NAME_NOT_RESOLVED = "name_not_resolved"
    TLS_FAILED = "tls_failed"
    CONNECTION_LOST = "connection_lost"
    PROXY_FAILED = "proxy_failed"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    REDIRECTED = "redirected"
    UNEXPECTED_STATUS = "unexpected_status"

    # It answered 200, but not with a token that can be used.
    NOT_JSON = "not_json"
    RESPONSE_TOO_LARGE = "response_too_large"
    INVALID_ACCESS_TOKEN = "invalid_access_token"
    INVALID_TOKEN_TYPE = "invalid_token_type"
    INVALID_EXPIRES_IN = "invalid_expires_in"

    # A reference to a secret does not resolve.
    SECRET_MISSING = "secret_missing"
    SECRET_EMPTY = "secret_empty"
    SECRET_UNREADABLE = "secret_unreadable"
    SECRET_NOT_TEXT = "secret_not_text"

    # The new token was tried and does not work, or could not be tried.
    TOKEN_REFUSED = "token_refused"

    # A sink cannot be read or written.
    VAULT_LOGIN_FAILED = "vault_login_failed"
    VAULT_SEALED = "vault_sealed"
    PERMISSION_DENIED = "permission_denied"
    MOUNT_MISSING = "mount_missing"
    REQUEST_REFUSED = "request_refused"
    CONFLICT = "conflict"
    FOREIGN_DOCUMENT = "foreign_document"
    DIRECTORY_MISSING = "directory_missing"
    NOT_A_FILE = "not_a_file"
    READ_ONLY = "read_only"
    DISK_FULL = "disk_full"
    OWNER_NOT_SET = "owner_not_set"
    NOT_RENDERED = "not_rendered"
    LOCKED = "locked"
    IO_ERROR = "io_error"

    # What is run after a write did not do its work.
    COMMAND_MISSING = "command_missing"
    COMMAND_NOT_EXECUTABLE = "command_not_executable"
    COMMAND_FAILED = "command_failed"
    COMMAND_TIMEOUT = "command_timeout"
    PID_FILE_MISSING = "pid_file_missing"
    PID_FILE_INVALID = "pid_file_invalid"
    PID_FILE_STALE = "pid_file_stale"
    PROCESS_MISSING = "process_missing"
    SIGNAL_NOT_PERMITTED = "signal_not_permitted"

    # No descriptor, memory or thread is left to this process.
    RESOURCE_EXHAUSTED = "resource_exhausted"

    # An unexpected exception ended the attempt.
    INTERNAL_ERROR = "internal_error"


# The server said no to this very credential or request. These suspend a token; everything else is tried again.
REJECTED = frozenset(
    {
        Reason.INVALID_GRANT,
        Reason.INVALID_CLIENT,
        Reason.UNAUTHORIZED_CLIENT,
        Reason.INVALID_SCOPE,
        Reason.INVALID_REQUEST,
        Reason.UNSUPPORTED_GRANT_TYPE,
        Reason.UNAUTHORIZED,
        Reason.ATTEMPTS_SPENT,
    }
)

# The endpoint as a whole does not do its work, whoever asks.
DOWN = frozenset(
    {
        Reason.RATE_LIMITED,
        Reason.UNAVAILABLE,
        Reason.SERVER_ERROR,
        Reason.TIMEOUT,
        Reason.CONNECT_FAILED,
        Reason.NAME_NOT_RESOLVED,
        Reason.TLS_FAILED,
        Reason.CONNECTION_LOST,
        Reason.PROXY_FAILED,
    }
)

ADVICE: dict[Reason, str] = {
    Reason.INVALID_GRANT: (
        "the server refused the username and password; check both, the Host it is reached by, and that the account "
        "is neither locked nor signed in through single sign-on"
    ),
    Reason.INVALID_CLIENT: "the server does not know client_id or refused client_secret; compare with Backoffice",
    Reason.UNAUTHORIZED_CLIENT: "this application may not use the password grant; allow it in Backoffice",
    Reason.INVALID_SCOPE: "this application may not have the configured scope; change scope or the application",
    Reason.INVALID_REQUEST: "the server misses a parameter or cannot read one; check authority, username and client_id",
    Reason.UNSUPPORTED_GRANT_TYPE: (
        "this server no longer offers the password grant, so no new token can be had from it by username and password; "
        "the published token stays until it expires; ask the server's operator for another way to authenticate"
    ),
    Reason.UNAUTHORIZED: "something before the server asks for authentication; check url, host and any proxy",
    Reason.ATTEMPTS_SPENT: (
        "processes died while they tried this credential, which may have been refused each time; "
        "check it, then call `aca-tokend resume NAME`"
    ),
    Reason.RATE_LIMITED: "the server limits requests; lower max_concurrency or ask its operator for a higher limit",
    Reason.UNAVAILABLE: "the server or the proxy before it is down; attempts go on",
    Reason.SERVER_ERROR: "the server failed; its own log says why; attempts go on",
    Reason.TIMEOUT: "no whole answer within the timeout; check the server and the network; attempts go on",
    Reason.CONNECT_FAILED: "nothing answers at this address; check the address, the server and the network",
    Reason.NAME_NOT_RESOLVED: "the host name does not resolve; check the name and the resolver",
    Reason.TLS_FAILED: "the certificate does not hold; check ca_file, the name on the certificate and its dates",
    Reason.CONNECTION_LOST: "the connection broke before the whole answer was read; attempts go on",
    Reason.PROXY_FAILED: "the configured proxy refused or failed; check proxy",
    Reason.NOT_FOUND: "the server knows no such path; check url, host and token_path",
    Reason.FORBIDDEN: "something before the server refuses this address; check its rules",
    Reason.REDIRECTED: "the server redirects to where a secret must not follow; set url or address to where it points",
    Reason.UNEXPECTED_STATUS: "the answer makes no sense; check url, host and token_path, or a Vault's address",
    Reason.NOT_JSON: "the answer is not the JSON expected; check url and host, or a Vault's address, and any proxy",
    Reason.RESPONSE_TOO_LARGE: "the answer is larger than any secret; check the address and what stands before it",
    Reason.INVALID_ACCESS_TOKEN: "the answer holds no access_token that fits in a header; ask the server's operator",
    Reason.INVALID_TOKEN_TYPE: "the token is not of type Bearer; ask the server's operator",
    Reason.INVALID_EXPIRES_IN: "the answer names no usable lifetime; ask the server's operator",
    Reason.SECRET_MISSING: "create what the reference names",
    Reason.SECRET_EMPTY: "put the secret where the reference points",
    Reason.SECRET_UNREADABLE: "let the daemon's user read what the reference names",
    Reason.SECRET_NOT_TEXT: "store the secret as UTF-8 text",
    Reason.TOKEN_REFUSED: "the server's API refuses the token just granted; check verify.path and the account's rights",
    Reason.VAULT_LOGIN_FAILED: "Vault refused the log-in; check [vault.*.auth]",
    Reason.VAULT_SEALED: "Vault is sealed; unseal it, or name its other nodes in address",
    Reason.PERMISSION_DENIED: "let the daemon read and write this place (file mode; Vault: see `aca-tokend policy`)",
    Reason.MOUNT_MISSING: "no KV engine of this version is mounted there; check mount, namespace and kv_version",
    Reason.REQUEST_REFUSED: "Vault refused the request; its own log says why",
    Reason.CONFLICT: "someone else writes to the same place at the same time; find the other writer",
    Reason.FOREIGN_DOCUMENT: (
        "the place holds something this token did not write; remove it, or set replace_foreign = true on this "
        "[[tokens.publish]] if the place is this token's alone"
    ),
    Reason.DIRECTORY_MISSING: "create the directory",
    Reason.NOT_A_FILE: "the path must name a regular file, or nothing yet",
    Reason.READ_ONLY: "the file system is read-only; mount a writable one there",
    Reason.DISK_FULL: "free some space",
    Reason.OWNER_NOT_SET: "run the daemon as that owner, or with CAP_CHOWN and in a group that the mode lets read",
    Reason.NOT_RENDERED: "this document does not fit the format of the file; change format or template",
    Reason.LOCKED: "another process holds the lock beside the file; it should let go within a moment",
    Reason.IO_ERROR: "the system's log says why",
    Reason.COMMAND_MISSING: "install the program, or write its whole path in after.command",
    Reason.COMMAND_NOT_EXECUTABLE: "make it a program that the daemon's user may execute",
    Reason.COMMAND_FAILED: "output has what the command said; run it by hand as the daemon's user",
    Reason.COMMAND_TIMEOUT: "find out what the command waits for, or give it a longer after.timeout",
    Reason.PID_FILE_MISSING: "start the program that writes the file, or mend after.pid_file",
    Reason.PID_FILE_INVALID: (
        "the file must hold the number of a process, and be written by nobody but root, the daemon or that process"
    ),
    Reason.PID_FILE_STALE: "the process is younger than the file, so not the one meant; restart what writes the file",
    Reason.PROCESS_MISSING: "start the program; the file still names one that ended",
    Reason.SIGNAL_NOT_PERMITTED: "run the daemon as the same user as the process, or with CAP_KILL",
    Reason.RESOURCE_EXHAUSTED: (
        "raise the limit that was met (LimitNOFILE, TasksMax, pids.max, memory), or take load off the machine; "
        "attempts go on"
    ),
    Reason.INTERNAL_ERROR: (
        "a bug in aca-tokend: report it with the lines internal_error of its log; attempts go on by themselves"
    ),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that did not succeed.

    `message` is for people and holds neither a secret nor anything a server wrote beyond a known code.
    `retry_after_seconds` is what the server asked for, None where it did not.
    """

    step: Step
    reason: Reason
    message: str
    retry_after_seconds: float | None = None
    request_id: str | None = None
    sink: str | None = None
    suspends: bool = False  # no further attempt is made with this credential

    @property
    def rejected(self) -> bool:
        """Whether the server refused this very credential, so that asking again with it may lock the account."""
        return self.step is Step.GRANT and self.reason in REJECTED


class PublishResult(StrEnum):
    """What became of one publish: `fenced` means that a later-issued token was already there."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    FENCED = "fenced"


# The events of a token's life, told in the order in which they happen. `attempt` counts from 1 since the last success.


@dataclass(frozen=True, slots=True)
class Rotated:
    """A new token was granted and went at least to one sink."""

    token: str
    document: Document
    duration_seconds: float
    sinks: tuple[str, ...]
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Adopted:
    """A valid token that was already published is taken over; no grant was made."""

    token: str
    document: Document
    sink: str


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt ended without a new token, or without reaching any sink.

    `next_attempt_seconds` is how long until the next one, infinity where none will be made with this credential;
    `expires_at` is until when readers are safe, None where nothing is known to be published. `asked`: the endpoint was.
    """

    token: str
    failure: Failure
    attempt: int
    next_attempt_seconds: float
    expires_at: datetime | None = None
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Suspended:
    """No further attempt is made with this credential."""

    token: str
    failure: Failure
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Resumed:
    """Attempts go on: the credential changed, or one cautious attempt is due."""

    token: str
    why: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """An attempt that was due made no request: others do, or ought to, first.

    `next_attempt_seconds` and `expires_at` as in `Failed`.
    """

    token: str
    why: str
    next_attempt_seconds: float = inf
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Expired:
    """What these sinks hold of a token has expired, the last of it at `expires_at`: readers find an expired token.

    `failure` is what keeps it from being replaced, None where nothing failed yet; `waits_for` as in `Skipped.why`.
    """

    token: str
    sinks: tuple[str, ...]
    expires_at: datetime
    failure: Failure | None = None
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something a person should know once, such as that the server hands out the same token again: docs/logs.md."""

    token: str
    what: str


@dataclass(frozen=True, slots=True)
class Published:
    """One sink was written, needed no write, was fenced or failed. `recovered`: it had failed before."""

    token: str
    sink: str
    kind: str
    result: PublishResult
    duration_seconds: float
    failure: Failure | None = None
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class HookRan:
    """A hook ran, or failed, for the tokens whose sinks were written since. `recovered`: it had failed before.

    `hook` is the name of its program or its signal; `output` is the end of what the program said, without secrets.
    `place` tells it from another hook with the same program.
    """

    hook: str
    tokens: tuple[str, ...]
    duration_seconds: float
    output: str = ""
    failure: Failure | None = None
    attempt: int = 0
    next_attempt_seconds: float = 0.0
    recovered: bool = False
    place: str = ""


@dataclass(frozen=True, slots=True)
class Granted:
    """The endpoint was asked for a token. `code` is the HTTP status, or "none" where no answer came."""

    token: str
    endpoint: str
    code: str
    duration_seconds: float
    skew_seconds: float | None
    request_id: str | None = None


# What is told of an endpoint as a whole, besides what its tokens meet.


@dataclass(frozen=True, slots=True)
class EndpointDown:
    """A request failed while the breaker was open, or opened it.

    So many tokens are `waiting` for the endpoint, of which so many have `expired` or were never published; the next of
    the others expires in `expires_seconds`, infinity where there is none.
    """

    endpoint: str
    failure: Failure
    waiting: int
    expired: int
    expires_seconds: float


@dataclass(frozen=True, slots=True)
class EndpointRecovered:
    """The first answer after `EndpointDown`: so many tokens that were `waiting` are let go."""

    endpoint: str
    waiting: int


@dataclass(frozen=True, slots=True)
class Unexpected:
    """An unexpected exception ended what `component` did for `owner`, and nothing else.

    `owner` is the token, the Vault, the hook or the page, or what the main thread did. `kind`, `trace` and `reason` as
    in `InternalError`.
    """

    component: Component
    owner: str
    kind: str
    trace: tuple[str, ...]
    reason: Reason = Reason.INTERNAL_ERROR


TokenEvent = Rotated | Adopted | Failed | Suspended | Resumed | Skipped | Noticed | Published | Granted | Expired
Event = TokenEvent | HookRan | EndpointDown | EndpointRecovered | Unexpected
