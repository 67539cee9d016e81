"""What becomes of nodes: values, children, failures, nodes given back. Real functions, no transport."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic_ns
from typing import NamedTuple
from uuid import UUID

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.context import CurrentNode, current_attempt, current_run
from dagorama.errors import NotInInstance, NotPicklable, ValueNotReadable
from dagorama.models.failure import Failure
from dagorama.models.outcome import outcome as tolerated
from dagorama.models.promise import DAGPromise
from dagorama.values.codec import Encoded, decode, encode
from dagorama.values.signing import FAILURE, keyring
from dagorama.worker.child.executor import Executor
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.spool_files import SpoolValues, path_of
from tests.support import worker_nodes
from tests.support.worker_grants import INSTANCE, Wanted, body_of, call, encoded, ids, values_of


class Ran:
    """An executor, and what its nodes came to."""

    def __init__(self, folder: Path) -> None:
        self.outcomes: list[tuple[Kind, Outcome]] = []
        self.folder, self.large = folder, SpoolValues(folder)
        outbox = Outbox(lambda kind, outcome: self.outcomes.append((kind, outcome)))
        self.executor = Executor(outbox, self.large)

    def run(
        self,
        *wanted: Wanted,
        values: Mapping[int, Encoded] | None = None,
        refs: Mapping[int, Sequence[int]] | None = None,
    ) -> pb.Results:
        """Run them in order; their outcomes in one message."""
        self.outcomes.clear()
        for each in self.executor.prepare(body_of(wanted, values, refs).SerializeToString()):
            if each.work.is_async:
                asyncio.run(self.executor.run_async(each, monotonic_ns()))
            else:
                self.executor.run(each, monotonic_ns())
        self.executor.outbox.flush()
        results = pb.Results()
        for kind, outcome in self.outcomes:
            if kind == Kind.RESULTS:
                results.MergeFromString(outcome.body)
        return results

    def value(self, wanted: Wanted, values: Mapping[int, Encoded] | None = None) -> object:
        results = self.run(wanted, values=values)
        assert not results.failures, results.failures
        return values_of(results, lambda digest: bytes(self.large.get(digest).data))[0]

    def failure(self, wanted: Wanted) -> pb.Failure:
        results = self.run(wanted)
        assert not results.node
        return results.failures[0]

    def returned(self, wanted: Wanted) -> pb.Return:
        results = self.run(wanted)
        assert not results.node
        assert not results.failures
        [(kind, outcome)] = self.outcomes
        assert kind == Kind.RETURN
        return pb.Return.FromString(outcome.body)


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    return Ran(tmp_path / "spool")


def promise(counter: int, origin: bytes = b"o" * 12) -> DAGPromise[object]:
    return DAGPromise._made(origin, counter, b"an instance's id", "f", (), {}, ("file", 1))


# --- values --------------------------------------------------------------------------------------------


def test_arguments_go_in_and_the_result_comes_out(ran: Ran) -> None:
    assert ran.value(call("echo", {"a": [1, None]})) == {"a": [1, None]}


@pytest.mark.parametrize("value", [0, "", [], False, None])
def test_empty_values_come_out_as_they_went_in(ran: Ran, value: object) -> None:
    assert ran.value(call("echo", value)) == value


def test_promises_in_arguments_are_filled_with_the_values_of_their_nodes(ran: Ran) -> None:
    wanted = Wanted("echo", [[promise(1), 5, promise(2), promise(1)]], sources=[71, 72])
    assert ran.value(wanted, {71: encoded("one"), 72: encoded("two")}) == ["one", 5, "two", "one"]


def test_no_two_nodes_share_an_object(ran: Ran) -> None:
    wanted = [Wanted("append", [promise(1), number], sources=[71]) for number in (1, 2)]
    results = ran.run(*wanted, values={71: encoded([0])})
    assert values_of(results) == [[0, 1], [0, 2]]


def test_values_whose_promises_have_values_are_assembled(ran: Ran) -> None:
    values = {71: encoded([promise(2), promise(3)]), 72: encoded({"inner": promise(3)}), 73: encoded("leaf")}
    results = ran.run(Wanted("echo", [promise(1)], sources=[71]), values=values, refs={71: [72, 73], 72: [73]})
    assert values_of(results) == [[{"inner": "leaf"}, "leaf"]]


def test_large_arguments_and_results_are_kept_beside_their_envelopes(ran: Ran) -> None:
    ran.executor.large_from = 1000
    results = ran.run(call("zeros", 5000))
    assert len(results.value[0]) < 200
    assert list(results.large_of) == [0]
    assert ran.outcomes[0][1].large == list(results.large)
    argument = encode(((bytes(7000),), {}), large_from=1000, put_large=ran.large.put).envelope
    assert ran.value(Wanted("length", arguments=argument)) == 7000


def test_run_times_are_told(ran: Ran) -> None:
    results = ran.run(call("echo", 1), call("echo", 2))
    assert len(results.microseconds) == 2


# --- children ------------------------------------------------------------------------------------------


def test_nodes_that_a_node_makes_go_with_its_result(ran: Ran) -> None:
    results = ran.run(call("pair"))
    [children] = results.children
    assert (children.node, children.attempt) == (results.node[0], results.attempt[0])
    nodes = children.nodes
    assert [results.functions[index].name for index in nodes.function] == [
        "tests.support.worker_nodes:Nodes.echo",
        "tests.support.worker_nodes:Nodes.append",
    ]
    assert (list(nodes.source_count), list(nodes.source)) == ([0, 1], [0])
    assert (list(results.ref_count), list(results.ref)) == ([2], [0, 1])


def test_nodes_that_a_failing_node_has_made_are_dropped(ran: Ran) -> None:
    results = ran.run(call("children_then_fail"))
    assert not results.children
    assert results.failures[0].message == "after all"


def test_two_attempts_never_make_the_same_node(ran: Ran) -> None:
    results = ran.run(call("pair"), call("pair"))
    assert len({children.nodes.origin for children in results.children}) == 2


def test_calls_on_an_instance_whose_run_is_over_are_refused(ran: Ran) -> None:
    worker_nodes.leaked.clear()
    ran.value(call("leak", []))
    with pytest.raises(NotInInstance):
        worker_nodes.leaked[0].echo(1)


# --- failures ------------------------------------------------------------------------------------------


def test_what_a_node_raises_is_told_with_the_users_frames_and_the_exception_itself(ran: Ran) -> None:
    failure = ran.failure(call("fail", "no luck"))
    assert (failure.type, failure.message) == ("builtins.ValueError", "no luck")
    assert "in fail" in failure.traceback
    assert "raise ValueError(text)" in failure.traceback
    assert "executor.py" not in failure.traceback
    instance, envelope = keyring().open(failure.exception, FAILURE, ids[failure.attempt])
    rebuilt = decode(envelope)
    assert instance == INSTANCE
    assert isinstance(rebuilt, ValueError)
    assert rebuilt.args == ("no luck",)


def test_what_an_async_node_raises_is_told_the_same_way(ran: Ran) -> None:
    failure = ran.failure(call("fail_async", "no luck"))
    assert (failure.type, failure.message) == ("builtins.ValueError", "no luck")
    assert "executor.py" not in failure.traceback


@pytest.mark.parametrize(("kind", "name"), [("exit", "builtins.SystemExit"), ("ctrl-c", "builtins.KeyboardInterrupt")])
def test_leaving_exceptions_of_user_code_fail_the_node_and_nothing_else(ran: Ran, kind: str, name: str) -> None:
    assert ran.failure(call("fail_with", kind)).type == name
    assert ran.value(call("echo", 1)) == 1


def test_an_exception_whose_str_fails_is_told_as_text(ran: Ran) -> None:
    failure = ran.failure(call("fail_with", "unprintable"))
    assert failure.type == "tests.support.worker_nodes.Unprintable"
    assert "str() failed" in failure.message


def test_an_exception_that_cannot_be_looked_at_fails_the_node(ran: Ran) -> None:
    failure = ran.failure(call("fail_with", "opaque"))
    assert (failure.type, failure.message) == ("builtins.RuntimeError", "no __class__")
    assert ran.value(call("echo", 1)) == 1


def test_an_exception_that_cannot_be_pickled_is_told_as_text(ran: Ran) -> None:
    failure = ran.failure(call("fail_with", "unpicklable"))
    assert failure.message == "no luck"
    assert failure.exception == b""


def test_lone_surrogates_and_nul_in_messages_become_valid_text(ran: Ran) -> None:
    failure = ran.failure(call("fail", "bad \udcff and \0"))
    assert failure.message == "bad \\udcff and \\x00"
    assert pb.Failure.FromString(failure.SerializeToString()) == failure


def test_long_messages_and_tracebacks_are_cut_in_the_middle(ran: Ran) -> None:
    failure = ran.failure(call("fail", "begin " + "x" * 1_000_000 + " end"))
    assert len(failure.message) < 20_000
    assert failure.message.startswith("begin ")
    assert failure.message.endswith(" end")
    deep = ran.failure(call("recurse", 900))
    assert len(deep.traceback) < 70_000
    assert deep.type == "builtins.ZeroDivisionError"
    assert deep.traceback.rstrip().endswith("by zero")


def test_a_result_that_cannot_be_pickled_fails_the_node_and_names_the_part(ran: Ran) -> None:
    failure = ran.failure(call("thread"))
    assert failure.type == f"{NotPicklable.__module__}.NotPicklable"
    assert "result" in failure.message
    assert ran.value(call("echo", 1)) == 1


def test_arguments_that_cannot_be_read_fail_the_node(ran: Ran) -> None:
    failure = ran.failure(Wanted("echo", arguments=b"\x01\x00no pickle"))
    assert failure.type == "dagorama.errors.ValueNotReadable"
    assert ran.value(call("echo", 1)) == 1


def handed_on(ran: Ran, *between: Wanted, size: int = 7000) -> bool:
    """Run a node with what one before it returned, and some in between; return whether it had that in memory."""
    ran.executor.large_from = 1000
    [digest] = ran.run(call("echo", bytes(size))).large
    for each in between:
        ran.run(each)
    path_of(ran.folder, digest).unlink()
    argument = encode(((bytes(size),), {}), large_from=1000, put_large=lambda data: digest).envelope
    results = ran.run(Wanted("echo", arguments=argument))
    return len(results.value) == 1


def test_a_node_is_given_what_the_one_before_it_has_returned(ran: Ran) -> None:
    assert handed_on(ran)


def test_what_another_node_does_not_need_is_not_in_memory_while_that_runs(ran: Ran) -> None:
    assert not handed_on(ran, call("echo", 1))


def test_what_is_too_large_to_wait_in_memory_is_read(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama.worker.child.last_values.MOST_BYTES", 6999)
    assert not handed_on(ran)


def test_what_a_running_node_stores_is_not_kept_while_it_runs(ran: Ran) -> None:
    digest = ran.executor.large.put(bytes(7000))
    assert ran.executor.large.get(digest)
    path_of(ran.folder, digest).unlink()
    with pytest.raises(ValueNotReadable):
        ran.executor.large.get(digest)


def test_what_can_be_changed_is_not_handed_on(ran: Ran) -> None:
    ran.executor.large_from = 1000
    [digest] = ran.run(call("echo", bytearray(7000))).large
    path_of(ran.folder, digest).unlink()
    argument = encode(((bytearray(7000),), {}), large_from=1000, put_large=lambda data: digest).envelope
    assert ran.failure(Wanted("echo", arguments=argument)).type == "dagorama.errors.ValueNotReadable"


def test_a_large_value_that_is_gone_fails_the_node_that_needs_it(ran: Ran) -> None:
    argument = encode(((bytes(7000),), {}), large_from=1000, put_large=lambda data: b"x" * 32).envelope
    failure = ran.failure(Wanted("length", arguments=argument))
    assert failure.type == "dagorama.errors.ValueNotReadable"


# --- nodes that are not for this worker ------------------------------------------------------------------


def test_a_function_with_other_code_is_given_back(ran: Ran) -> None:
    returned = ran.returned(Wanted("echo", [1], hash="another"))
    assert returned.reason == pb.CODE_MISMATCH
    assert "tests.support.worker_nodes:Nodes.echo" in returned.detail
    assert returned.hash == Wanted("echo").function.hash


def test_a_function_that_cannot_be_imported_is_given_back(ran: Ran) -> None:
    returned = ran.returned(Wanted("work", definition="no_such_module:Thing", hash="any"))
    assert returned.reason == pb.NOT_IMPORTABLE
    assert "no_such_module" in returned.detail


def test_a_definition_that_needs_arguments_and_is_not_registered_is_given_back(ran: Ran) -> None:
    returned = ran.returned(Wanted("entrypoint", [1], definition="tests.support.worker_nodes:Counting"))
    assert returned.reason == pb.UNREGISTERED
    assert "register_definition" in returned.detail


def test_nodes_of_one_unusable_function_are_given_back_together(ran: Ran) -> None:
    ran.run(*[Wanted("echo", [number], hash="another") for number in range(3)])
    [(kind, outcome)] = ran.outcomes
    assert kind == Kind.RETURN
    assert len(outcome.attempts) == 3


# --- context ---------------------------------------------------------------------------------------------


def test_waiting_inside_a_node_for_another_is_known_to_be_inside_a_node(ran: Ran) -> None:
    """While a node runs `current_attempt` is set, and not afterwards."""
    ran.value(call("echo", 1))
    assert current_attempt.get() is None
    ran.failure(call("fail", "no luck"))
    assert current_attempt.get() is None


@pytest.mark.parametrize(
    ("kind", "final", "after", "pauses"),
    [
        ("given up on", True, None, False),
        ("retried", False, None, False),
        ("later", False, 2.5, False),
        ("pauses its key", False, 2.5, True),
    ],
)
def test_failures_say_what_their_policy_and_exception_say_of_another_run(
    ran: Ran, kind: str, final: bool, after: float | None, pauses: bool
) -> None:
    failure = ran.failure(call("fail_under_a_policy", kind))
    assert failure.final is final
    assert (failure.retry_after if failure.HasField("retry_after") else None) == after
    assert failure.pause_key is pauses
    assert "no retry policy" not in failure.message


def test_a_node_that_asks_for_another_run_without_a_retry_policy_is_told_what_is_missing(ran: Ran) -> None:
    failure = ran.failure(call("later_without_a_policy", "later"))
    assert "Nodes.later_without_a_policy has no retry policy: give it one, such as retry=StaticRetry" in failure.message


@pytest.mark.parametrize(
    ("method", "failed_before", "name", "logged"),
    [
        ("fail_under_a_policy", 0, "Nodes.fail_under_a_policy", "asked to be retried in 2.5 s"),
        ("fail_under_a_policy", 2, "Nodes.fail_under_a_policy", "failed: dagorama.errors.RetryLater"),
        ("later_without_a_policy", 0, "Nodes.later_without_a_policy", "failed: dagorama.errors.RetryLater"),
    ],
)
def test_a_run_that_asks_for_another_is_logged_as_failed_only_if_it_was_the_last(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    method: str, failed_before: int, name: str, logged: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", "INFO")
    body = body_of([call(method, "later")])
    body.failed_attempts.append(failed_before)
    [call_] = ran.executor.prepare(body.SerializeToString())
    ran.executor.run(call_, monotonic_ns())
    [line] = capsys.readouterr().err.splitlines()
    assert f"{name} (instance " in line
    assert logged in line
    assert ("[INFO]" in line) is ("asked" in logged)


def test_failed_sources_that_are_tolerated_come_as_failures(ran: Ran) -> None:
    [call_] = ran.executor.prepare(failed_source_body().SerializeToString())
    ran.executor.run(call_, monotonic_ns())
    ran.executor.outbox.flush()
    results = pb.Results.FromString(ran.outcomes[0][1].body)
    [value] = values_of(results)
    assert isinstance(value, Failure)
    assert (value.function, value.message) == ("m:Nodes.f", "no luck")


def failed_source_body() -> pb.GrantBody:
    body = body_of([Wanted("echo", [tolerated(promise(1))], sources=[71])], {71: encoded(0)})
    body.value[0] = pb.NodeFailure(function="m:Nodes.f", message="no luck", attempts=1).SerializeToString()
    body.failed.append(71)
    return body


@pytest.mark.parametrize(("failed_before", "number"), [([], 1), ([0], 1), ([2], 3)])
def test_a_node_can_know_which_run_of_it_this_is(ran: Ran, failed_before: list[int], number: int) -> None:
    body = body_of([call("number_of_run")])
    body.failed_attempts.extend(failed_before)
    [call_] = ran.executor.prepare(body.SerializeToString())
    ran.executor.run(call_, monotonic_ns())
    ran.executor.outbox.flush()
    assert values_of(pb.Results.FromString(ran.outcomes[0][1].body)) == [number]
    assert current_run.get() is None


def test_an_exception_of_a_cancelled_run_is_not_reported(ran: Ran) -> None:
    [call_] = ran.executor.prepare(body_of([call("fail", "no luck")]).SerializeToString())
    ran.executor.run(call_, monotonic_ns(), lambda: True)
    ran.executor.outbox.flush()
    assert not ran.outcomes


def test_the_longest_run_time_that_can_be_told_is_71_minutes(ran: Ran) -> None:
    for wanted in (call("echo", 1), call("fail", "no luck")):
        [call_] = ran.executor.prepare(body_of([wanted]).SerializeToString())
        ran.executor.run(call_, monotonic_ns() - 3600 * 2 * 10**9)
    ran.executor.outbox.flush()
    results = pb.Results.FromString(ran.outcomes[0][1].body)
    assert [*results.microseconds, results.failures[0].microseconds] == [2**32 - 1] * 2


# --- on the value of a source that ran here --------------------------------------------------------------------------


class Along(NamedTuple):
    """A node and one that takes its value from it; what each came to."""

    source: int
    node: int
    results: pb.Results
    returned: list[int]


def told(ran: Ran) -> tuple[pb.Results, list[int]]:
    """Return what an executor has reported, and the nodes that it has given back; it must hold nothing any longer."""
    ran.executor.outbox.flush()
    results, returned = pb.Results(), list[int]()
    for kind, outcome in ran.outcomes:
        if kind == Kind.RESULTS:
            results.MergeFromString(outcome.body)
        else:
            returned += pb.Return.FromString(outcome.body).node
    assert not ran.executor._own
    assert not ran.executor._handed_on
    return results, returned


def run_along(
    folder: Path, first: Wanted, large_from: int = 1 << 20, taken_back: bool = False, id: bytes = promise(1).node_id
) -> Along:
    """`id` is that of the source."""
    ran = Ran(folder)
    ran.executor.large_from = large_from
    body = body_of([first._replace(id=id), Wanted("append", [promise(1), 4], sources=[1])])
    source, node = body.node
    body.source[:] = [source]
    body.fused_source.extend([0, source])
    calls = ran.executor.prepare(body.SerializeToString())
    if taken_back:
        ran.executor.skip(calls.pop(0))
    for each in calls:
        ran.executor.run(each, monotonic_ns())
    results, returned = told(ran)
    return Along(source, node, results, returned)


def test_a_node_sent_along_takes_the_value_of_its_source_from_here(tmp_path: Path) -> None:
    along = run_along(tmp_path, call("append", [1, 2], 3))
    assert list(along.results.node) == [along.source, along.node]
    assert values_of(along.results) == [[1, 2, 3], [1, 2, 3, 4]], "no object is shared"


def test_a_fused_node_takes_only_the_value_of_the_node_that_its_arguments_name(tmp_path: Path) -> None:
    along = run_along(tmp_path, call("append", [1, 2], 3), id=b"id of other node")
    assert values_of(along.results) == [[1, 2, 3]]
    assert promise(1).node_id.hex() in along.results.failures[0].message


def test_a_fused_node_is_given_back_if_its_source_failed(tmp_path: Path) -> None:
    along = run_along(tmp_path, call("fail", "no luck"))
    assert [failure.node for failure in along.results.failures] == [along.source]
    assert along.returned == [along.node]


def test_a_fused_node_is_given_back_if_its_source_returned_promises(tmp_path: Path) -> None:
    along = run_along(tmp_path, call("pair"))
    assert (list(along.results.node), along.returned) == ([along.source], [along.node])


def test_a_fused_node_is_given_back_if_its_source_returned_a_large_value(tmp_path: Path) -> None:
    along = run_along(tmp_path, call("append", [1, 2], 3), large_from=1)
    assert (list(along.results.node), along.returned) == ([along.source], [along.node])


def test_a_fused_node_is_given_back_if_its_source_was_taken_back(tmp_path: Path) -> None:
    along = run_along(tmp_path, call("append", [1, 2], 3), taken_back=True)
    assert (list(along.results.node), along.returned) == ([], [along.node])


def run_with_join(folder: Path, *sources: Wanted, taken_back: int | None = None) -> tuple[list[object], list[int], int]:
    """Run nodes and one that takes the values of all; return the values, what is given back, and the last one's key."""
    ran = Ran(folder)
    named = [source._replace(id=promise(number).node_id) for number, source in enumerate(sources)]
    places = range(len(named))
    body = body_of([*named, Wanted("echo", [[promise(place) for place in places]], sources=places)])
    *keys, node = body.node
    body.source[:] = keys
    body.fused_source.extend([0] * len(keys) + [keys[0]])
    body.more_fused_count.extend([0] * len(keys) + [len(keys) - 1])
    body.more_fused.extend(keys[1:])
    calls = ran.executor.prepare(body.SerializeToString())
    for place, each in enumerate(calls):
        if place == taken_back:
            ran.executor.skip(each)
        else:
            ran.executor.run(each, monotonic_ns())
    results, returned = told(ran)
    return values_of(results), returned, node


def test_a_node_sent_along_takes_the_values_of_several_sources_from_here(tmp_path: Path) -> None:
    values, returned, _ = run_with_join(tmp_path, call("echo", "a"), call("echo", "b"), call("echo", "c"))
    assert values == ["a", "b", "c", ["a", "b", "c"]]
    assert not returned


@pytest.mark.parametrize("place", range(3))
def test_it_is_given_back_if_one_of_several_has_no_value_here(tmp_path: Path, place: int) -> None:
    sources = [call("echo", "a"), call("echo", "b"), call("echo", "c")]
    _, returned, node = run_with_join(tmp_path, *sources, taken_back=place)
    assert returned == [node]
    sources[place] = call("fail", "no luck")
    values, returned, node = run_with_join(tmp_path, *sources)
    assert (len(values), returned) == (2, [node])


def test_a_node_without_a_hash_is_given_back_with_that_of_the_code_that_is_here(ran: Ran) -> None:
    returned = ran.returned(Wanted("echo", [1], hash=""))
    assert (returned.reason, returned.hash) == (pb.CODE_MISMATCH, Wanted("echo").function.hash)


# --- which node it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["which", "which_async"])
def test_a_node_can_ask_which_node_it_is_and_is_told_no_more_when_it_has_ended(ran: Ran, method: str) -> None:
    id = UUID(int=7)
    found = ran.value(Wanted(method, id=id.bytes))
    assert found == CurrentNode(UUID(bytes=INSTANCE), id, 1, f"tests.support.worker_nodes:Nodes.{method}")
    assert current_run.get() is None


def test_a_failed_node_is_logged_with_its_instance_node_and_attempt(
    ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    id = UUID(int=7)
    ran.failure(Wanted("fail", ["why"], id=id.bytes))
    node = CurrentNode(UUID(bytes=INSTANCE), id, 1, "tests.support.worker_nodes:Nodes.fail")
    assert f"{node} failed: builtins.ValueError: why" in capsys.readouterr().err


# --- traces --------------------------------------------------------------------------------------------

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_children_inherit_the_trace_context_in_a_worker_that_makes_no_spans(ran: Ran) -> None:
    body = body_of([call("pair"), call("pair")])
    body.traces[:], body.trace[:] = [TRACE], [0, 1]
    for each in ran.executor.prepare(body.SerializeToString()):
        ran.executor.run(each, monotonic_ns())
    ran.executor.outbox.flush()
    results = pb.Results()
    for _, outcome in ran.outcomes:
        results.MergeFromString(outcome.body)
    assert [child.nodes.trace for child in results.children] == ["", TRACE]
    assert not results.trace
