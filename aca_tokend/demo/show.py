"""The demo of one command: the whole job on real parts.

    start      a look-alike of ACAEngine ─► OpenBao ─► the daemon, each a process of its own
    wait       until every token is published, then readers begin to use them
    watch      four times a second: follow the daemon's log, begin or end the outage, draw
    stop       readers ─► daemon ─► servers ─► the directory they worked in; then the summary

Whatever ends it, nothing is left: no process and no file.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import signal
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from prometheus_client.parser import text_string_to_metric_families

from aca_tokend.demo.child import HelperError
from aca_tokend.demo.journal import Journal
from aca_tokend.demo.outage import Outage
from aca_tokend.demo.screen import FRAMES_A_SECOND, screen
from aca_tokend.demo.stage import Settings, Stage
from aca_tokend.demo.view import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from aca_tokend.demo.reader import Reader
    from aca_tokend.demo.screen import Screen
    from aca_tokend.demo.stage import DaemonProcess

TOKENS = ("bookings", "signage", "sensors")
LIFETIME_SECONDS = 10.0
# A slow machine shall not be the reason for a refused read: four seconds lie between rotation point and expiry, of
# which the outage takes two.
FRACTION = 0.6
SETTINGS = Settings(rotation=f'fraction = {FRACTION}\nmin_interval = "1s"')
PAUSE_SECONDS = 0.1
FIRST_TOKENS_SECONDS = 30.0
METRICS_TIMEOUT_SECONDS = 1.0
LAST_WORDS = 300


class Interruption:
    """Whether a signal asked the demo to end. A flag, because no lock may be taken where a signal is handled."""

    asked = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """What the signals call."""
        self.asked = True


@dataclass(frozen=True, slots=True)
class Summary:
    """How it went."""

    scene: Scene
    daemon_code: int

    def __str__(self) -> str:
        scene = self.scene
        return (
            f"ran for {scene.elapsed:.0f} s: {scene.journal.rotations:,} rotations, {scene.reads:,} reads, "
            f"{scene.refused:,} refused, {scene.tokens_seen:,} different tokens seen"
        )

    def problems(self) -> Iterator[str]:
        """What was not as it should be. A demo that was ended early need not have seen anything."""
        scene = self.scene
        if scene.refused:
            last = next(reader.last_refusal for reader in scene.readers if reader.refused)
            yield f"{scene.refused} reads were refused; one of them: {last}"
        if scene.over and not scene.journal.rotations:
            yield f"no rotation was seen: the first comes about {FRACTION * LIFETIME_SECONDS:.0f} s after the start"
        if scene.over and not scene.accepted:
            yield "no read was made"
        if self.daemon_code:
            yield f"the daemon ended with exit code {self.daemon_code}"


def show(duration: float | None = None) -> int:
    """Runs the demo for so many seconds, or until SIGINT, SIGTERM or SIGHUP. Returns the exit code."""
    missing = list(_missing())
    if missing:
        typer.echo(f"the demo needs {' and '.join(missing)}: pip install 'aca-tokend[demo]'", err=True)
        return 1
    with _signals() as interruption:
        try:
            with screen() as shown, tempfile.TemporaryDirectory(prefix="aca-tokend-demo-") as directory:
                summary = _perform(Path(directory), duration, shown, interruption)
        except HelperError as error:
            typer.echo(error.message, err=True)
            return 1
        return _conclude(summary)


def _missing() -> Iterator[str]:
    """What of the extra `demo` is not installed."""
    if importlib.util.find_spec("authlib") is None:
        yield "Authlib"
    beside = Path(sys.executable).parent
    if shutil.which("bao", path=str(beside)) is None and shutil.which("bao") is None:
        yield "OpenBao's program `bao`"


@contextmanager
def _signals() -> Iterator[Interruption]:
    """While the demo runs, signals that mean its end are only noted: each part is then ended in order."""
    interruption = Interruption()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, interruption) for number in numbers]
    try:
        yield interruption
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _conclude(summary: Summary | None) -> int:
    if summary is None:
        typer.echo("ended before the first tokens were published; nothing is left running")
        return 0
    problems = list(summary.problems())
    typer.echo(str(summary))
    for problem in problems:
        typer.echo(problem, err=True)
    if not problems:
        typer.echo("no reader noticed anything; nothing is left running")
    return 1 if problems else 0


def _perform(directory: Path, duration: float | None, shown: Screen, interruption: Interruption) -> Summary | None:
    """The demo from the first process to the last. None where it was interrupted before there was anything to see."""
    with Stage(directory, lifetime=LIFETIME_SECONDS, on_step=shown.step) as stage:
        if interruption.asked:
            return None
        shown.step("starting the daemon")
        parts = Parts(stage, time.monotonic(), stage.daemon(stage.config(TOKENS, SETTINGS), tied=True))
        journal = Journal(parts.daemon.log, TOKENS, time.time())
        if not _first_tokens(parts, journal, interruption):
            return None
        shown.tell(f"first tokens published after {parts.elapsed:.1f} s")
        scene = _scene(parts, journal, duration)
        while not interruption.asked and not scene.over:
            _look(parts, scene)
            shown.draw(scene)
            time.sleep(1 / FRAMES_A_SECOND)  # the pace of the picture
        shown.step("stopping")
        return _stop(parts, scene)


@dataclass(slots=True)
class Parts:
    """What runs. `began`: when the daemon was started, in monotonic seconds."""

    stage: Stage
    began: float
    daemon: DaemonProcess
    readers: Sequence[Reader] = ()

    @property
    def elapsed(self) -> float:
        """Seconds since the daemon was started."""
        return time.monotonic() - self.began

    def raise_if_ended(self) -> None:
        """Raises HelperError, which says which part ended by itself."""
        ended = self.stage.ended()
        if ended is None and not self.daemon.running:
            ended = f"the daemon (exit code {self.daemon.process.returncode})", self.daemon.log
        if ended is not None:
            name, log = ended
            message = f"{name} ended during the demo{_last_words(log)}"
            raise HelperError(message)
        for reader in self.readers:
            if not reader.running:
                message = f"the reader of {reader.name} ended during the demo"
                raise HelperError(message)


def _first_tokens(parts: Parts, journal: Journal, interruption: Interruption) -> bool:
    """Waits until every token is published; False where it was interrupted."""
    while not journal.complete:
        if interruption.asked:
            return False
        parts.raise_if_ended()
        if parts.elapsed > FIRST_TOKENS_SECONDS:
            what = f"not every token was published within {FIRST_TOKENS_SECONDS:.0f} seconds"
            message = what + _last_words(parts.daemon.log)
            raise HelperError(message)
        time.sleep(0.02)  # between two looks at the log
        journal.follow()
    return True


def _scene(parts: Parts, journal: Journal, duration: float | None) -> Scene:
    """Starts the readers: for each token one of OpenBao and one of the file."""
    stage = parts.stage
    parts.readers = [
        read(name, pause_seconds=PAUSE_SECONDS) for name in TOKENS for read in (stage.vault_reader, stage.file_reader)
    ]
    places = (
        ("metrics", f"http://{journal.admin}/metrics"),
        ("OpenBao", f"{stage.bao.address} at secret/aca/{TOKENS[0]}"),
        ("its token", str(stage.directory / "vault-token")),
        ("file", str(stage.file_of(TOKENS[0]))),
    )
    outage = Outage(stage.lookalike, journal, math.inf if duration is None else duration)
    return Scene(journal, parts.readers, outage, places, LIFETIME_SECONDS, duration)


def _look(parts: Parts, scene: Scene) -> None:
    """Takes up what happened since the last look, and begins or ends the outage if that is due."""
    parts.raise_if_ended()
    scene.elapsed = parts.elapsed
    journal = scene.journal
    journal.follow()
    if not all(token.rotation_known for token in journal.tokens.values()):
        for name, moment in _rotation_points(journal.admin).items():
            journal.tokens[name].set_rotation(moment)
    scene.outage.tick(scene.elapsed, time.time(), scene.refused)


def _rotation_points(admin: str) -> dict[str, float]:
    """When the daemon is going to rotate each token, in wall seconds, as its metrics say; none if they are silent."""
    with closing(HTTPConnection(admin, timeout=METRICS_TIMEOUT_SECONDS)) as connection:
        try:
            connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
        except (OSError, HTTPException):
            return {}
    return {
        sample.labels["token"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "aca_tokend_token_rotation_timestamp_seconds"
    }


def _stop(parts: Parts, scene: Scene) -> Summary:
    """Ends the readers, then the daemon; what is left ends with the stage."""
    scene.outage.close()
    for reader in parts.readers:
        reader.stop()
    return Summary(scene, parts.daemon.terminate())


def _last_words(log: Path) -> str:
    """The last line of a log, in words to be added to a message."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"; its log ends with: {lines[-1][:LAST_WORDS]}" if lines else ""
