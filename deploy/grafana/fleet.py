"""The row that tells of all tokens at once: whether anything is wrong, with which of them, and why."""

from __future__ import annotations

from parts import (
    BY_NAME,
    RANGE,
    RATE,
    STATE,
    STATES,
    Panel,
    Query,
    Row,
    a_minute,
    metric,
    or_none,
    quantile,
    raised,
    tolerance_left,
    until_expiry,
)

EXPIRY_STEPS = ((None, "red"), (0, "green"))
TOLERANCE_STEPS = ((None, "red"), (0.3, "orange"), (0.7, "green"))  # ACATokenExpiringSoon tells of less than 70 %
STATE_WORDS = tuple((number, word, colour) for number, (word, colour) in enumerate(STATES))
# In the tables, where there is nothing to list.
NO_TROUBLE, NO_ERRORS = "no token is in trouble", "no errors"

ERRORS = metric("rotation_errors_total")

FLEET = Row(
    "Fleet",
    (
        Panel(
            title="Tokens by state",
            told="Expired: readers find no valid token. Suspended: the server refused the credential, and it is not "
            "sent again. Failing: attempts fail or are late, readers still have one. Starting: not looked at yet.",
            kind="stat",
            unit="none",
            queries=tuple(
                Query(or_none(f"sum({STATE} == bool {number})"), word, colour)
                for number, (word, colour) in reversed(tuple(enumerate(STATES)))
            ),
            width=9,
            height=5,
            runbook="ACATokenExpired",
        ),
        Panel(
            title="Soonest expiry",
            told="How long until the first published token expires if nothing were rotated any more. Below 0 it has.",
            kind="stat",
            unit="s",
            queries=(Query(f"min({until_expiry()})"),),
            width=3,
            height=5,
            steps=EXPIRY_STEPS,
            runbook="ACATokenExpired",
            none="nothing published",
        ),
        Panel(
            title="Outage tolerance left",
            told="From its rotation point to its expiry a token survives an outage of the endpoint. This is what the "
            "worst token has left of that time: 100 % while it is not even due, 0 % when it expires.",
            kind="stat",
            unit="percentunit",
            queries=(Query(f"min({tolerance_left()})"),),
            width=3,
            height=5,
            steps=TOLERANCE_STEPS,
            runbook="ACATokenExpiringSoon",
            none="nothing published",
        ),
        Panel(
            title="Time with a valid token",
            told="Over the time that is shown and all tokens: the share in which every sink held a token that readers "
            "could use. The promise is 100 %, the objective that alerts go by 99.9 %.",
            kind="stat",
            unit="percentunit",
            queries=(Query(f"1 - avg(min {BY_NAME} (rate({metric('token_unavailable_seconds_total')}[{RANGE}])))"),),
            width=3,
            height=5,
            steps=((None, "red"), (0.999, "orange"), (0.9999, "green")),
            decimals=3,
            runbook="ACATokenExpired",
        ),
        Panel(
            title="Configuration",
            told="Whether each daemon found its configuration well when it last read it. One that is wrong changes "
            "nothing: the daemon goes on with the last that was well.",
            kind="stat",
            unit="none",
            queries=(Query(f"min({metric('config_last_reload_successful')})"),),
            width=3,
            height=5,
            words=((0, "rejected", "red"), (1, "well", "green")),
            runbook="ACAConfigReloadFailed",
        ),
        Panel(
            title="Daemons by version",
            told="How many daemons are scraped, and what they run. With none, everything here says No data.",
            kind="stat",
            unit="none",
            queries=(Query(f"count by (version) ({metric('build_info')})", "{{version}}"),),
            width=3,
            height=5,
            runbook="ACATokendAbsent",
        ),
        Panel(
            title="Tokens in trouble",
            told="The tokens that are not ready, the worst first, at most 20. A click on one leads to its row, or "
            "to its status page. A healthy fleet has one line that says so.",
            kind="table",
            unit="none",
            queries=(Query(or_none(f"topk(20, {STATE} > 0)", token=NO_TROUBLE), "state"),),
            width=8,
            height=8,
            words=STATE_WORDS,
            runbook="ACATokenRotationFailing",
        ),
        Panel(
            title="Why: errors in the time that is shown",
            told="Which token failed at which step, for which reason, and how often: the 20 most frequent. The "
            "logs have a message and an advice for each.",
            kind="table",
            unit="short",
            queries=(
                Query(
                    or_none(f"topk(20, sum by (token, step, reason) ({raised(ERRORS, RANGE)}) > 0)", token=NO_ERRORS),
                    "errors",
                ),
            ),
            width=10,
            height=8,
            runbook="ACATokenRotationFailing",
        ),
        Panel(
            title="Least outage tolerance left",
            told="The ten tokens that have the least of it. Below 70 % something keeps them from being rotated.",
            kind="bars",
            unit="percentunit",
            queries=(Query(f"bottomk(10, {tolerance_left()})", "{{token}}"),),
            width=6,
            height=8,
            steps=TOLERANCE_STEPS,
            most=1,
            runbook="ACATokenExpiringSoon",
            none="nothing published",
        ),
        Panel(
            title="Tokens in trouble, over time",
            told="Tokens with a sink that holds no valid token, suspended ones, and those that failed three times in "
            "a row; one token may count in several. All are 0 on a healthy fleet.",
            kind="lines",
            unit="none",
            queries=(
                Query(f"sum(min {BY_NAME} ({metric('token_ready')}) == bool 0)", "not ready"),
                Query(f"sum(max {BY_NAME} ({metric('token_suspended')}))", "suspended"),
                Query(f"sum(max {BY_NAME} ({metric('token_consecutive_failures')}) >= bool 3)", "failing"),
            ),
            width=8,
            height=8,
            runbook="ACATokenRotationFailing",
        ),
        Panel(
            title="Rotations",
            told="Attempts that ended, by result. Rotated: a new token is published. Adopted: another replica's was "
            "taken over. Skipped: nothing was asked, because others do first or the token is suspended.",
            kind="lines",
            unit="opm",
            queries=(Query(a_minute(metric("rotations_total"), "result"), "{{result}}"),),
            width=8,
            height=8,
            runbook="ACATokenRotationFailing",
        ),
        Panel(
            title="Errors by step and reason",
            told="Steps that failed within the interval of a point. One reason for many tokens points to what they "
            "share: the endpoint, Vault, the disk.",
            kind="lines",
            unit="short",
            queries=(
                Query(
                    or_none(f"sum by (step, reason) ({raised(ERRORS, RATE)})", reason=NO_ERRORS),
                    "{{step}} {{reason}}",
                ),
            ),
            width=8,
            height=8,
            runbook="ACATokenRotationFailing",
        ),
        Panel(
            title="Scheduler lag",
            told="How much later than due attempts began. Seconds are well; minutes mean that the daemon or what it "
            "waits for cannot keep up. Nothing is drawn where no attempt was made.",
            kind="lines",
            unit="s",
            queries=tuple(
                Query(quantile(share, metric("scheduler_lag_seconds_bucket")), f"p{share * 100:g}")
                for share in (0.5, 0.99)
            ),
            width=12,
            height=7,
        ),
        Panel(
            title="Duration of a rotation",
            told="From look to the last publish, where a new token was published. Nothing is drawn where none was.",
            kind="lines",
            unit="s",
            queries=tuple(
                Query(quantile(share, metric("rotation_duration_seconds_bucket")), f"p{share * 100:g}")
                for share in (0.5, 0.99)
            ),
            width=12,
            height=7,
        ),
    ),
)
