"""The objects that the chart renders are valid: for helm's own lint, for Kubernetes, and for KEDA."""

from __future__ import annotations

import tomllib

import pytest
import yaml

from tests.chart.keda_schema import SCHEMAS
from tests.chart.rendered import NAMES, NEEDS_HELM, VALUES, Tree, rendered, run_helm
from tests.chart.tools import CHART, ROOT

pytestmark = NEEDS_HELM

#: The oldest version of Kubernetes whose schemas are checked, which is the first with ReadWriteOncePod, and a new one.
VERSIONS = ("1.29", "1.35")


@pytest.mark.parametrize("name", ["", *NAMES])
def test_helm_has_nothing_to_complain_about(name: str) -> None:
    values = ["--values", str(VALUES / f"{name}.yaml")] if name else []
    done = run_helm("lint", "--strict", str(CHART), *values)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_knows_every_field_and_its_type(name: str, version: str) -> None:
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: `make chart-test` installs it"
    )
    for tree in map(as_kubernetes_knows_it, rendered(name).objects):
        if tree is not None:
            kubernetes_validate.validate(tree, version, strict=True)


def as_kubernetes_knows_it(tree: Tree) -> Tree | None:
    """An object of Kubernetes' own, also a job that KEDA would make; None: it is another project's alone."""
    if tree["kind"] == "ScaledJob":
        job = {"template": tree["spec"]["jobTargetRef"]["template"], "backoffLimit": 0}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": job}
    return None if tree["kind"] in SCHEMAS else tree


@pytest.mark.parametrize("name", NAMES)
def test_keda_and_the_prometheus_operator_know_every_field_and_its_type(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for tree in rendered(name).objects:
        if tree["kind"] in SCHEMAS:
            jsonschema.validate(tree, SCHEMAS[tree["kind"]])


def test_each_kind_is_rendered_by_some_values() -> None:
    found = {tree["kind"] for name in NAMES for tree in rendered(name).objects}
    assert found == {
        "Service", "ServiceAccount", "StatefulSet", "Deployment", "PodDisruptionBudget", "NetworkPolicy", *SCHEMAS
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_two_objects_have_the_same_name_and_all_are_in_the_namespace_of_the_release(name: str) -> None:
    found = [(tree["kind"], tree["metadata"]["name"]) for tree in rendered(name).objects]
    assert len(set(found)) == len(found)
    assert {tree["metadata"]["namespace"] for tree in rendered(name).objects} == {"shop"}


def test_the_version_of_the_chart_is_the_one_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)
