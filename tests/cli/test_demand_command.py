"""`dagorama demand` shows how many slots are needed of workers that are started with the same options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama.api.broker_pb2 import DemandReply
from dagorama.cli.credentials import new_token, record_of
from dagorama.client.connection import connection
from tests.support.brokers import launch_broker
from tests.support.command_flows import Shapes
from tests.support.commands import data, invoke, printed, refusal


@pytest.fixture
def broker() -> Iterator[None]:
    with launch_broker(port=0):
        yield


@pytest.mark.usefixtures("broker")
def test_the_demand_of_queued_nodes_is_shown_with_what_it_follows_from() -> None:
    Shapes()(1)
    (queue,) = connection().get_status().queues
    assert printed("demand").splitlines() == [
        "slots needed  1",
        "running       0 nodes in 0 slots",
        "ready         1 node, 1 of functions that have not run yet",
        "work          10 s",
        "oldest ready  -",
        "workers       0 connected, 0 busy, 0 leaving",
    ]
    found = data("demand", "--include-queue", queue.queue, "--horizon", 4)
    assert (found["slots"], found["ready"], found["seconds"], found["schema_version"]) == (1, 1, 4.0, 1)
    assert data("demand", "--exclude-queue", queue.queue)["slots"] == 0
    assert data("demand", "--include-queue", "other")["slots"] == 0


@pytest.mark.usefixtures("broker")
def test_nodes_that_are_signed_with_other_keys_are_told() -> None:
    Shapes()(1)
    asked = invoke("demand", "--key-id", "0f")
    assert "slots needed  0" in asked.stdout
    assert asked.stderr == "Other keys have signed 1 node: name the keys of the workers with --key-id.\n"


def test_the_keys_of_the_document_are_the_fields_of_the_reply() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "reference" / "commands.md").read_text()
    (row,) = [line for line in documented.splitlines() if line.startswith("| `demand` |")]
    assert all(f"`{field.name}`" in row for field in DemandReply.DESCRIPTOR.fields)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--key-id", "xy"], "the ID of a key is hexadecimal"),
        (["--horizon", "0"], "0.001<=x<=86400"),
        (["--share", "0"], "0<x<=1"),
    ],
)
def test_wrong_options_are_refused_with_the_reason(arguments: list[str], said: str) -> None:
    code, text = refusal("demand", *arguments)
    assert (code, said in text) == (2, True), text


def test_a_worker_asks_for_its_own_queues_and_a_client_is_not_permitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, client = new_token(), new_token()
    file = tmp_path / "tokens.toml"
    file.write_text(record_of(worker, "worker", name="w", queues=["images"]) + "\n" + record_of(client, "client"))
    file.chmod(0o600)
    with launch_broker(port=0, environment={"DAGORAMA_TOKENS_FILE": str(file)}):
        monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", client)
        Shapes()(1)
        assert refusal("demand")[0] == 77
        monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", worker)
        assert data("demand")["slots"] == 0
        code, text = refusal("demand", "--include-queue", "other")
        assert (code, "allows the queues images, and this worker requests other" in text) == (77, True)
    code, _ = refusal("demand")
    assert code == 69
