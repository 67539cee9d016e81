"""Pools of workers of the chart: their command lines, their time to stop, and the triggers by which KEDA scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import pytest

from dagorama import settings
from dagorama.cli import worker
from dagorama_broker.rpc.scaler_metadata import TOKEN, read_trigger
from tests.chart.rendered import NAMES, NEEDS_HELM, VALUES, Pod, Tree, rendered
from tests.chart.test_brokers import set_only
from tests.chart.tools import ROOT

pytestmark = NEEDS_HELM
WITH_POOLS = pytest.mark.parametrize("name", ["deployment", "job", "secured", "everything"])


def options_of(pod: Pod) -> Mapping[str, Any]:
    """The options of a worker as its command reads them."""
    program, *options = pod.container.command
    assert program == "worker"
    command: click.Command = worker
    with command.make_context("worker", options) as context:
        return dict(context.params)


def scaler_of(pod: Pod) -> Tree | None:
    """The object by which KEDA scales a pool; None: it has a fixed number of pods."""
    if pod.owner["kind"] == "ScaledJob":
        return pod.owner
    found = rendered_with(pod).all("ScaledObject")
    return next((each for each in found if each["spec"]["scaleTargetRef"]["name"] == pod.name), None)


def rendered_with(pod: Pod) -> Any:
    return next(rendered(name) for name in NAMES if any(pod.owner is each for each in rendered(name).objects))


@WITH_POOLS
def test_the_worker_accepts_its_command_line_and_its_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    for pod in rendered(name).pools.values():
        container = pod.container
        options = options_of(pod)
        assert options["health_port"] == container.ports["http"]
        assert options["health_host"] == "0.0.0.0"
        ours = [variable for variable in container.variables if variable.startswith("DAGORAMA_")]
        assert [variable for variable in ours if f"| `{variable}` |" not in page] == []
        set_only(monkeypatch, {**container.plain, **dict.fromkeys(container.from_secrets, "secret")})
        read = settings.Settings.from_env()
        assert read.host.endswith("-broker.shop.svc")
        assert settings.broker_wait() > 60


@WITH_POOLS
def test_a_pod_gets_ten_seconds_more_than_its_running_nodes(name: str) -> None:
    for pod in rendered(name).pools.values():
        assert pod.spec["terminationGracePeriodSeconds"] == options_of(pod)["grace"] + 10


def test_the_options_of_a_pool_are_options_of_its_workers() -> None:
    options = options_of(rendered("everything").pools["cpu-41"])
    assert options["concurrency"] == 4
    assert (options["include_queues"], options["exclude_queues"]) == (("reports",), ("archive",))
    assert options["tolerations"] == ("LICENSE",)
    assert (options["lifetime"], options["capture"]) == (86400, "fd")
    assert options["metrics_port"] is None
    assert options_of(rendered("job").pools["gpu"])["lifetime"] == 2_880_000


def test_jobs_leave_when_they_are_idle_and_pods_of_deployments_stay() -> None:
    found = rendered("everything").pools
    job, deployed = options_of(found["gpu-41"]), options_of(found["cpu-41"])
    assert (job["until"], job["idle"]) == ("idle", 30)
    assert deployed["until"] is None
    assert found["gpu-41"].spec["restartPolicy"] == "Never"
    assert "readinessProbe" not in found["gpu-41"].container.probes


def test_only_a_pool_that_keda_does_not_scale_has_a_number_of_pods() -> None:
    found = rendered("deployment").pools
    assert found["plain"].owner["spec"]["replicas"] == 0
    assert "replicas" not in found["scaled"].owner["spec"]
    assert rendered("everything").pools["cpu-40"].owner["spec"]["replicas"] == 2


@WITH_POOLS
def test_the_broker_understands_a_trigger_as_the_pool_that_its_workers_are(name: str) -> None:
    scaled = 0
    for pod in rendered(name).pools.values():
        scaler = scaler_of(pod)
        if scaler is None:
            continue
        scaled += 1
        (trigger,) = scaler["spec"]["triggers"]
        assert trigger["type"] == ("external" if scaler["kind"] == "ScaledJob" else "external-push")
        options, read = options_of(pod), read_trigger(trigger["metadata"])
        assert read.slots_per_pod == options["concurrency"]
        assert tuple(read.pool.include_queues) == options["include_queues"]
        assert tuple(read.pool.exclude_queues) == options["exclude_queues"]
        assert tuple(read.pool.tolerations) == options["tolerations"]
        host, port = trigger["metadata"]["scalerAddress"].rsplit(":", 1)
        plain = pod.container.plain
        assert (host, port) == (plain["DAGORAMA_HOST"], plain["DAGORAMA_PORT"])
    assert scaled


def test_a_trigger_has_the_keys_the_horizon_and_the_share_of_its_pool() -> None:
    everything = scaler_of(rendered("everything").pools["cpu-41"])
    job = scaler_of(rendered("job").pools["gpu"])
    assert everything is not None
    assert job is not None
    pool = read_trigger(everything["spec"]["triggers"][0]["metadata"]).pool
    assert [id.hex() for id in pool.key_ids] == ["0a1b2c3d4e5f6071", "ffeeddccbbaa9988"]
    assert (pool.horizon, pool.share) == (20, 0.25)
    assert not read_trigger(job["spec"]["triggers"][0]["metadata"]).any_key
    assert (job["spec"]["minReplicaCount"], job["spec"]["maxReplicaCount"]) == (1, 8)


@pytest.mark.parametrize("name", ["secured", "everything"])
def test_keda_finds_the_token_in_the_pod_and_the_authority_in_its_secret(name: str) -> None:
    found = rendered(name)
    authentication = found.one("TriggerAuthentication")
    for pod in found.pools.values():
        scaler = scaler_of(pod)
        if scaler is None:
            assert pod.container.plain["DAGORAMA_AUTH_TOKEN_FILE"] == "/secrets/token/token"
            continue
        (trigger,) = scaler["spec"]["triggers"]
        container = (
            scaler["spec"].get("envSourceContainerName") or scaler["spec"]["scaleTargetRef"]["envSourceContainerName"]
        )
        assert container == pod.container.tree["name"]
        assert trigger["metadata"][TOKEN] in pod.container.from_secrets
        assert trigger["metadata"]["enableTLS"] == "true"
        assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    (secret,) = authentication["spec"]["secretTargetRef"]
    assert (secret["name"], secret["key"]) == {"secured": ("worker", "ca.pem"), "everything": ("authority", "ca.pem")}[
        name
    ]
    assert all((secret["name"], secret["key"]) in pod.secrets for pod in found.pools.values())


def test_without_tokens_and_tls_keda_needs_neither() -> None:
    assert not rendered("deployment").all("TriggerAuthentication")
    (trigger,) = rendered("deployment").one("ScaledObject")["spec"]["triggers"]
    assert not {TOKEN, "enableTLS"} & set(trigger["metadata"])


def test_a_pool_for_gpus_has_the_taint_of_nodes_and_the_taint_of_machines() -> None:
    pod = rendered("job").pools["gpu"]
    assert options_of(pod)["tolerations"] == ("GPU",)
    assert pod.spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod.container.tree["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert pod.labels["kueue.x-k8s.io/queue-name"] == "gpus"


@pytest.mark.parametrize("name", NAMES)
def test_every_mount_is_a_volume_and_every_file_of_a_variable_is_mounted(name: str) -> None:
    for pod in rendered(name).pods:
        container = pod.container
        claims = pod.owner["spec"].get("volumeClaimTemplates", [])
        assert set(container.mounts) == {*pod.volumes, *(claim["metadata"]["name"] for claim in claims)}
        files = set()
        for volume in pod.volumes.values():
            if "secret" in volume:
                mount = container.mounts[volume["name"]]
                assert mount["readOnly"]
                assert volume["secret"]["defaultMode"] == 0o440
                files |= {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
        assert {value for value in container.plain.values() if value.startswith("/secrets/")} == files


@pytest.mark.parametrize("name", NAMES)
def test_no_container_is_root_or_can_write_to_its_image_and_all_have_a_folder_for_temporary_files(name: str) -> None:
    for pod in rendered(name).pods:
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["runAsUser"] > 0
        assert pod.spec["automountServiceAccountToken"] is False
        context = pod.container.tree["securityContext"]
        assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert pod.container.mounts["tmp"]["mountPath"] == "/tmp"
        assert "emptyDir" in pod.volumes["tmp"]


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_selects_its_own_pods_and_no_others(name: str) -> None:
    pods = rendered(name).pods
    for pod in pods:
        if pod.owner["kind"] != "ScaledJob":
            selector = pod.owner["spec"]["selector"]["matchLabels"]
            assert [each.name for each in pods if selector.items() <= each.labels.items()] == [pod.name]


def test_a_new_version_of_the_chart_restarts_no_pods() -> None:
    for pod in rendered("everything").pods:
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(pod.labels)


def test_a_file_of_values_is_there_for_each_name() -> None:
    assert {file.stem for file in VALUES.glob("*.yaml")} == set(NAMES)
