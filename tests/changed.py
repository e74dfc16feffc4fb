"""One way to change a frozen value in a test, be it a dataclass or a named tuple."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def replace(value: T, **changed: Any) -> T:  # noqa: ANN401 -- fields, by name
    """The same value with these fields changed."""
    if isinstance(value, tuple):
        return value._replace(**changed)  # type: ignore[attr-defined, no-any-return]  # a named tuple
    return dataclasses.replace(value, **changed)  # type: ignore[type-var]
