"""The invariants that every simulated run is held to, each with a name; the first one broken ends the run."""

from __future__ import annotations

NAMES = {
    "never_stale": "no expired token is read while the promise covers it",
    "fresh_when_quiet": "with everything well every place holds a token that is not past its rotation point",
    "isolation": "what happens to other tokens, or to other places of the same, stops or delays none at a good place",
    "own_replaced": "what a daemon wrote for a token is replaced by it, whatever was configured or restarted since",
    "waits_for_no_expiry": "no token waits until after the expiry of what it knows to be published",
    "no_former_account": "no token of an account is published that is not configured any more",
    "no_overwriting_for_ever": "daemons with different accounts at one place do not take it from each other by turns",
    "within_max_rejections": "one credential is refused at most max_rejections times to a process, and by a record",
    "client_left_alone": "one client secret is refused at most twice to one process",
    "outlives_surprises": "an exception that nobody foresaw ends an attempt, not the process",
    "rests_quietly": "a token that nothing is wrong with makes requests for its rotations alone",
    "never_backwards": "a token is never replaced by one whose grant was over before its own began",
    "grants_bounded": "three replicas on quiet days need at most 1.05 grants a rotation, over all tokens",
    "no_needless_grant": "no grant is made while a fresh token of ours is published where it can be read",
    "min_interval": "two grants by one replica are never closer than min_interval",
    "always_scheduled": "every token of a live replica has a next attempt, or one under way",
    "attempt_in_time": "the next attempt comes while there is time for it",
    "no_tight_loop": "attempts of one token are few: 40 a minute, and 150 in the last minute of a life",
    "no_hammering": "attempts of one token keep their distance and are few",
    "few_probes": "an endpoint that fails for several tokens is asked at most three times a second by one process",
    "fresh_after_outage": "tokens that waited for an endpoint are fresh within ten seconds after it is back",
    "life_not_overstated": "what is published never claims to have been issued later than it was",
    "dead_not_published": "where new tokens are tried, one that does not work is not published",
    "revoked_is_true": "no token is taken for revoked that has only expired",
    "death_noticed": "where the token in use is tried, one that died early is replaced soon",
    "no_grant_storm": "an API that refuses every token does not lead to grant after grant",
    "jitter_kept": "the rotation point of a token lies at the same share of each life",
    "own_tokens_only": "nothing but this token's own is adopted or published, and nothing foreign is replaced",
    "adopted_works": "what is adopted works",
    "hook_follows_write": "each write of a file is followed by a run of its hook that began after it",
    "hooks_keep_distance": "two runs of one hook by one process begin no closer than a second",
    "hooks_bounded": "a hook runs no more often than its files are written",
}


class Violated(BaseException):
    """An invariant does not hold. No `Exception`, so that nothing that contains bugs takes it for one."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name} ({NAMES[name]}): {message}")
        self.name = name
