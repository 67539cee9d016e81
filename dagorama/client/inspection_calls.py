"""The calls of a connection by which people inspect a broker. Lists arrive in pages, and are returned whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dagorama.api import broker_pb2
from dagorama.client.chunks import DEADLINE, all_counted_pages, all_pages
from dagorama.errors import BrokerError, BrokerOverloaded, BrokerUnavailable
from dagorama.models.state import State

if TYPE_CHECKING:
    import grpc

    from dagorama.api.broker_pb2_grpc import BrokerStub

T = TypeVar("T")


class InstanceList(NamedTuple):
    """Instances, and how many match on the broker; 0: it does not know."""

    instances: list[broker_pb2.InstanceInfo]
    total: int


class ActionList(NamedTuple):
    """Actions, and how many the broker keeps."""

    actions: list[broker_pb2.Action]
    total: int


class InspectionCalls(ABC):
    """The part of `Connection` that reads instances, nodes and the state of the broker."""

    stub: BrokerStub

    @abstractmethod
    def error_of(self, error: grpc.RpcError) -> BrokerError:
        """Return our error for a failed call."""

    @abstractmethod
    def _ask(self, call: Callable[[float], T], seconds: float = DEADLINE) -> T:
        """Make a call with a timeout in seconds, again if the broker is unavailable for a while."""

    def get_instance(self, instance: bytes) -> broker_pb2.InstanceInfo:
        request = broker_pb2.GetInstanceRequest(instance=instance)
        return self._ask(lambda timeout: self.stub.GetInstance(request, timeout=timeout))

    def get_named_instance(self, definition: str, name: str) -> broker_pb2.InstanceInfo:
        """Return the instance of a definition with this user's ID. Raises NotFound."""
        request = broker_pb2.GetInstanceRequest(definition=definition, name=name)
        return self._ask(lambda timeout: self.stub.GetInstance(request, timeout=timeout))

    def find_ids(self, instance: str, nodes: Sequence[str] = ()) -> tuple[bytes, list[bytes]]:
        """Return the IDs of an instance and of its nodes that begin with these 4 to 32 hexadecimal digits.

        A node may also be given as "/" and its ordinal.
        Raises NotFound if there is none, RequestRejected if there are several.
        """
        request = broker_pb2.FindIdsRequest(instance=instance, node=nodes)
        reply = self._ask(lambda timeout: self.stub.FindIds(request, timeout=timeout))
        return reply.instance, list(reply.node)

    def name_nodes(self, nodes: Sequence[bytes]) -> Sequence[broker_pb2.NodeName]:
        """Return the instances and ordinals of up to 1,000 nodes; unknown ones are left out."""
        request = broker_pb2.NameNodesRequest(node=nodes)
        return self._ask(lambda timeout: self.stub.NameNodes(request, timeout=timeout)).names

    def list_failures(
        self, instance: bytes = b"", definition: str = "", limit: int = 0
    ) -> broker_pb2.ListFailuresReply:  # fmt: skip
        """Return the failed nodes of an instance, or of all, grouped by error, at most `limit` groups (0: 100)."""
        request = broker_pb2.ListFailuresRequest(instance=instance, definition=definition, limit=limit)
        return self._ask(lambda timeout: self.stub.ListFailures(request, timeout=timeout))

    def get_shape(self, instance: bytes) -> broker_pb2.Shape:
        """Return the functions of an instance and the edges between them."""
        request = broker_pb2.GetShapeRequest(instance=instance)
        return self._ask(lambda timeout: self.stub.GetShape(request, timeout=timeout))

    def list_instances(
        self,
        limit: int = 0,
        *,
        unfinished: bool = False,
        failed: bool = False,
        definition: str = "",
        name: str = "",
        labels: Mapping[str, str] | None = None,
        function: str = "",
        error: str = "",
    ) -> InstanceList:
        """Return the latest instances, at most `limit`; 0 means all. `name` is a user's ID."""
        asked = broker_pb2.ListInstancesRequest(
            unfinished=unfinished, failed=failed, definition=definition, name=name, labels=labels or {},
            function=function, error=error,
        )  # fmt: skip

        def page(size: int, before: int) -> tuple[Sequence[broker_pb2.InstanceInfo], int, int]:
            asked.limit, asked.before = size, before
            reply = self._ask(lambda timeout: self.stub.ListInstances(asked, timeout=timeout))
            return reply.instances, reply.more, reply.total

        return InstanceList(*all_counted_pages(page, limit))

    def list_nodes(
        self,
        instance: bytes,
        limit: int = 0,
        states: Sequence[State] = (),
        *,
        function: str = "",
        error: str = "",
        worker: str = "",
        slower_than: float = 0.0,
        failed_attempts: int = 0,
    ) -> list[broker_pb2.NodeInfo]:
        """Return nodes of an instance in these states, at most `limit`; 0 means all, and so do no states.

        `worker` is the name of the worker that holds the node or ran it last, `slower_than` the least time in seconds
        that its last attempt took, `failed_attempts` the fewest failed attempts.
        """
        numbers = [broker_pb2.NodeState.ValueType(state) for state in states]
        asked = broker_pb2.ListNodesRequest(
            instance=instance, states=numbers, function=function, error=error, worker=worker,
            min_microseconds=ceil(slower_than * 1_000_000), min_failed_attempts=failed_attempts,
        )  # fmt: skip

        def page(size: int, after: int) -> tuple[Sequence[broker_pb2.NodeInfo], int]:
            asked.limit, asked.after = size, after
            reply = self._ask(lambda timeout: self.stub.ListNodes(asked, timeout=timeout))
            return reply.nodes, reply.more

        return all_pages(page, limit)

    def list_actions(self, limit: int = 0) -> ActionList:
        """Return the latest actions of people, at most `limit`; 0 means all that are kept."""
        asked = broker_pb2.ListActionsRequest()

        def page(size: int, before: int) -> tuple[Sequence[broker_pb2.Action], int, int]:
            asked.limit, asked.before = size, before
            reply = self._ask(lambda timeout: self.stub.ListActions(asked, timeout=timeout))
            return reply.actions, reply.more, reply.total

        return ActionList(*all_counted_pages(page, limit))

    def count_nodes(self, instance: bytes) -> list[int]:
        """Return how many nodes of an instance are in each state, by the numbers of `State`."""
        request = broker_pb2.WatchRequest(instance=instance, now=True)
        (progress,) = self._ask(lambda timeout: list(self.stub.Watch(request, timeout=timeout)))
        return [sum(counts) for counts in zip(*(each.nodes for each in progress.functions), strict=True)]

    def get_node(
        self, instance: bytes, node: bytes, *, arguments: bool = False, value: bool = False
    ) -> broker_pb2.NodeDetails:
        """Return the record of one node, with the envelopes of its arguments and its value if they are asked for."""
        request = broker_pb2.GetNodeRequest(instance=instance, node=node, arguments=arguments, value=value)
        return self._ask(lambda timeout: self.stub.GetNode(request, timeout=timeout))

    def explain_node(self, instance: bytes, node: bytes = b"") -> broker_pb2.Explanation:
        """Return why a node is not running, or what keeps an instance from ending if no node is given."""
        request = broker_pb2.ExplainNodeRequest(instance=instance, node=node)
        return self._ask(lambda timeout: self.stub.ExplainNode(request, timeout=timeout))

    def drain_worker(self, worker: bytes) -> broker_pb2.DrainWorkerReply:
        """Let a worker finish its running nodes and leave."""
        request = broker_pb2.DrainWorkerRequest(worker=worker)
        return self._ask(lambda timeout: self.stub.DrainWorker(request, timeout=timeout))

    def get_stack(self, instance: bytes, node: bytes) -> broker_pb2.NodeStack:
        """Return where a running node stands now."""
        request = broker_pb2.GetStackRequest(instance=instance, node=node)
        return self._ask(lambda timeout: self.stub.GetStack(request, timeout=timeout))

    def progress_now(self, request: broker_pb2.WatchRequest) -> broker_pb2.Progress:
        """Return the only reply to a watch with `now`."""
        return self._ask(lambda timeout: next(iter(self.stub.Watch(request, timeout=timeout))))

    def watch_queues(self, queue: str = "") -> Iterator[broker_pb2.Activity]:
        """Yield the counts of all queues, or of one, whenever they have changed; also after restarts of the broker."""
        import grpc

        request = broker_pb2.WatchQueuesRequest(queue=queue)
        while True:
            try:
                yield from self.stub.WatchQueues(request)
            except grpc.RpcError as error:
                failure = self.error_of(error)
                if not isinstance(failure, BrokerUnavailable | BrokerOverloaded):
                    raise failure from None
            self.get_status()  # waits until the broker answers, or raises

    def pause_queue(self, queue: str, resume: bool = False, keys: bool = False) -> broker_pb2.PauseQueueReply:
        """Stop granting nodes of a queue, or grant them again; `keys`: end the pauses of their keys and limits too."""
        request = broker_pb2.PauseQueueRequest(queue=queue, resume=resume, keys=keys)
        return self._ask(lambda timeout: self.stub.PauseQueue(request, timeout=timeout))

    def put_schedule(self, request: broker_pb2.PutScheduleRequest) -> broker_pb2.PutScheduleReply:
        """Add a schedule, or replace the one with its ID."""
        return self._ask(lambda timeout: self.stub.PutSchedule(request, timeout=timeout))

    def remove_schedule(self, id: str) -> None:
        """Remove a schedule. Raises NotFound."""
        request = broker_pb2.RemoveScheduleRequest(id=id)
        self._ask(lambda timeout: self.stub.RemoveSchedule(request, timeout=timeout))

    def pause_schedule(self, id: str, resume: bool = False) -> broker_pb2.PauseScheduleReply:
        """Pause or resume a schedule. Raises NotFound."""
        request = broker_pb2.PauseScheduleRequest(id=id, resume=resume)
        return self._ask(lambda timeout: self.stub.PauseSchedule(request, timeout=timeout))

    def list_schedules(self, id: str = "") -> list[broker_pb2.ScheduleInfo]:
        """Return all schedules by ID, or only the one with this ID. Raises NotFound."""
        request, found = broker_pb2.ListSchedulesRequest(id=id), list[broker_pb2.ScheduleInfo]()
        while True:
            reply = self._ask(lambda timeout: self.stub.ListSchedules(request, timeout=timeout))
            found += reply.schedules
            if not reply.more:
                return found
            request.after = reply.more

    def list_cache(self) -> broker_pb2.ListCacheReply:
        """Return the functions that have cached values."""
        request = broker_pb2.ListCacheRequest()
        return self._ask(lambda timeout: self.stub.ListCache(request, timeout=timeout))

    def clear_cache(self, function: str) -> int:
        """Forget the cached values of a function, by its name; return how many there were."""
        request = broker_pb2.ClearCacheRequest(function=function)
        return self._ask(lambda timeout: self.stub.ClearCache(request, timeout=timeout)).values

    def get_demand(self, request: broker_pb2.DemandRequest) -> broker_pb2.DemandReply:
        """Return how many slots a pool of workers needs now."""
        return self._ask(lambda timeout: self.stub.Demand(request, timeout=timeout))

    def get_status(self) -> broker_pb2.Status:
        """Return the broker's current counts and the complete lists, which arrive in pages."""
        request = broker_pb2.GetStatusRequest()
        whole = status = self._ask(lambda timeout: self.stub.GetStatus(request, timeout=timeout))
        while status.more:
            request.after_worker, request.after_function = status.last_worker, status.last_function
            request.after_queue = status.last_queue
            status = self._ask(lambda timeout: self.stub.GetStatus(request, timeout=timeout))
            whole.workers.extend(status.workers)
            whole.unschedulable.extend(status.unschedulable)
            whole.queues.extend(status.queues)
        return whole
