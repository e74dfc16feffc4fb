"""How a rotation says where each of its blocking calls runs.

A rotation is a coroutine that awaits `Call`s. There is no event loop: whoever drives it (the scheduler's thread pools,
or the simulation's virtual clock) makes each call in the pool the call names and then goes on with the coroutine. So
the main flow reads from top to bottom while a Vault that hangs holds only threads of Vault's pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from aca_tokend.core.errors import InternalError, ReasonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sequence

T = TypeVar("T")


class Busy(Enum):
    """What stands in the results in place of an answer that has not come."""

    BUSY = "busy"


BUSY: Final = Busy.BUSY
# The pools of these names are for calls on this machine, which have no time-out of their own: one that has taken longer
# than an attempt has patience leaves its thread's place to another, so that it holds up none on the same file system.
LOCAL = ("file", "secrets")
# The pool in which the attempts of tokens begin. Hardly anything is called there, so it is free, whatever hangs.
BEGIN = "file"
HUNG_SECONDS = 2.0
# The urgency of what goes on with something begun, a minted token or an attempt's record: before what only begins.
FIRST = -math.inf


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One blocking call. Awaiting it gives what `run` returns, or raises the `ReasonedError` that it raised.

    Attributes:
        pool: the name of the pool it runs in.
        run: the call. Any `Exception` but a `ReasonedError` is a bug, and comes back as an `InternalError`.
        urgency: among waiting calls of one pool the smallest goes first; for a token, when it expires.
        finish: it is made even while the daemon is stopping, because a minted token would be lost otherwise.
        late: takes what it gave or raised once the attempt has gone on without it, in the thread that made it.
    """

    pool: str
    run: Callable[[], T]
    urgency: float = 0.0
    finish: bool = False
    late: Callable[[T | ReasonedError], None] | None = None

    def __await__(self) -> Generator[Calls[T], Sequence[T | ReasonedError], T]:
        """Hands the call to the driver and takes its result."""
        (result,) = yield Calls((self,))
        if isinstance(result, ReasonedError):
            try:
                raise result
            finally:
                del result  # its traceback leads here, and to what was sent: nothing may lead back, and keep it
        return result


@dataclass(frozen=True, slots=True)
class Calls(Generic[T]):
    """Calls that run side by side. Awaiting them gives one result or `ReasonedError` each, in their order.

    Attributes:
        patience: for how many seconds the attempt waits for a call that was begun, or for a pool that begins none. What
            has not answered by then gives `BUSY`; its answer goes to `Call.late`.
    """

    calls: Sequence[Call[T]]
    patience: float = math.inf

    def __await__(self) -> Generator[Calls[T], Sequence[T | ReasonedError | Busy], Sequence[T | ReasonedError | Busy]]:
        """Hands the calls to the driver and takes their results."""
        return (yield self) if self.calls else ()


def make(call: Call[T]) -> T | ReasonedError:
    """Makes one call; an error becomes its value. What a driver runs in the call's pool."""
    try:
        return call.run()
    except ReasonedError as error:
        return error.with_traceback(None)  # a value now: it does not keep what was sent
    except Exception as error:  # noqa: BLE001 -- a bug: it ends the attempt that awaits this, not the process
        return InternalError.of(error)


class Work(Protocol):
    """What is kept on schedule: the attempts of one token, or of one hook."""

    @property
    def name(self) -> str:
        """What it is called on the schedule."""

    @property
    def pool(self) -> str:
        """The pool in which an attempt begins."""

    @property
    def finish(self) -> bool:
        """Whether the daemon begins it at once when it stops, because it finishes what was published."""

    def attempt(self) -> Coroutine[Any, Any, float]:
        """Starts one; the coroutine returns when the next is due, in monotonic seconds (infinity: never)."""

    def urgency(self) -> float:
        """Orders what waits in the pool, smallest first."""


@dataclass(frozen=True, slots=True)
class Duty:
    """Work put together from functions, for that of which there is little."""

    name: str
    pool: str
    attempt: Callable[[], Coroutine[Any, Any, float]]
    urgency: Callable[[], float]
    finish: bool = False
