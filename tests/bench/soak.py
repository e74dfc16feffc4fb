"""`make soak`: a thousand tokens of a minute on real servers, with a fault every minute; does anything grow?

Every few seconds the daemon's memory, threads, descriptors, CPU time and lag are read; a straight line is fitted to
each after the warm-up (trend.py). It fails where memory, threads or descriptors grow, or a reader met a refused token.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from aca_tokend.core.secret import Secret
from aca_tokend.demo.processes import HelperError
from aca_tokend.demo.reader import read_file, read_vault
from aca_tokend.demo.stage import Settings, Stage, wait_until
from tests.bench.machine import machine
from tests.bench.measure import ROOT, Watched, rotations
from tests.bench.readings import SERIES, Reading, read, table, trends, unavailable
from tests.bench.strikes import SETTLING_SECONDS, Striker, strikes
from tests.bench.trend import BLOCK_SECONDS, LEAST_BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aca_tokend.demo.reader import Reader
    from tests.bench.strikes import Strike
    from tests.bench.trend import Trend

LIFETIME_SECONDS = 60.0
SAMPLE_SECONDS = 10.0
# What is read before this share of the run, and before so many seconds, is the warm-up: of half an hour it has the
# reloads of the beginning and a fault of each kind.
WARM_UP_SHARE, WARM_UP_SECONDS = 0.4, SETTLING_SECONDS + 60.0
# A line needs so much after it.
LEAST_SECONDS = LEAST_BLOCKS * BLOCK_SECONDS
# After the last fault everything has so long to be as ever.
CALM_SECONDS = 40.0
READERS = 4
# One token in so many leaves at a reload, and comes back at the next.
LEAVING = 20
# Columns of what is printed where there is no terminal.
WIDTH = 140
RESULT = ROOT / "docs" / "performance" / "soak.json"
POLICY = 'path "secret/data/aca/*" { capabilities = ["create", "read", "update"] }'


class Soak:
    """A daemon on a stage, with readers of its tokens, and what was read of it."""

    def __init__(self, stage: Stage, tokens: int, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._tokens = tokens
        names, leaving = [f"svc-{number}" for number in range(tokens)], tokens // LEAVING
        config = stage.config(names, Settings(auth=_approle(stage)))
        config.write_text(config.read_text().replace('level = "debug"', 'level = "info"'))
        self.watched = Watched(config, stage.directory / "daemon.log")
        try:
            wait_until(self._all_there, f"the first tokens of {tokens}", 300.0)
            time.sleep(LIFETIME_SECONDS)  # on a slow machine the first ones expire while the last ones come
            self._alive()
        except BaseException:  # also where it is interrupted: no daemon is left behind
            self.watched.daemon.kill()
            raise
        self._striker = Striker(stage, config, self.watched.daemon.process.pid, leaving)
        self.readers = [_reader(stage, names[: tokens - leaving], number) for number in range(READERS)]
        self.began = time.monotonic()
        self.readings: list[Reading] = []
        self.struck: list[Strike] = []

    def _all_there(self) -> bool:
        self._alive()
        return rotations(self.watched.page()) >= self._tokens

    def _alive(self) -> None:
        daemon = self.watched.daemon
        if not daemon.running:
            message = f"the daemon ended:\n{daemon.text[-4000:]}"
            raise HelperError(message)

    def run(self, seconds: float, seed: int, show: Callable[[str], None]) -> None:
        """Reads and strikes for so many seconds, and ends the daemon. What goes wrong in a thread of ours raises."""
        plan = [it for it in strikes(seed, seconds) if it.at + it.seconds + CALM_SECONDS <= seconds]
        ended = threading.Event()
        try:
            with ThreadPoolExecutor(1) as pool:
                striking = pool.submit(self._strike, plan, ended)
                try:
                    while (passed := self._passed()) < seconds:
                        if striking.done():
                            striking.result()
                        self._alive()
                        before = self.readings[-1] if self.readings else None
                        self.readings.append(read(self.watched, passed, before))
                        self._tell_of_gaps()
                        show(self._line(passed, seconds))
                        time.sleep(max(0.0, len(self.readings) * SAMPLE_SECONDS - self._passed()))
                finally:
                    ended.set()
            for reader in self.readers:
                assert reader.running, f"reader {reader.name} met a bug"
                reader.stop()
            assert self.watched.daemon.terminate() == 0
        finally:
            self.watched.daemon.kill()

    def _passed(self) -> float:
        return time.monotonic() - self.began

    def _strike(self, plan: Sequence[Strike], ended: threading.Event) -> None:
        for strike in plan:
            if ended.wait(max(0.0, strike.at - self._passed())):
                return
            took = self._striker.strike(strike, ended)
            self._tell(f"{strike.kind}, for {took:.1f} s until now")
            self.struck.append(replace(strike, seconds=took))

    def _tell_of_gaps(self) -> None:
        """At once, so that it stands beside the fault that it belongs to."""
        if gone := unavailable(self.readings[-2:]):
            self._tell(f"tokens were unavailable, all together for {gone:.1f} s")

    def _line(self, passed: float, seconds: float) -> str:
        values = self.readings[-1].values
        told = [f"{SERIES[name].title} {value:.1f} {SERIES[name].unit}".strip() for name, value in values.items()]
        reads, refused = self.reads
        return f"{passed:.0f} of {seconds:.0f} s: {', '.join(told)}; {reads} reads, {refused} refused"

    @property
    def reads(self) -> tuple[int, int]:
        """How many tokens that were read the API judged, and how many of these it refused."""
        refused = sum(it.refused for it in self.readers)
        return sum(it.accepted for it in self.readers) + refused, refused


def _reader(stage: Stage, names: Sequence[str], number: int) -> Reader:
    """Uses one token after the other, picked at random, out of Vault or out of its file."""
    rng = random.Random(number)  # noqa: S311 -- to be repeatable is the point

    def read() -> Mapping[str, object]:
        name = rng.choice(names)
        if rng.random() < 0.5:
            return read_file(stage.file_of(name))()
        return read_vault(stage.bao.address, stage.bao.root_token, "secret", f"aca/{name}")()

    return stage.reader(f"{number}", read, pause_seconds=0.2)


def _approle(stage: Stage) -> str:
    """A log-in whose tokens live for two minutes, so that they are renewed and replaced while we look."""
    client = stage.bao.client()
    client.sys.create_or_update_policy("tokens", POLICY)
    client.sys.enable_auth_method("approle")
    client.auth.approle.create_or_update_approle("aca", token_policies=["tokens"], token_ttl="2m", token_max_ttl="6m")
    role = client.auth.approle.read_role_id("aca")["data"]["role_id"]
    secret = client.auth.approle.generate_secret_id("aca")["data"]["secret_id"]
    path = stage.write_secret("secret-id", Secret(secret))
    return f'method = "approle", role_id = "{role}", secret_id = {{ file = "{path}" }}'


def problems(soak: Soak, found: Mapping[str, Trend]) -> list[str]:
    """What makes it fail."""
    told = [
        f"{series.title} grows by more than {series.tolerance:g} {series.unit} an hour".replace("  ", " ")
        for name, series in SERIES.items()
        if series.fails and name in found and found[name].verdict(series.tolerance) == "growing"
    ]
    told += [
        f"{series.title} were not read; run it as root"
        for name, series in SERIES.items()
        if series.fails and name not in found
    ]
    reads, refused = soak.reads
    if refused:
        last = next(it.last_refusal for it in soak.readers if it.last_refusal)
        told.append(f"{refused} of {reads} tokens that were read were refused; the last of one reader: {last}")
    unhealthy = sum(not it.healthy for it in soak.readings)
    if unhealthy:
        told.append(f"/-/healthy told of something stuck or lost at {unhealthy} of {len(soak.readings)} readings")
    if gone := unavailable(soak.readings):
        told.append(f"tokens were unavailable, all together for {gone:.1f} s")
    return told


def main() -> int:
    """0 if nothing grows and no reader was refused, else 1."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="which faults come when")
    parser.add_argument("--publish", action="store_true", help=f"writes {RESULT.relative_to(ROOT)}")
    asked = parser.parse_args()
    seconds = asked.minutes * 60.0
    warm_up = max(WARM_UP_SHARE * seconds, WARM_UP_SECONDS)
    if seconds < warm_up + LEAST_SECONDS:
        least = math.ceil((WARM_UP_SECONDS + LEAST_SECONDS) / 60.0)
        parser.error(f"--minutes {asked.minutes:g} are too few for a line after the warm-up: give {least} or more")
    console, told_at = Console(), 0.0
    if not console.is_terminal:
        console.width = WIDTH

    def tell(what: str) -> None:
        console.print(f"[dim]{datetime.now(UTC):%H:%M:%S}[/dim]  {what}", highlight=False, soft_wrap=True)

    with (
        tempfile.TemporaryDirectory() as directory,
        console.status("starting") as status,
        Stage(Path(directory), lifetime=LIFETIME_SECONDS, raft=True) as stage,
    ):

        def show(line: str) -> None:
            nonlocal told_at
            status.update(line)
            if not console.is_terminal and time.monotonic() - told_at >= 60.0 - SAMPLE_SECONDS / 2:
                told_at = time.monotonic()
                tell(line)

        soak = Soak(stage, asked.tokens, tell)
        soak.run(seconds, asked.seed, show)
    found = trends(soak.readings, soak.struck, warm_up)
    console.print(table(found))
    made = soak.readings[-1].rotations - soak.readings[0].rotations
    longest = max((it.seconds for it in soak.struck), default=0.0)
    reads, refused = soak.reads
    console.print(
        f"{made:.0f} rotations, {len(soak.struck)} faults, the longest of {longest:.0f} s; "
        f"{reads} tokens read, {refused} of them refused"
    )
    wrong = problems(soak, found)
    for problem in wrong:
        console.print(f"[red]{problem}[/]")
    if asked.publish:
        result = {
            "machine": machine(),
            "tokens": asked.tokens,
            "minutes": asked.minutes,
            "seed": asked.seed,
            "warm_up_seconds": warm_up,
            "rotations": made,
            "faults": Counter(it.kind for it in soak.struck),
            "longest_fault_seconds": longest,
            "reads": reads,
            "refused": refused,
            "unavailable_seconds": unavailable(soak.readings),
            "problems": wrong,
            "series": {
                name: {
                    **asdict(SERIES[name]),
                    **asdict(trend),
                    "interval": trend.interval,
                    "verdict": trend.verdict(SERIES[name].tolerance),
                }
                for name, trend in found.items()
            },
        }
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
