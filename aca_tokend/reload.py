"""A reload: the files read anew, and what left the configuration kept until nobody uses it.

What it means for tokens stands in rotation/: changes.py compares, reconfigure.py says what a token keeps.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aca_tokend.config.files import load, patterns
from aca_tokend.core.errors import ConfigError
from aca_tokend.threads import Thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from aca_tokend.core.config import Config
    from aca_tokend.core.errors import Problem


# What the files say, or what is wrong with them; and what to watch beside the main file.
Loaded = tuple["Config | ConfigError", tuple[str, ...]]


@dataclass(slots=True)
class Draining:
    """What left the configuration, by reload, and is kept until no attempt is under way that began before it."""

    _generations: list[tuple[frozenset[int], list[Callable[[], None]]]] = field(default_factory=list)

    def add(self, attempts: frozenset[int], clean_up: Iterable[Callable[[], None]]) -> None:
        """Keeps what `clean_up` ends until these attempts are over."""
        self._generations.append((attempts, list(clean_up)))

    def settle(self, under_way: Callable[[], frozenset[int]]) -> None:
        """Cleans up after the reloads for which it is time."""
        if not self._generations:
            return
        now, kept = under_way(), []
        for attempts, clean_up in self._generations:
            if left := attempts & now:
                kept.append((left, clean_up))
                continue
            for end in clean_up:
                end()
        self._generations = kept


def _sharing_tokens(written: Config, before: Config) -> Config:
    """What is written, with the very objects of the tokens before where these are equal.

    It changes nothing but memory: the states of tokens hold theirs, and thousands would be there twice from then on.
    """
    known = {token.name: token for token in before.tokens}
    tokens = tuple(known[it.name] if known.get(it.name) == it else it for it in written.tokens)
    return written.model_copy(update={"tokens": tokens})


class Source:
    """The files of the configuration, read anew when they may have changed, and what is told of that.

    Attributes:
        written: what they last said.
        running: what is in effect: the two differ in what only a restart changes.
        include: what to watch beside the main file.
        problems: what was wrong when the files were last read.
    """

    def __init__(self, path: Path, config: Config, logger: Any, observe: Callable[[bool], None]) -> None:  # noqa: ANN401 -- structlog's loggers have no type
        self.written = self.running = config
        self.include = config.include
        self.problems: tuple[Problem, ...] = ()
        self._path = path
        self._logger = logger
        self.observe = observe

    def begin(self, ring: Callable[[], None]) -> Future[Loaded]:
        """Reads the files in a thread of its own, since their file system may hang; `ring` says that it is done."""
        future: Future[Loaded] = Future()

        def work() -> None:
            try:
                future.set_result(self._load())
            except Exception as error:  # noqa: BLE001 -- contained by who takes the result
                future.set_exception(error)
            ring()

        try:
            Thread(target=work, name="reload", daemon=True).start()
        except RuntimeError:  # no further thread
            work()
        return future

    def _load(self) -> Loaded:
        try:
            config = load(self._path)
        except ConfigError as error:
            return error, patterns(self._path)
        return config, config.include

    def read(self, *, asked: bool, loaded: Future[Loaded] | None = None) -> Config | None:
        """The configuration to run by now; None where nothing changed, or anything is wrong with it.

        With `asked` somebody waits for an answer, so what was logged before is logged again. `loaded` is what was read
        already.
        """
        written, include = loaded.result() if loaded else self._load()
        if isinstance(written, ConfigError):
            self.observe(False)
            if asked or written.problems != self.problems:
                told = [str(problem) for problem in written.problems]
                self._logger.error("config_rejected", problems=told)
            self.problems = written.problems
            # What is fixed may be in a file that only the new one includes.
            self.include = (*self.written.include, *include)
            return None
        written = _sharing_tokens(written, self.written)
        if written == self.written and not self.problems and not asked:
            return None
        self.written, self.include, self.problems = written, include, ()
        self.observe(True)
        self.running = self._without_restart(written)
        return self.running

    def _without_restart(self, written: Config) -> Config:
        """What of it can take effect now. The rest is told, and stays as it was at the start."""
        admin, log = self.running.admin, self.running.log
        keys = [
            f"admin.{key}" for key in type(admin).model_fields if getattr(admin, key) != getattr(written.admin, key)
        ]
        if log.format != written.log.format:
            keys.append("log.format")
        shard, wanted = self.running.shard, written.shard
        if (shard and shard.index) != (wanted and wanted.index):
            keys.append("shard.index")
            wanted = shard
        if keys:
            self._logger.warning("config_needs_restart", keys=keys)
        kept = written.log.model_copy(update={"format": log.format})
        return written.model_copy(update={"admin": admin, "log": kept, "shard": wanted})
