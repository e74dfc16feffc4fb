"""`make hard`: a hundred tokens of half a minute, while what a machine may do to a daemon comes and goes at random.

It fails where a reader of a good place was refused, a hook was lost, the process ended or did not end when told, or
threads, descriptors, memory or temporary files are not back where they were.
"""

from __future__ import annotations

import argparse
import random
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.demo.processes import HelperError
from aca_tokend.demo.stage import DaemonProcess, Settings, Stage, wait_until
from tests.bench.readings import process
from tests.hard.conditions import COPIES, Conditions, write_hook
from tests.hard.log import UnreadLog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aca_tokend.demo.reader import Reader

TOKENS, HOOKED, BAD = 100, 10, 5
LIFETIME_SECONDS = 30.0
# A token is rotated after two thirds of its life: what lasts this long is over before one of them expires.
LONGEST_SECONDS, SHORTEST_SECONDS, PAUSE_SECONDS = 4.0, 1.0, 3.0
# Idle threads end after a minute.
CALM_SECONDS = 75.0
# What a process may have more of than before: a thread or a connection that is in use, and what Python gives not back.
# What a hook leaves behind.
LEFT_BEHIND = b"sleep\060\0"
MORE = {"threads": 6.0, "descriptors": 12.0, "resident": 30.0}
ROTATION = 'min_interval = "1s"\nbackoff = { initial = "200ms", cap = "2s" }'


class Hard:
    """A daemon on a stage, and what reads its tokens."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        directory = stage.directory
        self.names = [f"svc-{number}" for number in range(TOKENS)]
        self.hook, self.bad = directory / "hook", directory / "bad"
        self.bad.mkdir()
        self.copies = directory / "copies"
        self.copies.mkdir()
        write_hook(self.hook, COPIES)
        self.folder = directory / "tokens.d"
        config = self._config(stage)
        self.log = UnreadLog(directory / "daemon.log")
        command = [sys.executable, "-m", "aca_tokend", "run", "--config", str(config), "--log-format", "json"]
        child = subprocess.Popen(command, stderr=self.log.writing, stdout=self.log.writing)
        self.daemon = DaemonProcess(child, directory / "daemon.log", 0)

    def _config(self, stage: Stage) -> Path:
        """The tokens in two included files; some have a hook, some a further place that comes and goes."""
        config = stage.config(
            self.names, Settings(rotation=ROTATION, endpoint='timeout = "2s"', vault='timeout = "2s"')
        )
        head, *tokens = config.read_text().split("[[tokens]]")
        config.write_text(f'include = ["{self.folder}/*.toml"]\n{head}')
        for number, name in enumerate(self.names):
            if number < HOOKED:
                command = f'"{self.hook}", "{stage.file_of(name)}", "{self.copies / name}"'
                tokens[number] += f'after = {{ command = [{command}], timeout = "2s" }}\n'
            elif number < HOOKED + BAD:
                tokens[number] += f'[[tokens.publish]]\nto = "file"\npath = "{self.bad}/{name}.json"\n'
        data = self.folder / "..first"
        data.mkdir(parents=True)
        (self.folder / "..data").symlink_to(data.name)
        for name, part in (("a.toml", tokens[::2]), ("b.toml", tokens[1::2])):
            (data / name).write_text("".join(f"[[tokens]]{it}" for it in part))
            (self.folder / name).symlink_to(f"..data/{name}")
        return config

    def run(self, seconds: float, rng: random.Random) -> list[str]:
        """All of it. Returns what is wrong."""
        stage = self.stage
        try:
            wait_until(lambda: all(stage.file_of(name).exists() for name in self.names), "the first tokens", 120.0)
            time.sleep(CALM_SECONDS / 3)
            before = process(self.daemon.process.pid)
            readers = [stage.vault_reader(rng.choice(self.names), pause_seconds=0.2) for _ in range(5)]
            readers += [stage.file_reader(name, pause_seconds=0.2) for name in rng.sample(self.names, 20)]
            self._conditions(seconds, rng)
            wrong = list(self._afterwards(before))
            for reader in readers:
                reader.stop()
            wrong += _refused(readers)
            if self.daemon.terminate() != 0:
                wrong.append("it did not end well")
        except HelperError as error:
            return [str(error)]
        else:
            return wrong
        finally:
            self.daemon.kill()

    def _conditions(self, seconds: float, rng: random.Random) -> None:
        known = Conditions(self.stage, self.daemon.process.pid, self.log, self.folder, self.hook, self.bad).by_name()
        until, waiting = time.monotonic() + seconds, list[str]()
        while time.monotonic() < until:
            waiting = waiting or rng.sample(sorted(known), len(known))
            name, lasts = waiting.pop(), rng.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)
            print(f"{until - time.monotonic():6.0f} s left: {name}, for {lasts:.1f} s", flush=True)
            with known[name]():
                time.sleep(lasts)
            if not self.daemon.running:
                message = f"the daemon ended:\n{self.daemon.text[-4000:]}"
                raise HelperError(message)
            time.sleep(rng.uniform(0.0, PAUSE_SECONDS))

    def _afterwards(self, before: Mapping[str, float]) -> Iterator[str]:
        """What is not as it was, once everything had the time to be."""
        calm_at = time.monotonic() + CALM_SECONDS
        try:
            wait_until(self._hooks_ran, "a run of each hook for what its file holds", CALM_SECONDS)
        except HelperError as error:
            yield str(error)
        time.sleep(max(0.0, calm_at - time.monotonic()))
        now = process(self.daemon.process.pid)
        for what, more in MORE.items():
            if now[what] > before[what] + more:
                yield f"{what}: {now[what]:.0f} instead of {before[what]:.0f}"
        left = [str(it) for it in self.stage.directory.rglob("*.tmp")]
        if left:
            yield f"temporary files are left: {left}"
        found = [it for it in Path("/proc").glob("[0-9]*/cmdline") if it.read_bytes() == LEFT_BEHIND]
        if found:
            yield f"{len(found)} processes of hooks are left"
        if self.daemon.get("/-/healthy")[0] != 200:
            yield "it is not healthy"
        bugs = self.daemon.events("internal_error")
        if bugs:
            yield f"bugs: {bugs}"

    def _hooks_ran(self) -> bool:
        return all(
            (self.copies / name).exists() and (self.copies / name).read_text() == self.stage.file_of(name).read_text()
            for name in self.names[:HOOKED]
        )


def _refused(readers: list[Reader]) -> Iterator[str]:
    for reader in readers:
        if reader.refused:
            yield f"reader of {reader.name} was refused {reader.refused} times, last: {reader.last_refusal}"
        if not reader.accepted:
            yield f"reader of {reader.name} read nothing"


def main() -> int:
    """0 if all is well."""
    parser = argparse.ArgumentParser(prog="make hard", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="draws the same conditions again")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="aca-tokend-hard-") as directory,
        Stage(Path(directory), lifetime=LIFETIME_SECONDS, raft=True) as stage,
    ):
        rng = random.Random(asked.seed)  # noqa: S311 -- to be drawn again
        wrong = Hard(stage).run(60.0 * asked.minutes, rng)
    print("\n".join(wrong) or "all is as it was", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
