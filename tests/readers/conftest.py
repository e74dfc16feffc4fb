"""The real parts for readers: a look-alike, an OpenBao in memory, and tokens of some seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aca_tokend.demo.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The servers, with tokens of 8 seconds."""
    with Stage(tmp_path, lifetime=8.0) as stage:
        yield stage
