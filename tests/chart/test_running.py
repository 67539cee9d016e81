"""The containers of the chart run: their command lines and variables, with the Secrets as files of the test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from dagorama import resolve
from dagorama.values.keys import new_key
from dagorama_broker.launch import LaunchedBroker, environment_with
from tests.chart.rendered import NEEDS_HELM, Container, Pod, rendered
from tests.support.brokers import launch_broker
from tests.support.certificates import Authority
from tests.support.growing import Growing, plain
from tests.support.keda import ExternalScaler, Trigger
from tests.support.tokens import Tokens
from tests.support.worker_command import WAIT
from tests.support.workers import fork_worker

pytestmark = [NEEDS_HELM, pytest.mark.slow]


class Secrets:
    """The files that the chart mounts below /secrets, in a folder."""

    def __init__(self, folder: Path, host: str) -> None:
        self.folder = folder
        self.tokens = Tokens(self._file("tokens/tokens.toml"))
        self.tokens.add("worker", "worker", tolerations=[])
        self.tokens.add("client", "client")
        self._write("token/token", self.tokens["worker"])
        self._write("signing/signing.key", new_key())
        authority = Authority(folder)
        cert, key = authority.pair(host)
        self._write("tls/tls.crt", Path(cert).read_text())
        self._write("tls/tls.key", Path(key).read_text())
        self._write("ca/ca.crt", authority.file.read_text())

    def _file(self, name: str) -> Path:
        (self.folder / name).parent.mkdir(exist_ok=True)
        return self.folder / name

    def _write(self, name: str, text: str) -> None:
        file = self._file(name)
        file.touch(0o600)
        file.write_text(text)

    def _here(self, value: str) -> str:
        return value.replace("/secrets/", f"{self.folder}/").replace("/var/lib/dagorama/", f"{self.folder}/store/")

    def variables(self, container: Container) -> dict[str, str]:
        """The variables of a container with the folders here, without its ports, which may be taken on this machine."""
        files = {name: self._here(value) for name, value in container.plain.items()}
        kept = {name: value for name, value in files.items() if not name.endswith("_PORT")}
        tokens = {name: self.tokens["worker"] for name, (_, key) in container.from_secrets.items() if key == "token"}
        return {**kept, **tokens}


@pytest.fixture
def pools() -> dict[str, Pod]:
    return rendered("secured").pools


@pytest.fixture
def host(pools: dict[str, Pod]) -> str:
    return pools["scaled"].container.plain["DAGORAMA_HOST"]


@pytest.fixture
def secrets(tmp_path: Path, host: str) -> Secrets:
    return Secrets(tmp_path, host)


@pytest.fixture
def broker(secrets: Secrets, host: str) -> Iterator[LaunchedBroker]:
    variables = secrets.variables(rendered("secured").broker.container)
    client: dict[str, str | None] = {
        "DAGORAMA_TLS_CA": str(secrets.folder / "ca" / "ca.crt"), "DAGORAMA_TLS_NAME": host,
        "DAGORAMA_AUTH_TOKEN": secrets.tokens["client"],
        "DAGORAMA_SIGNING_KEYS_FILE": str(secrets.folder / "signing" / "signing.key"),
        "DAGORAMA_SIGNING_KEYS": None,
    }  # fmt: skip
    with launch_broker(environment=variables) as broker, environment_with(**client):
        yield broker


@pytest.mark.parametrize("name", ["fixed", "scaled"])
def test_a_worker_of_a_pool_runs_nodes_of_the_broker(
    broker: LaunchedBroker, secrets: Secrets, pools: dict[str, Pod], host: str, name: str
) -> None:
    container = pools[name].container
    there = {
        "DAGORAMA_HOST": "127.0.0.1",
        "DAGORAMA_PORT": broker.address.rpartition(":")[2],
        "DAGORAMA_TLS_NAME": host,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DAGORAMA_")}
    flags = [flag.replace("8081", "0") for flag in container.command[1:]]
    instance, promise = Growing()(2, 7)
    worker = fork_worker(flags, {**inherited, **secrets.variables(container), **there}, (1, 2))
    try:
        assert resolve(instance, promise, timeout=WAIT) == plain(2, 7)
        worker.terminate()
        assert worker.wait() == 0
    finally:
        worker.kill()
        worker.wait()


def test_keda_gets_an_answer_with_the_metadata_of_the_chart(
    broker: LaunchedBroker, secrets: Secrets, pools: dict[str, Pod], host: str
) -> None:
    found = rendered("secured")
    (trigger,) = found.one("ScaledObject")["spec"]["triggers"]
    authority = (secrets.folder / "ca" / "ca.crt").read_bytes()
    credentials = grpc.ssl_channel_credentials(authority)
    Growing()(2, 7)
    with grpc.secure_channel(broker.address, credentials, [("grpc.ssl_target_name_override", host)]) as channel:
        environment = secrets.variables(pools["scaled"].container)
        scaler = ExternalScaler(channel, Trigger(trigger["metadata"], environment))
        assert scaler.is_active().result
        assert [value.metricValueFloat for value in scaler.metrics("slots").metricValues] == [1.0]
