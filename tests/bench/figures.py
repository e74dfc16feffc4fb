"""The figures: what each measures, against what, and the target. Peers are interleaved with ours, A B A B."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.demo.child import Child, wait_until
from tests.bench import publish
from tests.bench.measure import ROOT, ROTATED_AT, Run, Watched, cold_start, quantile, resident, rotations, run, run_peer
from tests.bench.trend import interpolated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.bench.servers import Servers

PEERS = ROOT / "tests" / "bench" / "peers"
MB = 1e6


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done: `make bench`, or `make bench-quick` for use while working."""

    rounds: int
    many: int
    loops: int
    idle_seconds: float
    steady_lifetime_seconds: int
    steady_seconds: float
    full_speed_tokens: int  # which ask for 79 rotations a second for each hundred
    full_speed_seconds: float
    wrk_seconds: int
    publishes: int


FULL = Scale(
    rounds=2,
    many=10_000,
    loops=40,
    idle_seconds=30.0,
    steady_lifetime_seconds=95,  # a rotation every minute
    steady_seconds=60.0,
    full_speed_tokens=2000,
    full_speed_seconds=20.0,
    wrk_seconds=10,
    publishes=500,
)
QUICK = Scale(
    rounds=1,
    many=500,
    loops=5,
    idle_seconds=5.0,
    steady_lifetime_seconds=15,
    steady_seconds=15.0,
    full_speed_tokens=1500,
    full_speed_seconds=5.0,
    wrk_seconds=3,
    publishes=100,
)
FULL_SPEED_LIFETIME = 2
AGENT_WRITES = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: samples of a value with its unit, and the target, if it has one, as `at least` or `at most`."""

    name: str
    samples: list[float]
    unit: str
    target: float | None
    least: bool = False
    note: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        """Whether the target is met, if it has one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.least else self.value <= self.target


@dataclass(slots=True)
class Bench:
    """Measures everything on the same two servers."""

    servers: Servers
    scale: Scale
    tell: Callable[[str], None]
    before: Path | None = None  # a checkout of the version before
    figures: list[Figure] = field(default_factory=list)
    raw: dict[str, object] = field(default_factory=dict)
    _polls: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Every figure, in an order that lets the later ones use the earlier."""
        self.small()
        self.latency()
        self.cold()
        self.full_speed()
        self.steady()

    def _peer(self, mode: str, count: int, rounds: int = 1) -> Run:
        servers = self.servers
        prefix, token = servers.fresh_prefix(), servers.bao.root_token.reveal()
        return run_peer(
            "bare", mode, servers.token_url(7200), servers.bao.address, token, prefix, str(count), str(rounds)
        )

    def small(self) -> None:
        """One token: how soon, how large; and 1,000 of which none is due."""
        firsts, sizes = [], []
        for _ in range(3):
            self.tell("one token: start and memory")
            prefix = self.servers.fresh_prefix()
            config = self.servers.config(prefix, 1, 86400)
            watched = Watched(config, self.servers.directory / f"{prefix}.log")
            watched.daemon.wait_for("token_rotated")
            firsts.append(time.monotonic() - watched.began)
            time.sleep(1.0)
            sizes.append(watched.resident() / MB)
            watched.stop()
        self.raw["one_token_bytes"] = statistics.median(sizes) * MB
        self.figures.append(Figure("start to first published token", firsts, "s", 0.6))
        self.tell("OpenBao Agent: memory, and how soon its file has what was written")
        (agent, _), (_, self._polls) = self.agent(), self.agent('static_secret_render_interval = "1s"', AGENT_WRITES)
        self.raw["agent"] = {"resident_bytes": agent, "poll_seconds": self._polls}
        self.figures.append(
            Figure("resident, one token", sizes, "MB", 60.0, note=f"OpenBao Agent: {agent / MB:.0f} MB")
        )
        count = min(1000, self.scale.many)
        self.tell(f"{count} tokens, nothing due")
        prefix = self.servers.fresh_prefix()
        watched = Watched(self.servers.config(prefix, count, 86400), self.servers.directory / f"{prefix}.log")
        watched.wait_for_rotations(count, 300.0)
        time.sleep(2.0)
        began, cpu = time.monotonic(), watched.cpu()
        time.sleep(self.scale.idle_seconds)
        share = 100 * (watched.cpu() - cpu) / (time.monotonic() - began)
        watched.stop()
        self.figures.append(Figure(f"CPU when nothing is due, {count} tokens", [share], "% of a core", 0.4))

    def latency(self) -> None:
        """How soon a token that was granted is readable."""
        self.tell("publishing: Vault against a bare hvac write in turn, and a file")
        bare, ours = publish.vault_writes(self.servers.bao, self.scale.publishes)
        note = f"{1000 * statistics.median(ours):.1f} ms against {1000 * statistics.median(bare):.1f} ms"
        name = "grant answered to readable in Vault / bare hvac write"
        self.figures.append(Figure(name, [publish.ratio(ours, bare)], "x", 1.0, note=note))
        written = [1000 * each for each in publish.file_writes(self.servers.directory, self.scale.publishes)]
        poll = statistics.median(self._polls)
        note = f"OpenBao Agent: {1000 * poll:.0f} ms when it looks every second; every 5 minutes by default"
        self.figures.append(Figure("grant answered to new content in the file", written, "ms", 1.0, note=note))

    def agent(self, settings: str = "", writes: int = 0) -> tuple[float, list[float]]:
        """An OpenBao Agent that renders one secret: its resident memory, and how many seconds a write takes to it."""
        directory = self.servers.directory / "agent"
        directory.mkdir(exist_ok=True)
        bao = self.servers.bao
        kv, path, file = bao.client().secrets.kv.v2, "agent/one", directory / "token"
        file.unlink(missing_ok=True)
        kv.create_or_update_secret(path, {"access_token": "first"}, mount_point="secret")
        (directory / "agent.hcl").write_text(f"""
vault {{ address = "{bao.address}" }}
auto_auth {{ method "token_file" {{ config = {{ token_file_path = "{self.servers.directory}/vault-token" }} }} }}
template_config {{ {settings} }}
template {{
  contents = "{{{{ with secret \\"secret/data/agent/one\\" }}}}{{{{ .Data.data.access_token }}}}{{{{ end }}}}"
  destination = "{file}"
}}
""")
        child = Child([_bao(), "agent", f"-config={directory}/agent.hcl"], log=directory / "agent.log")
        try:
            wait_until(file.exists, "the agent's file")
            time.sleep(1.0)
            memory, seconds = resident(child.pid), []
            for number in range(writes):
                time.sleep(random.random())  # noqa: S311 -- else each write would come right after a look
                kv.create_or_update_secret(path, {"access_token": f"token-{number}"}, mount_point="secret")
                began = time.monotonic()
                wait_until(lambda now=f"token-{number}": file.read_text() == now, "the agent's new file")  # type: ignore[misc]  # bound now
                seconds.append(time.monotonic() - began)
            return memory, seconds
        finally:
            child.stop()

    def cold(self) -> None:
        """The cold start of a deployment, against the bare loop."""
        ours, bare, before = [], [], []
        for number in range(self.scale.rounds):
            self.tell(f"cold start of {self.scale.many}: ours, {number + 1} of {self.scale.rounds}")
            config = self.servers.config(self.servers.fresh_prefix(), self.scale.many, 7200)
            ours.append(cold_start(config, self.scale.many))
            self.tell(f"cold start of {self.scale.many}: bare loop, {number + 1} of {self.scale.rounds}")
            bare.append(self._peer("first", self.scale.many))
            if self.before is not None:
                self.tell(f"cold start of {self.scale.many}: the version before, {number + 1} of {self.scale.rounds}")
                config = self.servers.config(self.servers.fresh_prefix(), self.scale.many, 7200)
                before.append(cold_start(config, self.scale.many, self.before))
        pairs = list(zip(ours, bare, strict=True))
        self.raw["cold"] = {
            "ours_per_second": [it.rate for it in ours],
            "bare_per_second": [it.rate for it in bare],
            "ours_cpu_ms": [1000 * it.cpu_each for it in ours],
            "bare_cpu_ms": [1000 * it.cpu_each for it in bare],
        }
        name = f"cold start of {self.scale.many}: rotations a second / bare loop"
        note = f"{ours[0].rate:.0f}/s against {bare[0].rate:.0f}/s"
        self.figures.append(Figure(name, [a.rate / b.rate for a, b in pairs], "x", 1.2, least=True, note=note))
        self._against("cold start", ours, before)
        note = (
            f"{1000 * ours[0].cpu_each:.2f} ms against {1000 * bare[0].cpu_each:.2f} ms, the process's start included"
        )
        self.figures.append(
            Figure(
                "cold start: CPU a rotation / bare loop",
                [a.cpu_each / b.cpu_each for a, b in pairs],
                "x",
                0.75,
                note=note,
            )
        )

    def full_speed(self) -> None:
        """How many later rotations a second there are at most, beside what others make while the daemon is held."""
        many = self.scale.full_speed_tokens
        self.tell(f"{many} tokens of {FULL_SPEED_LIFETIME} s, as fast as it goes")
        prefix = self.servers.fresh_prefix()
        config = self.servers.config(prefix, many, FULL_SPEED_LIFETIME)
        watched = Watched(config, self.servers.directory / f"{prefix}.log")
        peers: Mapping[str, tuple[float | None, Callable[[], float]]] = {
            "shell loop with bao kv put": (55.0, lambda: self._shell("bao", self.scale.loops)),
            "shell loop with curl alone": (8.0, lambda: self._shell("curl", 4 * self.scale.loops)),
            "naive Python script": (None, self._naive),
            "wrk's KV writes": (0.25, self._ceiling),  # of three requests each
        }
        ours: list[Run] = []
        bound: list[Run] = []
        bare: list[Run] = []
        before: list[Run] = []
        rates: dict[str, list[float]] = {name: [] for name in peers}
        try:
            for number in range(self.scale.rounds):
                turn = f"later rotations, {number + 1} of {self.scale.rounds}"
                self.tell(f"{turn}: ours")
                # at first, and after it was held, connections must be made and everything is overdue
                watched.wait_for_rotations(int(rotations(watched.page())) + 2 * many, 300.0)
                ours.append(watched.rotate_for(self.scale.full_speed_seconds)[0])
                self.tell(f"{turn}: ours, bound to one core")
                with watched.bound():
                    bound.append(watched.rotate_for(self.scale.full_speed_seconds)[0])
                with watched.held():
                    if self.before is not None:
                        self.tell(f"{turn}: the version before")
                        before.append(self._full_speed_before(self.before))
                    self.tell(f"{turn}: bare loop")
                    bare.append(self._peer("again", many, 3))
                    for name, (_, rate) in peers.items():
                        self.tell(f"{turn}: {name}")
                        rates[name].append(rate())
        finally:
            watched.stop()
        pairs = list(zip(ours, bare, strict=True))
        ratios, each = [a.rate / b.rate for a, b in pairs], [a.cpu_each / b.cpu_each for a, b in pairs]
        note = f"{_each([it.rate for it in ours])} a second against {_each([it.rate for it in bare])}"
        self.figures.append(Figure("later rotations a second / bare loop", ratios, "x", 1.2, least=True, note=note))
        self._against("later rotations", ours, before)
        note = " against ".join(f"{_each([1000 * it.cpu_each for it in runs])} ms" for runs in (ours, bare))
        self.figures.append(Figure("later rotations: CPU of each / bare loop", each, "x", 0.75, note=note))
        ratios = [a.rate / b.rate for a, b in zip(bound, ours, strict=True)]
        note = f"{_each([it.rate for it in bound])} a second, {_each([1000 * it.cpu_each for it in bound])} ms each"
        self.figures.append(
            Figure("later rotations a second, bound to one core / as it runs", ratios, "x", None, least=True, note=note)
        )
        self.raw["full_speed"] = {
            "ours_per_second": [it.rate for it in ours],
            "bound_per_second": [it.rate for it in bound],
            "peers_per_second": rates,
        }
        self.raw["ceiling_writes_per_second"] = statistics.median(rates["wrk's KV writes"])
        for name, (target, _) in peers.items():
            ratios, tied = ([a.rate / b for a, b in zip(it, rates[name], strict=True)] for it in (ours, bound))
            note = f"{_each(rates[name])} a second; ours bound to one core: {_each(tied)} x"
            self.figures.append(
                Figure(f"later rotations a second / {name}", ratios, "x", target, least=True, note=note)
            )

    def _full_speed_before(self, checkout: Path) -> Run:
        """What the version before makes of as many tokens, as fast as it goes."""
        many, prefix = self.scale.full_speed_tokens, self.servers.fresh_prefix()
        config = self.servers.config(prefix, many, FULL_SPEED_LIFETIME)
        watched = Watched(config, self.servers.directory / f"{prefix}.log", checkout)
        try:
            watched.wait_for_rotations(3 * many, 300.0)
            return watched.rotate_for(self.scale.full_speed_seconds)[0]
        finally:
            watched.stop()

    def _against(self, what: str, ours: Sequence[Run], before: Sequence[Run]) -> None:
        """This version beside the one before, if that was measured too."""
        if not before:
            return
        pairs = list(zip(ours, before, strict=True))
        rates, each = [a.rate / b.rate for a, b in pairs], [a.cpu_each / b.cpu_each for a, b in pairs]
        note = " against ".join(f"{_each([it.rate for it in runs])} a second" for runs in (ours, before))
        self.figures.append(Figure(f"{what} a second / the version before", rates, "x", None, least=True, note=note))
        note = " against ".join(f"{_each([1000 * it.cpu_each for it in runs])} ms" for runs in (ours, before))
        self.figures.append(Figure(f"{what}: CPU of each / the version before", each, "x", None, note=note))

    def _shell(self, how: str, count: int) -> float:
        """What people use today, a second."""
        arguments = [how, *self._rounds_of(count), _bao()]
        return run(["/bin/sh", str(PEERS / "loop.sh"), *arguments], count).rate

    def _naive(self) -> float:
        """What most people would write, a second. So many that the start of Python is little of it."""
        count = 50 * self.scale.loops
        return run([sys.executable, str(PEERS / "naive.py"), *self._rounds_of(count)], count).rate

    def _rounds_of(self, count: int) -> list[str]:
        """The arguments of a peer that makes so many rotations."""
        servers = self.servers
        token = servers.bao.root_token.reveal()
        return [servers.token_url(7200), servers.bao.address, token, servers.fresh_prefix(), str(count)]

    def _ceiling(self) -> float:
        """What OpenBao takes from wrk, which does nothing else, a second."""
        command = ["wrk", "-t2", "-c16", f"-d{self.scale.wrk_seconds}s", "-s", str(PEERS / "kv.lua")]
        environment = {**os.environ, "BAO_TOKEN": self.servers.bao.root_token.reveal()}
        told = subprocess.run(
            [*command, self.servers.bao.address], check=True, capture_output=True, text=True, env=environment
        ).stdout
        found = re.search(r"Requests/sec:\s+([\d.]+)", told)
        assert found, told
        assert "Non-2xx" not in told, told
        return float(found[1])

    def steady(self) -> None:
        """Many tokens that rotate every minute, or sooner by the quick one: lag, CPU, memory, the page."""
        count, lifetime = self.scale.many, self.scale.steady_lifetime_seconds
        self.tell(f"{count} tokens of {lifetime} s: first tokens")
        prefix = self.servers.fresh_prefix()
        watched = Watched(self.servers.config(prefix, count, lifetime), self.servers.directory / f"{prefix}.log")
        try:
            watched.wait_for_rotations(int(1.9 * count), 600.0)
            ours, lags = watched.rotate_for(self.scale.steady_seconds)
            seconds = []
            for _ in range(3):
                began = time.monotonic()
                watched.scrape()
                seconds.append(time.monotonic() - began)
            size = len(watched.page())
            grown = (watched.resident() - float(str(self.raw["one_token_bytes"]))) / (count - 1)
        finally:
            watched.stop()
        every = lifetime * ROTATED_AT
        within = interpolated(0.99, *lags) or math.nan
        self.raw["steady"] = {"ours_cpu_ms": 1000 * ours.cpu_each, "per_second": ours.rate, "page_bytes": size}
        self.figures += [
            Figure(
                f"scheduler lag, 99th percentile, {count} tokens, each every {every:.0f} s",
                [quantile(0.99, *lags)],
                "s",
                0.5,
                note=f"bucket's bound; {within:.2g} s within the bucket, by a straight line",
            ),
            Figure(f"resident, each further token of {count}", [grown / 1024], "KiB", 8.0),
            Figure(f"/metrics with {count} tokens", seconds, "s", 0.7, note=f"{size / MB:.1f} MB"),
        ]


def _each(values: Sequence[float]) -> str:
    """Every value, in the order in which they were measured."""
    return " and ".join(f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values)


def _bao() -> str:
    beside = Path(sys.executable).parent / "bao"
    return str(beside) if beside.exists() else str(shutil.which("bao"))
