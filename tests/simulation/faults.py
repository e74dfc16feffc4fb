"""What can go wrong in a simulated run, how it begins and ends, and what of the promise rests on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aca_tokend.core.config import after_of
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.config import After, Config
    from aca_tokend.simulation.places import Place, Store
    from aca_tokend.simulation.replica import Cluster, Replica
    from aca_tokend.simulation.server import Server
    from tests.simulation.checker import Checker
    from tests.simulation.conditions import Conditions
    from tests.simulation.scenario import Scenario

CAP = 60.0


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: at `at`, for `seconds`; `target` is the number of a token or replica."""

    kind: str
    at: float
    seconds: float
    target: int = 0
    how: str = ""
    value: float = 0.0


def strike(fault: Fault, checker: Checker) -> None:
    """It begins."""
    checker.cluster.world.note("fault", f"{fault}")
    Striker(fault, checker).begin()


@dataclass
class Striker:
    """Begins one fault and ends it."""

    fault: Fault
    checker: Checker

    @property
    def cluster(self) -> Cluster:
        """What it happens to."""
        return self.checker.cluster

    @property
    def scenario(self) -> Scenario:
        """The run it is part of."""
        return self.checker.scenario

    @property
    def conditions(self) -> Conditions:
        """Where it is written down."""
        return self.checker.conditions

    def begin(self) -> None:
        """What its kind says."""
        kinds: dict[str, Callable[[], None]] = {
            "outage": lambda: self._outage(self.fault.seconds),
            "until expiry": self._until_expiry,
            "lifetime": self._shrink,
            "log-out": self._log_out if self.fault.how != "amid" else self._log_out_amid,
            "api": self._api,
            "sink": self._sink,
            "hook": self._hook,
            "deface": self._deface,
            "kill": lambda: self._kill(self._replica),
            "kill amid": self._kill_amid,
            "crash loop": lambda: self._crash(self._now + self.fault.seconds),
            "freeze": lambda: self._freeze(self._replica),
            "step": self._step,
            "reload": self._reload,
            "password": self._password,
        }
        kinds[self.fault.kind]()

    def _step(self) -> None:
        self._replica.step_clock(self.fault.value)
        self.conditions.disturbed_at = self._now

    # ── the endpoint ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _now(self) -> float:
        return self.cluster.world.now

    @property
    def _server(self) -> Server:
        return self.cluster.servers["main"]

    @property
    def _replica(self) -> Replica:
        return self.cluster.replicas[self.fault.target % len(self.cluster.replicas)]

    def needs_after(self, how: str, retry_after: float = 0.0) -> float:
        """How long after an outage a new token may be asked for.

        An attempt under way when it ends is in vain, then a wait of a quarter of what is left or half a second, then a
        whole attempt. A server's wish may take three quarters of what is left.
        """
        attempt = self.scenario.longest_attempt + self._skew
        vain = self.cluster.servers["main"].timeout if how == "hang" else attempt
        if retry_after:
            return 4 * (vain + attempt) + 0.5
        return vain + max(attempt / 0.75, attempt + 0.5) + 0.1

    @property
    def _skew(self) -> float:
        """How much later than it is a replica may take an adopted token's expiry to be."""
        skews = [replica.clock.skew for replica in self.cluster.replicas]
        return min(max(skews) - min(skews), 310.0)

    def _outage(self, seconds: float) -> None:
        server, how = self._server, self.fault.how
        if server.fault:
            return
        server.fault, server.retry_after = how, self.fault.value or None
        self.conditions.falls_ill("main", self._now, self.needs_after(how, self.fault.value))
        self.cluster.world.at(self._now + seconds, self._outage_over)

    def _outage_over(self) -> None:
        self._server.fault, self._server.retry_after = "", None
        self.conditions.recovers("main", self._now)
        self.cluster.world.note("fault", "outage over")
        if not self.fault.value:
            self.checker.outage_over(self.needs_after(self.fault.how))

    def _log_out(self) -> None:
        """Somebody logs the account out: its token is dead, and the canary finds out."""
        self._server.revoke(f"t{self._token}")
        # found at the next canary, then one grant at once, and another if it was made in the same second
        soon = self.scenario.verify_every + 2 * self.scenario.min_interval + 3 * self.needs_after("")
        self.cluster.world.at(self._now + soon, self.checker.found_dead, self._place, self._now)

    def _log_out_amid(self) -> None:
        """In the very second in which the next token is granted."""
        moments = [it.states[f"t{self._token}"].rotate_at for it in self.cluster.replicas if it.alive]
        at = min(moments, default=0.0) + self.fault.value
        if self._now < at < self._now + self.scenario.lifetime:
            self.cluster.world.at(at, self._log_out)

    def _api(self) -> None:
        """The API fails, or refuses every token."""
        server, refuses = self._server, self.fault.how == "refuses"
        server.api_fault, server.api_refuses = "" if refuses else self.fault.how, refuses
        key = "api" if refuses else "api answers"
        # what was refused is tried again at the cap, and deaths found in a row are replaced an hour apart at most
        self.conditions.falls_ill(key, self._now, 2 * 3600.0 + CAP if refuses else 0.0)

        def mended() -> None:
            server.api_fault, server.api_refuses = "", False
            self.conditions.recovers(key, self._now)

        self.cluster.world.at(self._now + self.fault.seconds, mended)

    def _shrink(self) -> None:
        server, as_ever = self._server, self.scenario.lifetime
        server.lifetime = self.fault.value
        self.conditions.disturbed_at = self._now

        def restore() -> None:
            server.lifetime = as_ever
            self.conditions.disturbed_at = self._now

        self.cluster.world.at(self._now + self.fault.seconds, restore)

    def _until_expiry(self) -> None:
        """An outage that ends as late before the expiry of a published token as the promise allows."""
        place = self._place
        if place.minted is None:
            return
        left = place.minted.works_until - self._now
        seconds = left - self.needs_after(self.fault.how) - 1e-6
        if seconds > 0:
            self._outage(seconds)

    @property
    def _token(self) -> int:
        return self.fault.target % self.scenario.tokens

    @property
    def _place(self) -> Place:
        return self.cluster.replicas[0].places[f"t{self._token}"][0]

    # ── sinks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _sink(self) -> None:
        match self.fault.how:
            case "vault":
                self._break(self.cluster.vaults["main"], Reason.VAULT_SEALED)
            case "vault hangs":
                self._break(self.cluster.vaults["main"], Reason.TIMEOUT)
            case "disk":
                self._break(self.cluster.disks[self._replica.number], Reason.IO_ERROR)

    def _break(self, store: Store, reason: Reason) -> None:
        if store.fault is not None:
            return
        store.fault = reason
        # what failed to be published is tried again at the cap; a hanging Vault delays looks on the way to other sinks
        needs = CAP + 2 * store.timeout + 2 * self.needs_after("")
        self.conditions.falls_ill(store.name, self._now, needs)
        if reason is Reason.TIMEOUT:
            for other in self.cluster.disks:
                self.conditions.falls_ill(other.name, self._now, needs)
        self.cluster.world.at(self._now + self.fault.seconds, self._mend, store, reason)

    def _mend(self, store: Store, reason: Reason) -> None:
        store.fault = None
        self.conditions.recovers(store.name, self._now)
        if reason is Reason.TIMEOUT:
            for other in self.cluster.disks:
                self.conditions.recovers(other.name, self._now)
        self.cluster.world.note("fault", f"{store.name} works again")

    def _hook(self) -> None:
        """What is run after a write fails, or hangs, on one machine."""
        replica, config = self._replica, self.scenario.config
        afters = [it for publish in config.tokens[0].publish if (it := after_of(publish)) is not None]
        for after in afters:
            if after in replica.ill_hooks:
                return
            replica.ill_hooks[after] = Reason(self.fault.how)
            what = f"hook {replica.number} {after}"
            self.conditions.falls_ill(what, self._now, 0.0)
            self.cluster.world.at(self._now + self.fault.seconds, self._hook_works, replica, after, what)

    def _hook_works(self, replica: Replica, after: After, what: str) -> None:
        del replica.ill_hooks[after]
        self.conditions.recovers(what, self._now)

    def _deface(self) -> None:
        """Somebody else writes into the place; later it is cleared, and the next look finds it empty."""
        place = self._place
        if place.foreign is not None or place.content is None or f"password {place.token}" in self.conditions.ill:
            return
        self.conditions.falls_ill(place.name, self._now, self.scenario.lifetime + 2 * CAP)
        match self.fault.how:
            case "text":
                place.put(None, "access_token is missing")
            case "gone":
                place.put(None)
            case "another account":
                place.put(replace(place.content, access_token=Secret("other-1"), account="0" * 32))
        self.cluster.world.at(self._now + self.fault.seconds, self._clear, place)

    def _clear(self, place: Place) -> None:
        if self.fault.how != "gone":
            place.put(None)
        self.conditions.recovers(place.name, self._now)

    # ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _down(self, replica: Replica) -> None:
        self.checker.kills.append(self._now)
        attempt = 2 * self.scenario.longest_attempt + self._skew + 0.6
        self.conditions.falls_ill(f"alive {replica.number}", self._now, attempt)
        if not any(it is not replica and self._well(it) for it in self.cluster.replicas):
            self.conditions.falls_ill("any replica", self._now, attempt)

    def _well(self, replica: Replica) -> bool:
        return replica.alive and self._now >= replica.driver.frozen_until

    def _up(self, replica: Replica) -> None:
        self.conditions.recovers(f"alive {replica.number}", self._now)
        while self.conditions.ill.get("any replica"):
            self.conditions.recovers("any replica", self._now)

    def _kill(self, replica: Replica) -> None:
        if not self._well(replica):
            return
        replica.kill()
        self._down(replica)
        self.cluster.world.at(self._now + self.fault.seconds, self._restart, replica)

    def _restart(self, replica: Replica) -> None:
        replica.start()
        self.checker.restarted(replica.number)
        self._up(replica)
        self.cluster.world.note("fault", f"{replica.name} started")

    def _kill_amid(self) -> None:
        """Waits for the next rotation of a token and kills its process some moments later."""
        state = self._replica.states.get(self.fault.how)
        if state is not None:
            at = max(state.rotate_at, self._now) + self.fault.value
            if at < self._now + self.scenario.lifetime:
                self.cluster.world.at(at, self._kill, self._replica)

    def _crash(self, until: float) -> None:
        """The process dies and is started again, every moment."""
        if self._now < until:
            if self._well(self._replica):
                self._replica.kill()
                self._down(self._replica)
                self._restart(self._replica)
            pause = self.fault.value * (0.5 + self.cluster.world.rng.random())
            self.cluster.world.at(self._now + pause, self._crash, until)

    def _freeze(self, replica: Replica) -> None:
        if not self._well(replica) or not self.fault.seconds:
            return
        replica.driver.freeze(self._now + self.fault.seconds)
        self._down(replica)
        self.cluster.world.at(self._now + self.fault.seconds, self._wakes_up, replica)

    def _wakes_up(self, replica: Replica) -> None:
        self._up(replica)
        replica.step_clock(0.0)

    def _reload(self) -> None:
        """The configuration changes and later changes back, each replica in its own time."""
        before = self.scenario.config
        if self.cluster.replicas[0].config != before:
            return
        token, now = f"t{self._token}", self._now
        if self.fault.how == "token leaves":
            changed = before.model_copy(update={"tokens": tuple(it for it in before.tokens if it.name != token)})
            self.conditions.falls_ill(f"configured {token}", now, 2 * self.scenario.longest_attempt + self._skew + 0.6)
        else:
            endpoint = before.acaengine["main"].model_copy(update={"timeout": 11.0})
            changed = before.model_copy(update={"acaengine": {"main": endpoint}})
        for replica in self.cluster.replicas:
            self.cluster.world.at(now + 2.0 * self.cluster.world.rng.random(), self._swap, replica, changed)
            self.cluster.world.at(now + 10.0 + self.fault.seconds, self._swap, replica, before)
        if self.fault.how == "token leaves":
            self.cluster.world.at(now + 10.0 + self.fault.seconds, self._configured_again, token)

    def _swap(self, replica: Replica, config: Config) -> None:
        self.checker.reconfigured(replica, {it.name for it in config.tokens})
        replica.reload(config)

    def _configured_again(self, token: str) -> None:
        self.conditions.recovers(f"configured {token}", self._now)

    # ── credentials ───────────────────────────────────────────────────────────────────────────────────────────────

    def _password(self) -> None:
        """A new password, set on one side first and on the other after a while."""
        token = f"t{self._token}"
        reference = str(self.scenario.config.tokens[self._token].password)
        key = f"password {token}"
        if self.conditions.ill.get(key):
            return
        new = f"{reference} since {self._now}"
        server, secrets = self._server, self.cluster.secrets
        resumes = CAP + 10.0 + 2 * self.needs_after("hang")
        if self.fault.how == "file first":
            resumes += self.scenario.retry_rejected  # the same credential works later: a cautious attempt finds out
        self.conditions.falls_ill(key, self._now, resumes)
        if self.fault.how == "server first":
            server.passwords[token] = new
        else:
            secrets.values[reference] = new

        def other_side() -> None:
            server.passwords[token] = secrets.values[reference] = new
            self.conditions.recovers(key, self._now)
            self.cluster.world.note("fault", f"{token}: the right password on both sides")

        self.cluster.world.at(self._now + self.fault.seconds, other_side)
