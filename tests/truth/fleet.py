"""Daemons on a virtual clock, with the instruments of the real one, scraped and asked as an operator's would be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import structlog

from aca_tokend.core.config import parse
from aca_tokend.core.outcome import TokenEvent
from aca_tokend.core.shards import shard_of
from aca_tokend.core.status import Query
from aca_tokend.event_log import EventLog
from aca_tokend.expiry import Expiries
from aca_tokend.metrics import Metrics
from aca_tokend.simulation.replica import Cluster, Setup
from aca_tokend.simulation.run import Tally
from aca_tokend.simulation.world import START, World
from aca_tokend.status import status_page
from aca_tokend.survey import Subject
from aca_tokend.views import token_view
from aca_tokend.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aca_tokend.core.config import Config
    from aca_tokend.core.outcome import Event
    from aca_tokend.simulation.places import Place
    from aca_tokend.simulation.replica import Replica
    from aca_tokend.simulation.server import Server

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "aca-tokend.rules.yaml"
# A promtool test begins at 0, which in our series means never. So the series are told two minutes later than that.
LATER_SECONDS = 120.0
JOB = "aca-tokend"
_LINE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
# Only what the rules read is kept.
USED = frozenset(re.findall(r"\b(?:aca_tokend_\w+|process_start_time_seconds|up)\b", RULES.read_text("utf-8")))

Series = dict[str, list[float | None]]


@dataclass(frozen=True, slots=True)
class Shape:
    """Which daemons there are, and how they are looked at.

    `verify_every` in seconds, 0 for no verify; `files`: published to a file too; `scrape`: seconds between two scrapes.
    """

    tokens: int = 2
    replicas: int = 1
    shards: int = 0
    lifetime: float = 7200.0
    verify_every: float = 0.0
    files: bool = False
    hook: bool = False
    scrape: float = 30.0


def document(shape: Shape) -> dict[str, Any]:
    """The configuration of these daemons."""
    tokens = []
    for number in range(shape.tokens):
        name = f"svc-{number}"
        publish: list[dict[str, Any]] = [{"to": "vault", "mount": "secret", "path": f"aca/{name}"}]
        if shape.files:
            publish.append({"to": "file", "path": f"/run/aca/{name}.json"})
        if shape.hook:
            publish.append({"to": "file", "path": f"/run/aca/{name}.env", "after": {"command": ["/bin/reload"]}})
        token: dict[str, Any] = {
            "name": name,
            "username": f"{name}@example.com",
            "password": {"env": f"P{number}"},
            "authority": "authority-1",
            "client_id": "client-1",
            "client_secret": {"env": "S"},
            "scope": "public",
            "publish": publish,
        }
        if shape.verify_every:
            token["verify"] = {"path": "/api/engine/v2/users/current", "every": f"{shape.verify_every:.0f}s"}
        tokens.append(token)
    found: dict[str, Any] = {
        "acaengine": {"main": {"url": "https://aca.example.com"}},
        "vault": {"main": {"address": "https://vault.example.com", "auth": {"method": "token", "token": {"env": "T"}}}},
        "tokens": tokens,
    }
    return found


@dataclass(slots=True)
class Instruments:
    """What one process tells: it begins with the process."""

    daemon: Daemon
    metrics: Metrics
    log: EventLog
    watched: Watched
    expiries: Expiries = field(default_factory=Expiries)

    def observe(self, event: Event) -> None:
        """As the daemon tells of an event."""
        replica = self.daemon.replica
        self.metrics.observe(event)
        if isinstance(event, TokenEvent) and (token := replica.tokens.by_name.get(event.token)) is not None:
            self.watched.observe(token, event)
        self.log.observe(event)


@dataclass(slots=True)
class Daemon:
    """One machine, and the process on it. A target that is `discovered` is up or down; another is not known of."""

    fleet: Fleet
    name: str
    replica: Replica
    shard: int = 0
    discovered: bool = True
    instruments: Instruments | None = None

    def start(self) -> None:
        """A new process."""
        self.replica.start()
        replica = self.replica
        clock = replica.clock

        def views() -> Iterable[Any]:
            return (token_view(it, clock.wall() - clock.monotonic()) for it in list(replica.tokens.by_name.values()))

        metrics = Metrics(views, clock.wall, replica.config.acaengine, dict.fromkeys(replica.config.vault, "token"))
        log = EventLog(clock.wall, clock.monotonic)
        self.instruments = Instruments(self, metrics, log, Watched(clock))

    def kill(self) -> None:
        """The process ends; what it was told goes with it."""
        self.replica.kill()
        self.instruments = None

    def second(self) -> None:
        """What the daemon does about once a second."""
        if (instruments := self.instruments) is None:
            return
        clock, tokens = self.replica.clock, self.replica.tokens.by_name
        for expired in instruments.expiries.news(list(tokens.values()), clock.monotonic(), clock.wall()):
            instruments.observe(expired)
        instruments.metrics.tick(clock.wall())

    def scraped(self) -> Iterator[tuple[str, float]]:
        """What a scrape finds: each series with its value."""
        if not self.discovered:
            return
        own = f'instance="{self.name}",job="{JOB}"'
        yield f"up{{{own}}}", float(self.instruments is not None)
        if self.instruments is None:
            return
        page, _ = self.instruments.metrics.exposition("")
        for line in page.decode().splitlines():
            found = _LINE.fullmatch(line)
            if found is None or found["name"] not in USED:
                continue
            labels = ",".join(filter(None, (found["labels"], own)))
            value = float(found["value"])
            if found["name"].endswith(("timestamp_seconds", "start_time_seconds")) and 0.0 < value < float("inf"):
                value += LATER_SECONDS - START
            yield f"{found['name']}{{{labels}}}", value

    def status(self) -> dict[str, str] | None:
        """The state of each token and the exit code of `aca-tokend status`; nothing where nobody answers."""
        if (instruments := self.instruments) is None:
            return None
        replica = self.replica
        parts = cast("Any", SimpleNamespace(shared=replica.shared, vaults={}))
        subject = Subject(
            replica.config,
            parts,
            replica.tokens.by_name,
            instruments.watched,
            replica.clock.wall(),
            replica.clock.monotonic(),
        )
        page = status_page(subject, Query())
        return {it.name: it.state.value for it in page.tokens} | {"exit": str(int(page.needs_a_person))}


class Fleet(Tally):
    """Daemons, their servers and places, and what was seen of them.

    Attributes:
        series: what Prometheus has: the samples of each series, one for each scrape.
        lines: what was logged at WARNING or above: when, by whom, the event and its reason.
        begins: when the trouble begins, in seconds of the run.
        states: what status said, whenever it said something new: when, by whom, and each state.
    """

    def __init__(self, shape: Shape, seed: int = 19) -> None:
        super().__init__()
        self.shape = shape
        self.world = World(seed)
        self.config = parse([("config.toml", document(shape))])
        self.daemons: list[Daemon] = []
        self.clusters: list[Cluster] = []
        for shard in range(shape.shards or 1):
            tokens = tuple(
                it for it in self.config.tokens if not shape.shards or shard_of(it.name, shape.shards) == shard
            )
            setup = Setup(self._of(tokens), replicas=shape.replicas, seed=seed, lifetime=shape.lifetime)
            cluster = Cluster(setup, self, self.world)
            self.clusters.append(cluster)
            for replica in cluster.replicas:
                self.daemons.append(Daemon(self, f"daemon-{len(self.daemons)}", replica, shard))
        self._by_replica = {id(it.replica): it for it in self.daemons}
        self.begins = 0.0
        self.scrapes = 0
        self.series: Series = {}
        self.lines: list[tuple[float, str, str, str]] = []
        self.states: list[tuple[float, str, dict[str, str]]] = []
        structlog.configure(processors=[self._line], cache_logger_on_first_use=False)
        for daemon in self.daemons:
            daemon.start()

    def _of(self, tokens: tuple[Any, ...]) -> Config:
        return self.config.model_copy(update={"tokens": tokens})

    def told(self, replica: Replica, event: Event) -> None:
        """Hands an event to the instruments of its process."""
        daemon = self._by_replica[id(replica)]
        if daemon.instruments is not None:
            daemon.instruments.observe(event)

    def _line(self, _logger: object, level: str, line: Any) -> Any:  # noqa: ANN401 -- structlog's own
        if level in {"warning", "error"}:
            self.lines.append((self.world.now, level, str(line["event"]), str(line.get("reason", ""))))
        raise structlog.DropEvent

    # ── what things are ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def servers(self) -> list[Server]:
        """The endpoint, as each shard knows it."""
        return [server for cluster in self.clusters for server in cluster.servers.values()]

    def places(self, token: str = "") -> list[Place]:
        """The places of a token, or all."""
        return [place for cluster in self.clusters for place in cluster.places if token in {"", place.token}]

    def unserved(self, since: float) -> list[tuple[float, float]]:
        """The spans in which a reader of any place was refused."""
        for cluster in self.clusters:
            cluster.settle()
        return sorted((max(a, since), b) for place in self.places() for a, b in place.refused if b > since)

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, until: float, *, every: float = 1.0) -> None:
        """Lets time pass until then, in steps of a second of the daemons; scrapes and asks as it goes."""
        world, now = self.world, self.world.now
        while now < until:
            now = min(now + every, until)
            world.run(now)
            for daemon in self.daemons:
                daemon.second()
            if now >= self.scrapes * self.shape.scrape:
                self._scrape()

    def skip(self, until: float) -> None:
        """Lets time pass before there is a Prometheus."""
        self.world.run(max(until, 0.0))
        self.scrapes = int(self.world.now / self.shape.scrape) + 1

    def _scrape(self) -> None:
        found = {name: value for daemon in self.daemons for name, value in daemon.scraped()}
        for name in found.keys() - self.series.keys():
            self.series[name] = [None] * self.scrapes
        for name, samples in self.series.items():
            samples.append(found.get(name))
        self.scrapes += 1
        for daemon in self.daemons:
            states = daemon.status()
            last = next((it for _, who, it in reversed(self.states) if who == daemon.name), {})
            if (states or {}) != last:
                self.states.append((self.world.now, daemon.name, states or {}))
