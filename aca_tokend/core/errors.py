"""The errors that are expected of the world.

TokendError
 ├─ ConfigError               the configuration is wrong; all its problems at once
 ├─ SecretError               a reference does not resolve
 ├─ GrantError
 │   ├─ GrantRejected         the server refused this credential or request
 │   ├─ GrantUnavailable      no answer, or one that says "later"
 │   └─ MalformedTokenResponse  200, but not with a usable token
 ├─ VerifyError               the new token does not work
 ├─ LookError                 a sink cannot be read
 ├─ PublishError              a sink cannot be written
 ├─ ReachError                a server cannot be reached, or is not who it should be
 ├─ HookError                 what is run after a write did not do its work
 └─ VaultLoginError           Vault refuses us

An adapter translates what its library raises into one of these, once, `from exc`. No message holds a secret or the body
of a response.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Failure

if TYPE_CHECKING:
    from aca_tokend.core.outcome import Reason, Step


class TokendError(Exception):
    """Something expected went wrong. `message` names the place and the problem, for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration: where, what, and how to mend it."""

    file: str
    path: str
    problem: str
    fix: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.path}" if self.path else self.file
        return f"{place}: {self.problem}; {self.fix}"


class ConfigError(TokendError):
    """The configuration is wrong. `problems` has every problem found, in the order of the files."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class ReasonedError(TokendError):
    """An error with a reason of the closed list, and what the other side said of when to ask again."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id

    def as_failure(self, step: Step, sink: str | None = None) -> Failure:
        """The failure of a step that this error is."""
        return Failure(step, self.reason, self.message, self.retry_after_seconds, self.request_id, sink)


class SecretError(ReasonedError):
    """A reference does not resolve to a secret."""


class GrantError(ReasonedError):
    """The endpoint gave no token. `status` is the HTTP status, None where no answer came."""

    status: int | None = None
    skew_seconds: float | None = None


class GrantRejected(GrantError):
    """The server refused this credential or this request: asking again with the same one cannot help."""


class GrantUnavailable(GrantError):
    """No answer came, or one that says nothing about the credential: the same request may succeed later."""


class MalformedTokenResponse(GrantError):
    """The server answered 200 without a token that can be used."""


class VerifyError(ReasonedError):
    """The new token does not work (`token_refused`), or could not be tried."""


class ReachError(ReasonedError):
    """A server cannot be reached, is not who it should be, or does not answer."""


class LookError(ReasonedError):
    """What a sink holds cannot be read."""


class PublishError(ReasonedError):
    """A sink cannot be written; what it held before is intact."""


class HookError(ReasonedError):
    """What is run after a write did not do its work. `output` is the end of what it said, without secrets."""

    output: str = ""


class VaultLoginError(ReasonedError):
    """Vault refused the log-in, or did not answer it."""
