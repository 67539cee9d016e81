"""Renders the chart, and reads what it renders: objects, pods and their containers, with types."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.tools import CHART, MISSING, helm

Tree = dict[str, Any]

VALUES = Path(__file__).parent / "values"
NAMES = ("sqlite", "postgresql", "deployment", "job", "secured", "everything")
NEEDS_HELM = pytest.mark.skipif(helm() is None, reason=MISSING)


@dataclass(frozen=True)
class Container:
    """The container of a pod."""

    tree: Tree

    @property
    def command(self) -> list[str]:
        """The program and its arguments."""
        return [*self.tree["command"], *self.tree.get("args", [])]

    @property
    def plain(self) -> dict[str, str]:
        """The variables with their values, without the ones that come from Secrets."""
        return {each["name"]: each["value"] for each in self.tree["env"] if "value" in each}

    @property
    def from_secrets(self) -> dict[str, tuple[str, str]]:
        """The Secrets and keys of the variables that come from Secrets."""
        found = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in self.tree["env"] if "valueFrom" in each}
        return {name: (reference["name"], reference["key"]) for name, reference in found.items()}

    @property
    def variables(self) -> list[str]:
        return [each["name"] for each in self.tree["env"]]

    @property
    def ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.tree["ports"]}

    @property
    def probes(self) -> dict[str, Tree]:
        return {name: self.tree[name] for name in self.tree if name.endswith("Probe")}

    @property
    def mounts(self) -> dict[str, Tree]:
        return {each["name"]: each for each in self.tree["volumeMounts"]}


@dataclass(frozen=True)
class Pod:
    """A pod as an object describes it, with one container."""

    owner: Tree
    template: Tree

    @property
    def name(self) -> str:
        name: str = self.owner["metadata"]["name"]
        return name

    @property
    def spec(self) -> Tree:
        found: Tree = self.template["spec"]
        return found

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.template["metadata"]["labels"]
        return found

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def container(self) -> Container:
        (tree,) = self.spec["containers"]
        return Container(tree)

    @property
    def volumes(self) -> dict[str, Tree]:
        return {each["name"]: each for each in self.spec["volumes"]}

    @property
    def secrets(self) -> set[tuple[str, str]]:
        """The Secrets and keys that the pod reads, as files or variables."""
        files = {
            (volume["secret"]["secretName"], item["key"])
            for volume in self.volumes.values()
            if "secret" in volume
            for item in volume["secret"]["items"]
        }
        return files | set(self.container.from_secrets.values())


@dataclass(frozen=True)
class Rendered:
    """All objects of a release."""

    objects: tuple[Tree, ...]

    def all(self, kind: str) -> list[Tree]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str = "") -> Tree:
        """The object of a kind whose name ends so."""
        (found,) = (each for each in self.all(kind) if each["metadata"]["name"].endswith(name))
        return found

    @property
    def pods(self) -> list[Pod]:
        return list(self._pods())

    def _pods(self) -> Iterator[Pod]:
        for each in self.objects:
            spec = each.get("spec", {})
            template = spec.get("jobTargetRef", spec).get("template")
            if template is not None:
                yield Pod(each, template)

    def of(self, component: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.component == component]

    @property
    def broker(self) -> Pod:
        (pod,) = self.of("broker")
        return pod

    @property
    def pools(self) -> dict[str, Pod]:
        return {pod.labels["dagorama.dev/pool"]: pod for pod in self.of("worker")}


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = helm()
    assert path is not None
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False)


def template(*arguments: str, name: str = "jobs", space: str = "shop") -> subprocess.CompletedProcess[str]:
    return run_helm("template", name, str(CHART), "--namespace", space, *arguments)


@cache
def rendered(name: str, *arguments: str) -> Rendered:
    """The release with one of the files of values, and further arguments of helm."""
    done = template("--values", str(VALUES / f"{name}.yaml"), *arguments)
    assert done.returncode == 0, done.stderr
    return Rendered(tuple(each for each in yaml.safe_load_all(done.stdout) if each))
