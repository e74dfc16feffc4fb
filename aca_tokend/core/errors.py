"""The errors that are expected of the world, and the one that stands for all others.

TokendError
 ├─ ConfigError               the configuration is wrong; all its problems at once
 ├─ SecretError               a reference does not resolve
 ├─ TransportError            no whole answer came from a server
 ├─ GrantError                the endpoint gave no token
 ├─ VerifyError               the new token does not work
 ├─ LookError                 a sink cannot be read
 ├─ PublishError              a sink cannot be written
 ├─ ReachError                a server cannot be reached, or is not who it should be
 ├─ HookError                 what is run after a write did not do its work
 ├─ VaultLoginError           Vault refuses us
 └─ InternalError             an unexpected exception: a bug, or the system has nothing left for us

An adapter translates what its library raises into one of these, once, `from exc`. No message holds a secret or the body
of a response.
"""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Failure, Reason, Unexpected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.core.outcome import Component, Step

# Of a traceback the innermost frames are kept: a request through hvac is about twenty deep.
FRAMES = 24
# And so many of the exceptions that led to another.
CAUSES = 3
# The beginnings of paths that say nothing: of ours, of installed packages, of Python's library.
_PACKAGE = __file__.removesuffix("core/errors.py")
_LIBRARY = traceback.__file__.removesuffix("traceback.py")
_ROOTS = (_PACKAGE, "/site-packages/", "/dist-packages/", _LIBRARY)


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


class TransportError(ReasonedError):
    """No whole answer came, or one that is too large. `sent`: the server may have seen the request."""

    def __init__(self, reason: Reason, message: str, *, sent: bool = False) -> None:
        super().__init__(reason, message)
        self.sent = sent


class SecretError(ReasonedError):
    """A reference does not resolve to a secret."""


class GrantError(ReasonedError):
    """The endpoint gave no token. `status` is the HTTP status, None where no answer came."""

    status: int | None = None
    skew_seconds: float | None = None


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


# The system, or a limit of this process, leaves no descriptor or memory.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# What Python says where the system gives no further thread.
NO_THREAD = "can't start new thread"


def is_exhausted(error: BaseException) -> bool:
    """Whether nothing is wrong but that no descriptor, memory or thread was left."""
    if isinstance(error, OSError):
        return error.errno in EXHAUSTED
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and error.args == (NO_THREAD,))


class InternalError(ReasonedError):
    """An unexpected exception, translated once. It says where that was, and never what it said.

    Its reason is `internal_error`, a bug, or `resource_exhausted`, which is none and passes.

    The text of a foreign exception and the values of its variables may be secrets, so nothing of it is kept.

    Attributes:
        kind: its type, such as `RuntimeError` or `ssl.SSLError`.
        trace: the types that led to it, then `file:line in function` for each frame, the innermost last.
    """

    def __init__(self, kind: str, trace: tuple[str, ...], reason: Reason = Reason.INTERNAL_ERROR) -> None:
        where = trace[-1].partition(" in ")[0] if trace else "an unknown place"
        what = "unexpected" if reason is Reason.INTERNAL_ERROR else "nothing left for this process:"
        super().__init__(reason, f"{what} {kind} in {where}")
        self.kind = kind
        self.trace = trace

    @classmethod
    def of(cls, error: BaseException) -> InternalError:
        """What there is to say of an exception. One that was translated in a pool gets the frames of who awaited it."""
        frames = tuple(
            f"{_file(frame.f_code.co_filename)}:{line} in {frame.f_code.co_qualname}"
            for frame, line in traceback.walk_tb(error.__traceback__)
        )
        if isinstance(error, InternalError):
            return cls(error.kind, (*frames, *error.trace)[-FRAMES:], error.reason)
        reason = Reason.RESOURCE_EXHAUSTED if is_exhausted(error) else Reason.INTERNAL_ERROR
        return cls(_kind(error), (*_causes(error), *frames[-FRAMES:]), reason)


def contained(component: Component, owner: str, error: BaseException) -> tuple[InternalError, Unexpected]:
    """What a place that contains exceptions makes of one: the error for its own flow, and the event to tell."""
    internal = InternalError.of(error)
    return internal, Unexpected(component, owner, internal.kind, internal.trace, internal.reason)


def _kind(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _causes(error: BaseException) -> Iterator[str]:
    """The types of the exceptions that it was raised from, the nearest first."""
    for _ in range(CAUSES):
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            return
        error = cause
        yield f"from {_kind(error)}"


def _file(path: str) -> str:
    """A file as it is called on every machine."""
    for root in _ROOTS:
        _, found, rest = path.rpartition(root)
        if found:
            return rest
    return path.rpartition("/")[2]
