"""What the probes and the service manager are told of the process."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

from aca_tokend import health, log
from aca_tokend.core.config import parse
from aca_tokend.core.health import Check, problems, report
from aca_tokend.core.outcome import Failure, Reason, Step, Suspended
from aca_tokend.daemon import Daemon

if TYPE_CHECKING:
    from aca_tokend.scheduling.scheduler import RotationScheduler

MANY = tuple(f"token {number}" for number in range(10_000))


class Scheduler:
    """What is asked of the scheduler."""

    def __init__(self) -> None:
        self.late: list[str] = []
        self.ended = False

    def overdue(self) -> list[str]:
        return self.late

    def dead(self) -> bool:
        return self.ended


def daemon(*, tokens: int = 2) -> Daemon:
    """A daemon that was not started, with a hook."""
    secret = {"env": "NONE"}
    tables = [
        {
            "name": f"t{number}",
            "authority": "a",
            "username": "u",
            "client_id": "c",
            "password": secret,
            "client_secret": secret,
        }
        | {"publish": [{"to": "file", "path": f"/nowhere/{number}", "after": {"command": ["/bin/reload", "x"]}}]}
        for number in range(tokens)
    ]
    content = {
        "admin": {"listen": ""},
        "acaengine": {"main": {"url": "http://127.0.0.1:9"}},
        "tokens": tables,
    }
    return Daemon(parse([("config.toml", content)]))


def told(scheduler: Scheduler, made: Daemon, *, bug: bool = False) -> list[str]:
    return problems(health.checks(cast("RotationScheduler", scheduler), made._who, bug=bug))


def test_a_daemon_that_was_just_made_is_healthy() -> None:
    """Before the start nothing is wrong; what was not looked at yet is named."""
    made = daemon()

    assert made.unhealthy() == []
    assert problems(made.readiness()) == ["tokens: 2 of 2 not looked at yet: t0, t1"]
    for token in made.tokens.by_name.values():
        token.facts = token.facts._replace(tried_once=True)
    assert problems(made.readiness()) == []


def test_each_problem_is_named() -> None:
    """A bug, a dead scheduler and attempts that are overdue are told with whom they concern."""
    made, scheduler = daemon(), Scheduler()
    assert told(scheduler, made) == []
    hook = next(iter(made.parts.hooks))
    scheduler.late, scheduler.ended = ["t0", hook, "vault:main"], True

    assert told(scheduler, made, bug=True) == [
        "process: a bug ended its work",
        "scheduler: its thread has ended, and no attempt begins any more",
        "attempts: 3 overdue that did not begin: token t0, hook reload, our own token in vault main",
    ]


def test_answers_stay_short() -> None:
    """Ten thousand tokens are counted, and twenty of them named."""
    checks = [Check("tokens", "10000 of 10000 not looked at yet", MANY)]

    assert report("ready", checks, verbose=False) == "tokens: 10000 of 10000 not looked at yet\n"
    verbose = report("ready", checks, verbose=True)
    assert verbose.splitlines()[0].endswith("token 18, token 19 and 9980 more")
    assert len(verbose) < 500
    assert len(problems(checks)[0]) < 500


def test_status_line() -> None:
    """The status line counts the tokens by their state."""
    made = daemon(tokens=1)
    assert health.status_line(made.subject()) == "1 token: 0 ready, 1 starting, 0 failing, 0 suspended"


def test_status_knows_what_the_log_has() -> None:
    """Who has read of an attempt in the log finds it in the status already."""
    made = daemon(tokens=1)
    event = Suspended("t0", Failure(Step.GRANT, Reason.INVALID_GRANT, "refused"))
    known: list[object] = []

    class Log(io.StringIO):
        def write(self, text: str) -> int:
            known.append(made.watched.told["t0"][1])
            return len(text)

    log.configure("info", "json", Log())
    made._observe(event)

    assert known == [event]
