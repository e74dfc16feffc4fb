"""What a changed configuration means for what is running: which tokens it concerns, and what each of them keeps.

Pure but for `Source`, which reads the files. The rule: a token that nothing changed for is not touched, and one that
changed keeps whatever is still true of it. A new grant is made at once only where the account or its scope is another.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from aca_tokend import config_files
from aca_tokend.core.config import VaultPublish, VaultReference, after_of
from aca_tokend.core.errors import ConfigError
from aca_tokend.core.outcome import Failure, Reason, Step
from aca_tokend.core.policy import plan
from aca_tokend.credentials import references
from aca_tokend.state import SinkState, Written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from aca_tokend.core.config import AnyPublish, Config, TokenConfig
    from aca_tokend.core.errors import Problem
    from aca_tokend.core.token import Document
    from aca_tokend.records import Ledger
    from aca_tokend.state import TokenState


class Origin(NamedTuple):
    """The sink of the old configuration that publishes to the same place; `alike`: and in the same way."""

    number: int
    alike: bool


Origins = tuple[Origin | None, ...]  # one for each sink of the new configuration


@dataclass(frozen=True, slots=True)
class Changes:
    """How one configuration differs from another, by tokens; of the changed ones, where their sinks come from.

    `endpoints` and `vaults` are the names of those that came, changed or left.
    """

    added: tuple[TokenConfig, ...]
    changed: tuple[tuple[TokenConfig, Origins], ...]
    removed: tuple[str, ...]
    unchanged: int
    endpoints: frozenset[str] = frozenset()
    vaults: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """What a token is to take over: a fresh state, built from its new configuration."""

    fresh: TokenState
    origins: Origins


def compare(old: Config, new: Config) -> Changes:
    """Which tokens came, changed and left. One whose endpoint or Vault changed has changed too."""
    endpoints = _differing(old.acaengine, new.acaengine)
    vaults = _differing(old.vault, new.vault)
    before = {token.name: token for token in old.tokens}
    added, changed = [], []
    for token in new.tokens:
        known = before.pop(token.name, None)
        if known is None:
            added.append(token)
        elif known != token or token.acaengine in endpoints or not vaults.isdisjoint(vaults_of(token)):
            changed.append((token, tuple(_origin(known, old, sink, new) for sink in token.publish)))
    unchanged = len(new.tokens) - len(added) - len(changed)
    return Changes(tuple(added), tuple(changed), tuple(before), unchanged, endpoints, vaults)


def _differing(old: Mapping[str, object], new: Mapping[str, object]) -> frozenset[str]:
    return frozenset(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def vaults_of(token: TokenConfig) -> Iterable[str]:
    """The Vaults that a token is published to or takes a secret from; some may come twice."""
    for sink in token.publish:
        if isinstance(sink, VaultPublish):
            yield sink.vault_name
    for reference in references(token):
        if isinstance(reference, VaultReference):
            yield reference.vault_name


def _origin(known: TokenConfig, old: Config, sink: AnyPublish, new: Config) -> Origin | None:
    place = _place(sink, new)
    for number, candidate in enumerate(known.publish):
        if _place(candidate, old) == place:
            return Origin(number, _without_hook(candidate) == _without_hook(sink))
    return None


def _without_hook(sink: AnyPublish) -> AnyPublish:
    """What is run after a write changes nothing of what is written."""
    return sink if after_of(sink) is None else sink.model_copy(update={"after": None})


def _place(sink: AnyPublish, config: Config) -> tuple[str, ...]:
    if not isinstance(sink, VaultPublish):
        return (sink.to, sink.path)
    vault = config.vault[sink.vault_name]
    return ("vault", " ".join(vault.addresses), vault.namespace, sink.mount, sink.path)


def take_over(state: TokenState, change: Change, now: float) -> None:
    """Gives a token its new configuration, while nobody else writes its state: none of its attempts is under way."""
    old, fresh = state.config, change.fresh
    new = fresh.config
    moved = state.endpoint.host != fresh.endpoint.host
    another = moved or _account(old) != _account(new) or old.scope != new.scope
    mended = fresh.endpoint is not state.endpoint or _secrets(old) != _secrets(new)
    if fresh.gate is not state.gate:
        state.gate.passed(state.name, now)  # whose turn it is then comes by itself, within its own patience
    state.ledger = _ledger(state, change, moved=moved)
    state.sinks, look = _sinks(state, change)
    state.config, state.endpoint, state.gate, state.client = new, fresh.endpoint, fresh.gate, fresh.client
    state.rules, state.poll_seconds = fresh.rules, fresh.poll_seconds
    if look:
        state.publish_at = now  # new sinks are tried alone, like those that failed: no grant is made for them
    elif not any(sink.failure for sink in state.sinks):
        state.publish_at, state.publish_failures = None, 0
    if old.rotation != new.rotation:
        _replan(state, old, now)
    if old.verify != new.verify:
        every = new.verify.every if new.verify else 0.0
        state.canary_at = now + every if every and state.document is not None else None
    if another:
        state.candidate, state.suspended, state.rotate_at = None, None, now
    if state.waits_for or (mended and state.failures):
        # Whoever it waited for may not wake it any more, and what failed may succeed by now.
        state.wake_at, state.waits_for = now, ""


def _account(config: TokenConfig) -> tuple[object, ...]:
    return (config.authority, config.username, config.client_id)


def _secrets(config: TokenConfig) -> tuple[object, ...]:
    return (config.password, config.client_secret)


def _ledger(state: TokenState, change: Change, *, moved: bool) -> Ledger:
    """What is known of the attempt record, as far as it is in the same place; what a server accepted holds for it."""
    ledger, fresh = state.ledger, change.fresh.ledger
    proven = "" if moved else ledger.proven
    origin = change.origins[0]
    if origin is None or origin.number != 0 or not origin.alike:
        return replace(fresh, proven=proven)  # what was stamped by another version of KV is no stamp of this one
    return replace(ledger, sink=fresh.sink, proven=proven)


def _sinks(state: TokenState, change: Change) -> tuple[tuple[SinkState, ...], bool]:
    """The new sinks with what is known of them, and whether any must be looked at."""
    sinks, look = [], False
    for fresh, origin in zip(change.fresh.sinks, change.origins, strict=True):
        if origin is None:
            sink = SinkState(fresh.sink, failure=_not_looked_at(fresh.sink.name), hook=fresh.hook)
        else:
            known = state.sinks[origin.number]
            sink = replace(known, sink=fresh.sink, hook=fresh.hook, hooked=_hooked(state.name, known, fresh))
            if known.published is not None and known.seen is not None:
                sink.written = known.seen.stamp  # ours to replace, should it read as another account's from now on
            if not origin.alike:
                sink.seen, sink.failure = None, _not_looked_at(fresh.sink.name)
        look = look or sink.seen is None or (sink.hook is not None and sink.hooked != sink.published)
        sinks.append(sink)
    return tuple(sinks), look


def _hooked(token: str, known: SinkState, fresh: SinkState) -> Document | None:
    """What the hook was asked to run for. Another hook begins with the next write, and with what the old one owes."""
    if known.hook is None or known.hook is fresh.hook:
        return known.published if known.hook is None else known.hooked
    owed = known.hooked != known.published or known.hook.owes(Written(token, known.sink.name))
    return None if owed else known.published


def _not_looked_at(sink: str) -> Failure:
    return Failure(Step.LOOK, Reason.CONFLICT, f"{sink}: new in the configuration and not looked at yet", sink=sink)


def _replan(state: TokenState, old: TokenConfig, now: float) -> None:
    """Other times for the token that is held; an attempt that is due sooner for another reason stays so."""
    rotation, life = state.config.rotation, state.life
    if life is not None:
        state.life = plan(life.issued, life.expires - life.issued, rotation, state.draw)
        if state.rotate_at == life.rotate:
            state.rotate_at = state.life.rotate
        elif state.life.rotate > now:
            state.rotate_at = min(state.rotate_at, state.life.rotate)
    if state.suspended and old.rotation.retry_rejected != rotation.retry_rejected:
        wait = rotation.retry_rejected
        state.cautious_at = now + wait if wait else None


@dataclass(slots=True)
class Retired:
    """What left the configuration, and is kept until no attempt is under way that began before."""

    _attempts: frozenset[int] = frozenset()
    _clean_up: list[Callable[[], None]] = field(default_factory=list)

    def add(self, attempts: frozenset[int], clean_up: Iterable[Callable[[], None]]) -> None:
        """Keeps what `clean_up` ends until these attempts are over, and those of earlier calls."""
        self._attempts |= attempts
        self._clean_up += clean_up

    def settle(self, under_way: Callable[[], frozenset[int]]) -> None:
        """Cleans up if it is time for it."""
        if not self._clean_up:
            return
        self._attempts &= under_way()
        if not self._attempts:
            clean_up, self._clean_up = self._clean_up, []
            for end in clean_up:
                end()


def _sharing_tokens(written: Config, before: Config) -> Config:
    """What is written, with the very objects of the tokens before where these are equal.

    It changes nothing but memory: the states of tokens hold theirs, and thousands would be there twice from then on.
    """
    known = {token.name: token for token in before.tokens}
    tokens = tuple(known[it.name] if known.get(it.name) == it else it for it in written.tokens)
    return written.model_copy(update={"tokens": tokens})


@dataclass(slots=True)
class Source:
    """The files of the configuration, read anew when they may have changed, and what is told of that.

    `written` is what they last said; `running` is in effect: the two differ in what only a restart changes. `include`
    is what to watch beside the main file.
    """

    path: Path
    written: Config
    running: Config
    logger: Any
    observe: Callable[[bool], None]
    include: tuple[str, ...] = field(init=False)
    _problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        """Watches what is included now."""
        self.include = self.written.include

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong when the files were last read."""
        return self._problems

    def read(self, *, asked: bool) -> Config | None:
        """The configuration to run by now; None where nothing changed, or anything is wrong with it.

        With `asked` somebody waits for an answer, so it is told again what was told before.
        """
        problems: tuple[Problem, ...] = ()
        try:
            written = config_files.load(self.path)
        except ConfigError as error:
            problems = error.problems
        if problems:
            self.observe(False)
            if asked or problems != self._problems:
                self.logger.error("config_rejected", problems=[str(problem) for problem in problems])
            self._problems = problems
            # What is mended may be in a file that only the new one includes.
            self.include = (*self.written.include, *config_files.patterns(self.path))
            return None
        written = _sharing_tokens(written, self.written)
        if written == self.written and not self._problems and not asked:
            return None
        self.written, self.include, self._problems = written, written.include, ()
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
            self.logger.warning("config_needs_restart", keys=keys)
        kept = written.log.model_copy(update={"format": log.format})
        return written.model_copy(update={"admin": admin, "log": kept, "shard": wanted})
