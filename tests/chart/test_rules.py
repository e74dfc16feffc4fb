"""What holds whatever the values: the restricted profile, no secret but in a mounted file, names that stay."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.chart.rendering import CASES, CHART, NAMESPACE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chart.rendering import Case, Object

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

# Pod Security Standards, restricted: "Volume Types"
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
NAME, INSTANCE, COMPONENT = (f"app.kubernetes.io/{key}" for key in ("name", "instance", "component"))


def is_daemon(container: Object) -> bool:
    """Whether a container runs the daemon, not the doctor."""
    return bool(container["args"] == ["run"])


def workload(case: Case) -> Object:
    """The Deployment, or the StatefulSet."""
    (found,) = [item for item in case.objects() if item["kind"] in {"Deployment", "StatefulSet"}]
    return found


def own(case: Case) -> Iterator[Object]:
    """The objects of the chart itself, without those that the values bring."""
    extra = len(case.values.get("extraObjects", []))
    made = [item for item in case.objects() if item["metadata"]["labels"].get(NAME) != "ca"]
    assert len(made) == len(case.objects()) - extra
    yield from made


def test_restricted_profile(case: Case) -> None:
    """Every pod and container, the doctor's too, is allowed by the restricted Pod Security Standard."""
    assert [pod["spec"]["containers"][0]["args"] for pod in case.pods()] == [["run"], ["doctor"]]
    for pod in case.pods():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
        for volume in spec["volumes"]:
            assert volume.keys() - {"name"} <= VOLUMES
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == 65532
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "sysctls" not in spec["securityContext"]
    for container in case.containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", ()))


def test_no_secret_but_in_files(case: Case) -> None:
    """No manifest holds a secret, and no variable comes from one: secrets are files, and their values are elsewhere."""
    assert not case.of("Secret")
    for container in case.containers():
        assert "envFrom" not in container
        for variable in container.get("env", ()):
            source = variable.get("valueFrom", {"fieldRef": {"fieldPath": "metadata.name"}})
            assert source == {"fieldRef": {"fieldPath": "metadata.name"}}, variable


def test_no_access_to_the_cluster(case: Case) -> None:
    """No pod has a token for the cluster's API, and nothing grants one any right there."""
    for pod in case.pods():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False
        for volume in pod["spec"]["volumes"]:
            for source in volume.get("projected", {}).get("sources", ()):
                assert source["serviceAccountToken"]["audience"]
    for account in case.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    assert not {item["kind"] for item in case.objects()} & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def test_resources(case: Case) -> None:
    """Every container says what it needs, and may take so much memory and no more."""
    for container in case.containers():
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}


def test_probes(case: Case) -> None:
    """The daemon has each probe, on a port that it has, with TLS where the listener has it, and time to end in."""
    (container,) = [container for container in case.containers() if is_daemon(container)]
    (port,) = container["ports"]
    scheme = "HTTPS" if case.values.get("config", {}).get("admin", {}).get("tls_cert") else "HTTP"
    paths = {"startupProbe": "/-/healthy", "livenessProbe": "/-/healthy", "readinessProbe": "/-/ready"}
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"], "scheme": scheme}
    assert port["containerPort"] == 9464
    assert workload(case)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 20


def test_mounts(case: Case) -> None:
    """Configuration and secrets are whole directories, read-only, so that a change gets there; each has its volume."""
    for pod in case.pods():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            mounts = container["volumeMounts"]
            assert {mount["name"] for mount in mounts} == volumes.keys()
            assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
            for mount in mounts:
                assert not {"subPath", "subPathExpr"} & mount.keys()
                if volumes[mount["name"]].keys() & {"configMap", "secret", "projected"}:
                    assert mount["readOnly"] is True
    first, *_ = case.pods()
    assert {mount["mountPath"] for mount in first["spec"]["containers"][0]["volumeMounts"]} >= {
        "/etc/aca-tokend",
        *(f"/run/secrets/aca-tokend/{secret['name']}" for secret in case.values.get("secrets", ())),
    }


def test_secret_files_are_not_for_all(case: Case) -> None:
    """Files of secrets can be read by the user and the group of the pod alone."""
    for pod in case.pods():
        assert pod["spec"]["securityContext"]["fsGroup"] == 65532
        for volume in pod["spec"]["volumes"]:
            for kind in {"secret", "projected"} & volume.keys():
                assert volume[kind]["defaultMode"] == 0o440


def test_labels(case: Case) -> None:
    """Every object of ours has the recommended labels, and a name and a namespace that Kubernetes takes."""
    names = [(item["kind"], item["metadata"]["name"]) for item in own(case)]
    assert len(set(names)) == len(names)
    for item in own(case):
        metadata = item["metadata"]
        assert metadata["namespace"] == NAMESPACE
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", metadata["name"])
        labels = metadata["labels"]
        assert labels[INSTANCE] == case.release
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert {NAME, "app.kubernetes.io/version", "helm.sh/chart"} <= labels.keys()
        assert all(len(value) <= 63 for value in labels.values())
        assert case.values.get("commonLabels", {}).items() <= labels.items()


def test_selectors(case: Case) -> None:
    """Selectors are of labels that no upgrade changes, match the daemon's pods, and no pod of another release."""
    spec = workload(case)["spec"]
    labels = spec["template"]["metadata"]["labels"]
    daemon = spec["selector"]["matchLabels"]
    assert daemon == {
        NAME: case.values.get("nameOverride") or "aca-tokend",
        INSTANCE: case.release,
        COMPONENT: "daemon",
    }
    assert daemon.items() <= labels.items()
    (doctor,) = case.of("Pod")
    assert doctor["metadata"]["labels"][COMPONENT] == "doctor"
    for service in case.of("Service"):
        assert service["spec"]["selector"] == daemon
    for budget in case.of("PodDisruptionBudget"):
        assert budget["spec"]["selector"]["matchLabels"] == daemon
    for policy in case.of("NetworkPolicy"):
        both = policy["spec"]["podSelector"]["matchLabels"]
        assert both == {NAME: daemon[NAME], INSTANCE: case.release}
        assert both.items() <= doctor["metadata"]["labels"].items()
    for monitor in case.of("PodMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"] == daemon
    for monitor in case.of("ServiceMonitor"):
        (service,) = case.of("Service")
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_rolling_update_and_drain(case: Case) -> None:
    """An update takes no pod away before its successor is ready, and a drain gets every pod, one after the other."""
    spec = workload(case)["spec"]
    if "strategy" in spec:
        assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    else:
        assert spec["podManagementPolicy"] == "Parallel"
        assert spec["serviceName"] == case.of("Service")[0]["metadata"]["name"]
        assert spec["replicas"] == case.values["shards"]
    for budget in case.of("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] not in {0, "0", "0%"}
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_network_policy(case: Case) -> None:
    """What is let in or out is named by its port; nobody is let in by an empty list of peers."""
    for policy in case.of("NetworkPolicy"):
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        names, *servers = spec["egress"]
        assert names == {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
        assert servers
        for rule in (*servers, *spec["ingress"]):
            assert rule["ports"]
            assert rule.get("to") != []
        for rule in spec["ingress"]:
            assert rule["from"]
            assert rule["ports"] == [{"protocol": "TCP", "port": "admin"}]


def test_image(case: Case) -> None:
    """The image is one that does not change under a running pod: a digest, or the tag of this very version."""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    for container in case.containers():
        assert re.fullmatch(
            rf"registry\.example\.com/aca-tokend(:{re.escape(version)}|@sha256:[0-9a-f]{{64}})", container["image"]
        )


def test_monitors(case: Case) -> None:
    """Our label `endpoint` stays, and the job of the series is the one that the rules ask for."""
    for monitor in (*case.of("ServiceMonitor"), *case.of("PodMonitor")):
        spec = monitor["spec"]
        (endpoint,) = spec.get("endpoints") or spec["podMetricsEndpoints"]
        assert endpoint["honorLabels"] is True
        assert (endpoint["port"], endpoint["path"]) == ("admin", "/metrics")
        assert spec["jobLabel"] == NAME
        assert spec["namespaceSelector"] == {"matchNames": [NAMESPACE]}


def test_alerts(case: Case) -> None:
    """The rules are those of deploy/prometheus, asked of these pods, with the budget and the runbooks given."""
    text = (ROOT / "deploy" / "prometheus" / "aca-tokend.rules.yaml").read_text(encoding="utf-8")
    for rule in case.of("PrometheusRule"):
        given = case.values["prometheusRule"]
        job = f'job="{case.values.get("nameOverride") or "aca-tokend"}",namespace="{NAMESPACE}"'
        assert text.count('job="aca-tokend"') >= 3
        expected = text.replace('job="aca-tokend"', job)
        expected = expected.replace("vector(0.001)", f"vector({given.get('errorBudget', '0.001')})")
        if "runbookUrl" in given:
            expected = expected.replace("https://runbooks.example.com/aca-tokend/", given["runbookUrl"])
            assert expected.count(given["runbookUrl"]) > 10
        assert rule["spec"] == yaml.safe_load(expected)
        assert 'job="aca-tokend"}' not in json.dumps(rule).replace("\\", "")


def test_dashboard(case: Case) -> None:
    """The dashboard is that of deploy/grafana, in a ConfigMap that Grafana's sidecar finds."""
    boards: list[Any] = [item for item in case.of("ConfigMap") if item["metadata"]["name"].endswith("-dashboard")]
    assert len(boards) == case.values.get("dashboard", {}).get("enabled", False)
    for board in boards:
        known = (ROOT / "deploy" / "grafana" / "aca-tokend.json").read_text(encoding="utf-8")
        assert json.loads(board["data"]["aca-tokend.json"]) == json.loads(known)
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
