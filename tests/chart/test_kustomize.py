"""The kustomization makes what the chart makes by default, but for what Helm alone writes."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from aca_tokend.config.files import load
from tests.blocks import blocks_for
from tests.chart.prometheus_operator import PodMonitor
from tests.chart.rendering import CASES, CHART, KUBERNETES, NAMESPACE, ROOT, objects, program, run, template

if TYPE_CHECKING:
    from tests.chart.rendering import Object

KUSTOMIZE = ROOT / "deploy" / "kustomize"
EXAMPLE = KUSTOMIZE / "overlays" / "example"
# what Helm alone writes, and what no selector asks for
OF_HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version")


def rendered(folder: Path) -> tuple[Object, ...]:
    """What `kubectl kustomize` makes of a folder."""
    return objects(run(program("kubectl"), "kustomize", str(folder)))


def of_chart(values: dict[str, Any]) -> tuple[Object, ...]:
    """What the chart makes of these values, without the pod of `helm test`."""
    text = template("4", CHART, "aca-tokend", ("--skip-tests", "-f", "-"), json.dumps(values))
    return objects(text)


def comparable(items: tuple[Object, ...]) -> dict[str, Object]:
    """Objects by their kind, without what may differ: Helm's labels, namespace, checksum, the order of volumes."""
    made: dict[str, Object] = {}
    for item in items:
        same = copy.deepcopy(item)
        same["metadata"].pop("namespace", None)
        pod = same["spec"].get("template") if "spec" in same else None
        for metadata in (same["metadata"], *([pod["metadata"]] if pod else ())):
            metadata["labels"] = {key: value for key, value in metadata["labels"].items() if key not in OF_HELM}
        if pod:
            pod["metadata"]["annotations"].pop("checksum/needs-restart", None)
            pod["spec"]["volumes"].sort(key=lambda volume: volume["name"])
            for container in pod["spec"]["containers"]:
                container["volumeMounts"].sort(key=lambda mount: mount["name"])
        if same["kind"] == "ConfigMap":
            same["data"] = {"config.toml": tomllib.loads(same["data"]["config.toml"])}
        assert same["kind"] not in made
        made[same["kind"]] = same
    return made


def test_base() -> None:
    """The base is the chart with a ConfigMap that something else makes, and the usual ports of the servers."""
    image = {"repository": "aca-tokend", "digest": "sha256:" + "0" * 64}
    ports = [{"protocol": "TCP", "port": port} for port in (443, 8200)]
    values = {"image": image, "existingConfigMap": "aca-tokend", "networkPolicy": {"egress": [{"ports": ports}]}}
    chart = comparable(of_chart(values))
    chart["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"] = "aca-tokend"

    assert comparable(rendered(KUSTOMIZE / "base")) == chart


def test_example() -> None:
    """The overlay is the chart with the same configuration, the same Secret and the same token as values."""
    config = tomllib.loads((EXAMPLE / "config.toml").read_text(encoding="utf-8"))
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    values = {
        "image": {"repository": "registry.example.com/aca-tokend", "tag": version},
        "config": config,
        "secrets": [{"name": "bookings"}],
        "serviceAccountTokens": [{"name": "vault", "audience": "vault"}],
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        },
    }

    assert comparable(rendered(EXAMPLE)) == comparable(of_chart(values))


def test_configuration_of_the_example() -> None:
    """Our own parser takes the configuration of the overlay."""
    assert [token.name for token in load(EXAMPLE / "config.toml").tokens] == ["bookings"]


@pytest.mark.parametrize("version", KUBERNETES)
def test_schemas(version: str) -> None:
    """Every object of the base and of the overlay is valid to the last key."""
    for item in (*rendered(KUSTOMIZE / "base"), *rendered(EXAMPLE)):
        kubernetes_validate.validate(item, version, strict=True)


def test_the_name_stays() -> None:
    """A changed configuration is the same ConfigMap: pods take it up by themselves, and none is replaced for it."""
    names = {item["metadata"]["name"] for item in rendered(EXAMPLE)}
    assert names == {"aca-tokend"}
    assert {item["metadata"]["namespace"] for item in rendered(EXAMPLE)} == {"aca-tokend"}


def test_the_page_as_it_stands(tmp_path: Path) -> None:
    """The commands of docs/kustomize.md make an overlay that is right and renders the example."""
    shutil.copytree(KUSTOMIZE, tmp_path / "deploy" / "kustomize")
    script = "".join(block.content for block in blocks_for("tests/chart/test_kustomize.py::test_the_page_as_it_stands"))
    programs = f"{Path(program('kubectl')).parent}:{Path(sys.executable).parent}:/usr/bin:/bin"
    result = subprocess.run(
        ["/bin/sh", "-euc", script],
        cwd=tmp_path,
        env={"PATH": programs, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    told, _, manifests = result.stdout.partition("\n")
    assert told.endswith("config.toml: well, 1 token")
    assert objects(manifests) == rendered(EXAMPLE)


def test_monitor_of_the_page() -> None:
    """The PodMonitor of docs/kustomize.md is that of the chart."""
    (block,) = blocks_for("tests/chart/test_kustomize.py::test_monitor_of_the_page")
    told = yaml.safe_load(block.content)
    PodMonitor.model_validate(told)
    values = next(case.values for case in CASES if case.name == "kubernetes") | {"podMonitor": {"enabled": True}}
    (chart,) = [item for item in of_chart(values) if item["kind"] == "PodMonitor"]
    assert told["spec"] | {"namespaceSelector": {"matchNames": [NAMESPACE]}} == chart["spec"]
