"""`dagorama debug` as a process, with commands for the debugger on its stdin."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dagorama import NodeFailed, resolve
from dagorama.values.keys import new_key
from tests.support.brokers import launch_broker
from tests.support.command_flows import Awaiting, Chained, Large, Refused
from tests.support.commands import WAIT, data, forked, process
from tests.support.workers import launch_workers

SIZE = 300_000  #: bytes, so that the value is stored as a file


class Failed(NamedTuple):
    large: str  #: the last of its three nodes fails
    awaiting: str  #: its only node fails


@pytest.fixture(scope="module")
def failed() -> Iterator[Failed]:
    with launch_broker(port=0), launch_workers(1):
        instance, promise = Large()(SIZE)
        other, async_promise = asyncio.run(Awaiting()(21))
        with pytest.raises(NodeFailed):
            resolve(instance, promise, timeout=WAIT)
        with pytest.raises(NodeFailed):
            resolve(other, async_promise, timeout=WAIT)
        yield Failed(instance.instance_id.hex[:8], other.instance_id.hex[:8])


def states(instance: str) -> list[tuple[str, int]]:
    return [(node["state"], node["failed_attempts"]) for node in data("show", instance)["nodes"]]


def test_it_stops_where_the_exception_was_raised_with_the_real_inputs(failed: Failed) -> None:
    before = states(failed.large), data("show", failed.large)["instance"]["nodes"]
    ran = process("debug", f"{failed.large}/3", said="p label, len(content)\nw\nq\n")
    assert ran.returncode == 1
    assert f"('a label', {SIZE})" in ran.stdout
    assert "raise RuntimeError" in ran.stdout
    assert "dagorama/worker" not in ran.stdout, "frames of dagorama are not shown"
    assert f"RuntimeError: a label: {SIZE}" in ran.stderr
    assert "the run is not reported, and nodes that it creates are dropped" in ran.stderr
    assert (states(failed.large), data("show", failed.large)["instance"]["nodes"]) == before


def test_it_stops_at_the_first_line_if_that_is_asked_for(failed: Failed) -> None:
    ran = process("debug", failed.large, "/3", "--start", said="p 'length' in locals()\nn\np length\nc\n")
    assert "-> length = len(content)" in ran.stdout
    assert "(Pdb) False" in ran.stdout
    assert f"(Pdb) {SIZE}" in ran.stdout
    assert ran.returncode == 1
    left = process("debug", failed.large, "/3", "--start", said="q\n")
    assert (left.returncode, "left before the function ended" in left.stderr) == (130, True)


def test_an_async_function_is_debugged_alike(failed: Failed) -> None:
    ran = process("debug", f"{failed.awaiting}/1", said="p number, doubled\nq\n")
    assert (ran.returncode, "(21, 42)" in ran.stdout) == (1, True), ran.stderr
    ran = process("debug", f"{failed.awaiting}/1", "--start", said="n\np doubled\nc\n")
    assert "-> doubled = number * 2" in ran.stdout
    assert (ran.returncode, "(Pdb) 42" in ran.stdout) == (1, True), ran.stderr


def test_it_stops_at_the_call_that_dagorama_refuses() -> None:
    with launch_broker(port=0), launch_workers(1):
        instance, promise = Refused()()
        with pytest.raises(NodeFailed):
            resolve(instance, promise, timeout=WAIT)
        ran = process("debug", f"{instance.instance_id}/1", said="p pair[0]\nw\nq\n")
    assert "-> return self.count(pair)  # dagorama: ignore[DAG009]\n(Pdb) 1\n" in ran.stdout
    assert "dagorama/values" not in ran.stdout
    assert "NotPicklable: argument 'pair'[1] cannot be pickled: a lock stays in its process" in ran.stderr


def test_a_function_that_returns_here_prints_its_result_and_drops_its_children(failed: Failed) -> None:
    ran = forked("debug", f"{failed.large}/1")
    assert ran.returncode == 0
    assert "DAGPromise" in ran.stdout
    assert "the function returned; it would have created 2 nodes" in ran.stderr
    assert data("show", failed.large)["instance"]["nodes"] == 3


def test_changed_code_is_run_and_named_as_such(failed: Failed, tmp_path: Path) -> None:
    source = (Path(__file__).parents[1] / "support" / "command_flows.py").read_text()
    folder = tmp_path / "tests" / "support"
    folder.mkdir(parents=True)
    changed = source.replace('        raise RuntimeError(f"{label}: {length}")', "        return length")
    assert changed != source
    (folder / "command_flows.py").write_text(changed)
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    ran = process("debug", f"{failed.large}/3", folder=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, f"{SIZE}\n"), ran.stderr
    assert "the code here is not the code that the node was created with" in ran.stderr


def test_inputs_that_cannot_be_verified_are_not_read(failed: Failed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", new_key())
    ran = forked("debug", f"{failed.large}/3")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "of the arguments is not held here" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_cannot_be_run_says_why(failed: Failed, tmp_path: Path) -> None:
    for arguments, code, said in (
        ((failed.large,), 2, "debug takes one node"),
        ((f"{failed.large}/4",), 1, "there is no node /4"),
        ((f"{failed.large}/3", "--import", "no_such_module"), 2, "there is no module no_such_module here"),
    ):
        ran = forked("debug", *arguments)
        assert (ran.returncode, said in ran.stderr, "Traceback" in ran.stderr) == (code, True, False), ran.stderr


@pytest.mark.slow
def test_a_node_whose_source_has_no_value_says_which() -> None:
    with launch_broker(port=0):
        instance, promise = Chained()()
        short = instance.instance_id.hex[:8]
        ran = forked("debug", f"{short}/2")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert f"its source {short}/1 is QUEUED, so it has no value yet" in ran.stderr
        with launch_workers(1), pytest.raises(NodeFailed):
            resolve(instance, promise, timeout=WAIT)
        ran = forked("debug", f"{short}/2")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert (
            f"{short}/2 never ran, because its source {short}/1 failed (ValueError: no value): debug that" in ran.stderr
        )
