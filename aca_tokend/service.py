"""The daemon as a process: from `aca-tokend run` until a signal ends it, with the listener and what watches files.

It decides nothing; daemon.py does.
"""

from __future__ import annotations

import glob
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aca_tokend import __version__, health
from aca_tokend.bell import handle_signals
from aca_tokend.config.watching import ConfigWatch
from aca_tokend.core.outcome import Component
from aca_tokend.daemon import Daemon
from aca_tokend.notify import Notifier
from aca_tokend.process import adopt_orphans, save_cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask

    from aca_tokend.admin import AdminServer
    from aca_tokend.core.config import Config
    from aca_tokend.core.errors import InternalError


# From SIGTERM to the end, whatever hangs: STOP_SECONDS for rotations under way, and the rest for what is closed then.
EXIT_SECONDS = 15.0


def run(config: Config, path: Path, make: type[Daemon] = Daemon) -> int:
    """Runs until SIGTERM or SIGINT. Returns the exit code: 0 after a clean stop, 1 after a bug.

    The configuration was read from `path`, and is read from there again when it changes.
    """
    save_cpu()
    adopt_orphans()
    daemon = make(config)
    with daemon.lines:
        return _run(daemon, config, path)


def _run(daemon: Daemon, config: Config, path: Path) -> int:
    logger = daemon.logger
    daemon.notify = Notifier.of(os.environ)
    handle_signals(daemon.bell, reload=True)
    threading.excepthook = partial(thread_ended, daemon)
    admin, address = None, "off"
    if config.admin.listen:
        from aca_tokend.admin import AdminServer

        admin = AdminServer(
            config.admin,
            daemon.metrics.exposition,
            daemon.checks,
            daemon.readiness,
            partial(_add_pages, daemon),
            on_error=partial(daemon.unexpected, Component.PAGE),
        )
        admin.start()
        address = f"{config.admin.listen.rpartition(':')[0]}:{admin.port}"
    daemon.start()
    shards = {"shard": daemon.shard, "shards": config.shard.count} if config.shard else {}
    logger.info("daemon_started", version=__version__, tokens=len(daemon.tokens.by_name), admin=address, **shards)
    watches = [daemon.watch_files(path), *_watch_tls(admin, daemon)]
    daemon.notify.ready()
    daemon.notify.start(daemon.unhealthy, lambda: health.status_line(daemon.subject()))
    daemon.watch()
    daemon.notify.stop()
    daemon.lines.until = time.monotonic() + EXIT_SECONDS
    logger.info("daemon_stopping")
    for watch in watches:
        watch.stop()
    left = daemon.stop([admin.stop] if admin else [])
    if daemon.bug is not None:
        _stopped_by(daemon.bug, logger)
        return 1
    logger.info("daemon_stopped", unfinished=list(left))
    return 0


def _add_pages(daemon: Daemon, app: Flask) -> None:
    """The status API and the pages for people. What they are made of is loaded with the first of them."""
    from aca_tokend.pages import site
    from aca_tokend.status import status_page, token_page
    from aca_tokend.status_api import api

    told = (lambda query: status_page(daemon.subject(), query), lambda name: token_page(daemon.subject(), name))
    api(*told)(app)
    site(*told)(app)


def _stopped_by(bug: InternalError, logger: Any) -> None:  # noqa: ANN401 -- structlog's loggers have no type
    logger.critical("daemon_stopped", why="a bug; please report it", error_type=bug.kind, trace=bug.trace)


def thread_ended(daemon: Daemon, ended: threading.ExceptHookArgs) -> None:
    """A bug ended a thread beside the schedule. Python would write what it said to standard error."""
    if ended.exc_value is not None:
        name = ended.thread.name if ended.thread else "unknown"
        daemon.unexpected(Component.RELOAD, f"thread {name}", ended.exc_value)


def _watch_tls(admin: AdminServer | None, daemon: Daemon) -> Iterator[ConfigWatch]:
    """Has the listener take up another certificate, key or client CA."""
    if admin is not None and (files := admin.tls_files):
        reload = partial(daemon.contain, "admin TLS files", admin.reload_tls)
        watch = ConfigWatch(Path(files[0]), lambda: [glob.escape(file) for file in files[1:]], reload)
        watch.start()
        yield watch


def run_once(config: Config) -> int:
    """Makes one attempt for each token. Returns 0 if none failed and every sink holds its token, else 1."""
    save_cpu()
    daemon = Daemon(config)
    with daemon.lines:
        return _run_once(daemon)


def _run_once(daemon: Daemon) -> int:
    handle_signals(daemon.bell)
    daemon.start(once=True)
    while not daemon.bell.stop and not daemon.scheduler.wait_until_done(0.2):
        daemon.find_threads()
    daemon.stop()
    if daemon.bug is not None:
        _stopped_by(daemon.bug, daemon.logger)
        return 1
    failed = any(hook.failures for hook in daemon.parts.hooks.values())
    every = (token.facts for token in daemon.tokens.by_name.values())
    return 1 if failed or not all(it.everywhere and it.trouble is None for it in every) else 0
