"""`worker --capture fd`: the output of C code and of programs is in the logs of the node, and still on the worker's."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from dagorama import DAGDefinition, NodeFailed, dagorama, logs, resolve
from tests.support.brokers import launch_broker

#: More than a pipe holds.
MUCH = 1 << 20


class Writes(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, count: int) -> list[int]:
        return [self.write(number) for number in range(count)]

    @dagorama().syncfn
    def write(self, number: int) -> int:
        print(f"{number}: python")
        subprocess.run(["sh", "-c", f"echo '{number}: program'; echo '{number}: error' >&2"], check=True)
        os.write(1, f"{number}: descriptor\n".encode())
        ctypes.CDLL(None).puts(f"{number}: c".encode())
        return number


class WritesMuch(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        puts = ctypes.PyDLL(None).puts  # PyDLL holds the GIL meanwhile
        for _ in range(MUCH // 100):
            puts(b"x" * 99)
        return 1


class Dies(DAGDefinition):
    @dagorama(max_deaths=1).syncfn
    def entrypoint(self) -> None:
        os.write(2, b"the last words\n")
        os.kill(os.getpid(), 9)


class Side(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self) -> str:
        process = await asyncio.create_subprocess_exec("echo", "from an async node")
        await process.wait()
        return "done"


@contextmanager
def worker(output: IO[bytes]) -> Iterator[None]:
    command = [
        sys.executable,
        "-c",
        "from dagorama.cli import worker; worker()",
        "--capture",
        "fd",
        "--import",
        __name__,
    ]
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[2])
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_the_output_of_programs_and_c_code_is_logged_for_its_node_and_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "output"
    with launch_broker(port=0), path.open("wb") as output, worker(output):
        instance, promise = Writes()(10)
        assert resolve(instance, promise, timeout=60) == list(range(10))
        by_node: dict[object, list[tuple[str, str]]] = {}
        for record in logs(instance):
            by_node.setdefault(record.node_id, []).append((record.stream, record.text))
    kinds = [
        ("stdout", "python"),
        ("stdout", "program"),
        ("stderr", "error"),
        ("stdout", "descriptor"),
        ("stdout", "c"),
    ]
    expected = [sorted((stream, f"{number}: {kind}") for stream, kind in kinds) for number in range(10)]
    assert sorted(map(sorted, by_node.values())) == sorted(expected)
    # print() writes the end of a line by itself, so the text of another child may precede it.
    passed_on = path.read_text()
    assert [f"{n}: {kind}" for n in range(10) for _, kind in kinds if f"{n}: {kind}" not in passed_on] == []


def test_more_than_a_pipe_holds_does_not_stop_a_node_that_holds_the_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "output"
    with launch_broker(port=0), path.open("wb") as output, worker(output):
        instance, promise = WritesMuch()()
        assert resolve(instance, promise, timeout=60) == 1
        records = list(logs(instance))
    kept = sum(len(record.data) + 1 for record in records if not record.left_out)
    assert kept < 128 << 10
    assert kept + sum(record.left_out for record in records) == MUCH // 100 * 100
    assert path.read_bytes().count(b"x" * 99 + b"\n") == MUCH // 100


def test_the_last_words_of_a_killed_process_are_kept(tmp_path: Path) -> None:
    with launch_broker(port=0), (tmp_path / "output").open("wb") as output, worker(output):
        instance, promise = Dies()()
        with pytest.raises(NodeFailed, match="SIGKILL"):
            resolve(instance, promise, timeout=60)
        assert [(record.stream, record.text) for record in logs(instance)] == [("stderr", "the last words")]


def test_the_program_of_a_single_async_node_is_logged_too(tmp_path: Path) -> None:
    async def spawn() -> str:
        instance, promise = await Side()()
        value = await asyncio.to_thread(resolve, instance, promise, timeout=60)
        assert [record.text for record in logs(instance)] == ["from an async node"]
        return value

    with launch_broker(port=0), (tmp_path / "output").open("wb") as output, worker(output):
        assert asyncio.run(spawn()) == "done"
