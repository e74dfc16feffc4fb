"""The kinds of the Prometheus Operator, as far as the chart uses them: every other key is refused.

No schema of Kubernetes knows them. Source: prometheus-operator/prometheus-operator, pkg/apis/monitoring/v1:
types.go, servicemonitor_types.go, podmonitor_types.go, prometheusrule_types.go.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Duration = Annotated[str, StringConstraints(pattern=r"^([0-9]+(ms|[smhdwy]))+$")]
Labels = dict[str, str]


class Strict(BaseModel):
    """An object of which every key is known."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    """Of any object."""

    name: str
    namespace: str
    labels: Labels


class Selector(Strict):
    """metav1.LabelSelector."""

    matchLabels: Labels  # noqa: N815 -- theirs


class Namespaces(Strict):
    """NamespaceSelector."""

    matchNames: list[str]  # noqa: N815 -- theirs


class SecretKey(Strict):
    """corev1.SecretKeySelector."""

    name: str
    key: str


class SecretOrConfigMap(Strict):
    """SecretOrConfigMap, of which the chart's tests use a Secret."""

    secret: SecretKey


class Tls(Strict):
    """SafeTLSConfig."""

    ca: SecretOrConfigMap
    serverName: str  # noqa: N815 -- theirs


class Endpoint(Strict):
    """Endpoint, and PodMetricsEndpoint, which has the same keys."""

    port: str
    path: str
    scheme: Literal["http", "https"]
    interval: Duration
    honorLabels: bool  # noqa: N815 -- theirs
    tlsConfig: Tls | None = None  # noqa: N815 -- theirs


class ServiceMonitorSpec(Strict):
    """ServiceMonitorSpec."""

    jobLabel: str  # noqa: N815 -- theirs
    namespaceSelector: Namespaces  # noqa: N815 -- theirs
    selector: Selector
    endpoints: Annotated[list[Endpoint], Field(min_length=1)]


class PodMonitorSpec(Strict):
    """PodMonitorSpec."""

    jobLabel: str  # noqa: N815 -- theirs
    namespaceSelector: Namespaces  # noqa: N815 -- theirs
    selector: Selector
    podMetricsEndpoints: Annotated[list[Endpoint], Field(min_length=1)]  # noqa: N815 -- theirs


class Rule(Strict):
    """Rule."""

    alert: str | None = None
    record: str | None = None
    expr: str
    labels: Labels | None = None
    annotations: Labels | None = None
    for_: Annotated[Duration | None, Field(alias="for")] = None
    keep_firing_for: Duration | None = None


class RuleGroup(Strict):
    """RuleGroup."""

    name: str
    interval: Duration | None = None
    rules: Annotated[list[Rule], Field(min_length=1)]


class PrometheusRuleSpec(Strict):
    """PrometheusRuleSpec."""

    groups: Annotated[list[RuleGroup], Field(min_length=1)]


class ServiceMonitor(Strict):
    """ServiceMonitor."""

    apiVersion: Literal["monitoring.coreos.com/v1"]  # noqa: N815 -- theirs
    kind: Literal["ServiceMonitor"]
    metadata: Metadata
    spec: ServiceMonitorSpec


class PodMonitor(Strict):
    """PodMonitor."""

    apiVersion: Literal["monitoring.coreos.com/v1"]  # noqa: N815 -- theirs
    kind: Literal["PodMonitor"]
    metadata: Metadata
    spec: PodMonitorSpec


class PrometheusRule(Strict):
    """PrometheusRule."""

    apiVersion: Literal["monitoring.coreos.com/v1"]  # noqa: N815 -- theirs
    kind: Literal["PrometheusRule"]
    metadata: Metadata
    spec: PrometheusRuleSpec


KINDS: dict[str, type[Strict]] = {
    "ServiceMonitor": ServiceMonitor,
    "PodMonitor": PodMonitor,
    "PrometheusRule": PrometheusRule,
}
