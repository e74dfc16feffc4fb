"""What the daemon's log tells: the life of each token, and what happened, in plain words.

It reads lines as they are written, and never waits. It asks nobody anything and decides nothing.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

ENTRIES_KEPT = 50


class TokenState(StrEnum):
    """What a token is doing, as the view shows it."""

    NONE = "none yet"
    FRESH = "fresh"
    DUE = "due"
    RETRYING = "retrying"
    SUSPENDED = "suspended"
    EXPIRED = "expired"


@dataclass(slots=True)
class TokenLife:
    """The current token of one account. Times are wall seconds.

    Attributes:
        rotate_at: what the document calls `refresh_after`, until `rotation_known`: the daemon's own rotation point.
        granted: how many tokens there were, this one included.
        failures: failed attempts since the last success.
    """

    name: str
    issued_at: float = 0.0
    rotate_at: float = 0.0
    expires_at: float = 0.0
    rotation_known: bool = False
    granted: int = 0
    failures: int = 0
    suspended: bool = False

    @property
    def rotations(self) -> int:
        """How often a token was replaced by the next one; the first token replaced none."""
        return max(self.granted - 1, 0)

    def set_rotation(self, moment: float) -> None:
        """Takes the daemon's own rotation point, unless it is that of another token."""
        if self.issued_at < moment <= self.expires_at:
            self.rotate_at = moment
            self.rotation_known = True

    def state(self, now: float) -> TokenState:
        """What it is doing now."""
        if not self.granted:
            return TokenState.NONE
        if now >= self.expires_at:
            return TokenState.EXPIRED
        if self.suspended:
            return TokenState.SUSPENDED
        if self.failures:
            return TokenState.RETRYING
        return TokenState.DUE if now >= self.rotate_at else TokenState.FRESH


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened, so many seconds after the daemon was started."""

    seconds: float
    text: str


class Journal:
    """Follows the log of one daemon, which was started at the wall time `began`."""

    def __init__(self, log: Path, names: Sequence[str], began: float) -> None:
        self.tokens = {name: TokenLife(name) for name in names}
        self.admin = ""
        self.failures = 0
        self.entries: deque[Entry] = deque(maxlen=ENTRIES_KEPT)
        self._log = log
        self._began = began
        self._read = 0
        self._news: list[Entry] = []

    @property
    def complete(self) -> bool:
        """Whether every token was published at least once."""
        return all(token.granted for token in self.tokens.values())

    @property
    def rotations(self) -> int:
        """How often any token was replaced by its next one."""
        return sum(token.rotations for token in self.tokens.values())

    def follow(self) -> None:
        """Takes up the lines that were finished since the last call."""
        with self._log.open("rb") as stream:
            stream.seek(self._read)
            written = stream.read()
        whole = written[: written.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            if line.startswith(b"{"):
                self._take(json.loads(line))

    def tell(self, moment: float, text: str) -> None:
        """Adds an entry of the demo's own."""
        entry = Entry(max(moment - self._began, 0.0), text)
        self.entries.append(entry)
        self._news.append(entry)

    def news(self) -> list[Entry]:
        """The entries since the last call."""
        news, self._news = self._news, []
        return news

    def _take(self, line: Mapping[str, Any]) -> None:
        if line["event"] == "daemon_started":
            self.admin = line["admin"]
        token = self.tokens.get(line.get("token", ""))
        first = line["event"] == "token_rotated" and token is not None and not token.granted
        words = _WORDS.get("first_token" if first else line["event"])
        if words is not None:
            self.tell(_seconds(line["timestamp"]), words(line))
        if token is not None:
            self._update(token, line)

    def _update(self, token: TokenLife, line: Mapping[str, Any]) -> None:
        match line["event"]:
            case "token_rotated" | "token_adopted" as event:
                token.issued_at = _seconds(line["issued_at"])
                token.rotate_at = _seconds(line["refresh_after"])
                token.expires_at = _seconds(line["expires_at"])
                token.rotation_known = token.suspended = False
                token.failures = 0
                token.granted = token.granted + 1 if event == "token_rotated" else max(token.granted, 1)
            case "rotation_failed":
                token.failures += 1
                self.failures += 1
            case "token_suspended":
                token.suspended = True
            case "token_resumed":
                token.suspended = False


def _reason(line: Mapping[str, Any]) -> str:
    return str(line.get("reason", "unknown")).replace("_", " ")


def _valid_for(line: Mapping[str, Any]) -> str:
    return f"valid for {_seconds(line['expires_at']) - _seconds(line['issued_at']):.0f} s"


def _next_attempt(line: Mapping[str, Any]) -> str:
    if "next_attempt_at" not in line:
        return "no further attempt"
    wait = _seconds(line["next_attempt_at"]) - _seconds(line["timestamp"])
    return f"again in {max(wait, 0.0):.1f} s"


def _seconds(moment: str) -> float:
    """Wall seconds of a time in the log."""
    return datetime.fromisoformat(moment).timestamp()


# Events that are not here are of no interest to somebody who watches.
_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "daemon_started": lambda line: f"the daemon started with {line['tokens']} tokens",
    "daemon_stopping": lambda _: "the daemon stops",
    "vault_logged_in": lambda _: "the daemon logged in to OpenBao",
    "vault_login_failed": lambda _: "the log-in to OpenBao failed",
    "clock_stepped": lambda line: f"the wall clock was stepped by {line['seconds']} s",
    "first_token": lambda line: f"{line['token']} got its first token, {_valid_for(line)}",
    "token_rotated": lambda line: f"{line['token']} rotated, {_valid_for(line)}",
    "token_adopted": lambda line: f"{line['token']} adopted what was published, {_valid_for(line)}",
    "rotation_failed": lambda line: f"{line['token']}: {line['step']} failed ({_reason(line)}), {_next_attempt(line)}",
    "token_suspended": lambda line: f"{line['token']} suspended ({_reason(line)})",
    "token_resumed": lambda line: f"{line['token']} resumed: {line['why']}",
    "publish_failed": lambda line: f"{line['token']}: publish to {line['kind']} failed ({_reason(line)})",
    "publish_recovered": lambda line: f"{line['token']}: publish to {line['kind']} works again",
    "publish_fenced": lambda line: f"{line['token']}: a later-issued token was already in {line['kind']}",
}
