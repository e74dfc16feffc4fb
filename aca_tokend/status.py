"""The status of the daemon, made when somebody asks: the pass over all tokens (survey.py), then one page of them.

It changes nothing and takes no lock that a rotation needs. The words are those of core/saying.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aca_tokend import __version__
from aca_tokend.core import saying
from aca_tokend.core.config import EnvReference, references, vaults_of
from aca_tokend.core.outcome import ADVICE, Adopted, Failed, Reason, Rotated, Skipped, Suspended
from aca_tokend.core.shards import shard_of
from aca_tokend.core.status import (
    VERSION,
    ApiError,
    ConfigStatus,
    DaemonStatus,
    HookStatus,
    LastResult,
    Result,
    SinkStatus,
    State,
    StatusPage,
    Suspension,
    TokenPage,
    TokenStatus,
)
from aca_tokend.core.token import moment
from aca_tokend.rotation.decide import POLL_SECONDS, next_token_at, poll_seconds
from aca_tokend.rotation.facts import Moment
from aca_tokend.rotation.standing import readable
from aca_tokend.status_servers import endpoint_status, vault_status
from aca_tokend.survey import Overview, signs_of

if TYPE_CHECKING:
    from aca_tokend.core.condition import Signs
    from aca_tokend.core.config import TokenConfig
    from aca_tokend.core.outcome import Event
    from aca_tokend.core.ports import Sink
    from aca_tokend.core.status import Query
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.survey import Subject


def status_page(subject: Subject, query: Query) -> StatusPage:
    """The page that is asked for."""
    seen = Overview.of(subject)
    matching = seen.matching(query)
    begin = (query.page - 1) * query.per_page
    daemon = _daemon(subject, seen)
    endpoints = [endpoint_status(subject, seen, name) for name in sorted(subject.config.acaengine)]
    vaults = [vault_status(subject, seen, name) for name in sorted(subject.config.vault)]
    servers = [it.needs_a_person for it in endpoints] + [it.needs_a_person for it in vaults]
    others = any(servers) or bool(daemon.problems) or not daemon.config.ok
    return StatusPage(
        version=VERSION,
        now=subject.now,
        needs_a_person=others or seen.need_a_person > 0,
        need_a_person=seen.need_a_person,
        daemon=daemon,
        counts={state: seen.counts[state] for state in State},
        matching=len(matching),
        page=query.page,
        pages=max(math.ceil(len(matching) / query.per_page), 1),
        per_page=query.per_page,
        tokens=[token_status(subject, it.token, it.signs) for it in matching[begin : begin + query.per_page]],
        endpoints=endpoints,
        vaults=vaults,
    )


def token_page(subject: Subject, name: str) -> TokenPage | ApiError:
    """One token with what it depends on; an error where it is not here."""
    token = subject.tokens.get(name)
    endpoint = _endpoint(subject, token.facts.config) if token else None
    if token is None or endpoint is None:
        return _not_here(subject, name)
    seen = Overview.of(subject)
    signs = signs_of(token, subject.monotonic, subject.wall - subject.monotonic)
    config = token.facts.config
    vaults = sorted({vault for vault in vaults_of(config) if vault in subject.config.vault})
    return TokenPage(
        version=VERSION,
        now=subject.now,
        daemon=_daemon(subject, seen),
        token=token_status(subject, token, signs),
        endpoint=endpoint_status(subject, seen, endpoint),
        vaults=[vault_status(subject, seen, vault) for vault in vaults],
    )


def _endpoint(subject: Subject, token: TokenConfig) -> str | None:
    """The endpoint of a token; that of the new configuration, where a reload renamed it and no attempt followed yet."""
    if token.acaengine in subject.config.acaengine:
        return token.acaengine
    return next((it.acaengine for it in subject.config.tokens if it.name == token.name), None)


def _not_here(subject: Subject, name: str) -> ApiError:
    shards = subject.config.shard
    if shards is not None and name in set(subject.everywhere):
        shard = shard_of(name, shards.count)
        if shard != subject.shard:
            problem = f"is kept by shard {shard} of {shards.count}, and this is shard {subject.shard}"
            return ApiError("name", problem, f"ask the daemon of shard {shard}", shard)
    return ApiError("name", "is no token of this configuration", "ask for all of them to see the names")


def token_status(subject: Subject, token: ManagedToken, signs: Signs) -> TokenStatus:
    """All of one token."""
    facts, wiring = token.facts, token.wiring
    config, life = facts.config, facts.life
    document = facts.current.document if facts.current else None
    username = config.username if isinstance(config.username, str) else (document.username if document else None)
    safe_for = signs.valid_for if math.isfinite(signs.valid_for) else None
    return TokenStatus(
        name=facts.name,
        state=signs.state,
        needs_a_person=signs.needs_a_person,
        summary=_summary(subject, facts, signs),
        endpoint=config.acaengine,
        authority=config.authority,
        username=username if subject.config.admin.show_usernames else None,
        scope=config.scope,
        issued_at=document.issued_at if document else None,
        rotate_at=subject.at(life.rotate) if life else None,
        expires_at=subject.at(life.expires) if life else None,
        safe_until=None if safe_for is None else subject.at(subject.monotonic + safe_for),
        next_attempt_at=subject.at(_next_attempt(subject, facts)),
        outage_tolerance_seconds=life.outage_tolerance if life else None,
        consecutive_failures=token.failures,
        last=_last(subject.watched.told.get(facts.name)),
        suspended=_suspension(subject, facts),
        sinks=[_sink(facts, number, sink) for number, sink in enumerate(wiring.sinks[: len(facts.places)])],
        hooks=_hooks(token),
        shard=subject.shard if subject.config.shard else None,
        runbook=signs.runbook,
    )


def _summary(subject: Subject, facts: Facts, signs: Signs) -> str:
    """What the person who was woken reads first."""
    if signs.state is State.STARTING:
        waits = saying.SKIPPED.get(_waits_for(facts))
        return saying.sentence("not looked at yet", *([waits] if waits else []))
    safe = saying.readers(signs, subject.now)
    life = facts.life
    if signs.state is State.READY and life is not None:
        due = life.rotate - subject.monotonic
        when = f"rotates in {saying.span(due)}" if due > 0 else saying.SKIPPED.get(_waits_for(facts), "rotates now")
        return saying.sentence(when, safe)
    return saying.sentence(*(saying.troubles(signs) or _waits(facts)), safe)


def _waits_for(facts: Facts) -> str:
    held = facts.current
    if held is not None and held.reused_at is not None:
        return "token_reused"
    return facts.waits_for


def _waits(facts: Facts) -> list[str]:
    """Why a token has expired though nothing failed."""
    if "lifetime_too_short" in facts.noticed:
        return ["the server's tokens live no longer than min_interval lets them be replaced"]
    return [saying.SKIPPED[why]] if (why := _waits_for(facts)) in saying.SKIPPED else []


def _next_attempt(subject: Subject, facts: Facts) -> float | None:
    """When a grant is next asked for, or what failed is tried again; None for never."""
    now = subject.monotonic
    soonest = next_token_at(facts, Moment(now, subject.wall, now))
    if facts.suspension is None:
        soonest = min([soonest, *(it.trouble.again_at(facts.config) for it in facts.places if it.trouble)])
    return max(soonest, now) if soonest < math.inf else None


def _last(told: tuple[float, Event] | None) -> LastResult | None:
    at = moment(told[0]) if told else None
    if told is None or at is None:
        return None
    match told[1]:
        case Rotated(request_id=request_id):
            return LastResult(at, Result.ROTATED, request_id=request_id)
        case Adopted():
            return LastResult(at, Result.ADOPTED)
        case Skipped(why=why):
            return LastResult(at, Result.SKIPPED, message=saying.SKIPPED.get(why, why))
        case Failed(failure=failure) | Suspended(failure=failure) as event:
            result = Result.FAILED if isinstance(event, Failed) else Result.SUSPENDED
            advice = ADVICE[failure.reason]
            return LastResult(at, result, failure.step, failure.reason, failure.message, advice, failure.request_id)
        case _:
            return None


def _suspension(subject: Subject, facts: Facts) -> Suspension | None:
    suspension = facts.suspension
    if suspension is None:
        return None
    failure, cautious_at = suspension.failure, subject.at(suspension.cautious_at(facts.config))
    if failure.reason is Reason.UNSUPPORTED_GRANT_TYPE:
        after = "No other credential would help. Once the server offers the password grant again"
    else:
        after = f"{_noticed(facts)} After the server's side was mended"
    if cautious_at is None:
        alone = "By itself no attempt is made."
    else:
        alone = f"By itself one cautious attempt is made at {saying.clock(cautious_at, subject.now)}."
    return Suspension(failure.reason, ADVICE[failure.reason], f"{after} call `aca-tokend resume {facts.name}`. {alone}")


def _noticed(facts: Facts) -> str:
    """When a changed credential is noticed, as docs/guard.md has it."""
    within = "5 seconds" if poll_seconds(facts.config) == POLL_SECONDS else "a minute"
    in_environment = any(isinstance(reference, EnvReference) for reference in references(facts.config))
    but = ", in a variable of the environment only after a restart" if in_environment else ""
    return f"A changed credential is noticed within {within}{but}."


def _sink(facts: Facts, number: int, sink: Sink) -> SinkStatus:
    held, failure = readable(facts, number), facts.places[number].failure
    return SinkStatus(
        name=sink.name,
        kind=sink.kind,
        issued_at=held.issued_at if held else None,
        expires_at=held.expires_at if held else None,
        ok=failure is None,
        step=failure.step if failure else None,
        reason=failure.reason if failure else None,
        message=failure.message if failure else None,
        advice=ADVICE[failure.reason] if failure else None,
    )


def _hooks(token: ManagedToken) -> list[HookStatus]:
    failing = ((hook, hook.failure) for hook in token.failing_hooks)
    return [
        HookStatus(hook.hook.label, hook.failures, it.step, it.reason, it.message, ADVICE[it.reason])
        for hook, it in failing
        if it is not None  # it may have succeeded meanwhile
    ]


def _daemon(subject: Subject, seen: Overview) -> DaemonStatus:
    config, watched = subject.config, subject.watched
    problems = [str(problem) for problem in subject.rejected]
    return DaemonStatus(
        version=__version__,
        started_at=moment(watched.started_at) or subject.now,
        shard=subject.shard if config.shard else None,
        shards=config.shard.count if config.shard else None,
        tokens=len(seen.glances),
        problems=list(subject.unhealthy),
        not_ready=sum(not glance.token.facts.tried_once for glance in seen.glances),
        config=ConfigStatus(
            ok=not problems,
            loaded_at=moment(watched.loaded_at) or subject.now,
            problems=problems,
            runbook="ACAConfigReloadFailed" if problems else None,
        ),
    )
