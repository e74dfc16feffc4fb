"""Killed at random moments: nothing torn, nothing older, no needless grant."""

from __future__ import annotations

import json
import random
import threading
from typing import TYPE_CHECKING

from aca_tokend.demo.stage import Settings, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from aca_tokend.demo.stage import Stage

LIFETIME = 60.0
# Rotated every six seconds, so that kills fall on rotations; the rest of the life is for the restarts, which take as
# long as the machine lets them.
ROTATION = 'fraction = 0.1\nmin_interval = "1s"\nassumed_lifetime = "60s"'


class Watcher:
    """Reads a file without pause and notes anything torn, and any token that is older than one seen before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wrong: list[str] = []
        self.seen = 0
        self._latest = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(0.001):
            try:
                document = json.loads(self.path.read_bytes())
            except FileNotFoundError:
                continue
            except ValueError as error:
                self.wrong.append(f"torn: {error}")
                continue
            issued = document["issued_at"]
            self.seen += 1
            if issued < self._latest:
                self.wrong.append(f"{issued} after {self._latest}")
            self._latest = issued


def test_killed_at_random_moments(stage: Stage) -> None:
    """SIGKILL at five random moments and restart: readers are never refused, no file is torn or older."""
    rng = random.Random()  # noqa: S311 -- moments, not secrets
    stage.lookalike.levers(lifetime=LIFETIME)
    config = stage.config(["bookings"], Settings(rotation=ROTATION))
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    watcher = Watcher(stage.file_of("bookings"))
    readers = [stage.vault_reader("bookings"), stage.file_reader("bookings")]

    for _ in range(5):
        moment = rng.uniform(0.5, 6.0)
        ended = threading.Event()
        ended.wait(moment)  # the random moment itself, not a wait for something to have happened
        daemon.kill()
        daemon = stage.daemon(config)
        daemon.wait_for("daemon_started")
    wait_until(lambda: readers[0].tokens >= 4, "further rotations")
    watcher.stop()

    assert watcher.wrong == []
    assert watcher.seen > 100
    for reader in readers:
        assert reader.refused == 0, reader.last_refusal
    assert list(stage.file_of("bookings").parent.glob(".*.tmp")) == []


def test_restart_makes_no_grant_while_the_published_token_is_good(stage: Stage) -> None:
    """A daemon killed and started five times adopts what is published each time: one grant in all."""
    stage.lookalike.levers(lifetime=600.0)
    config = stage.config(["bookings"])
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")

    for _ in range(5):
        daemon.kill()
        daemon = stage.daemon(config)
        daemon.wait_for("token_adopted")

    assert stage.lookalike.counts().grants == 1
    assert daemon.metric("rotations_total", token="bookings", result="adopted") == 1
