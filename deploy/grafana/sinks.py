"""The rows of what all tokens go through: the endpoints that grant them, Vault and the other sinks."""

from __future__ import annotations

from fleet import EXPIRY_STEPS
from parts import RANGE, RATE, Panel, Query, Row, a_minute, metric, or_none, quantile, raised

ENDPOINT = 'endpoint=~"$endpoint"'
FAILED_PUBLISHES = metric("publish_total", 'result="failed"')
UP = metric("endpoint_up", ENDPOINT)
DAEMON = "(cluster, namespace, job, instance, pod, endpoint)"
ASKED = f"sum by {DAEMON} (increase({metric('grant_duration_seconds_count', ENDPOINT)}[1h]))"
NEVER_SECONDS = 10 * 365 * 86400  # what a token of Vault that never expires is shown as

ENDPOINTS = Row(
    "Endpoints: $endpoint",
    (
        Panel(
            title="Up",
            told="Whether the endpoint answered its last grant as OAuth servers do, be it to refuse. Where daemons "
            "disagree, one of those that asked within the hour and got an answer counts. No line: nobody asked yet.",
            kind="states",
            unit="none",
            queries=(
                Query(
                    f"max by (endpoint) ({UP} and on {DAEMON} {ASKED} > 0) or max by (endpoint) ({UP})", "{{endpoint}}"
                ),
            ),
            width=12,
            height=6,
            words=((0, "down", "red"), (1, "up", "green")),
            runbook="ACAEndpointDown",
            none="not asked yet",
        ),
        Panel(
            title="Answers to grants",
            told="Answers of the endpoint within the interval of a point, by HTTP status; none where no answer came.",
            kind="lines",
            unit="short",
            queries=(
                Query(
                    f"sum by (endpoint, code) ({raised(metric('grant_duration_seconds_count', ENDPOINT), RATE)})",
                    "{{endpoint}} {{code}}",
                ),
            ),
            width=12,
            height=6,
            runbook="ACAEndpointDown",
        ),
        Panel(
            title="Grant latency",
            told="How long the endpoint took to answer, by HTTP status. Nothing is drawn where nothing was asked.",
            kind="lines",
            unit="s",
            queries=tuple(
                Query(
                    quantile(share, metric("grant_duration_seconds_bucket", ENDPOINT), "endpoint, code"),
                    f"{{{{endpoint}}}} {{{{code}}}} p{share * 100:g}",
                )
                for share in (0.5, 0.95, 0.99)
            ),
            width=12,
            height=8,
            runbook="ACAEndpointDown",
        ),
        Panel(
            title="Demand",
            told="Grants that are due as a share of what the endpoint gives, at the time it takes for one. Above 100 % "
            "tokens are rotated later and later, the most urgent first.",
            kind="lines",
            unit="percentunit",
            queries=(Query(f"max by (endpoint) ({metric('endpoint_demand_ratio', ENDPOINT)})", "{{endpoint}}"),),
            width=6,
            height=8,
            steps=((None, "green"), (0.8, "orange"), (1, "red")),
        ),
        Panel(
            title="Clock skew",
            told="The clock of the endpoint minus that of the daemon. If all endpoints are off, it is the daemon's.",
            kind="lines",
            unit="s",
            queries=(
                Query(
                    f"max by (endpoint, instance) ({metric('clock_skew_seconds', ENDPOINT)})",
                    "{{endpoint}} seen by {{instance}}",
                ),
            ),
            width=6,
            height=8,
            steps=((None, "red"), (-30, "green"), (30, "red")),  # ACAClockSkew tells of over 30 s
            runbook="ACAClockSkew",
        ),
    ),
)

VAULT = Row(
    "Vault and other sinks",
    (
        Panel(
            title="Last log-in",
            told="Whether the last log-in to Vault succeeded, of every daemon. Without one nothing is published there.",
            kind="stat",
            unit="none",
            queries=(Query(f"min by (vault) ({metric('vault_last_login_successful')})", "{{vault}}"),),
            width=3,
            height=8,
            words=((0, "failed", "red"), (1, "succeeded", "green")),
            runbook="ACAVaultLoginFailing",
            none="not tried yet",
        ),
        Panel(
            title="Our token expires in",
            told="How long until the token of the daemons in Vault expires. It is renewed or replaced in time; if it "
            "nears 0, log-ins fail.",
            kind="stat",
            unit="s",
            queries=(
                Query(
                    "min by (vault) (clamp_max(("
                    f"{metric('vault_token_expiration_timestamp_seconds')} > 0) - time(), {NEVER_SECONDS}))",
                    "{{vault}}",
                ),
            ),
            width=3,
            height=8,
            steps=EXPIRY_STEPS,
            words=((NEVER_SECONDS, "never expires", "green"),),
            runbook="ACAVaultLoginFailing",
            none="not logged in",
        ),
        Panel(
            title="Log-ins to Vault",
            told="By result. A few that succeed are as it should be; any that fail are not.",
            kind="lines",
            unit="opm",
            queries=(
                Query(
                    a_minute(metric("vault_login_total"), "vault, method, result"), "{{vault}} {{method}} {{result}}"
                ),
            ),
            width=9,
            height=8,
            runbook="ACAVaultLoginFailing",
        ),
        Panel(
            title="Sinks that fail",
            told="Which sink of which token could not be read or written, and how often in the time that is shown: the "
            "20 most frequent. What they hold is intact.",
            kind="table",
            unit="short",
            queries=(
                Query(
                    or_none(
                        f"topk(20, sum by (token, sink) (increase({FAILED_PUBLISHES}[{RANGE}])) > 0)",
                        sink="no sink fails",
                    ),
                    "failures",
                ),
            ),
            width=9,
            height=8,
            runbook="ACATokenPublishStale",
        ),
        Panel(
            title="Publishes",
            told="By result. Unchanged: the sink held this token already. Fenced: it held a later one, which stays.",
            kind="lines",
            unit="opm",
            queries=(Query(a_minute(metric("publish_total"), "result"), "{{result}}"),),
            width=12,
            height=7,
            runbook="ACATokenPublishStale",
        ),
        Panel(
            title="Publish latency",
            told="How long a publish took that wrote, by kind of sink. Nothing is drawn where nothing was written.",
            kind="lines",
            unit="s",
            queries=tuple(
                Query(
                    quantile(share, metric("publish_duration_seconds_bucket"), "kind"), f"{{{{kind}}}} p{share * 100:g}"
                )
                for share in (0.5, 0.99)
            ),
            width=12,
            height=7,
            runbook="ACATokenPublishStale",
        ),
    ),
)
