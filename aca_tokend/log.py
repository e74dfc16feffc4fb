"""How lines are written: structlog for ours, and the same renderer for the lines of libraries.

One line per event, JSON or for people. A line that cannot be written is dropped: logging never raises into a rotation,
and while a daemon runs no rotation waits for the reader of the log.
No line shows a secret: `Secret` renders as `<secret>`, so does whatever stands under the name of one, and no exception
is written. What is written of rotations stands in event_log.py; docs/logs.md has every event.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import queue
import select
import sys
import threading
import time
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from typing import TYPE_CHECKING, cast

import structlog

from aca_tokend.core.secret import HIDDEN, Secret
from aca_tokend.core.token import rfc3339

if TYPE_CHECKING:
    from typing import Self, TextIO

    from structlog.typing import EventDict, Processor, WrappedLogger

# The libraries that repeat nothing from outside. What others have to say may be an answer of a server, or what we sent.
SAFE = frozenset({"apscheduler"})

SECRET_NAMES = frozenset(
    {
        "access_token",
        "authorization",
        "client_secret",
        "client_token",
        "password",
        "refresh_token",
        "secret_id",
        "token_value",
    }
)

# So many lines wait for the log's reader, a megabyte or two. What else is logged meanwhile is dropped.
MOST_LINES = 2000
# At the end, what waits is written within this time, in seconds, unless `until` says when.
LAST_SECONDS = 3.0
# To give up what then still waits takes a moment. A thread that does not get there hangs in the system.
_GIVE_UP_SECONDS = 1.0
# A pipe that has room for anything takes so many bytes without waiting (PIPE_BUF of POSIX).
_PIECE = 4096


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Sets logging up for the whole process; calling it again replaces what was set up before.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `json`, `console`, or `auto`: `console` on a terminal and `json` elsewhere.
        stream: where lines go; standard error unless told.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Handler):
            root.removeHandler(handler)
    target = stream or sys.stderr
    if target is not None:  # None where the process was started with standard error closed
        root.addHandler(_Handler(target, style))
    set_level(level)
    logging.captureWarnings(capture=True)


def set_level(level: str) -> None:
    """Changes which lines are written, from now on."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(threshold)
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


class _Handler(logging.StreamHandler["TextIO"]):
    """Writes lines; the handler's own lock keeps them whole."""

    def __init__(self, stream: TextIO, style: str) -> None:
        super().__init__(stream)
        self.lost = 0
        self.addFilter(_may_be_written)
        terminal = _is_terminal(stream)
        console = style == "console" or (style == "auto" and terminal)
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
                processors=[_arrange, *(_for_people(colors=terminal) if console else _for_machines())],
            )
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the name is the library's
        """Drops a line that cannot be written; says so where it was the rendering that failed."""
        error = sys.exc_info()[1]
        self.lost += 1
        if isinstance(error, OSError):
            return
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            line = {"level": "error", "event": "log_line_lost", "logger": record.name, "error": type(error).__name__}
            self.stream.write(json.dumps(line) + self.terminator)
            self.flush()


class Background(QueueHandler):
    """While this context lasts, a thread writes the lines, and logging never waits for the reader.

    Of lines that nobody reads so many wait; those after them are dropped and counted, and a line says so once others
    are written again. At the end, also by an exception, what waits is written.

    Attributes:
        until: when nothing waits for the reader any more, in monotonic seconds.
    """

    def __init__(self, most: int = MOST_LINES) -> None:
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(most)
        super().__init__(self._lines)
        self.addFilter(_may_be_written)
        self.until = math.inf
        self._writer: _Handler | None = None
        self._full = 0
        self._reported = 0

    @property
    def dropped(self) -> int:
        """How many lines were not written, because nobody read them in time or they could not be."""
        return self._full + (self._writer.lost if self._writer else 0)

    def __enter__(self) -> Self:
        """Lines wait from now on, if they go to a file, a pipe or a terminal, and the machine has a thread for it."""
        root = logging.getLogger()
        for handler in root.handlers:
            if isinstance(handler, _Handler):
                with contextlib.suppress(io.UnsupportedOperation, RuntimeError):
                    patient = _Patient(handler.stream, self)
                    self._thread = threading.Thread(target=self._write, args=(handler,), name="log", daemon=True)
                    self._thread.start()
                    handler.setStream(cast("TextIO", patient))
                    self._writer = handler
                    root.removeHandler(handler)
                    root.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Writes what waits, as long as somebody reads it. Where a write hangs, lines wait for ever."""
        if self._writer is None:
            return
        self.until = min(self.until, time.monotonic() + LAST_SECONDS)
        over = max(self.until, time.monotonic()) + _GIVE_UP_SECONDS
        with contextlib.suppress(queue.Full):
            # from `until` on the thread gives up each line that nobody takes at once
            self._lines.put(None, timeout=over - time.monotonic())
            self._thread.join(max(over - time.monotonic(), 0.0))
        if self._thread.is_alive():
            return
        root = logging.getLogger()
        root.removeHandler(self)
        root.addHandler(self._writer)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Nothing: the line is put together by the thread that writes it."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Has a line written, or counts it where too many wait; the caller holds the handler's lock."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._full += 1

    def _write(self, writer: _Handler) -> None:
        while (record := self._lines.get()) is not None:
            lost = writer.lost
            try:
                writer.emit(record)  # without its lock, which Python takes at the end: a terminal may never take a line
                if writer.lost == lost and (dropped := self.dropped) != self._reported:
                    self._reported = dropped
                    structlog.get_logger().warning("log_lines_dropped", since_start=dropped)
            except (MemoryError, RecursionError):  # which cost a line, not the thread
                writer.lost += 1


class _Patient(io.TextIOBase):
    """A stream that is written to only when it takes something, so that a thread can be told to give up."""

    def __init__(self, stream: TextIO, background: Background) -> None:
        self._stream = stream
        self._background = background
        self._poll = select.poll()
        self._poll.register(stream.fileno(), select.POLLOUT)

    def write(self, text: str) -> int:
        """Writes all of it. Raises TimeoutError when it is time to give up, and OSError."""
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        while left:
            while not self._poll.poll(0 if (over := time.monotonic() >= self._background.until) else 100):
                if over:
                    raise TimeoutError
            # asked for each time: once the stream is closed its number may be that of another file
            left = left[os.write(self._stream.fileno(), left[:_PIECE]) :]
        return len(text)


def _may_be_written(record: logging.LogRecord) -> bool:
    """Whether a line is ours, or a warning of a library that is known to be safe. No exception is shown with either."""
    record.exc_info = None  # its text may be from outside
    if isinstance(record.msg, dict):  # as structlog hands it on
        return True
    return record.levelno >= logging.WARNING and record.name.partition(".")[0] in SAFE


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _for_machines() -> list[Processor]:
    return [_redact, structlog.processors.JSONRenderer(default=str)]


def _for_people(*, colors: bool) -> list[Processor]:
    return [_redact, structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False)]


def _arrange(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Puts time, level and event first."""
    record: logging.LogRecord = event.pop("_record")
    del event["_from_structlog"]
    moment = rfc3339(datetime.fromtimestamp(record.created, UTC))
    return {"timestamp": moment, "level": event.pop("level"), "event": event.pop("event"), **event}


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The last defence: hides what is a secret or is called like one, and exceptions. Makes times readable too."""
    return {key: _shown(key, value) for key, value in event.items() if key != "exc_info"}


def _shown(key: object, value: object) -> object:
    if isinstance(value, Secret) or (isinstance(key, str) and key.lower() in SECRET_NAMES):
        return HIDDEN
    if isinstance(value, datetime):
        return rfc3339(value) if value.tzinfo else value.isoformat()
    if isinstance(value, dict):
        return {str(name): _shown(name, inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_shown(None, inner) for inner in value]
    return value
