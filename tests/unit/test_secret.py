"""A secret that nothing shows: not printing, formatting, pickling, copying or logging, alone or within something."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.secret import HIDDEN, Secret

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "canary-2c9d81"


@dataclass
class Holder:
    """Something that has a secret among other things."""

    name: str
    password: Secret


SHOWN: list[Callable[[Secret], str]] = [
    str,
    repr,
    ascii,
    lambda it: f"{it}",
    lambda it: f"{it!r:>20}",
    lambda it: f"{it:>20}",
    lambda it: format(it, ""),
    "{}".format,
    lambda it: "%s %r" % (it, it),  # noqa: UP031 -- another way
    lambda it: str([it, {"password": it}, (it,)]),
    lambda it: repr(Holder("bookings", it)),
    lambda it: json.dumps({"password": it}, default=str),
    lambda it: logging.LogRecord("x", 30, "x", 1, "%s %r", (it, it), None).getMessage(),
    lambda it: "".join(traceback.format_exception(ValueError(it))),
]


@pytest.mark.parametrize("show", SHOWN)
def test_shown_as_hidden(show: Callable[[Secret], str]) -> None:
    """However it is turned into text, alone or within something, there stands that it is a secret."""
    text = show(Secret(CANARY))

    assert HIDDEN in text
    assert CANARY not in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_not_pickled(protocol: int) -> None:
    """It cannot be pickled by any protocol, nor can what holds it, and the error does not show it."""
    for value in (Secret(CANARY), Holder("bookings", Secret(CANARY)), [Secret(CANARY)]):
        with pytest.raises(TypeError) as failed:
            pickle.dumps(value, protocol)
        assert CANARY not in str(failed.value)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_not_copied(make: Callable[[Secret], Secret]) -> None:
    """It cannot be copied: there is one of it, and whoever holds it is known."""
    with pytest.raises(TypeError):
        make(Secret(CANARY))


def test_not_serialised_by_accident() -> None:
    """JSON without a word of ours refuses it, and it has neither attributes to look through nor a length."""
    uses: list[Callable[[Any], object]] = [json.dumps, vars, len, iter, bytes]
    for use in uses:
        with pytest.raises(TypeError):
            use(Secret(CANARY))


def test_equal_and_revealed() -> None:
    """Two of the same value are equal, and only `reveal` tells the value."""
    assert Secret(CANARY) == Secret(CANARY)
    assert hash(Secret(CANARY)) == hash(Secret(CANARY))
    assert Secret(CANARY) != Secret("another")
    assert Secret(CANARY) != CANARY
    assert Secret(CANARY).reveal() == CANARY
