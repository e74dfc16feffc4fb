"""The plain words of the status page, `aca-tokend status` and the API: one sentence for the person who was woken.

Pure. A sentence says what is wrong and until when readers are safe. What to do about it is `ADVICE` of outcome.py.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Reason, Step

if TYPE_CHECKING:
    from aca_tokend.core.condition import Signs
    from aca_tokend.core.outcome import Failure

# One clause for each reason; {who} is the server, Vault, or the file system of a place.
CLAUSES: dict[Reason, str] = {
    Reason.INVALID_GRANT: "the server refused the username and password",
    Reason.INVALID_CLIENT: "the server refused the client id or the client secret",
    Reason.UNAUTHORIZED_CLIENT: "the server does not let this application use the password grant",
    Reason.INVALID_SCOPE: "the server refused the configured scope",
    Reason.INVALID_REQUEST: "the server could not make sense of the request",
    Reason.UNSUPPORTED_GRANT_TYPE: "the server no longer offers the password grant",
    Reason.UNAUTHORIZED: "something before the server asked for authentication",
    Reason.ATTEMPTS_SPENT: "processes died while they tried this credential, so it is not tried again",
    Reason.RATE_LIMITED: "{who} limits requests",
    Reason.UNAVAILABLE: "{who} is not available",
    Reason.SERVER_ERROR: "{who} failed by an error of its own",
    Reason.TIMEOUT: "{who} gave no answer in time",
    Reason.CONNECT_FAILED: "{who} cannot be reached",
    Reason.NAME_NOT_RESOLVED: "the host name of {who} does not resolve",
    Reason.TLS_FAILED: "no trusted TLS connection to {who}",
    Reason.CONNECTION_LOST: "the connection to {who} broke",
    Reason.PROXY_FAILED: "the proxy before {who} failed",
    Reason.NOT_FOUND: "{who} knows no such path",
    Reason.FORBIDDEN: "something before {who} refuses our requests",
    Reason.REDIRECTED: "{who} redirects to where no secret must follow",
    Reason.UNEXPECTED_STATUS: "{who} gave an answer that makes no sense",
    Reason.NOT_JSON: "the answer of {who} is not JSON",
    Reason.RESPONSE_TOO_LARGE: "the answer of {who} is too large",
    Reason.INVALID_ACCESS_TOKEN: "the server answered without a usable token",
    Reason.INVALID_TOKEN_TYPE: "the server gave a token that is not of type Bearer",
    Reason.INVALID_EXPIRES_IN: "the server gave a token without a usable lifetime",
    Reason.SECRET_MISSING: "a secret that the configuration refers to is missing",
    Reason.SECRET_EMPTY: "a secret that the configuration refers to is empty",
    Reason.SECRET_UNREADABLE: "a secret that the configuration refers to cannot be read",
    Reason.SECRET_NOT_TEXT: "a secret that the configuration refers to is not text",
    Reason.TOKEN_REFUSED: "the server's API refuses the token that the server granted",
    Reason.VAULT_LOGIN_FAILED: "Vault refuses our log-in",
    Reason.VAULT_SEALED: "Vault is sealed",
    Reason.PERMISSION_DENIED: "we are not permitted to read or write it",
    Reason.MOUNT_MISSING: "no KV engine of this version is mounted there",
    Reason.REQUEST_REFUSED: "Vault refused the request",
    Reason.CONFLICT: "someone else writes there at the same time",
    Reason.FOREIGN_DOCUMENT: "it holds something that this token did not write",
    Reason.DIRECTORY_MISSING: "the directory is missing",
    Reason.NOT_A_FILE: "what is there is no regular file",
    Reason.READ_ONLY: "the file system is read-only",
    Reason.DISK_FULL: "the disk is full",
    Reason.OWNER_NOT_SET: "the file cannot be given to its owner",
    Reason.NOT_RENDERED: "the token does not fit the format of the file",
    Reason.LOCKED: "another process holds the lock",
    Reason.IO_ERROR: "reading or writing failed",
    Reason.COMMAND_MISSING: "the command does not exist",
    Reason.COMMAND_NOT_EXECUTABLE: "the command cannot be executed",
    Reason.COMMAND_FAILED: "the command failed",
    Reason.COMMAND_TIMEOUT: "the command did not end in time",
    Reason.PID_FILE_MISSING: "the pid file is missing",
    Reason.PID_FILE_INVALID: "the pid file cannot be trusted",
    Reason.PID_FILE_STALE: "the pid file names another process than the one meant",
    Reason.PROCESS_MISSING: "the process to signal has ended",
    Reason.SIGNAL_NOT_PERMITTED: "we are not permitted to signal the process",
    Reason.RESOURCE_EXHAUSTED: "no descriptor, memory or thread is left to aca-tokend",
    Reason.INTERNAL_ERROR: "a bug in aca-tokend ended the attempt",
}

# Why an attempt that was due made no request.
SKIPPED = {
    "endpoint_held": "its endpoint does not work, and one token asks for all",
    "endpoint_busy": "as many attempts are recorded already as its endpoint can take soon",
    "client_unproven": "another token tries their client secret first",
    "user_unproven": "another token tries their user's password first",
    "claimed_elsewhere": "an attempt of another process is under way, or has to run out",
    "token_reused": "the server handed out the same token again; a new one comes when it expires",
}

_RECORD = "no attempt without its record: "
_OWN = {Reason.SECRET_MISSING, Reason.SECRET_EMPTY, Reason.SECRET_UNREADABLE, Reason.SECRET_NOT_TEXT}


def clause(failure: Failure) -> str:
    """What failed, without a capital and without a full stop."""
    message = failure.message.removeprefix(_RECORD)
    in_vault = (failure.sink or message).startswith("vault")
    who = "Vault" if in_vault else "the file system" if failure.sink else "the server"
    said = CLAUSES[failure.reason].format(who=who)
    if failure.sink is not None:
        return f"{failure.sink}: {said}"
    if message != failure.message:
        return f"the attempt record cannot be used, so nothing is tried: {said}"
    if in_vault and failure.reason not in _OWN:
        return f"a secret in Vault cannot be had: {said}"
    if failure.step is Step.VERIFY and failure.reason is not Reason.TOKEN_REFUSED:
        return f"the new token could not be tried: {said}"
    return said


def troubles(signs: Signs) -> list[str]:
    """What is wrong with a token, worst first."""
    if signs.suspended is not None:
        return [clause(signs.suspended)]
    if signs.revoked:
        return ["the token in use is refused before its time"]
    if signs.failure is not None:
        return [clause(signs.failure)]
    if signs.hook is not None:
        return [f"what is run after a write failed: {CLAUSES[signs.hook.reason]}"]
    return [SKIPPED["endpoint_held"]] if signs.held else []


def readers(signs: Signs, now: datetime) -> str:
    """Until when readers are safe, and with whose token."""
    valid_for = signs.valid_for
    if signs.revoked:
        return "readers are refused"
    if not math.isfinite(valid_for):
        return "nobody knows what its readers find" if signs.unread else "readers find no valid token"
    if valid_for <= 0.0:
        return f"readers have had no valid token for {span(-valid_for)}"
    whose = " with the former account's token" if signs.former else ""
    return f"readers are safe{whose} for {span(valid_for)}, until {clock(now + timedelta(seconds=valid_for), now)}"


def sentence(*clauses: str) -> str:
    """The clauses as one sentence. What names a place keeps its letters."""
    text = "; ".join(clauses)
    first = text if ":" in text.partition(" ")[0] else text[:1].upper() + text[1:]
    return f"{first}."


def unsaid(advice: str, said: str) -> str:
    """An advice without its beginning where the sentence before it has just that."""
    begin, _, rest = advice.partition("; ")
    return rest if rest and begin.lower() in said.lower() else advice


def span(seconds: float) -> str:
    """A length of time in its two largest units, rounded down, such as `2 h 13 min`."""
    left = max(int(seconds), 0)
    parts: list[str] = []
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        number, left = divmod(left, unit)
        if number or parts:
            parts.append(f"{number} {name}" if number else "")
        if len(parts) == 2:  # noqa: PLR2004 -- its two largest units
            break
    return " ".join(part for part in parts if part) or "0 s"


def clock(moment: datetime, now: datetime) -> str:
    """A moment as people say it who know the day: `16:02 UTC`, with seconds if it is near, with the date if far."""
    moment, today = moment.astimezone(UTC), now.astimezone(UTC)
    if abs(moment - today) < timedelta(minutes=2):
        return f"{moment:%H:%M:%S} UTC"
    if moment.date() == today.date():
        return f"{moment:%H:%M} UTC"
    year = "" if moment.year == today.year else f" {moment.year}"
    return f"{moment.day} {moment:%b}{year} {moment:%H:%M} UTC"


def relative(moment: datetime, now: datetime) -> str:
    """When something is, seen from now: `in 2 h 13 min`, `12 s ago`, `now`."""
    seconds = (moment - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def tokens(count: int) -> str:
    """So many tokens."""
    return f"{count:,} token{'' if count == 1 else 's'}"
