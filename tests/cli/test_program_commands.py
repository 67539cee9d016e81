"""`dagorama` on a program that has run: failures, graph, and nodes by their names everywhere; and `dagorama run`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest

from dagorama import DAGDefinition, NodeFailed, QueueTimeout, dagorama, resolve
from dagorama.cli.graph import MOST_NODES
from tests.support.brokers import launch_broker
from tests.support.command_flows import Recursive, Shapes
from tests.support.commands import ROOT, WAIT, data, forked, invoke, printed, refusal
from tests.support.workers import launch_workers

FLOWS = "tests.support.command_flows"


class Late(DAGDefinition):
    @dagorama(taint_name="none tolerates it", queue_timeout=0.01).syncfn
    def entrypoint(self) -> int:
        return 1


class Ran(NamedTuple):
    """Instances that have ended: one in which two of six nodes fail, and one that completes."""

    failed: UUID
    completed: UUID

    @property
    def short(self) -> str:
        return self.failed.hex[:8]


@pytest.fixture(scope="module")
def ran() -> Iterator[Ran]:
    with launch_broker(port=0), launch_workers(1):
        failed, promise = Shapes()(6)
        with pytest.raises(NodeFailed):
            resolve(failed, promise, timeout=WAIT)
        completed, number = Recursive()(3)
        assert resolve(completed, number, timeout=WAIT) == 3
        yield Ran(failed.instance_id, completed.instance_id)


# --- failures ---------------------------------------------------------------------------------------------


def test_failures_are_grouped_with_an_example_and_the_place(ran: Ran) -> None:
    text = printed("failures", ran.short)
    assert text.startswith("2 failed nodes, 2 nodes downstream\n\n2 x Shapes.measure, 2 downstream\n")
    assert "  ValueError: bad number …\n" in text
    assert "raise ValueError(f" in text
    found = data("failures", ran.failed)
    assert (found["nodes"], found["downstream"], found["groups_left_out"], found["more"]) == (2, 2, 0, False)
    (group,) = found["groups"]
    assert (group["function"], group["type"]) == (f"{FLOWS}:Shapes.measure", "builtins.ValueError")
    assert group["last_at_utc"].endswith("Z")
    example = group["example"]
    assert example["name"] in (f"{ran.short}/4", f"{ran.short}/7")
    assert example["message"] in ("bad number 2", "bad number 5")
    assert data("show", example["name"])["node"] == example["node"]


def test_failures_without_an_instance_are_those_of_all_that_match(ran: Ran) -> None:
    assert data("failures", "--definition", f"{FLOWS}:Shapes")["nodes"] >= 2
    assert printed("failures", "--definition", f"{FLOWS}:Recursive") == "no failures\n"
    (name,) = printed("failures", ran.failed, "-o", "name").split()
    assert name.startswith(f"{ran.failed}/")
    (line,) = printed("failures", ran.failed, "-o", "jsonl").splitlines()
    assert json.loads(line)["nodes"] == 2


def keys_of(data: object) -> set[str]:
    """All keys of a document, without states, which are values."""
    if isinstance(data, list):
        return {key for item in data for key in keys_of(item)}
    if not isinstance(data, dict):
        return set()
    inner = (value for key, value in data.items() if key != "states")
    return {*data, *(key for value in inner for key in keys_of(value))}


def test_all_keys_are_documented(ran: Ran) -> None:
    documented = (ROOT / "docs" / "reference" / "commands.md").read_text()
    found = keys_of([
        data("failures"), data("graph", ran.failed), data("run", f"{FLOWS}:Recursive", 1), data("config", "show"),
        data("show", ran.failed), data("show", f"{ran.short}/4"), data("explain", f"{ran.short}/4"),
        data("keys", "list"), *map(json.loads, invoke("watch", ran.failed, "-o", "json").stdout.splitlines()),
    ])  # fmt: skip
    assert {key for key in found if f"`{key.removesuffix('_utc')}`" not in documented} == set()


# --- names ------------------------------------------------------------------------------------------------


def test_nodes_are_shown_and_taken_by_their_ordinals(ran: Ran) -> None:
    nodes = data("show", ran.failed)["nodes"]
    assert [node["name"] for node in nodes] == [f"{ran.short}/{ordinal}" for ordinal in range(1, 9)]
    text = printed("show", ran.short)
    assert f"\n{ran.short}/8 " in text
    assert f"because of {ran.short}/4: ValueError: bad number 2" in text
    for written in (
        (f"{ran.short}/4",),
        (ran.short, "/4"),
        (ran.short, f"{ran.short}/4"),
        (ran.failed, nodes[3]["node"]),
    ):
        shown = data("show", *written)
        assert (shown["node"], shown["ordinal"]) == (nodes[3]["node"], 4)
    text = printed("show", f"{ran.short}/8")
    assert f"created by       node {ran.short}/1\n" in text
    assert f"sources          {ran.short}/2\n" in text
    assert f"root cause       {ran.short}/4\n" in text
    assert f"    {ran.short}/4\n" in printed("explain", f"{ran.short}/8")
    assert printed("show", ran.failed, "--limit", 0, "-o", "name").split() == [node["node"] for node in nodes]


def test_names_of_no_node_or_of_another_instance_are_refused(ran: Ran) -> None:
    assert refusal("show", f"{ran.short}/99") == (
        1, "dagorama: there is no node /99: the instance has 8 nodes, and the first is /1\n"
        "See docs/reference/errors.md#notfound\n",
    )  # fmt: skip
    other = ran.completed.hex[:8]
    code, said = refusal("show", ran.failed, f"{other}/1")
    assert (code, f"{other}/1 is not a node of instance {ran.failed}" in said) == (1, True)
    assert refusal("show", f"{ran.short}/1", "/2")[0] == 2
    assert refusal("explain", f"{ran.short}/1", "/2")[0] == 2
    assert refusal("watch", f"{ran.short}/1")[0] == 2


def test_actions_take_several_nodes_by_name(ran: Ran) -> None:
    assert printed("cancel", f"{ran.short}/1", "/2", f"{ran.short}/3") == "0 nodes cancelled\n"
    assert data("retry", f"{ran.completed.hex[:8]}/1")["queued"] == 0


def test_a_failure_that_no_code_has_raised_has_the_address_of_its_documentation_for_a_traceback(ran: Ran) -> None:
    late, promise = Late()()
    with pytest.raises(QueueTimeout):
        resolve(late, promise, timeout=WAIT)
    shown = printed("show", f"{late.instance_id}/1")
    assert "dagorama.errors.QueueTimeout: " in shown
    assert shown.endswith("\nSee docs/reference/errors.md#queuetimeout\n")


# --- graph ------------------------------------------------------------------------------------------------


def test_the_graph_is_a_tree_of_functions_and_of_nodes(ran: Ran) -> None:
    assert printed("graph", ran.short).splitlines() == [
        f"{FLOWS}:Shapes",
        "Shapes.entrypoint  failed",
        "├── Shapes.measure  6 nodes, 2 failed, 4 completed",
        "└── Shapes.total  failed  ← Shapes.measure x 6",
    ]
    tree = printed("graph", ran.completed)
    assert "Recursive.deeper  4 nodes, completed  ↻ creates itself x 3" in tree
    nodes = printed("graph", ran.short, "--by", "node").splitlines()
    assert nodes[1] == f"{ran.short}/1 Shapes.entrypoint  failed"
    assert len(nodes) == 9
    assert nodes[-1].startswith(f"└── {ran.short}/8 Shapes.total  failed  ← {ran.short}/2")


def test_the_graph_is_data_mermaid_and_dot_too(ran: Ran) -> None:
    found = data("graph", ran.failed)
    assert [vertex["name"].rpartition(".")[2] for vertex in found["vertices"]] == ["entrypoint", "measure", "total"]
    assert found["vertices"][1]["states"] == {"COMPLETED": 4, "FAILED": 2}
    edges = [(each["source"].rpartition(".")[2], each["target"].rpartition(".")[2], each["values"], each["created"])
             for each in found["edges"]]  # fmt: skip
    assert edges == [("entrypoint", "measure", 0, 6), ("entrypoint", "total", 0, 1), ("measure", "total", 6, 0)]
    assert printed("graph", ran.failed, "--format", "mermaid").startswith("flowchart TD\n")
    assert printed("graph", ran.failed, "--format", "dot").startswith("digraph ")


def test_a_graph_of_too_many_nodes_is_not_drawn_node_by_node(ran: Ran) -> None:
    id = printed("run", f"{FLOWS}:Plain", MOST_NODES + 1, "--detach").strip()
    code, said = refusal("graph", id, "--by", "node")
    assert (code, f"{MOST_NODES + 1} nodes" in said, "--by function" in said) == (1, True, True)


# --- run --------------------------------------------------------------------------------------------------


def test_a_run_prints_the_result_and_tells_the_progress_on_stderr(ran: Ran) -> None:
    result = invoke("run", f"{FLOWS}:Recursive", 4)
    assert (result.exit_code, result.stdout) == (0, "4\n")
    assert result.stderr.startswith("instance ")
    assert "Recursive.deeper" in result.stderr
    found = data("run", f"{FLOWS}:Recursive", "depth=2")
    assert (found["result"], found["repr"]) == (2, "2")
    assert data("show", found["instance"])["instance"]["entry"] == found["node"]


def test_arguments_are_read_by_the_annotations(ran: Ran) -> None:
    given = ("1", "no", "a/b", "[1, 2]", "maybe=3", "label=a b")
    text = printed("run", f"{FLOWS}:Typed", *given)
    assert text == "[1.0, False, PosixPath('a/b'), [1, 2], 'a', 3, 'a b']\n"
    found = data("run", f"{FLOWS}:Typed", *given)
    assert (found["result"], found["repr"] + "\n") == (None, text), "a path is not JSON"


def test_a_run_gives_an_id_labels_a_priority_and_a_fair_key(ran: Ran) -> None:
    options = ("--id", "run-1", "--label", "kind=run", "--priority", 7, "--fair", "t7", "--detach")
    id = printed("run", f"{FLOWS}:Recursive", 1, *options).strip()
    assert printed("run", f"{FLOWS}:Recursive", 1, *options).strip() == id
    (info,) = data("list", "--label", "kind=run")
    assert (info["instance"], info["id"], info["priority"], info["fair"]) == (id, "run-1", 7, "t7")
    code, said = refusal("run", f"{FLOWS}:Recursive", 2, *options)
    assert (code, "was started with other arguments" in said) == (1, True)
    assert refusal("run", f"{FLOWS}:Recursive", 1, "--id", "", "--detach")[0] == 2
    assert refusal("run", f"{FLOWS}:Recursive", 1, "--priority", 128)[0] == 2
    assert refusal("run", f"{FLOWS}:Recursive", 1, "--fair", "")[0] == 2


def test_a_detached_run_prints_the_id_alone(ran: Ran) -> None:
    id = printed("run", f"{FLOWS}:Recursive", 1, "--detach").strip()
    assert data("show", UUID(id))["instance"]["definition"] == f"{FLOWS}:Recursive"
    assert set(data("run", f"{FLOWS}:Recursive", 1, "--detach")) == {"schema_version", "instance", "node"}
    assert refusal("run", f"{FLOWS}:Recursive", 1, "--detach", "--timeout", 1)[0] == 2


def test_a_failed_run_names_the_node_and_exits_with_1(ran: Ran) -> None:
    code, said = refusal("run", f"{FLOWS}:Shapes", 3)
    assert code == 1
    id = said.split()[1]
    assert f"dagorama: {id[:8]}/4: {FLOWS}:Shapes.entrypoint has no value" in said
    assert "ValueError: bad number 2" in said
    assert f"dagorama failures {id[:8]}" in said


def test_an_entry_point_that_runs_here_may_raise_and_its_traceback_is_shown(ran: Ran) -> None:
    assert printed("run", f"{FLOWS}:Plain", 3) == "[0, 1, 2]\n"
    code, said = refusal("run", f"{FLOWS}:Plain", "--", -1)
    assert code == 1
    assert "ValueError: too small\n" in said
    assert said.endswith("dagorama: the entry point raised ValueError\n")
    assert "dagorama/cli" not in said


@pytest.mark.parametrize(("arguments", "said"), [
    (("no.such.module:Class",), "there is no module no here"),
    (("flow.py:Class",), "write flow"),
    (("tests",), "must look like MODULE:Class"),
    ((f"{FLOWS}:Shapse",), "it defines Awaiting, Chained, Configured, Large,"),
    ((f"{FLOWS}:NOT_A_DEFINITION",), "is not a subclass of DAGDefinition"),
    ((f"{FLOWS}:Configured",), "register_definition(Configured(...))"),
    ((f"{FLOWS}:Shapes",), "Shapes.entrypoint(count: int): missing a required argument: 'count'"),
    ((f"{FLOWS}:Shapes", "1", "2"), "too many positional arguments"),
    ((f"{FLOWS}:Shapes", "one"), "count is 'one': it must be a whole number"),
])  # fmt: skip
def test_mistakes_are_told_before_anything_is_started(ran: Ran, arguments: tuple[str, ...], said: str) -> None:
    before = data("list", "--limit", 0)
    code, told = refusal("run", *arguments)
    assert (code, said.replace(": int", ": 'int'") in told or said in told) == (2, True), told
    assert "Traceback" not in told
    assert data("list", "--limit", 0) == before


def test_a_module_whose_own_code_is_wrong_is_told_from_a_missing_one(ran: Ran, tmp_path: Path) -> None:
    (tmp_path / "needs_another.py").write_text("import no_such_library\n")
    (tmp_path / "raises_here.py").write_text("x = 1\nraise RuntimeError('not today')\n")
    missing = forked("run", "needs_another:Class", folder=tmp_path)
    assert missing.returncode == 1
    assert "it imports no_such_library, which is not installed here" in missing.stderr
    raising = forked("run", "raises_here:Class", folder=tmp_path)
    assert raising.returncode == 1
    assert "raises_here cannot be imported, because its code raised RuntimeError" in raising.stderr
    assert 'raises_here.py", line 2' in raising.stderr
    assert "dagorama/cli" not in raising.stderr
