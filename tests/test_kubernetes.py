"""The manifests of docs/how-to/kubernetes.md: what they name exists, here and in one another, and they fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import yaml

from dagorama.cli import worker

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
#: Blocks that begin with "# values.yaml" are for the chart, and tests/chart renders them.
DOCUMENTS: list[dict[str, Any]] = [
    document
    for block in re.findall(r"^```yaml\n(?!# values)(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for document in yaml.safe_load_all(block)
]
#: The kinds are told from a fragment, which shows only what is different in a second worker.
MANIFESTS = {document["kind"]: document for document in DOCUMENTS if "kind" in document}
(FRAGMENT,) = (document for document in DOCUMENTS if "kind" not in document)
#: The user of both images, which must be able to read secrets and to write to the volume.
USER = 10001


class Program(NamedTuple):
    """A workload with one container."""

    pod: dict[str, Any]
    container: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return {each["name"]: each["value"] for each in self.container["env"]}

    @property
    def mounts(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.container["volumeMounts"]}

    @property
    def secrets(self) -> dict[str, str]:
        """The names of the Secrets by the names of their volumes."""
        return {each["name"]: each["secret"]["secretName"] for each in self.pod["volumes"] if "secret" in each}


def program(kind: str) -> Program:
    pod = MANIFESTS[kind]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return Program(pod, container)


BROKER, WORKER = program("StatefulSet"), program("Deployment")
PROGRAMS = pytest.mark.parametrize("program", [BROKER, WORKER], ids=["broker", "worker"])
WORKLOADS = pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])


def created_secrets() -> dict[str, set[str]]:
    """The keys of the Secrets that the commands of the page create."""
    commands = re.findall(r"create secret generic (\S+) ((?:\\\n|.)*)", PAGE)
    return {name: set(re.findall(r"--from-file=([\w.]+)", rest)) for name, rest in commands}


def paths(found: Program) -> Iterator[tuple[str, str]]:
    """The Secret and the key of each file that a variable names."""
    for value in found.environment.values():
        for volume, secret in found.secrets.items():
            folder = f"{found.mounts[volume]['mountPath']}/"
            if value.startswith(folder):
                yield secret, value.removeprefix(folder)


@PROGRAMS
def test_every_variable_is_a_setting(program: Program) -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert [name for name in program.environment if f"| `{name}` |" not in page] == []


@PROGRAMS
def test_every_file_that_a_variable_names_is_in_a_secret_that_the_page_creates(program: Program) -> None:
    named = list(paths(program))
    assert len(named) == 3
    assert [key for secret, key in named if key not in created_secrets()[secret]] == []
    assert [value for value in program.environment.values() if value.startswith("/")] == [
        f"{program.mounts['secrets']['mountPath']}/{key}" for _, key in named
    ]


def test_the_broker_has_no_signing_key_and_workers_have_no_key_of_the_broker() -> None:
    assert "signing.key" not in created_secrets()["broker"]
    assert "tls.key" not in created_secrets()["worker"] | created_secrets()["client"]


@PROGRAMS
def test_every_mount_is_a_volume_and_secrets_can_be_read_and_not_written(program: Program) -> None:
    volumes = {each["name"] for each in program.pod["volumes"]}
    volumes |= {each["metadata"]["name"] for each in MANIFESTS["StatefulSet"]["spec"]["volumeClaimTemplates"]}
    assert set(program.mounts) <= volumes
    assert all(program.mounts[name]["readOnly"] for name in program.secrets)
    assert [each["secret"]["defaultMode"] for each in program.pod["volumes"] if "secret" in each] == [0o440]
    assert program.pod["securityContext"]["fsGroup"] == program.pod["securityContext"]["runAsUser"] == USER


@PROGRAMS
def test_a_container_cannot_write_to_its_image_or_gain_rights(program: Program) -> None:
    assert program.container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert program.pod["securityContext"]["runAsNonRoot"] is True


@PROGRAMS
def test_probes_ask_for_pages_at_a_port_that_is_served_to_other_machines(program: Program) -> None:
    ports = {each["name"]: each["containerPort"] for each in program.container["ports"]}
    arguments = program.container.get("args", [])
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    health = options.get("--metrics-port") or program.environment["DAGORAMA_HEALTH_PORT"]
    host = options.get("--health-host") or program.environment["DAGORAMA_HEALTH_HOST"]
    probes = [program.container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert {ports[probe["port"]] for probe in probes} == {int(health)}
    assert [probe["path"] for probe in probes][1:] == ["/readyz", "/livez"]
    assert host == "0.0.0.0"


def test_the_worker_listens_for_probes_at_the_port_of_its_image() -> None:
    """Its image passes `--health-port`, and the arguments of the manifest follow."""
    image = (ROOT / "Dockerfile.worker").read_text()
    (entry_point,) = re.findall(r"^ENTRYPOINT (.*)$", image, re.MULTILINE)
    assert yaml.safe_load(entry_point) == ["worker", "--health-port", "8081"]
    assert f"{WORKER.container['ports'][0]['containerPort']}" == "8081"


@pytest.mark.parametrize("pod", [WORKER.pod, FRAGMENT["spec"]["template"]["spec"]], ids=["worker", "GPU"])
def test_every_argument_is_an_option_of_the_worker(pod: dict[str, Any]) -> None:
    command: click.Command = worker
    command.make_context("worker", list(pod["containers"][0]["args"])).close()


def test_a_stopped_pod_has_more_time_than_its_running_nodes() -> None:
    assert WORKER.pod["terminationGracePeriodSeconds"] > int(WORKER.environment["DAGORAMA_GRACE"])


def test_there_is_one_broker_and_its_volume_is_where_the_image_has_the_store() -> None:
    assert MANIFESTS["StatefulSet"]["spec"]["replicas"] == 1
    image = (ROOT / "Dockerfile.broker").read_text()
    assert f"VOLUME {BROKER.mounts['store']['mountPath']}\n" in image


@WORKLOADS
def test_a_workload_selects_its_own_pods(kind: str) -> None:
    spec = MANIFESTS[kind]["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def test_the_service_leads_to_the_broker_under_a_name_of_its_certificate() -> None:
    service = MANIFESTS["Service"]
    assert service["spec"]["selector"] == MANIFESTS["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["ports"][0]["targetPort"] in {each["name"] for each in BROKER.container["ports"]}
    name = service["metadata"]["name"]
    assert MANIFESTS["StatefulSet"]["spec"]["serviceName"] == WORKER.environment["DAGORAMA_HOST"] == name
    (names,) = re.findall(r"subjectAltName=(\S+)", PAGE)
    of_the_chart, *own = names.split(",")
    assert own == [f"DNS:{name}", f"DNS:{name}.{service['metadata']['namespace']}.svc"]
    assert of_the_chart == "DNS:dagorama-broker.dagorama.svc"
