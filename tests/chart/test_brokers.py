"""The brokers of the chart: their objects by the kind of the store, their settings, secrets and probes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import click
import pytest

from dagorama.__main__ import main
from dagorama_broker.cli import serve
from dagorama_broker.settings import Settings
from dagorama_monitoring.health import Health
from tests.chart.rendered import NAMES, NEEDS_HELM, VALUES, Pod, rendered, run_helm
from tests.chart.tools import CHART

pytestmark = NEEDS_HELM
FILES = pytest.mark.parametrize("name", NAMES)


def set_only(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    """Set the variables of a container, and no others of dagorama."""
    for variable in os.environ:
        if variable.startswith("DAGORAMA_"):
            monkeypatch.delenv(variable)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)


def test_a_sqlite_store_has_one_broker_with_a_volume_where_its_store_is() -> None:
    found = rendered("sqlite")
    spec = found.one("StatefulSet")["spec"]
    assert spec["replicas"] == 1
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    mount = found.broker.container.mounts[claim["metadata"]["name"]]["mountPath"]
    assert found.broker.container.plain["DAGORAMA_STORE"].startswith(f"sqlite:///{mount}/")
    assert found.broker.spec["securityContext"]["fsGroup"] == found.broker.spec["securityContext"]["runAsUser"]
    assert not found.all("PodDisruptionBudget")
    assert not found.all("Deployment")


def test_a_postgresql_store_has_two_brokers_of_which_one_is_always_there() -> None:
    found = rendered("postgresql")
    deployment = found.one("Deployment")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert found.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    (spread,) = found.broker.spec["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")
    assert spread["labelSelector"]["matchLabels"].items() <= found.broker.labels.items()
    assert found.broker.container.from_secrets == {"DAGORAMA_STORE": ("database", "url")}
    assert found.broker.container.mounts["values"]["mountPath"] == "/srv/values"
    assert found.broker.container.plain["DAGORAMA_VALUES"] == "file:///srv/values"
    assert found.broker.volumes["values"]["persistentVolumeClaim"]["claimName"] == "shared-values"
    assert not found.all("StatefulSet")


def test_an_object_store_for_values_is_passed_on() -> None:
    found = rendered("everything").broker.container
    assert found.plain["DAGORAMA_VALUES"] == "s3://shop-values/jobs"
    assert found.from_secrets["AWS_ACCESS_KEY_ID"] == ("store", "id")


@FILES
def test_the_broker_accepts_its_command_line_and_its_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    container = rendered(name).broker.container
    program, subcommand, *options = container.command
    assert (program, subcommand) == ("dagorama-broker", "serve")
    command: click.Command = serve
    command.make_context("serve", options).close()
    secret = dict.fromkeys(container.from_secrets, "postgresql://user@host/jobs")
    set_only(monkeypatch, {**container.plain, **secret})
    settings = Settings.from_env()
    assert settings.port == container.ports["grpc"]
    assert settings.health_port == settings.metrics_port == container.ports["http"]
    assert (settings.host, settings.health_host) == ("0.0.0.0", "0.0.0.0")


@FILES
def test_every_variable_of_the_broker_is_a_setting(name: str) -> None:
    from dagorama_broker.settings import described_settings

    known = {variable for variable, _, _ in described_settings()}
    ours = [variable for variable in rendered(name).broker.container.variables if variable.startswith("DAGORAMA_")]
    assert [variable for variable in ours if variable not in known] == []
    assert len(set(ours)) == len(ours)


@FILES
def test_probes_ask_for_pages_that_are_served(name: str) -> None:
    pages = set(Health(lambda: "").pages)
    for pod in rendered(name).pods:
        if pod.component == "dashboard":
            assert {each["tcpSocket"]["port"] for each in pod.container.probes.values()} <= set(pod.container.ports)
            continue
        for probe in pod.container.probes.values():
            assert probe["httpGet"]["path"] in pages
            assert probe["httpGet"]["port"] in pod.container.ports


@FILES
def test_no_broker_and_no_dashboard_reads_a_signing_key_or_the_token_of_a_worker(name: str) -> None:
    found = rendered(name)
    values = {"secured": {("worker", "signing.key")}, "everything": {("signing", "keys")}}
    signing = values.get(name, {("signing", "signing.key")} if found.pools else set())
    tokens = {secret for pool in found.pools.values() for secret in pool.secrets if "token" in secret[1]}
    for pod in (*found.of("broker"), *found.of("dashboard")):
        assert not pod.secrets & (signing | tokens)
        assert not [name for name in pod.container.variables if "SIGNING" in name]
    for pool in found.pools.values():
        assert signing <= pool.secrets
        assert not pool.secrets & found.broker.secrets


@FILES
def test_the_service_leads_to_all_brokers_at_the_port_that_clients_are_told(name: str) -> None:
    found = rendered(name)
    service = found.one("Service", "-broker")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= found.broker.labels.items()
    grpc, http = service["spec"]["ports"]
    assert (grpc["targetPort"], http["targetPort"]) == ("grpc", "http")
    for pod in (*found.pools.values(), *found.of("dashboard")):
        assert not service["spec"]["selector"].items() <= pod.labels.items()
        assert pod.container.plain["DAGORAMA_HOST"] == f"{service['metadata']['name']}.shop.svc"
        assert pod.container.plain["DAGORAMA_PORT"] == f"{grpc['port']}"


def test_the_dashboard_accepts_its_command_line() -> None:
    (pod,) = rendered("everything").of("dashboard")
    program, subcommand, *options = pod.container.command
    assert program == "dagorama"
    group = main
    assert isinstance(group, click.Group)
    command = group.get_command(click.Context(group), subcommand)
    assert command is not None
    with command.make_context(subcommand, options) as context:
        assert context.params["http_port"] == pod.container.ports["pages"]
        assert context.params["behind_proxy"]
    assert not pod.secrets - {("authority", "ca.pem")}


@FILES
def test_the_notes_tell_clients_the_address_and_what_else_they_need(name: str) -> None:
    found = rendered(name)
    host, port = found.one("Service", "-broker")["metadata"]["name"], found.broker.container.ports["grpc"]
    notes = notes_of(name)
    assert f"\n  DAGORAMA_HOST={host}.shop.svc\n  DAGORAMA_PORT={port}\n" in notes
    assert ("must be for the name" in notes) == bool("tls" in found.broker.volumes)
    assert ("DAGORAMA_AUTH_TOKEN_FILE=" in notes) == bool("tokens" in found.broker.volumes)
    assert ("DAGORAMA_SIGNING_KEYS_FILE=" in notes) == bool(found.pools)
    assert ("WARNING" in notes) == ("DAGORAMA_INSECURE" in found.broker.container.plain)
    assert re.findall(r"^Pool ([a-z0-9-]+): ", notes, re.MULTILINE) == sorted(found.pools)


def notes_of(name: str) -> str:
    values = ["--values", str(VALUES / f"{name}.yaml")]
    done = run_helm("install", "jobs", str(CHART), "--namespace", "shop", "--dry-run=client", *values)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def selects(pod: Pod, selector: dict[str, dict[str, str]]) -> bool:
    return selector["matchLabels"].items() <= pod.labels.items()


def test_callers_that_the_network_policies_let_out_are_let_in_by_the_broker() -> None:
    found = rendered("everything")
    policies = found.all("NetworkPolicy")
    for pod in found.pods:
        (own,) = (each for each in policies if selects(pod, each["spec"]["podSelector"]))
        assert own["spec"]["policyTypes"] == ["Ingress", "Egress"]
        if pod.component != "broker":
            (rule,) = (rule for rule in own["spec"]["egress"] if "to" in rule)
            assert rule["ports"] == [{"port": found.broker.container.ports["grpc"]}]
            assert selects(found.broker, rule["to"][0]["podSelector"])
    broker = found.one("NetworkPolicy", "-broker")["spec"]
    peers = broker["ingress"][0]["from"]
    for pod in (*found.of("worker"), *found.of("dashboard")):
        assert any(selects(pod, peer["podSelector"]) for peer in peers if "podSelector" in peer)
    spaces = [peer["namespaceSelector"]["matchLabels"] for peer in peers if "namespaceSelector" in peer]
    assert {"kubernetes.io/metadata.name": "scalers"} in spaces
    ports = [port["port"] for rule in broker["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 6432, 443, 9443]
