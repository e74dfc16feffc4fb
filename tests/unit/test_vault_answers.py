"""What answers of a Vault mean: each reader against every other kind of value in every place of an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.core.vault_answers import (
    KvRead,
    LoginAnswer,
    absent_of,
    capabilities_of,
    fields_of,
    health_of,
    kv_version_of,
    login_of,
    own_token_of,
    renewal_of,
    secret_of,
    written_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HUGE = 10**400
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, HUGE, -HUGE, float("nan"), float("inf"), 2**64, "", "x", "1", "x" * 100_000, "\0",
    "\ud800", "é", "a\r\nb", [], [[]], [{}], [None], ["x"], {}, {"": None}, {"version": []}, {"version": {}},
]  # fmt: skip

ANSWERS: list[tuple[Callable[[Any], object], Any]] = [
    (secret_of, {"data": {"data": {"a": 1}, "metadata": {"version": 3}}}),
    (absent_of, {"data": {"data": None, "metadata": {"version": 3}}}),
    (absent_of, {"errors": []}),
    (written_of, {"data": {"version": 4}}),
    (fields_of, {"data": {"a": 1}}),
    (lambda it: capabilities_of(it, ["p"]), {"data": {"p": ["read"]}}),
    (lambda it: kv_version_of(it, "m"), {"data": {"type": "kv", "path": "m/", "options": {"version": "2"}}}),
    (
        login_of,
        {"auth": {"client_token": "t", "lease_duration": 60, "renewable": True, "token_type": "service"}},
    ),
    (renewal_of, {"auth": {"lease_duration": 60, "renewable": True}}),
    (lambda it: own_token_of(it, 1.0), {"data": {"ttl": 60, "policies": ["p"], "renewable": True, "type": "batch"}}),
    (health_of, {"initialized": True, "sealed": False, "standby": True}),
]


def altered(value: Any) -> Iterator[Any]:  # noqa: ANN401 -- any JSON
    """The value with each of its parts, and itself, replaced by each odd one or left out."""
    yield from ODD
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for other in altered(part):
            copy = value.copy()
            copy[key] = other
            yield copy
    if isinstance(value, dict):
        for key in value:
            yield {name: part for name, part in value.items() if name != key}


@pytest.mark.parametrize(("read", "answer"), ANSWERS)
def test_no_answer_is_an_error(read: Callable[[Any], object], answer: Any) -> None:  # noqa: ANN401
    """Whatever stands in whatever place, what is read is as Vault means it or nothing; it is never an exception."""
    assert read(answer) is not None
    for other in altered(answer):
        if isinstance(other, dict):  # what is no object is no answer, and was refused before
            hash(str(read(other)))


@pytest.mark.parametrize("number", [True, -1, 1.0, "1", None, HUGE, 2**53 + 1, [], {}])
def test_numbers_have_their_range(number: Any) -> None:  # noqa: ANN401
    """A version or a duration that is no whole number, or beyond what there can be, is no answer."""
    assert secret_of({"data": {"data": {}, "metadata": {"version": number}}}) is None
    assert absent_of({"data": {"data": None, "metadata": {"version": number}}}) is None
    assert written_of({"data": {"version": number}}) is None
    assert login_of({"auth": {"client_token": "t", "lease_duration": number}}) is None
    assert renewal_of({"auth": {"lease_duration": number, "renewable": True}}) is None
    assert own_token_of({"data": {"ttl": number}}, 0.0) is None


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "é", "\ud800", "\0", "x" * 20_000, 1, None, ["t"]])
def test_a_token_fits_in_a_header(token: Any) -> None:  # noqa: ANN401
    """A token that no header can carry is no token."""
    assert login_of({"auth": {"client_token": token, "lease_duration": 60}}) is None


def test_what_is_read() -> None:
    """Of what Vault says, what counts is kept; words that nobody would say are left out."""
    assert secret_of({"data": {"data": {"a": [1]}, "metadata": {"version": 3, "more": 1}}}) == KvRead({"a": [1]}, 3)
    answer = {"auth": {"client_token": "t", "lease_duration": 0, "renewable": "yes", "token_type": "batch"}}
    assert login_of(answer) == LoginAnswer(Secret("t"), 0.0, renewable=False, batch=True)
    found = capabilities_of({"data": {"p": ["read", [], None, "a b", "\n"], "q": []}}, ["p", "q"])
    assert found == {"p": frozenset({"read"}), "q": frozenset()}
    own = own_token_of({"data": {"ttl": 0, "expire_time": None}}, 5.0)
    assert own is not None
    assert (own.ttl_seconds, own.expires_at, own.policies) == (None, None, ())


@pytest.mark.parametrize(
    ("options", "version"),
    [
        ({"version": "2"}, 2),
        ({"version": "1"}, 1),
        (None, 1),
        ({}, 1),
        ({"version": "3"}, None),
        ({"version": 2}, None),
        ({"version": []}, None),
        ([], None),
    ],
)
def test_kv_version(options: Any, version: int | None) -> None:  # noqa: ANN401
    """A KV engine without a version is one of version 1; of an odd one nothing is known."""
    answer = {"data": {"type": "kv", "path": "secret/", "options": options}}
    assert kv_version_of(answer, "secret") == version
    assert kv_version_of(answer, "other") is None
    assert kv_version_of(json.loads(json.dumps(answer)), "secret") == version
