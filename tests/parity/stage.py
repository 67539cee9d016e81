"""Play a story in an inline world or with real processes, by the same calls of the library, and keep its record."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from dagorama import DAGInstance, DAGPromise, NodeFailed, State, as_completed, resolve
from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import connection
from dagorama.client.progress import watch
from dagorama_testing import World

T = TypeVar("T")
#: Only the death of a real process has a peak of memory.
_PEAK = re.compile(r", peak memory \S+ \S+")
WAIT = 60.0  #: seconds after which something that should happen is taken not to


class Failed(NamedTuple):
    """How a node failed, without IDs and times."""

    kind: str  #: the class of the exception that `resolve` raised
    type: str
    message: str
    function: str
    dependent: str
    attempts: int
    earlier: list[tuple[str, str]]
    traceback: str
    cause: str


class Stage:
    """An inline world or real processes, and the record of a story that is played there."""

    def __init__(self, folder: Path, world: World | None = None) -> None:
        """Play in a world, or on the broker and the workers of the environment. Nodes may use the folder."""
        self.folder = folder
        self.world = world
        self.record: list[object] = []
        self._instances: dict[UUID, DAGInstance] = {}

    def told(self, instance: DAGInstance, promise: Any) -> Any:
        """Wait for the value of a promise; return it, or Failed, and put it on record."""
        self._instances[instance.instance_id] = instance
        try:
            found = resolve(instance, promise, timeout=WAIT)
        except NodeFailed as error:
            found = _failed(error)
        self.note(found)
        return found

    def note(self, fact: object) -> None:
        """Put a fact on record."""
        self.record.append(fact)

    def include(self, instance: DAGInstance) -> None:
        """Compare the nodes of this instance too, although the story never waits for it."""
        self._instances[instance.instance_id] = instance

    def close(self) -> None:
        """Wait until all nodes have ended, and put them on record."""
        for instance in self._instances.values():
            wait_for_all(instance)
            self.note(_instance(instance))
            self.note(sorted(_nodes(instance)))


def awaited(call: Awaitable[T]) -> T:
    """Return what an awaitable gives, in an event loop of its own."""

    async def run() -> T:
        return await call

    return asyncio.run(run())


def _failed(error: NodeFailed) -> Failed:
    return Failed(
        type(error).__name__, error.type, _PEAK.sub("", error.message), error.function, error.dependent, error.attempts,
        [(run.type, _PEAK.sub("", run.message)) for run in error.earlier], error.traceback, repr(error.__cause__),
    )  # fmt: skip


def wait_for_all(instance: DAGInstance) -> None:
    """Wait until all nodes have ended, and until that is committed: lists are read from the store."""
    link, key, seen = connection(), instance.instance_id.bytes, -1
    while link.get_instance(key).unfinished or len(link.list_nodes(key)) != seen:
        nodes = link.list_nodes(key)
        promises: list[DAGPromise[Any]] = [DAGPromise(identifier=UUID(bytes=node.node)) for node in nodes]
        for _ in as_completed(instance, promises, timeout=WAIT):
            pass
        seen = len(nodes)


def _instance(instance: DAGInstance) -> tuple[object, ...]:
    info = connection().get_instance(instance.instance_id.bytes)
    last = list(watch(instance))[-1]
    functions = sorted((each.function, each.done, each.failed, each.total) for each in last.functions)
    return (
        info.definition, info.name, info.priority, info.fair, dict(info.labels), info.ended, info.failed, info.nodes,
        info.used_failures, State(info.entry_state).name, functions,
    )  # fmt: skip


def _nodes(instance: DAGInstance) -> list[tuple[object, ...]]:
    """Return what the broker knows of each node, with functions in place of IDs."""
    nodes = connection().list_nodes(instance.instance_id.bytes)
    names = {node.node: node.function.name for node in nodes}
    return [_node(node, lambda key: names.get(key, "another instance")) for node in nodes]


def _node(node: pb.NodeInfo, name: Callable[[bytes], str]) -> tuple[object, ...]:
    return (
        node.function.name, State(node.state).name, node.failed_attempts, node.crashes, node.worker_losses,
        _PEAK.sub("", node.reason), name(node.root_cause) if node.root_cause else "",
        name(node.creator) if node.creator else "", sorted(name(source) for source in node.sources),
        node.from_aborted_attempt, node.used_failure,
    )  # fmt: skip
