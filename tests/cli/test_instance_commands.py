"""Commands find instances by IDs and labels, delete them, and let workers leave."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest
from click.testing import CliRunner, Result

from dagorama import DAGDefinition, DAGInstance, dagorama, execute_worker, start
from dagorama.__main__ import main
from dagorama.client.connection import connection
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.worker_command import await_that


class Halves(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.half(number)

    @dagorama().syncfn
    def half(self, number: int) -> int:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2


class Other(Halves):
    pass


@pytest.fixture
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0, store="memory://") as broker:
        yield broker


def run(*arguments: object, input: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=input)


def said(*arguments: object, code: int = 0) -> str:
    """Return what a command prints on standard output, or if it fails, on standard error."""
    result = run(*arguments)
    assert result.exit_code == code, result.stderr or result.stdout
    return result.stderr if code else result.stdout


def names(*arguments: object) -> list[str]:
    return said(*arguments, "-o", "name").split()


def started(number: int, id: str | None = None, definition: DAGDefinition | None = None, **labels: str) -> DAGInstance:
    return start(definition or Halves(), id=id, labels=labels)(number)[0]


def uuid(instance: DAGInstance) -> str:
    return str(instance.instance_id)


@pytest.mark.usefixtures("broker")
def test_instances_are_listed_by_id_label_function_and_error() -> None:
    one, two = started(2, "order-1", tenant="7", kind="order"), started(3, "order-2", tenant="7")
    other = started(4, "order-1", Other(), tenant="8")
    execute_worker(infinite_loop=False)
    assert names("list") == [uuid(other), uuid(two), uuid(one)]
    assert names("list", "--label", "tenant=7") == [uuid(two), uuid(one)]
    assert names("list", "--label", "tenant=7", "--label", "kind=order") == [uuid(one)]
    assert names("list", "--id", "order-2") == [uuid(two)]
    assert names("list", "--error", "is ODD") == [uuid(two)]
    assert names("list", "--function", f"{__name__}:Other.half") == [uuid(other)]
    assert names("list", "--label", "tenant=9") == []
    (record,) = json.loads(said("list", "--id", "order-2", "-o", "json"))
    assert (record["id"], record["labels"], record["priority"]) == ("order-2", {"tenant": "7"}, 0)
    assert "order-1 kind=order tenant=7" in said("list")
    result = run("list", "--limit", "1")
    assert result.stderr == "1 of 3 instances are shown; --limit 0 shows all.\n"
    assert "is not a label and its value" in said("list", "--label", "tenant", code=2)


@pytest.mark.usefixtures("broker")
def test_an_instance_is_named_by_its_users_id() -> None:
    one = started(3, "a/b", tenant="7")
    execute_worker(infinite_loop=False)
    shown = said("show", "id=a/b")
    assert uuid(one) in shown
    assert "a/b tenant=7" in shown
    assert names("show", "id=a/b", "--error", "odd") == names(
        "show", uuid(one), "--function", f"{__name__}:Halves.half"
    )
    assert "3 is odd" in said("show", "id=a/b", "/2")
    started(2, "a/b", Other())
    assert "several definitions have an instance with the ID 'a/b': " in said("show", "id=a/b", code=1)
    assert "no instance has the ID 'c'" in said("show", "id=c", code=1)
    assert "no instance has the ID ''" in said("show", "id=", code=1)


@pytest.mark.usefixtures("broker")
def test_ended_instances_are_deleted() -> None:
    good, bad = started(2, "good", tenant="7"), started(3, "bad", tenant="7")
    execute_worker(infinite_loop=False)
    runs = started(4, "runs")
    assert "has unfinished nodes" in said("delete", "id=runs", code=1)
    assert names("delete", "--completed", "--failed", "--label", "tenant=7", "--dry-run") == [uuid(bad), uuid(good)]
    assert len(names("list")) == 3
    assert "2 instances match: pass --yes" in said("delete", "--completed", "--failed", "--label", "tenant=7", code=2)
    assert said("delete", "--failed", "--yes") == "1 instance deleted\n"
    assert names("list") == [uuid(runs), uuid(good)]
    assert said("delete", "id=good") == "1 instance deleted\n"
    assert "was deleted by a user" in said("delete", uuid(good), code=1)
    assert said("delete", "--completed", "--yes") == "0 instances deleted\n"


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(("typed", "code"), [(b"n\n", 1), (b"\x03", 130)])
def test_a_question_that_is_not_agreed_to_deletes_nothing(typed: bytes, code: int) -> None:
    one = started(2)
    execute_worker(infinite_loop=False)
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-m", "dagorama", "delete", "--completed"])
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(terminal, 4096)
    os.write(terminal, typed)
    shown = b""
    with suppress(OSError):  # the other end is closed
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert b"dagorama: nothing was deleted" in shown
    assert names("list") == [uuid(one)]


@pytest.mark.usefixtures("broker")
def test_of_several_named_instances_those_are_deleted_that_can_be() -> None:
    good, bad = started(2, "good"), started(3, "bad")
    execute_worker(infinite_loop=False)
    runs = started(4, "runs")
    assert "no instance has the ID 'none'" in said("delete", "id=good", "id=none", code=1)
    assert names("list") == [uuid(runs), uuid(bad), uuid(good)]
    result = CliRunner().invoke(main, ["delete", "id=good", "id=runs", uuid(bad), "id=good", "-o", "json"])
    assert (result.exit_code, json.loads(result.stdout)["deleted"]) == (1, [uuid(good), uuid(bad)])
    assert result.stderr.startswith("not deleted: ")
    assert "has unfinished nodes" in result.stderr
    assert names("list") == [uuid(runs)]


@pytest.mark.parametrize(
    "arguments",
    [[], ["--label", "a=b"], ["abcd", "--failed"], ["abcd", "--definition", "x:Y"], ["abcd", "--label", "a=b"]],
)
def test_delete_takes_ids_or_a_filter(arguments: list[str]) -> None:
    assert "name instances, or pass --completed or --failed" in said("delete", *arguments, code=2)


def test_a_worker_is_drained_by_its_name_or_id(broker: LaunchedBroker) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "dagorama.worker", "--concurrency", "1"], stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        await_that(lambda: len(connection().get_status().workers) == 2)
        one, two = connection().get_status().workers
        assert f"worker {one.name} leaves; it holds 0 nodes" in said("workers", "drain", one.name)
        assert f"worker {two.name} leaves" in said("workers", "drain", two.worker.hex()[:8])
        for worker in workers:
            _, errors = worker.communicate(timeout=60)
            assert worker.returncode == 0
            assert "is leaving, as requested by `dagorama workers drain`" in errors
        await_that(lambda: not connection().get_status().workers)
        assert "no worker 'nobody' is connected; connected are: none" in said("workers", "drain", "nobody", code=1)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@pytest.mark.usefixtures("broker")
def test_nodes_are_shown_by_worker_run_time_and_failed_attempts() -> None:
    one = started(3)
    execute_worker(infinite_loop=False)
    (worker,) = {record["worker"] for record in json.loads(said("show", uuid(one), "-o", "json"))["nodes"]}
    assert len(names("show", uuid(one), "--worker", worker)) == 2
    assert names("show", uuid(one), "--worker", "another") == []
    assert len(names("show", uuid(one), "--slower-than", "0.000001")) == 2
    assert names("show", uuid(one), "--slower-than", "1e9") == []
    assert names("show", uuid(one), "--retried") == names("show", uuid(one), "--error", "odd")
    for wrong in ("nan", "-1", "inf", "soon"):
        assert "is not a number of seconds from 0 to" in said("show", uuid(one), "--slower-than", wrong, code=2)


@pytest.mark.usefixtures("broker")
def test_actions_are_listed_with_what_they_were_about() -> None:
    assert said("actions") == "no actions\n"
    one = started(2)
    said("queues", "pause", "models")
    said("cancel", uuid(one))
    said("cancel", uuid(one))
    cancelled, paused = json.loads(said("actions", "-o", "json"))
    assert (cancelled["action"], cancelled["instance"], cancelled["nodes"]) == ("cancel", uuid(one), 1)
    assert cancelled["target"] == f"{__name__}:Halves"
    assert (paused["number"], paused["action"], paused["target"], paused["by"]) == (1, "pause", "models", None)
    assert paused["time_utc"]
    shown = run("actions", "--limit", "1")
    assert shown.stderr == "1 of 2 actions are shown; --limit 0 shows all.\n"
    assert f"{__name__}:Halves" in shown.stdout
    assert "models" not in shown.stdout
