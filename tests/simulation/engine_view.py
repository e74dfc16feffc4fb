"""What the checker reads of a token's state in the engine: the one place to change where the engine keeps it elsewhere.

Nothing else in these tests looks into a state. All times are monotonic seconds of the state's own process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.policy import Life
    from aca_tokend.state import TokenState


def life(state: TokenState) -> Life | None:
    """Issue, rotation point and expiry of the token that it holds; None where it holds none."""
    return state.life


def failing(state: TokenState) -> bool:
    """Whether its last attempt to get a token failed."""
    return state.failures > 0


def revoked(state: TokenState) -> bool:
    """Whether the token that it holds was found dead before its time."""
    return state.dead


def suspended(state: TokenState) -> bool:
    """Whether it waits for another credential."""
    return state.suspended is not None


def poll_seconds(state: TokenState) -> float:
    """How often it looks for that credential."""
    return state.poll_seconds


def retry_after_seconds(state: TokenState) -> float | None:
    """For how long the endpoint asked to be left alone at the last failure."""
    return state.failure.retry_after_seconds if state.failure else None


def rotates_at(state: TokenState) -> float:
    """When it means to ask for the next token."""
    return state.rotate_at


def seen_at(state: TokenState, number: int) -> float:
    """When the look began of which it knows what its place of this number holds, or when it wrote there itself."""
    return state.sinks[number].seen_at


def knows(state: TokenState, number: int) -> bool:
    """Whether its last call to the place of this number succeeded."""
    sink = state.sinks[number]
    return sink.seen is not None and sink.failure is None


def spent_unseen(record: Mapping[str, object], most: int) -> bool:
    """Whether an attempt record has all attempts with a credential spent, and does not know how they ended."""
    entries = [entry for entry in record.values() if isinstance(entry, dict)]
    return any(not entry["proven"] and entry["spent"] >= most and not entry["reason"] for entry in entries)
