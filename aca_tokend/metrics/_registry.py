"""The series that belong to no single token, kept by prometheus-client in a registry of our own."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from aca_tokend import __version__
from aca_tokend.core.outcome import Component
from aca_tokend.metrics._tokens import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SINK_KINDS = ("vault", "file")
LOGIN_RESULTS = ("succeeded", "failed")

# `_created` series would be as many as the counters, and say no more than when the process began.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library does not type this one


class Registry:
    """Histograms and gauges of endpoints, Vaults, sinks and the process, there from the start where they can be."""

    def __init__(self, endpoints: Iterable[str], vaults: Mapping[str, str]) -> None:
        self.collectors = CollectorRegistry()
        self.rotation = self._histogram(
            "rotation_duration_seconds",
            "How long a rotation took that published a new token, from look to the last publish.",
            (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )
        self.grant = self._histogram(
            "grant_duration_seconds",
            "How long the endpoint took to answer a grant, by HTTP status (none where no answer came).",
            (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            "endpoint",
            "code",
        )
        self.publish = self._histogram(
            "publish_duration_seconds",
            "How long a publish took that wrote, by kind of sink.",
            (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            "kind",
        )
        self.lag = self._histogram(
            "scheduler_lag_seconds", "How much later than due an attempt began.", (0.01, 0.1, 0.5, 1, 5, 15, 60)
        )
        self.endpoint_up = self._gauge(
            "endpoint_up",
            "1 if the last grant was answered by 200, 400 or 401, as OAuth servers do; no series before the first.",
            "endpoint",
        )
        self.demand = self._gauge(
            "endpoint_demand_ratio",
            "Grants due a second as a share of what the endpoint gives; above 1 it falls behind.",
            "endpoint",
        )
        self.skew = self._gauge(
            "clock_skew_seconds", "The server's clock minus ours, by the Date of its last answer.", "endpoint"
        )
        self.logins = Counter(
            PREFIX + "vault_login_total", "Log-ins to Vault.", ("vault", "method", "result"), registry=self.collectors
        )
        self.vault_expires = self._gauge(
            "vault_token_expiration_timestamp_seconds",
            "When our Vault token expires; +Inf if it never does, 0 before the first log-in.",
            "vault",
        )
        self.vault_issued = self._gauge(
            "vault_token_issued_timestamp_seconds",
            "When our Vault token was got or last renewed; 0 before the first log-in.",
            "vault",
        )
        self.login_successful = self._gauge(
            "vault_last_login_successful",
            "1 if the last log-in to Vault succeeded, 0 if it failed; no series before the first.",
            "vault",
        )
        self.reload_successful = self._gauge(
            "config_last_reload_successful", "1 if the configuration was well when it was last read, 0 if it was not."
        )
        self.reloaded_at = self._gauge(
            "config_last_reload_timestamp_seconds", "When the configuration was last taken up, at first at the start."
        )
        self.internal_errors = Counter(
            PREFIX + "internal_errors_total",
            "Unexpected exceptions, each a bug that ended one attempt, run or page.",
            ("component",),
            registry=self.collectors,
        )
        self.lines_dropped = Counter(
            PREFIX + "log_lines_dropped_total",
            "Lines of the log that were not written, because nobody read the log or it could not be written.",
            registry=self.collectors,
        )
        build = self._gauge("build_info", "Always 1; the labels tell what runs.", "version", "revision", "python")
        build.labels(__version__, os.environ.get("ACA_TOKEND_REVISION", ""), platform.python_version()).set(1)
        for kind in SINK_KINDS:
            self.publish.labels(kind)
        for component in Component:
            self.internal_errors.labels(component)
        self._endpoints: frozenset[str] = frozenset()
        self._vaults: frozenset[tuple[str, str]] = frozenset()
        self.follow(endpoints, vaults)

    def follow(self, endpoints: Iterable[str], vaults: Mapping[str, str]) -> None:
        """Lets the series of what is new begin, and those of all that ever left vanish.

        They begin at 0 instead of with their first event, so that no first increase is lost.
        """
        there, methods = frozenset(endpoints), frozenset(vaults.items())
        self._endpoints |= there
        self._vaults |= methods
        for endpoint in self._endpoints - there:
            for metric in (self.grant, self.skew, self.endpoint_up, self.demand):
                metric.remove_by_labels({"endpoint": endpoint})
        for vault, method in self._vaults - methods:
            self.logins.remove_by_labels({"vault": vault, "method": method})
            if vault not in vaults:
                for metric in (self.vault_expires, self.vault_issued, self.login_successful):
                    metric.remove_by_labels({"vault": vault})
        for endpoint in there:
            self.grant.labels(endpoint, "200")
            self.skew.labels(endpoint)
            self.demand.labels(endpoint)
        for vault, method in methods:
            self.vault_expires.labels(vault)
            self.vault_issued.labels(vault)
            for result in LOGIN_RESULTS:
                self.logins.labels(vault, method, result)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, meaning, labels, buckets=buckets, registry=self.collectors)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, meaning, labels, registry=self.collectors)
