"""Stories of queues, taints, limits, resources, and actions of people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from dagorama import DAGDefinition, Limit, Rate, State, batch, current, dagorama, report, resource, start, state
from dagorama.client.connection import connection
from tests.parity.failures import OneOfMany
from tests.parity.stage import Stage, wait_for_all
from tests.parity.stories import story

HOUR = 3_600


class Tainted(DAGDefinition):
    @dagorama
    def entrypoint(self, names: list[str]) -> list[str]:
        return [self.inferred(self.loaded(name)) for name in names]

    @dagorama(queue_name="files")
    def loaded(self, name: str) -> str:
        return name.upper()

    @dagorama(taint_name="GPU", queue_name="models")
    def inferred(self, name: str) -> str:
        return f"a {name}"


@story
def taints_and_queues_lead_to_a_worker_that_takes_them(stage: Stage) -> None:
    assert stage.told(*Tainted()(["cat", "dog"])) == ["a CAT", "a DOG"]


class Limited(DAGDefinition):
    """Notes the order in which its nodes run, of which only one runs at a time."""

    @dagorama
    def entrypoint(self, file: Path, count: int) -> int:
        return self.total([self.noted(file, str(number)) for number in range(count)])

    @dagorama(max_concurrency=1)
    def noted(self, file: Path, text: str) -> int:
        with file.open("a") as lines:
            lines.write(f"{text}\n")
        return 1

    @dagorama
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


@story
def nodes_of_a_function_that_runs_once_at_a_time_run_in_order(stage: Stage) -> None:
    file = stage.folder / "ordered"
    assert stage.told(*Limited()(file, 8)) == 8
    assert file.read_text().split() == [str(number) for number in range(8)]


class Urgent(DAGDefinition):
    @dagorama(max_concurrency=1, queue_name="parity-urgent")
    def entrypoint(self, file: Path, text: str) -> str:
        with file.open("a") as lines:
            lines.write(f"{text}\n")
        return text


@story
def instances_with_a_higher_priority_go_first(stage: Stage) -> None:
    file = stage.folder / "urgent"
    with batch():
        pairs = [start(Urgent(), priority=priority)(file, str(priority)) for priority in (0, 5, -5, 9)]
    for pair in pairs:
        stage.told(*pair)
    assert file.read_text().split() == ["9", "5", "0", "-5"]


@story
def fair_keys_take_turns(stage: Stage) -> None:
    file = stage.folder / "fair"
    with batch():
        pairs = [start(Urgent(), fair=key)(file, f"{key}{number}") for key in ("a", "b") for number in range(3)]
    for pair in pairs:
        stage.told(*pair)
    assert file.read_text().split() == ["a0", "b0", "a1", "b1", "a2", "b2"]


class Keyed(DAGDefinition):
    @dagorama
    def entrypoint(self, folder: Path) -> list[str]:
        return [self.noted(folder, key, number) for number in range(4) for key in ("a", "b")]

    @dagorama(max_concurrency=1, concurrency_key="key")
    def noted(self, folder: Path, key: str, number: int) -> str:
        with (folder / f"key-{key}").open("a") as lines:
            lines.write(f"{number}\n")
        return f"{key}{number}"


@story
def the_order_of_a_limit_holds_for_each_key(stage: Stage) -> None:
    assert stage.told(*Keyed()(stage.folder)) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]
    assert [(stage.folder / f"key-{key}").read_text().split() for key in "ab"] == [["0", "1", "2", "3"]] * 2


class Rated(DAGDefinition):
    """Notes when its nodes run, of which three start within half a second."""

    @dagorama
    def entrypoint(self, folder: Path) -> list[str]:
        return [self.noted(folder, key, number) for number in range(4) for key in ("a", "b")]

    @dagorama(rate=Rate(3, per=0.5), rate_key="key", max_concurrency=1)
    def noted(self, folder: Path, key: str, number: int) -> str:
        with (folder / f"rated-{key}").open("a") as lines:
            lines.write(f"{number}\n")
        return f"{key}{number}"


@story
def a_rate_delays_nodes_of_each_key_in_their_order(stage: Stage) -> None:
    assert stage.told(*Rated()(stage.folder)) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]
    assert [(stage.folder / f"rated-{key}").read_text().split() for key in "ab"] == [["0", "1", "2", "3"]] * 2


API = Limit("parity", rate=Rate(4, per=0.3), concurrency=1)


class Sharing(DAGDefinition):
    @dagorama
    def entrypoint(self) -> list[int]:
        return [self.one(number) if number % 2 else self.two(number) for number in range(8)]

    @dagorama(limit=API)
    def one(self, number: int) -> int:
        return number

    @dagorama(limit=API)
    def two(self, number: int) -> int:
        return number * 10


@story
def functions_share_a_limit(stage: Stage) -> None:
    assert stage.told(*Sharing()()) == [0, 1, 20, 3, 40, 5, 60, 7]


class Paused(DAGDefinition):
    @dagorama(queue_name="parity-paused")
    def entrypoint(self) -> int:
        return 1

    @dagorama(delay=HOUR)
    def late(self) -> int:
        return 1

    @dagorama
    def plus(self, number: int) -> int:
        return number

    @dagorama(taint_name="RARE")
    def rare(self) -> int:
        return 1


@story
def a_paused_queue_holds_its_nodes_until_it_is_resumed(stage: Stage) -> None:
    link = connection()
    assert stage.told(*Paused()()) == 1  # workers are connected then
    link.pause_queue("parity-paused")
    try:
        instance, promise = Paused()()
        assert state(instance, promise) is State.QUEUED
        assert _reasons(instance.instance_id, promise.identifier)[0] == "paused"
    finally:
        link.pause_queue("parity-paused", resume=True)
    assert stage.told(instance, promise) == 1


def _reasons(instance: UUID, node: UUID) -> list[str]:
    return [reason.code for reason in connection().explain_node(instance.bytes, node.bytes).reasons]


@story
def the_reasons_why_nodes_do_not_run_are_the_same(stage: Stage) -> None:
    instance, promise = Paused()()
    assert stage.told(instance, promise) == 1
    late = instance.late()
    waiting = [late, instance.plus(late), instance.rare()]
    for each in waiting:
        stage.note((state(instance, each).name, _reasons(instance.instance_id, each.identifier)))
    stage.note(instance.cancel())


@story
def failures_are_grouped_by_their_errors(stage: Stage) -> None:
    instance, _ = OneOfMany()(["1", "two", "three", "4"])
    wait_for_all(instance)  # and keep no record of the nodes: either of the two may be the first
    groups = connection().list_failures(instance.instance_id.bytes).groups
    stage.note([(each.function, each.type, each.nodes, each.raised_at) for each in groups])
    assert [each.nodes for each in groups] == [2]


@resource
def opened() -> Iterator[list[int]]:
    yield [42]


class Using(DAGDefinition):
    @dagorama
    def entrypoint(self) -> list[int]:
        return [self.taken() for _ in range(3)]

    @dagorama
    def taken(self) -> int:
        return opened()[0]


@story
def resources_are_opened_by_the_nodes_that_use_them(stage: Stage) -> None:
    assert stage.told(*Using()()) == [42, 42, 42]


class Reporting(DAGDefinition):
    @dagorama
    def entrypoint(self) -> int:
        report("half of it", 0.5)
        print("a line")
        current().logger.info("a record")
        return 1


@story
def a_node_reports_prints_and_logs(stage: Stage) -> None:
    assert stage.told(*Reporting()()) == 1
