"""Each case of values is rendered as before, alike by both Helms, and by the schemas of Kubernetes."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import kubernetes_validate
import pytest

from tests.chart.golden import golden
from tests.chart.prometheus_operator import KINDS
from tests.chart.rendering import CASES, CHART, GOLDEN, HELMS, KUBERNETES, RefusedError, program, run, template

if TYPE_CHECKING:
    from tests.chart.rendering import Case, Object

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_case
def test_golden(case: Case) -> None:
    """What is rendered is what was looked at when it was committed."""
    path = GOLDEN / case.path.name
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    difference = "\n".join(
        difflib.unified_diff(known.splitlines(), golden(case).splitlines(), "golden", "now", lineterm="")
    )
    assert not difference, (
        f"{difference}\nIf this is meant: `make golden` writes tests/chart/golden anew; read what changed."
    )


def test_no_golden_file_is_left() -> None:
    """There is a case for each file."""
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(case.path.name for case in CASES)


@every_case
def test_both_helms(case: Case) -> None:
    """Helm 3 and Helm 4 render the same: the same objects in the same order, and the same lines but empty ones."""
    first, second = (case.text(helm) for helm in HELMS)
    assert case.objects(HELMS[0]) == case.objects(HELMS[1])
    assert [line for line in first.splitlines() if line.strip()] == [
        line for line in second.splitlines() if line.strip()
    ]


def validate(item: Object, version: str) -> None:
    """Raises where an object has a key that is not known, or lacks one."""
    if item["kind"] in KINDS:
        KINDS[item["kind"]].model_validate(item)
    else:
        kubernetes_validate.validate(item, version, strict=True)


@every_case
@pytest.mark.parametrize("version", KUBERNETES)
def test_schemas(case: Case, version: str) -> None:
    """Every object is valid to the last key, for the oldest Kubernetes that the chart is for and the newest."""
    for item in case.objects():
        validate(item, version)


@pytest.mark.parametrize(("name", "kind"), [("kubernetes", "Deployment"), ("monitoring", "ServiceMonitor")])
def test_schemas_notice(name: str, kind: str) -> None:
    """A mistyped key would be noticed, in an object of Kubernetes and in one of the operator."""
    (case,) = [case for case in CASES if case.name == name]
    (item,) = case.of(kind)
    with pytest.raises((kubernetes_validate.ValidationError, ValueError), match="replicsa"):
        validate(item | {"spec": item["spec"] | {"replicsa": 2}}, KUBERNETES[-1])


@pytest.mark.parametrize("helm", HELMS)
def test_lint(helm: str) -> None:
    """`helm lint --strict` has nothing to say about any case."""
    for case in CASES:
        output = run(program("helm", helm), "lint", "--strict", "--quiet", "-f", str(case.path), str(CHART))
        assert output == "", case.name


@pytest.mark.parametrize("helm", HELMS)
def test_versions_of_kubernetes(helm: str) -> None:
    """It is rendered for the oldest Kubernetes that it is for and for the newest, and refused for an older one."""
    values = ("-f", str(CASES[0].path))
    for version in KUBERNETES:
        assert template(helm, CHART, "aca-tokend", (*values, "--kube-version", version))
    with pytest.raises(RefusedError, match="kubeVersion"):
        template(helm, CHART, "aca-tokend", (*values, "--kube-version", "1.28"))
