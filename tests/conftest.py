"""What every test may rely on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator


# A slow machine is no failure.
settings.register_profile("any time", deadline=None)
settings.load_profile("any time")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Puts the logging of the process back, so that no test is deaf because of the one before it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
