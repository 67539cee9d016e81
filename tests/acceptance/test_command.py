"""The `dagorama` command on whole programs: what went wrong is looked at, mended and run again."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner

from dagorama import DAGDefinition, Failure, NodeCancelled, NodeFailed, State, dagorama, outcome, resolve, state
from dagorama.__main__ import main
from dagorama.values.keys import SigningKey, new_key
from dagorama.values.signing import Keyring
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.worker_command import await_that, old_of_two, unservable, worker
from tests.support.workers import launch_workers

WAIT = 60
DEPLOYED = """
from dagorama import DAGDefinition, dagorama

class Deployed(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return number {change}
"""
LATER = [DEPLOYED.format(change=change) for change in ("+ 1", "+ 1000")]
LOGGING = """
import logging
from dagorama import DAGDefinition, dagorama

class Logs(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> None:
        logging.info("what the %s has to say", "node")
"""
BROKEN = """
from dagorama import DAGDefinition, dagorama

class Repaired(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.half(number)

    @dagorama().syncfn
    def half(self, number: int) -> int:
        {body}
"""
REPAIRED = [BROKEN.format(body=body) for body in ("return number // 0", "return number // 2")]


class Reads(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, file: str) -> str:
        return self.shouted(self.content(file))

    @dagorama().syncfn
    def content(self, file: str) -> str:
        return Path(file).read_text()

    @dagorama().syncfn
    def shouted(self, text: str) -> str:
        return text.upper()


class ReadsElsewhere(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, file: str) -> Any:
        return Reads()(file)[1]


class Report(DAGDefinition):
    """Rolls up what is there; what is not is counted."""

    @dagorama().syncfn
    def entrypoint(self, files: list[str]) -> str:
        return self.report([outcome(self.content(file)) for file in files])

    @dagorama().syncfn
    def content(self, file: str) -> str:
        return Path(file).read_text()

    @dagorama().syncfn
    def report(self, contents: list[str | Failure]) -> str:
        missing = [content for content in contents if isinstance(content, Failure)]
        return f"{len(contents) - len(missing)} of {len(contents)}"


class Fans(DAGDefinition):
    def entrypoint(self, number: int) -> list[int]:
        return [self.one(each) for each in range(number)]

    @dagorama().syncfn
    def one(self, number: int) -> int:
        return number


@pytest.fixture
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0) as made:
        yield made


def run(*arguments: object) -> str:
    """What the command prints when all goes well."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def asked(*arguments: object) -> Any:
    """The JSON that a command prints, without the version of its schema."""
    found = json.loads(run(*arguments, "--json"))
    for document in found if isinstance(found, list) else [found]:
        assert document.pop("schema_version") == 1
    return found


def refusal(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.stdout == ""
    return result.exit_code, result.stderr


def test_a_file_that_was_missing_is_put_there_and_what_needed_it_runs_again(
    broker: LaunchedBroker, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    with launch_workers(1):
        instance, promise = Reads()(str(file))
        with pytest.raises(NodeFailed, match="FileNotFoundError"):
            resolve(instance, promise, timeout=WAIT)
        id = instance.instance_id
        assert "FileNotFoundError" in run("show", id)
        shown = asked("show", id)
        assert (shown["instance"]["failed"], shown["instance"]["ended"]) == (True, True)
        by_function = {node["function"].rpartition(".")[2]: node for node in shown["nodes"]}
        assert {name: node["state"] for name, node in by_function.items()} == {
            "entrypoint": "FAILED", "content": "FAILED", "shouted": "FAILED",
        }  # fmt: skip
        cause = by_function["content"]["node"]
        assert by_function["shouted"]["root_cause"] == by_function["entrypoint"]["root_cause"] == cause
        assert [each["instance"] for each in asked("list", "--failed")] == [str(id)]
        file.write_text("here")
        assert run("retry", id) == "1 node runs again, 2 wait\n"
        assert resolve(instance, promise, timeout=WAIT) == "HERE"
        assert asked("list", "--failed") == []
        assert asked("show", id)["instance"]["nodes"] == 3, "nothing was made twice"
        assert run("retry", id, cause) == "nothing to retry\n"


def test_a_report_that_holds_an_old_failure_says_so_and_is_made_again_downstream(
    broker: LaunchedBroker, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("first", "second")]
    files[0].write_text("here")
    with launch_workers(1):
        instance, promise = Report()([str(file) for file in files])
        id = instance.instance_id
        assert resolve(instance, promise, timeout=WAIT) == "1 of 2"
        files[1].write_text("here")
        assert run("retry", id).splitlines() == [
            "1 node runs again, 0 wait",
            "1 node has used this failure and was not run again; use --downstream, or downstream=True",
        ]
        await_that(lambda: asked("show", id)["instance"]["ended"])
        assert resolve(instance, promise, timeout=WAIT) == "1 of 2"
        (listed,) = asked("list")
        assert (listed["failed"], listed["used_failures"]) == (False, 1)
        assert "completed with old failures" in run("list")
        assert [node["function"].rpartition(".")[2] for node in asked("show", id)["nodes"] if node["used_failure"]] == [
            "report"
        ]
        assert asked("retry", id, "--downstream") == {
            "queued": 1, "waiting": 1, "completed": 2, "used_failures": 0, "rebound": 0, "unschedulable": [],
        }  # fmt: skip
        assert resolve(instance, promise, timeout=WAIT) == "2 of 2"
        assert "old failures" not in run("list")
        assert instance.retry(promise, downstream=True) == 0


def test_a_function_that_was_repaired_runs_what_failed(
    broker: LaunchedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, promise = old_of_two(tmp_path, monkeypatch, "repaired_later", *REPAIRED).Repaired()(8)
    id = instance.instance_id
    with worker(path=tmp_path / "old"), pytest.raises(NodeFailed, match="ZeroDivisionError"):
        resolve(instance, promise, timeout=WAIT)
    with worker(path=tmp_path / "new"):
        await_that(lambda: asked("workers"))
        (found,) = asked("retry", id)["unschedulable"] or asked("unschedulable")
        assert (found["function"], len(found["deployed"])) == ("repaired_later:Repaired.half", 1)
        said = "nothing to retry; 1 node uses the deployed code\n"
        assert run("retry", id, "--new-code") == said
        assert resolve(instance, promise, timeout=WAIT) == 4


def test_a_program_has_what_failed_run_by_the_code_that_is_deployed(
    broker: LaunchedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, promise = old_of_two(tmp_path, monkeypatch, "repaired_here", *REPAIRED).Repaired()(8)
    with worker(path=tmp_path / "old"), pytest.raises(NodeFailed, match="ZeroDivisionError"):
        resolve(instance, promise, timeout=WAIT)
    assert instance.retry(promise, new_code=True).rebound > 0
    with worker(path=tmp_path / "new"):
        assert resolve(instance, promise, timeout=WAIT) == 4


def test_what_a_node_logs_is_shown_by_the_worker_with_the_node(
    broker: LaunchedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs_something.py").write_text(LOGGING)
    monkeypatch.syspath_prepend(str(tmp_path))
    instance, _ = importlib.import_module("logs_something").Logs()()
    with worker("--exit-on-completion", path=tmp_path) as process:
        _, said = process.communicate(timeout=WAIT)
    short = instance.instance_id.hex[:8]
    assert f"- root - [INFO] - [{short} #0 Logs.entrypoint, attempt 1] what the node has to say" in said


def test_a_failed_node_is_shown_with_all_that_is_kept_of_it(
    broker: LaunchedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with launch_workers(1):
        instance, promise = Reads()(str(tmp_path / "file"))
        with pytest.raises(NodeFailed) as failed:
            resolve(instance, promise, timeout=WAIT)
    id, node = failed.value.instance_id, failed.value.node_id
    assert id == instance.instance_id
    shown = run("show", id, node, "--arguments")
    for part in (f"{node}", "FAILED", "Reads.content", "FileNotFoundError", "in content", f"'{tmp_path / 'file'}'"):
        assert part in shown
    found = asked("show", id, node)
    assert (found["state"], found["failed_attempts"], found["arguments"]) == ("FAILED", 1, None)
    assert found["failure_of"] == f"{node}"
    (attempt,) = found["attempts"]
    assert attempt["type"] == "builtins.FileNotFoundError"
    assert "Path(file).read_text()" in attempt["traceback"]
    dependent = asked("show", id, promise.identifier)
    assert (dependent["root_cause"], dependent["failure_of"]) == (f"{node}", f"{node}")
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", new_key())
    assert "cannot be shown: the signing key" in run("show", id, node, "--arguments")
    code, said = refusal("show", id, "--arguments")
    assert (code, "pass it after the instance" in said) == (2, True)


def test_the_ids_of_a_failed_node_of_another_instance_belong_together(broker: LaunchedBroker, tmp_path: Path) -> None:
    with launch_workers(1):
        instance, promise = ReadsElsewhere()(str(tmp_path / "file"))
        with pytest.raises(NodeFailed) as failed:
            resolve(instance, promise, timeout=WAIT)
    error = failed.value
    assert error.instance_id == instance.instance_id
    assert error.node_instance_id != instance.instance_id
    assert f"(instance {error.node_instance_id}, node {error.node_id})" in str(error)
    shown = run("show", error.node_instance_id, error.node_id)
    for part in (f"{error.node_id}", "FAILED", "Reads.content"):
        assert part in shown


def test_old_nodes_are_rebound_by_the_code_that_is_deployed_now(
    broker: LaunchedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rolling deployment that left nodes behind."""
    instance, promise = old_of_two(tmp_path, monkeypatch, "deployed_later", *LATER).Deployed()(1)
    with worker(path=tmp_path / "new"):
        await_that(lambda: any("it has other code" in reason for reason in unservable()))
        (found,) = asked("unschedulable")
        assert (found["function"], found["queued"]) == ("deployed_later:Deployed.entrypoint", 1)
        assert len(found["deployed"]) == 1
        assert found["deployed"] != [found["hash"]]
        assert found["deployed"][0] in run("unschedulable")
        assert asked("rebind", found["function"]) == {"rebound": 1, "hash": found["deployed"][0]}
        assert resolve(instance, promise, timeout=WAIT) == 1001
        assert run("unschedulable") == "nothing is unschedulable\n"


def test_a_rebinding_under_a_key_that_no_worker_holds_says_so_until_it_is_signed_with_theirs(
    broker: LaunchedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, other = new_key(), new_key()
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", theirs)
    instance, promise = old_of_two(tmp_path, monkeypatch, "deployed_later", *LATER).Deployed()(1)
    with worker(path=tmp_path / "new"):
        await_that(lambda: any("it has other code" in reason for reason in unservable()))
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("DAGORAMA_SIGNING_KEYS", other)
            assert asked("rebind", "deployed_later:Deployed.entrypoint")["rebound"] == 1
        (id,) = Keyring([SigningKey(urlsafe_b64decode(f"{other}="))]).ids
        reason = f"it does not hold the signing key {id.hex()} under which its rebinding was signed"
        assert reason in run("unschedulable")
        with pytest.raises(TimeoutError, match=f"does not hold the signing key {id.hex()}"):
            resolve(instance, promise, timeout=0.01)
        assert asked("rebind", "deployed_later:Deployed.entrypoint")["rebound"] == 1
        assert resolve(instance, promise, timeout=WAIT) == 1001


def test_what_is_cancelled_by_command_is_cancelled(broker: LaunchedBroker) -> None:
    instance, promise = Reads()("nowhere")
    assert run("cancel", instance.instance_id, promise.identifier) == "1 node cancelled\n"
    (line,) = (line for line in run("list").splitlines() if f"{instance.instance_id}" in line)
    assert "cancelled" in line
    with pytest.raises(NodeCancelled):
        resolve(instance, promise, timeout=WAIT)
    code, said = refusal("retry", instance.instance_id)
    assert code == 1
    sentence = "dagorama: nothing in it failed; cancelled nodes cannot be retried, submit a new instance"
    assert said == f"{sentence}\nSee docs/reference/errors.md#requestrejected\n"


def test_an_instance_that_was_retried_in_the_program_resolves(broker: LaunchedBroker, tmp_path: Path) -> None:
    with launch_workers(1):
        instance, promise = Reads()(str(tmp_path / "file"))
        with pytest.raises(NodeFailed):
            resolve(instance, promise, timeout=WAIT)
        (tmp_path / "file").write_text("here")
        assert instance.retry(promise) == 3
        assert resolve(instance, promise, timeout=WAIT) == "HERE"
        assert state(instance, promise) is State.COMPLETED


# --- what is shown ---------------------------------------------------------------------------------------


def test_all_that_there_is_is_shown(broker: LaunchedBroker) -> None:
    instances = [Reads()("nowhere")[0].instance_id for _ in range(3)]
    lines = run("list").splitlines()
    assert lines[0].split() == ["instance", "state", "unfinished", "created", "ended", "definition", "reason"]
    assert [UUID(line.split()[0]) for line in lines[1:]] == instances[::-1]
    assert lines[1].split()[1:3] == ["stuck", "1/1"]
    assert "no worker is connected" in lines[1]
    stuck = asked("show", instances[0])["instance"]["stuck"]
    assert stuck == f"1 queued node of {__name__}:Reads.entrypoint: no worker is connected (start one with `worker`)"
    assert [each["instance"] for each in asked("list", "--limit", 2)] == [str(id) for id in instances[:0:-1]]
    assert len(asked("list", "--limit", 0, "--unfinished", "--definition", f"{__name__}:Reads")) == 3
    with worker("--exclude-queue", "other", "--toleration", "GPU", path=None):
        await_that(lambda: bool(asked("workers")))
        (only,) = asked("workers")
        assert (only["slots"], only["exclude_queues"], only["tolerations"]) == (1, ["other"], ["GPU"])
        assert only["name"] in run("workers")
    (queue,) = asked("queues")
    assert queue["queued"] + queue["claimed"] == 3
    assert queue["queue"] in run("queues")
    status = asked("status")
    assert (status["instances"], len(status["nodes"])) == (3, 8)
    assert "3 live instances" in run("status")


def test_keys_of_an_instance_and_a_node_are_those_that_are_documented(broker: LaunchedBroker) -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "commands.md").read_text()
    instance, _ = Reads()("nowhere")
    shown = asked("show", instance.instance_id)
    status = asked("status")
    keys = {*shown["instance"], *shown["nodes"][0], *status, *status["queues"][0], *status["unschedulable"][0]}
    assert {key for key in keys if f"`{key.removesuffix('_utc')}`" not in text} == set()
    assert shown["nodes"][0]["state"] == "QUEUED"
    assert [node["state"] for node in asked("show", instance.instance_id, "--state", "failed")["nodes"]] == []


def test_ids_may_be_cut_and_written_with_or_without_dashes(broker: LaunchedBroker) -> None:
    instance, promise = Reads()("nowhere")
    other, _ = Reads()("nowhere")
    id = str(instance.instance_id)
    same = next(place for place in range(32) if instance.instance_id.hex[place] != other.instance_id.hex[place])
    short = instance.instance_id.hex[: max(4, same + 1)]
    for written in (id, id.upper(), id.replace("-", ""), short, id[: max(6, same + 4)]):
        assert asked("show", written)["instance"]["instance"] == id
    assert run("cancel", short, str(promise.identifier)) == "1 node cancelled\n"
    assert run("cancel", short, promise.identifier.hex[:8]) == "0 nodes cancelled\n"
    code, said = refusal("show", "0123" if short[:4] != "0123" else "3210")
    assert (code, "dagorama: no instance has an ID that begins with" in said) == (1, True)


def test_a_list_that_was_cut_says_so(broker: LaunchedBroker) -> None:
    instance, _ = Fans()(5)
    Fans()(1)

    def told(*arguments: object) -> str:
        return CliRunner().invoke(main, [str(argument) for argument in arguments]).stderr

    assert told("list", "--limit", 1) == "1 of 2 instances are shown; --limit 0 shows all.\n"
    shown = "3 of 5 nodes are shown; --limit 0 shows all.\n"
    assert told("show", instance.instance_id, "--limit", 3) == shown
    assert told("show", instance.instance_id, "--limit", 3, "--json") == shown
    queued = ("show", instance.instance_id, "--state", "queued", "--limit", 4)
    assert told(*queued) == "4 of 5 nodes in these states are shown; --limit 0 shows all.\n"
    for whole in (("list",), ("list", "--limit", 2), ("show", instance.instance_id, "--limit", 5)):
        assert told(*whole) == ""
    assert len(asked("show", instance.instance_id, "--limit", 3)["nodes"]) == 3


def test_a_worker_finds_the_broker_that_its_flags_name(broker: LaunchedBroker) -> None:
    command = [sys.executable, "-m", "dagorama.worker", "--host", broker.host, "--port", f"{broker.port}"]
    elsewhere = {**os.environ, "DAGORAMA_HOST": "no host", "DAGORAMA_PORT": "no port"}
    ran = subprocess.run([*command, "--exit-on-completion"], env=elsewhere, timeout=WAIT)
    assert ran.returncode == 0


# --- mistakes ---------------------------------------------------------------------------------------------


def is_one_sentence(told: str) -> bool:
    """Say whether a text is one line, with the address of its documentation below it."""
    lines = told.splitlines()
    return len(lines) == 2 and lines[1].startswith("See docs/reference/errors.md#")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", UUID(int=1)), "is not known to this broker"),
        (("cancel", UUID(int=1)), "is not known to this broker"),
        (("retry", UUID(int=1), UUID(int=2)), "is not known to this broker"),
        (("rebind", "no.such:function"), "no node of a function 'no.such:function' has been made"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_refused_is_said_in_one_sentence(
    broker: LaunchedBroker, arguments: tuple[object, ...], said: str
) -> None:
    code, told = refusal(*arguments)
    assert code == 1
    assert told.startswith("dagorama: ")
    assert said in told
    assert is_one_sentence(told)


@pytest.mark.parametrize(
    "arguments", [("show", "no-uuid"), ("list", "--limit", "-1"), ("rebind",), ("show", UUID(int=1), "--state", "ILL")]
)
def test_wrong_usage_is_told_from_a_refusal(arguments: tuple[object, ...]) -> None:
    code, told = refusal(*arguments)
    assert code == 2
    assert "Usage: " in told


def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "many")
    code, told = refusal("list")
    assert (code, is_one_sentence(told)) == (78, True)
    assert "DAGORAMA_PORT is 'many'" in told


def test_without_a_broker_one_sentence_says_where_none_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama.client.connection.PATIENCE", 0.2)
    code, told = refusal("list", "--host", "127.0.0.1", "--port", 1)
    assert code == 69
    assert told.startswith("dagorama: no broker answers at 127.0.0.1:1 ")
    assert is_one_sentence(told)


def test_the_package_is_the_command_too(broker: LaunchedBroker) -> None:
    command = [sys.executable, "-m", "dagorama", "list", "--port", f"{broker.port}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "DAGORAMA_PORT": "1"})
    assert (ran.stdout, ran.stderr) == ("no instances\n", "")


def test_keys_are_made_without_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "1")
    assert len({run("keys", "new"), run("keys", "new")}) == 2
