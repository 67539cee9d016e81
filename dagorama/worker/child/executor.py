"""Run nodes and put their outcomes into the outbox. This module does no IO, and raises nothing that a node raises.

For each node: find its function and compare the code, verify and read the arguments, call the function on a definition
of its own, then encode the result and the child nodes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextvars import copy_context
from inspect import isawaitable
from logging import INFO
from time import monotonic_ns
from typing import Any

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import ADDED, REFRESH, REFS, scheduled_time
from dagorama.client.large_values import LARGE_FROM, LargeValues
from dagorama.context import OpenLog, RunningNode, current_attempt, current_run, never
from dagorama.definition import instance_within
from dagorama.errors import TamperedValue, UnverifiedValue
from dagorama.graph.constructor_arguments import packed
from dagorama.graph.scope import AttemptScope
from dagorama.logging import get_logger
from dagorama.values.codec import decode_called, encode
from dagorama.values.envelope import WHOLE, references
from dagorama.values.rebind import check_rebinding
from dagorama.values.signing import RESULT, keyring
from dagorama.worker.child import process_state
from dagorama.worker.child.cached import LookUp, choose
from dagorama.worker.child.call import Call, Target, Work, definition_of, read_whole
from dagorama.worker.child.exceptions import Unchecked, report_exception, within
from dagorama.worker.child.forks import forget_in_forks, leave
from dagorama.worker.child.grant_reader import GrantReader
from dagorama.worker.child.last_values import LastValues
from dagorama.worker.child.node_logging import log_completed
from dagorama.worker.child.outbox import Outbox, refuse_excess
from dagorama.worker.run_times import MOST_US, RunTimes


class Executor:
    """Runs calls in this process, sync and async ones."""

    def __init__(self, outbox: Outbox, large: LargeValues, open_log: OpenLog | None = None) -> None:
        self._open_log = open_log
        self.drain: Callable[[], None] | None = None  #: called at the end of each run, before its outcome is sent
        self.large_from = LARGE_FROM  #: size of a pickle in bytes from which it is stored outside its envelope
        self.outbox = outbox
        self.large = LastValues(large)  #: the store of large values
        self._ring = keyring()
        self._logs_nodes = get_logger().isEnabledFor(INFO)
        self._grants = GrantReader(self._ring)
        # Nodes whose values are passed on to another node of this process in memory; and those values, with their IDs.
        self._handed_on: set[int] = set()
        self._own: dict[int, tuple[bytes, bytes]] = {}
        self.runs: set[RunningNode] = set()  #: running attempts
        self.last: Call | None = None  #: the sync node that started last, or the async node that ended last
        # Modules are loaded in this context. Each run gets a copy of it, and changes only the copy.
        self._context = copy_context()
        self._has_decimal = process_state.has_decimal(self._context)
        self._loading = threading.Lock()
        self.run_times: RunTimes | None = None  #: counts run times for metrics, if they are served
        self.forked = False  #: this process is a fork of the one that runs nodes
        forget_in_forks(self)

    def forget(self) -> None:
        """In a fork, refuse further calls of the running nodes: their child nodes and results would be lost."""
        self.forked = True
        if self.run_times is not None:
            self.run_times.forget()
        for run in self.runs:
            if run.attempt is not None:
                run.attempt.abandon()

    def prepare(self, body: bytes) -> list[Call]:
        """Return the nodes of a serialized GrantBody in order, without running user code or unpickling anything."""
        grant = pb.GrantBody.FromString(body)
        self._handed_on.update(filter(None, grant.fused_source), grant.more_fused)
        return self._grants.calls(grant)

    def look_again(self) -> None:
        """Search again for functions that could not be found, when they are next needed: classes were added."""
        self._grants.look_again()

    # --- running ------------------------------------------------------------------------------------

    def skip(self, call: Call) -> None:
        """Forget a call that was taken back before it started."""
        for source in call.beside:
            self._handed_on.discard(source)
            self._own.pop(source, None)

    def _lacks_a_source(self, call: Call) -> bool:
        """Give the node back and return True if a source that ran before it has left no value in memory."""
        if all(source in self._own for source in call.beside):
            return False
        self.skip(call)
        self.outbox.returned(call.node, call.attempt, pb.UNSTARTED, "")
        return True

    def run(self, call: Call, started: int, is_cancelled: Callable[[], bool] = never) -> int:
        """Run a sync function. Return the end time in monotonic nanoseconds; `started` is the start time."""
        if call.beside and self._lacks_a_source(call):
            return monotonic_ns()
        self.last = call
        scope = self._scope(call)
        run = RunningNode(call.runs + 1, is_cancelled, scope, call, self._open_log)
        self.runs.add(run)
        try:
            result = self._context.copy().run(self._call, call, scope, run)
        except BaseException as error:
            return self._broke_off(call, error, started, is_cancelled)
        finally:
            self._close(run, scope)
        return self._ended(call, scope, result, started)

    def _call(self, call: Call, scope: AttemptScope, run: RunningNode) -> Any:
        """Call the function of a sync node. The caller has entered a copied context."""
        self._enter(scope, run)
        function, args, kwargs = self._open(call, scope)
        try:
            return function(*args, **kwargs)
        finally:
            if process_state.changes:
                process_state.put_back()

    def _enter(self, scope: AttemptScope, run: RunningNode) -> None:
        current_attempt.set(scope)
        current_run.set(run)
        if self._has_decimal:
            process_state.renew_decimal()

    def _close(self, run: RunningNode, scope: AttemptScope) -> None:
        if self.forked:
            leave()
        if self.drain is not None:
            self.drain()
        scope.close()
        run.attempt = None
        self.runs.discard(run)
        if run.log is not None:
            run.log.close()

    async def run_async(self, call: Call, started: int, is_cancelled: Callable[[], bool] = never) -> int:
        """Run an async function in the current task, at most until its timeout. Otherwise as `run`."""
        scope = self._scope(call)
        run = RunningNode(call.runs + 1, is_cancelled, scope, call, self._open_log)
        self.runs.add(run)
        self._enter(scope, run)
        try:
            function, args, kwargs = self._open(call, scope)
            result = function(*args, **kwargs)
            if isawaitable(result):
                result = await (within(call.work.timeout, result) if call.work.timeout else result)
        except BaseException as error:
            return self._broke_off(call, error, started, is_cancelled)
        finally:
            self._close(run, scope)
            self.last = call
        return self._ended(call, scope, result, started)

    def _scope(self, call: Call) -> AttemptScope:
        scope = AttemptScope(call.instance, self.large_from, self.large.put, self._ring)
        scope.trace = call.trace
        if call.work.stream_children:
            self.outbox.follow(call.node, call.attempt, scope)
        return scope

    def _open(
        self, call: Call, scope: AttemptScope
    ) -> tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]:
        try:
            if call.made_with:
                self._check_code(call)
            arguments = self._arguments(call)
        except UnverifiedValue as error:
            raise Unchecked(str(error)) from None
        # Only after the signature was verified, because finding a function imports its module.
        cls, function, _, scope.bound, json, cache = call.work.target or self._load(call.work)
        as_json = json is not None
        handed = self._handed(call.beside, as_json) if call.beside else {}
        try:
            sources = references(arguments) if arguments[1] & REFS else ()
            fill = [
                handed[id] if id in handed else call.values.read(id, call.instance, self.large.get, as_json)
                for id in sources
            ]
        except UnverifiedValue as error:
            raise Unchecked(str(error)) from None
        if json is not None:
            args, kwargs, constructor, scheduled = json.decode_call(arguments, fill, get_large=self.large.get)
        else:
            args, kwargs, constructor, scheduled = decode_called(arguments, fill, function, get_large=self.large.get)
        if self.large.kept:
            self.large.settle()
        scope.scheduled = scheduled
        added: tuple[object, ...] = ()
        if call.arguments[1] & ADDED:
            scope.scheduled, added = scheduled or scheduled_time(call.arguments), call.added
        if constructor is None:
            definition = call.work.definition or call.work.make_definition(cls)
        else:
            definition = definition_of(cls, constructor)
            scope.constructor = packed(definition, scope.put_large)
        scope.refresh = bool(arguments[1] & REFRESH)
        if cache is not None:
            chosen = choose(self._ring, call, cache, args, kwargs, constructor, scope.refresh)
            scope.cached, function = chosen.run, chosen.function or function
        return function, (instance_within(call.instance, definition, scope), *added, *args), kwargs

    def _check_code(self, call: Call) -> None:
        """Raise UnverifiedValue or TamperedValue unless a rebinding allows to run the node with other code."""
        check_rebinding(call.rebinding, call.wanted, self._ring)

    def _load(self, work: Work) -> Target:
        """Find the function. Context variables that its module sets on import are visible to all later runs."""
        with self._loading:
            try:
                return self._context.run(work.load)
            finally:
                self._has_decimal = process_state.has_decimal(self._context)

    def _arguments(self, call: Call) -> bytes:
        try:
            return self._ring.open_arguments(call.arguments, call.instance, call.id, call.function)
        except UnverifiedValue:
            # If the node were returned, the broker would offer this process no more nodes signed with that key.
            if call.work.key_id not in self._ring.ids:
                raise
            raise TamperedValue(
                f"the arguments of node {call.id.hex()} are not signed with the key that its caller announced"
            ) from None

    def _handed(self, sources: Iterable[int], as_json: bool) -> dict[bytes, object]:
        """Return new copies of the values of nodes that ran before in this process, by the nodes' IDs."""
        self._handed_on.difference_update(sources)
        return {id: read_whole(envelope, as_json) for id, envelope in map(self._own.pop, sources)}

    # --- outcomes -----------------------------------------------------------------------------------

    def _ended(self, call: Call, scope: AttemptScope, result: object, started: int) -> int:
        try:
            target, put = call.work.target, self.large.put_result
            if target is None or target.json is None:
                encoded = encode(result, "result", large_from=self.large_from, put_large=put)
            else:
                encoded = call.work.encode_json(result, self.large_from, put)
            envelope = self._ring.sign(encoded.envelope, RESULT, call.instance, call.id)
            if encoded.refs:
                refuse_excess(encoded)
        except BaseException as error:
            return self._broke_off(call, error, started)
        if self.forked:
            leave()
        ended = monotonic_ns()
        microseconds = 0 if scope.cached is not None and scope.cached.is_hit else self._measured(call, started, ended)
        if scope.runs or scope.cached is not None or encoded.envelope[:2] not in WHOLE:
            signed = encoded._replace(envelope=envelope)
            self.outbox.completed_with(call.node, call.attempt, signed, scope, microseconds)
        else:
            self.outbox.completed(call.node, call.attempt, envelope, microseconds)
        if self._logs_nodes:
            log_completed(call, microseconds)
        if self._handed_on and call.node in self._handed_on and encoded.envelope[:2] in WHOLE:
            self._own[call.node] = call.id, encoded.envelope
        return ended

    def _broke_off(
        self, call: Call, error: BaseException, started: int, is_cancelled: Callable[[], bool] = never
    ) -> int:
        if self.forked:
            leave(error)
        if is_cancelled():
            return self._ended_cancelled(call)
        return self._looked_up(call, error) if type(error) is LookUp else self._ended_badly(call, error, started)

    def _looked_up(self, call: Call, asked: LookUp) -> int:
        """Give a node back whose cache key the broker must look up."""
        self.outbox.look_up(call.node, call.attempt, asked.key)
        return monotonic_ns()

    def _ended_badly(self, call: Call, error: BaseException, started: int) -> int:
        """Report the exception of a node. Child nodes that the attempt has made are dropped with its scope."""
        ended = monotonic_ns()
        report_exception(self.outbox, self._ring, call, error, self._measured(call, started, ended))
        return ended

    def _measured(self, call: Call, started: int, ended: int) -> int:
        """Return the run time in microseconds, after counting it."""
        microseconds = min((ended - started) // 1000, MOST_US)
        if self.run_times is not None:
            self.run_times.add(call.work.name, microseconds)
        return microseconds

    def _ended_cancelled(self, call: Call) -> int:
        """Report nothing: for the broker the node ended when it was cancelled."""
        self.outbox.dropped(call.attempt)
        get_logger().info("%s was cancelled while it ran", call.work.name)
        return monotonic_ns()
