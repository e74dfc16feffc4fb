"""Whatever is read of others, the reader gives what it promises or one of its own errors, and no text of it is shown.

`make fuzz` tries far more; what it found stays in the corpus.
"""

from __future__ import annotations

import logging
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.fuzz import readers
from tests.fuzz.__main__ import known
from tests.fuzz.daemon import Daemon
from tests.fuzz.sockets import Sockets
from tests.fuzz.target import Tally, search

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """A server on a real socket, and what asks it."""
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    made = Sockets()
    yield made
    made.close()
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    logging.captureWarnings(capture=False)


def test_readers(tmp_path: Path) -> None:
    """No input of the corpus, and none of two thousand others, gets more out of a reader than its declared error."""
    targets, tally = readers.targets(tmp_path), Tally(timed=False)
    assert known(targets, tally) is None
    until = tally.answers + 2000
    assert search(targets, Random(17), tally, lambda: tally.answers < until) is None  # noqa: S311 -- the same each time


def test_sockets(sockets: Sockets) -> None:
    """The same of answers in bytes over a real socket; afterwards the same server's good answer is understood."""
    targets, tally = sockets.targets(), Tally(timed=False)
    assert known(targets, tally) is None
    until = tally.answers + 300
    assert search(targets, Random(17), tally, lambda: tally.answers < until) is None  # noqa: S311 -- the same each time


def test_daemon(tmp_path: Path) -> None:
    """A daemon that is answered oddly lives, shows nothing of it, and keeps another token fresh meanwhile."""
    with closing(Daemon(tmp_path, Random(17))) as daemon:  # noqa: S311 -- the same each time
        # the good token lives ten seconds: its third grant comes by itself
        assert daemon.problem(lambda: daemon.answers < 150 or daemon.grants < 3) == ""
