"""`dagorama send` gives a value to a node that waits, and explain and show say what it waits for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import pytest
from click.testing import CliRunner, Result

from dagorama import DAGDefinition, DAGInstance, dagorama, execute_worker, resolve, start, wait_for
from dagorama.__main__ import main
from dagorama.cli.credentials import new_token, record_of
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker


class Decision(TypedDict):
    yes: bool


class Approved(DAGDefinition):
    def entrypoint(self) -> str:
        return self.said(wait_for("approval", Decision, timeout=3_600))

    @dagorama
    def said(self, decision: Decision) -> str:
        return f"{decision}"


@pytest.fixture(autouse=True)
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0, store="memory://") as broker:
        yield broker


def run(*arguments: object, input: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=input)


class Voted(DAGDefinition):
    def entrypoint(self, voters: int) -> int:
        return self.total([wait_for(f"vote-{number}", int) for number in range(voters)])

    @dagorama
    def total(self, votes: list[int]) -> int:
        return sum(votes)


def started() -> DAGInstance:
    return start(Approved(), id="order-1")()[0]


def test_a_signal_is_sent_from_a_shell_and_the_node_shows_it() -> None:
    instance, promise = start(Approved(), id="order-1")()
    explained = run("explain", "id=order-1").stdout
    assert "1 node of wait_for(approval), WAITING" in explained
    assert "it waits for the signal 'approval', which `dagorama send INSTANCE approval JSON` sends; without it, it" in (
        explained
    )
    assert "until 20" in explained
    assert "[signal]" in explained
    of_node = json.loads(run("explain", f"{instance.instance_id}/1", "-o", "json").stdout)
    assert ([each["code"] for each in of_node["reasons"]], of_node["causes"]) == (["signal"], [])
    first, second = json.loads(run("show", instance.instance_id, "-o", "json").stdout)["nodes"]
    assert (first["signal"]["name"], first["signal"]["state"], second["signal"]) == ("approval", "awaited", None)
    waiting = run("show", f"{instance.instance_id}/1").stdout
    assert "deployed" not in waiting
    assert "wait_for(approval)" in waiting
    assert "then it fails" in waiting

    sent = run("send", "id=order-1", "approval", '{"yes": true}')
    assert sent.exit_code == 0
    assert sent.stdout == f"given to node {instance.instance_id.hex[:8]}/1\n"
    execute_worker(infinite_loop=False)
    assert resolve(instance, promise, timeout=60) == "{'yes': True}"

    shown = run("show", f"{instance.instance_id}/1", "--arguments").stdout
    assert 'value:\n  {"yes": true}' in shown or 'value:\n  {"yes":true}' in shown
    found = json.loads(run("show", f"{instance.instance_id}/1", "--arguments", "-o", "json").stdout)
    assert found["signal"]["name"] == "approval"
    assert found["signal"]["state"] == "sent"
    assert found["arguments"][0] == "'approval'"


@pytest.mark.parametrize(("voters", "others"), [(5, ""), (6, "1 other group"), (8, "3 other groups")])
def test_an_explanation_says_how_many_causes_it_leaves_out(voters: int, others: str) -> None:
    instance, promise = Voted()(voters)
    for of in (f"{instance.instance_id}", f"{instance.instance_id}/{voters + 1}"):
        text = run("explain", of).stdout
        assert text.count("1 node of wait_for(vote-") == 5
        assert text.endswith(f"  and for {others} of nodes\n" if others else "[signal]\n")
        assert json.loads(run("explain", of, "-o", "json").stdout)["causes_left_out"] == voters - 5
    with pytest.raises(TimeoutError) as caught:
        resolve(instance, promise, timeout=0.01)
    assert (f"; and for {others} of nodes" in f"{caught.value}") == bool(others)


def test_a_signal_is_read_from_standard_input_and_sent_once_with_a_key() -> None:
    started()
    sent = run("send", "id=order-1", "approval", "-", "--key", "k", input='{"yes": false}\n')
    assert "given to node" in sent.stdout
    again = run("send", "id=order-1", "approval", "-", "--key", "k", "-o", "json", input='{ "yes": false }')
    assert json.loads(again.stdout)["known"] is True
    kept = run("send", "id=order-1", "approval", '{"yes": true}')
    assert kept.stdout == "kept until a node waits for it: 1 signal 'approval'\n"


def test_a_negative_number_is_a_value_and_no_option() -> None:
    started()
    for value in ("-5", "-1.5e-3"):
        assert "kept until a node waits for it" in run("send", "id=order-1", "number", value, "--key", value).stdout
    assert "No such option" in run("send", "id=order-1", "number", "5", "--kye", "k").stderr
    begun = run("run", "tests.support.command_flows:Shapes", "-1", "--detach")
    assert (begun.exit_code, begun.stderr) == (0, "")


def test_a_node_that_has_its_signal_waits_for_another_one_if_it_is_retried_downstream() -> None:
    instance, promise = start(Approved(), id="order-1")()
    run("send", "id=order-1", "approval", '{"yes": true}')
    execute_worker(infinite_loop=False)
    assert run("retry", f"{instance.instance_id}/1").stdout == "nothing to retry\n"
    retried = run("retry", f"{instance.instance_id}/1", "--downstream")
    assert retried.stdout == "0 nodes run again, 2 wait; 2 of them had completed\n"
    run("send", "id=order-1", "approval", '{"yes": false}')
    execute_worker(infinite_loop=False)
    assert resolve(instance, promise) == "{'yes': False}"


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    started()
    for value, said in (
        ('{"no": true}', "the signal 'approval' does not fit the type that its node waits for: it lacks 'yes'"),
        ("yes", "the signal 'approval' is not JSON"),
        ("NaN", "the signal 'approval' is not JSON (NaN is not JSON)"),
        ('{"yes": true, "yes": false}', "an object has a key twice"),
        ('"' + "x" * 70_000 + '"', "65,536 are allowed"),
    ):
        result = run("send", "id=order-1", "approval", value)
        assert result.exit_code == 1
        assert said in result.stderr
        assert "Traceback" not in result.stderr
    assert run("send", "id=order-2", "approval", "true").exit_code == 1


def test_a_worker_sends_a_signal_although_it_may_not_read_the_name_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, worker = new_token(), new_token()
    file = tmp_path / "tokens.toml"
    file.write_text(record_of(client, "client") + "\n" + record_of(worker, "worker", name="w"))
    file.chmod(0o600)
    with launch_broker(port=0, environment={"DAGORAMA_TOKENS_FILE": str(file)}):
        monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", client)
        instance, _ = start(Approved(), id="order-1")()
        monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", worker)
        sent = run("send", f"{instance.instance_id}", "approval", '{"yes": true}', "-o", "json")
        assert (sent.exit_code, sent.stderr) == (0, "")
        again = run("send", f"{instance.instance_id}", "other", "1")
        assert (again.exit_code, again.stdout) == (0, "kept until a node waits for it: 1 signal 'other'\n")
        assert json.loads(sent.stdout)["node"]


def test_debug_says_that_a_wait_runs_no_function() -> None:
    instance = started()
    result = run("debug", f"{instance.instance_id}/1")
    assert result.exit_code == 1
    assert "waits for a signal and runs no function" in result.stderr
