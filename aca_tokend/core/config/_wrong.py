"""How a validator says what is wrong and how to mend it, and how a value is written in TOML."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, NoReturn

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Iterable

KIND = "config"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SHOWN = 60
_KINDS = {int: "a whole number", float: "a decimal number", str: "text", list: "an array", dict: "a table"}


def wrong(problem: str, fix: str, **place: str) -> PydanticCustomError:
    """What is wrong, and what to do about it, as pydantic carries it. Neither holds a value that may be secret.

    Args:
        problem: what is wrong, without the place.
        fix: what to do about it.
        place: `at`, a key of the same table to blame instead of the validated one, with "" for the table itself; or
            `below`, a key inside the validated value.
    """
    return PydanticCustomError(KIND, "{problem}; {fix}", {"problem": problem, "fix": fix, **place})


def refuse(problem: str, fix: str, **place: str) -> NoReturn:
    """Raises `wrong`: how a validator ends with a value that will not do."""
    raise wrong(problem, fix, **place)


def kind_of(value: object) -> str:
    """What TOML calls this value, in words."""
    if isinstance(value, bool):  # first: in Python a bool is an int
        return "a boolean"
    return _KINDS.get(type(value), "a date or time")


def toml(value: object) -> str:
    """The value as it is written in a TOML file, on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key(name)} = {toml(item)}" for name, item in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def key(name: str) -> str:
    """A key as it is written in TOML; a very long one is cut."""
    if _BARE_KEY.fullmatch(name):
        return name
    return json.dumps(name if len(name) <= _SHOWN else name[:_SHOWN] + "…")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` was probably meant to be."""
    # cut: difflib's time grows with the square of the length
    matches = difflib.get_close_matches(name[:_SHOWN].lower(), list(known), n=1, cutoff=0.7)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str], what: str) -> str:
    """The fix for a name that is not among the `known` ones, which are `what`."""
    meant = nearest(name, known)
    return f"did you mean {key(meant)}?" if meant else f"{what}: {listed(known)}"


def listed(names: Iterable[str]) -> str:
    """Names of the file one after the other."""
    return ", ".join(key(name) for name in names)
