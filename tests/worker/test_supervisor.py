"""A whole worker, with its processes, and a broker that the test speaks for."""

import os
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.models.promise import DAGPromise
from dagorama.values.codec import encode
from dagorama.values.out_of_band import Buffer
from tests.support.fifo import Fifo
from tests.support.resetting_proxy import CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, INTERNAL, resetting
from tests.support.scripted_broker import Conversation, ScriptedBroker, WorkerProcess, worker_process
from tests.support.worker_grants import Wanted, body_of, call, encoded, grant_of, values_of

#: Its tests start processes and wait for them, ten seconds and more together.
pytestmark = pytest.mark.slow


@pytest.fixture
def worker(broker: ScriptedBroker) -> Iterator[WorkerProcess]:
    with worker_process(broker) as process:
        yield process


@pytest.fixture
def spoken(broker: ScriptedBroker, worker: WorkerProcess) -> Conversation:
    """The conversation with a worker of one child."""
    return broker.greeted()


@pytest.fixture
def fifo(tmp_path: Path) -> Fifo:
    return Fifo(tmp_path / "fifo")


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- the ordinary way -----------------------------------------------------------------------------------


def test_a_worker_introduces_itself_and_runs_what_it_is_given(broker: ScriptedBroker) -> None:
    flags = ["--include-queue", "a", "--exclude-queue", "b", "--toleration", "GPU", "--concurrency", "2"]
    with worker_process(broker, *flags):
        spoken = broker.greeted()
        hello = spoken.hello
        assert (hello.protocol, len(hello.worker), hello.slots, hello.until) == (1, 16, 2, pb.STOPPED)
        lists = hello.include_queues, hello.exclude_queues, hello.tolerations
        assert [list(each) for each in lists] == [["a"], ["b"], ["GPU"]]
        pids = []
        for slot in (0, 1):
            spoken.grant(call("pid"), slot=slot)
            pids.append(spoken.value())
        assert len({*pids}) == 2


def test_children_load_no_grpc(spoken: Conversation) -> None:
    spoken.grant(call("loaded", "grpc", "cloudpickle", "google.protobuf"))
    assert spoken.value() == ["google.protobuf"]


def test_many_nodes_come_back_in_few_reports(spoken: Conversation) -> None:
    attempts = spoken.grant(*[call("echo", number) for number in range(1000)])
    reports = 0
    found: list[int] = []
    while len(found) < 1000:
        results = spoken.results()
        reports += 1
        found += results.attempt
    assert found == attempts
    assert reports <= 100


def test_a_grant_in_several_messages_is_put_together(spoken: Conversation) -> None:
    value = encoded("x" * 3_000_000)
    body = body_of([Wanted("length", [call_promise()], sources=[71])], {71: value})
    data = body.SerializeToString()
    pieces = [data[at : at + 1_000_000] for at in range(0, len(data), 1_000_000)]
    for piece in pieces[:-1]:
        spoken.send(grants=[pb.Grant(slot=0, body=piece)])
    spoken.send(grants=[pb.Grant(slot=0, node=body.node, attempt=body.attempt, body=pieces[-1], last=True)])
    assert spoken.value() == 3_000_000


def call_promise() -> object:
    return DAGPromise._made(b"o" * 12, 0, b"an instance's id", "f", (), {}, ("file", 1))


def test_a_long_node_does_not_hold_back_results(spoken: Conversation, fifo: Fifo) -> None:
    spoken.grant(call("echo", "before"), call("wait_for", fifo.path))
    assert spoken.value() == "before"
    fifo.wait_until_read()
    fifo.let_go()
    assert spoken.value() == "let go"


def test_heartbeats_come_while_a_node_runs(broker: ScriptedBroker, worker: WorkerProcess, fifo: Fifo) -> None:
    spoken = broker.greeted(heartbeat=0.05)
    spoken.grant(call("wait_for", fifo.path))
    fifo.wait_until_read()
    spoken.listen(lambda: spoken.heartbeats >= 3)
    fifo.let_go()


# --- large values ----------------------------------------------------------------------------------------


def test_large_results_are_at_the_broker_before_they_are_reported(broker: ScriptedBroker, spoken: Conversation) -> None:
    spoken.grant(call("zeros", 3_000_000), call("echo", "small"))
    results = spoken.results()
    [digest] = results.large
    [value] = values_of(results, lambda asked: broker.large[asked])
    assert value == bytes(3_000_000)
    assert digest in broker.large


@pytest.mark.parametrize(
    "status", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED]
)
def test_a_result_that_the_broker_does_not_take_fails_its_node_with_the_reason(
    broker: ScriptedBroker, spoken: Conversation, status: grpc.StatusCode
) -> None:
    broker.put_refusals = [(status, "a value of more than 7 bytes")]
    (attempt,) = spoken.grant(call("zeros", 3_000_000))
    results = spoken.results()
    [failure] = results.failures
    assert not results.node
    assert (failure.attempt, failure.type) == (attempt, "dagorama.errors.RequestRejected")
    assert "could not be stored: a value of more than 7 bytes" in failure.message
    (attempt,) = spoken.grant(call("zeros", 3_000_001))
    assert list(spoken.results().attempt) == [attempt]


def test_a_child_whose_argument_the_broker_does_not_take_fails_its_parent(
    broker: ScriptedBroker, spoken: Conversation
) -> None:
    broker.put_refusals = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")]
    (attempt,) = spoken.grant(call("many", 2, 3_000_000))
    results = spoken.results()
    assert [failure.attempt for failure in results.failures] == [attempt]
    assert not results.children


def test_a_result_is_sent_again_where_the_broker_is_only_away(broker: ScriptedBroker, spoken: Conversation) -> None:
    broker.put_refusals = [(grpc.StatusCode.UNAVAILABLE, "leaving"), (grpc.StatusCode.INTERNAL, "no room")]
    (attempt,) = spoken.grant(call("zeros", 3_000_000))
    assert list(spoken.results().attempt) == [attempt]


def test_large_arguments_are_fetched_before_the_child_gets_its_nodes(
    broker: ScriptedBroker, spoken: Conversation
) -> None:
    argument = encode(((bytes(3_000_000),), {}), large_from=1000, put_large=lambda data: put(broker, data)).envelope
    [digest] = broker.large
    spoken.grant(Wanted("length", arguments=argument), large=[digest])
    spoken.grant(call("echo", "after"))
    assert list(spoken.values(2).values()) == [3_000_000, "after"]


def test_a_large_argument_that_the_broker_does_not_have_fails_its_node(spoken: Conversation) -> None:
    argument = encode(((bytes(5000),), {}), large_from=1000, put_large=lambda data: b"x" * 32).envelope
    spoken.grant(Wanted("length", arguments=argument), large=[b"x" * 32])
    assert spoken.results().failures[0].type == "dagorama.errors.ValueNotReadable"


def test_the_spool_is_removed_with_the_worker(broker: ScriptedBroker, tmp_path: Path) -> None:
    with worker_process(broker, TMPDIR=str(tmp_path)) as worker:
        spoken = broker.greeted()
        spoken.grant(call("zeros", 3_000_000))
        spoken.results()
        assert list(tmp_path.iterdir())
        worker.signal(signal.SIGKILL)
        worker.ended()
    assert not list(tmp_path.iterdir())


def test_results_are_left_in_the_brokers_folder_where_that_is_in_sight(
    broker: ScriptedBroker, worker: WorkerProcess, tmp_path: Path
) -> None:
    spoken = broker.greeted(values=broker.shares(tmp_path / "values"))
    spoken.grant(call("zeros", 3_000_000))
    [digest] = spoken.results().large
    assert broker.file_of(digest).read_bytes() == bytes(3_000_000)
    assert [request.sha256 for request in broker.kept] == [digest]
    assert not broker.large
    assert not list((tmp_path / "values" / "unfinished").iterdir())


def test_arguments_are_read_in_the_brokers_folder_where_that_is_in_sight(
    broker: ScriptedBroker, worker: WorkerProcess, tmp_path: Path
) -> None:
    spoken = broker.greeted(values=broker.shares(tmp_path / "values"))
    argument = encode(((bytes(3_000_000),), {}), large_from=1000, put_large=lambda data: put(broker, data)).envelope
    [(digest, data)] = broker.large.items()
    broker.file_of(digest).parent.mkdir(parents=True)
    broker.file_of(digest).write_bytes(data)
    broker.large.clear()
    spoken.grant(Wanted("length", arguments=argument), large=[digest])
    assert spoken.value() == 3_000_000


def test_what_is_not_in_the_brokers_folder_goes_through_the_broker(
    broker: ScriptedBroker, worker: WorkerProcess, tmp_path: Path
) -> None:
    spoken = broker.greeted(values=broker.shares(tmp_path / "values"))
    argument = encode(((bytes(3_000_000),), {}), large_from=1000, put_large=lambda data: put(broker, data)).envelope
    spoken.grant(Wanted("length", arguments=argument), large=list(broker.large))
    assert spoken.value() == 3_000_000
    broker.folder = None  # it has another one by now
    spoken.grant(call("zeros", 2_000_000))
    [digest] = spoken.results().large
    assert broker.large[digest] == bytes(2_000_000)


def test_a_worker_leaves_the_brokers_folder_alone_where_the_setting_says_so(
    broker: ScriptedBroker, tmp_path: Path
) -> None:
    with worker_process(broker, DAGORAMA_SHARED_FILES="0"):
        spoken = broker.greeted(values=broker.shares(tmp_path / "values"))
        spoken.grant(call("zeros", 3_000_000))
        [digest] = spoken.results().large
        assert broker.large[digest] == bytes(3_000_000)
        assert not list((tmp_path / "values").rglob(digest.hex()))


def test_a_value_that_the_broker_keeps_already_is_not_sent_again(broker: ScriptedBroker, spoken: Conversation) -> None:
    broker.keeps.add(sha256(bytes(3_000_000)).digest())
    spoken.grant(call("zeros", 3_000_000))
    [digest] = spoken.results().large
    assert digest in broker.keeps
    assert not broker.large


def put(broker: ScriptedBroker, data: Buffer) -> bytes:
    digest = sha256(data).digest()
    broker.large[digest] = bytes(data)
    return digest


# --- taking back -----------------------------------------------------------------------------------------


def test_unstarted_nodes_are_taken_back_while_a_node_runs(spoken: Conversation, fifo: Fifo) -> None:
    attempts = spoken.grant(call("wait_for", fifo.path), *[call("echo", number) for number in range(5)])
    fifo.wait_until_read()
    spoken.send(take_back=[pb.TakeBack(slot=0, attempt=[attempts[0], *attempts[2:]])])
    returned = spoken.returned()
    assert (list(returned.attempt), returned.reason) == (attempts[2:], pb.UNSTARTED)
    assert list(returned.node) == attempts[2:]
    fifo.let_go()
    assert spoken.values(2) == {attempts[0]: "let go", attempts[1]: 0}
    [after] = spoken.grant(call("echo", "after"))
    assert spoken.values(1) == {after: "after"}


def test_refused_attempts_are_dropped(spoken: Conversation, fifo: Fifo) -> None:
    attempts = spoken.grant(call("wait_for", fifo.path), call("echo", 1), call("echo", 2))
    fifo.wait_until_read()
    spoken.send(refused=attempts[:2])
    spoken.send(take_back=[pb.TakeBack(slot=0, attempt=attempts)])
    assert list(spoken.returned().attempt) == attempts[2:]
    fifo.let_go()
    [after] = spoken.grant(call("echo", "after"))
    assert spoken.values(1) == {after: "after"}


# --- stacks ----------------------------------------------------------------------------------------------


def test_the_stack_of_a_running_node_is_shown_and_of_no_other(spoken: Conversation, fifo: Fifo) -> None:
    assert spoken.hello.shows_stacks
    running, behind = spoken.grant(call("wait_for", fifo.path), call("echo", 1))
    fifo.wait_until_read()
    for _ in range(2):
        shown = spoken.stack(running)
        assert "in wait_for" in shown.stack
        assert (shown.note, shown.problem) == ("", "")
    assert spoken.stack(behind).problem.startswith("the worker holds the node, but has not started it")
    fifo.let_go()
    assert spoken.values(2) == {running: "let go", behind: 1}
    assert spoken.stack(running).problem == "the node has ended meanwhile"


# --- children that end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("killer", "cause"),
    [
        (call("exit_at_once", 3), "exited with code 3, peak memory"),
        (call("kill_itself", int(signal.SIGSEGV)), "killed by SIGSEGV, peak memory"),
    ],
    ids=["os._exit", "segfault"],
)
def test_a_child_that_ends_is_told_with_its_cause_and_replaced(
    spoken: Conversation, killer: Wanted, cause: str
) -> None:
    [first] = spoken.grant(call("pid"))
    pid = spoken.values(1)[first]
    attempts = spoken.grant(killer, call("echo", 1), call("echo", 2))
    death = spoken.death()
    assert (list(death.running), list(death.unstarted)) == (attempts[:1], attempts[1:])
    assert death.cause.startswith(cause)
    [second] = spoken.grant(call("pid"))
    assert spoken.values(1)[second] != pid


def test_async_nodes_that_ran_when_their_child_ended_are_all_named(spoken: Conversation) -> None:
    attempts = spoken.grant(call("meet", "never", 99), call("meet", "never", 99), call("exit_at_once", 1))
    death = spoken.death()
    assert sorted(death.running) == attempts
    assert not death.unstarted


def test_exits_that_user_code_raises_fail_the_node_and_the_child_lives(spoken: Conversation) -> None:
    spoken.grant(call("pid"))
    pid = spoken.value()
    spoken.grant(call("fail_with", "exit"), call("fail_with", "ctrl-c"), call("pid"))
    failures: list[str] = []
    values: list[object] = []
    while len(failures) + len(values) < 3:
        results = spoken.results()
        failures += [failure.type for failure in results.failures]
        values += values_of(results)
    assert failures == ["builtins.SystemExit", "builtins.KeyboardInterrupt"]
    assert values == [pid]


def test_what_a_node_starts_answers_signals_as_usual(spoken: Conversation) -> None:
    spoken.grant(call("signals_of_what_it_starts"))
    assert spoken.value() == [-signal.SIGTERM, -signal.SIGTERM]


def test_a_signal_to_a_child_is_left_to_the_supervisor(spoken: Conversation) -> None:
    spoken.grant(call("kill_itself", int(signal.SIGTERM)), call("kill_itself", int(signal.SIGINT)), call("echo", 1))
    assert list(spoken.values(3).values()) == [None, None, 1]


# --- the broker goes and comes ------------------------------------------------------------------------------


def test_reports_that_were_not_acknowledged_are_said_again_after_a_restart(
    broker: ScriptedBroker, spoken: Conversation, fifo: Fifo
) -> None:
    """What runs goes on running meanwhile, and is presented as held."""
    done, running = spoken.grant(call("echo", "done"), call("wait_for", fifo.path))
    first = spoken.report()
    fifo.wait_until_read()
    broker.stop()
    broker.start_again()
    again = broker.greeted()
    hello = again.hello
    assert hello.worker == spoken.hello.worker
    assert set(zip(hello.held_node, hello.held_attempt, hello.held_slot, strict=True)) == {
        (done, done, 0),
        (running, running, 0),
    }
    assert again.report() == first
    fifo.let_go()
    assert again.values(1) == {running: "let go"}


@pytest.mark.parametrize("code", [INTERNAL, CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY])
def test_a_stream_that_something_between_resets_is_opened_again(broker: ScriptedBroker, code: int) -> None:
    """What could go wrong: gRPC makes PERMISSION_DENIED of one of these, which from a broker is the last word."""
    with resetting(broker.port) as proxy:
        proxy.resets.extend([code] * 2)
        with worker_process(broker, DAGORAMA_PORT=str(proxy.port)):
            conversation = broker.greeted()
            conversation.grant(call("echo", 1))
            assert list(conversation.values(1).values()) == [1]
        assert not proxy.resets


def test_the_next_stream_presents_the_proofs_of_what_is_held(
    broker: ScriptedBroker, spoken: Conversation, fifo: Fifo
) -> None:
    hello = spoken.hello
    assert sha256(hello.secret).digest()[:16] == hello.worker
    assert not hello.grants
    grant = grant_of(call("wait_for", fifo.path))
    grant.proof = b"proof"
    spoken.send(grants=[grant])
    fifo.wait_until_read()
    spoken.end()
    again = broker.greeted()
    assert (again.hello.worker, again.hello.secret) == (hello.worker, hello.secret)
    assert [(list(each.attempt), each.proof) for each in again.hello.grants] == [(list(grant.attempt), b"proof")]
    fifo.let_go()
    assert list(again.values(1).values()) == ["let go"]


def test_what_ended_while_there_was_no_broker_is_reported_when_there_is_one(
    broker: ScriptedBroker, spoken: Conversation, fifo: Fifo
) -> None:
    [attempt] = spoken.grant(call("wait_for", fifo.path))
    fifo.wait_until_read()
    broker.stop()
    fifo.let_go()
    broker.start_again()
    again = broker.greeted()
    assert again.values(1) == {attempt: "let go"}


def test_a_broken_stream_is_opened_again(broker: ScriptedBroker, spoken: Conversation) -> None:
    spoken.end()
    again = broker.greeted()
    assert again.hello.worker == spoken.hello.worker
    again.grant(call("echo", 1))
    assert again.value() == 1


def test_a_draining_broker_is_left_and_found_again(broker: ScriptedBroker, spoken: Conversation) -> None:
    spoken.send(draining=True)
    again = broker.greeted()
    again.grant(call("echo", 1))
    assert again.value() == 1


def test_a_worker_that_is_refused_says_so_and_leaves(broker: ScriptedBroker) -> None:
    broker.refusals = [(grpc.StatusCode.UNAUTHENTICATED, "no token")]
    with worker_process(broker) as worker:
        code, said = worker.ended()
    assert (code, said.splitlines()[-1]) == (2, f"worker: the broker at 127.0.0.1:{broker.port} refuses it: no token")
    assert "INTERNAL" not in said
    assert "Internal" not in said


def test_a_refusal_that_grpc_wrote_over_is_asked_for_again_without_a_word(broker: ScriptedBroker) -> None:
    """What meets the hello: the client's own library says INTERNAL instead of what the broker said."""
    broker.refusals = [
        (grpc.StatusCode.INTERNAL, "Internal error from Core"),
        (grpc.StatusCode.UNAUTHENTICATED, "no token"),
    ]
    with worker_process(broker) as worker:
        code, said = worker.ended()
    assert (code, said.splitlines()[-1]) == (2, f"worker: the broker at 127.0.0.1:{broker.port} refuses it: no token")
    assert "INTERNAL" not in said
    assert "Internal" not in said


# --- leaving -------------------------------------------------------------------------------------------------


def test_sigterm_drains(worker: WorkerProcess, spoken: Conversation, fifo: Fifo) -> None:
    """What runs is finished, the rest is returned, and the worker leaves with 0 when the broker has it all."""
    attempts = spoken.grant(call("wait_for", fifo.path), call("echo", 1))
    fifo.wait_until_read()
    worker.signal(signal.SIGTERM)
    returned = spoken.returned()
    assert (list(returned.attempt), returned.reason) == (attempts[1:], pb.UNSTARTED)
    assert spoken.draining
    late = spoken.grant(call("echo", "too late"))
    assert list(spoken.returned().attempt) == late
    fifo.let_go()
    assert spoken.values(1) == {attempts[0]: "let go"}
    spoken.listen_to_the_end()
    assert worker.ended()[0] == 0


def test_a_second_sigterm_stops_at_once(worker: WorkerProcess, spoken: Conversation, fifo: Fifo) -> None:
    """What runs is returned as interrupted, and the child is gone."""
    attempts = spoken.grant(call("wait_for", fifo.path))
    fifo.wait_until_read()
    worker.signal(signal.SIGTERM)
    spoken.listen(lambda: spoken.draining)
    worker.signal(signal.SIGTERM)
    returned = spoken.returned()
    assert (list(returned.attempt), returned.reason) == (attempts, pb.INTERRUPTED)
    spoken.listen_to_the_end()
    assert worker.ended()[0] == 0


@pytest.mark.parametrize(
    ("flags", "environment"),
    [(["--grace", "0"], {}), (["--grace", "0"], {"DAGORAMA_GRACE": "60"}), ([], {"DAGORAMA_GRACE": "0"})],
    ids=["by its flag", "by its flag first", "by the environment"],
)
def test_what_runs_past_the_grace_is_returned_as_interrupted(
    broker: ScriptedBroker, fifo: Fifo, flags: list[str], environment: dict[str, str]
) -> None:
    with worker_process(broker, *flags, **environment) as worker:
        spoken = broker.greeted()
        attempts = spoken.grant(call("wait_for", fifo.path))
        fifo.wait_until_read()
        worker.signal(signal.SIGTERM)
        returned = spoken.returned()
        assert (list(returned.attempt), returned.reason) == (attempts, pb.INTERRUPTED)
        spoken.listen_to_the_end()
        code, said = worker.ended()
    assert (code, "uncounted" in said) == (0, False)  # without a grace this is what was asked for


def test_a_worker_says_that_its_grace_was_too_short(broker: ScriptedBroker, fifo: Fifo) -> None:
    with worker_process(broker, "--grace", "0.1") as worker:
        spoken = broker.greeted()
        spoken.grant(call("wait_for", fifo.path))
        fifo.wait_until_read()
        worker.signal(signal.SIGTERM)
        assert spoken.returned().reason == pb.INTERRUPTED
        spoken.listen_to_the_end()
        code, said = worker.ended()
    assert code == 0
    assert "1 running node has not ended within 0.1 seconds and will run again elsewhere, uncounted" in said
    assert "give workers a longer --grace, or let them leave by themselves" in said


def test_ctrl_c_is_a_sigterm(worker: WorkerProcess, spoken: Conversation) -> None:
    spoken.grant(call("echo", 1))
    spoken.value()  # the worker knows now that it is connected; before that, it leaves without a message
    worker.signal(signal.SIGINT)
    spoken.listen_to_the_end()
    assert spoken.draining
    spoken.end()
    code, errors = worker.ended()
    assert code == 0
    assert "Traceback" not in errors


def test_a_worker_that_is_done_leaves_after_its_reports_are_acknowledged(broker: ScriptedBroker) -> None:
    with worker_process(broker, "--exit-on-completion") as worker:
        spoken = broker.greeted()
        assert spoken.hello.until == pb.DRAINED
        spoken.grant(call("echo", 1))
        report = spoken.report()
        spoken.send(done=True)
        spoken.listen(lambda: spoken.draining)
        assert is_alive(worker.pid)
        spoken.send(acknowledged=report.sequence)
        spoken.listen_to_the_end()
        assert worker.ended()[0] == 0


def test_nothing_is_left_of_a_worker_that_is_killed(worker: WorkerProcess, spoken: Conversation, fifo: Fifo) -> None:
    """`ended` returns when nobody has its pipes any more."""
    spoken.grant(call("wait_for", fifo.path))
    fifo.wait_until_read()
    worker.signal(signal.SIGKILL)
    assert worker.ended()[0] == -signal.SIGKILL


def test_a_worker_whose_fork_server_is_killed_returns_what_it_has_and_leaves(
    worker: WorkerProcess, spoken: Conversation, fifo: Fifo
) -> None:
    attempts = spoken.grant(call("wait_for", fifo.path), call("echo", 1))
    fifo.wait_until_read()
    [fork_server] = children_of(worker.pid)
    os.kill(fork_server, signal.SIGKILL)
    spoken.listen_to_the_end()
    assert {attempt for returned in spoken.returns for attempt in returned.attempt} == {*attempts}
    code, errors = worker.ended()
    assert code == 1
    assert "the process that forks its children has exited" in errors


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# --- at the start -------------------------------------------------------------------------------------------


def test_imported_modules_register_what_they_register(broker: ScriptedBroker) -> None:
    with worker_process(broker, "--import", "tests.support.worker_registering"):
        spoken = broker.greeted()
        spoken.grant(Wanted("entrypoint", [1], definition="tests.support.worker_nodes:Counting"))
        assert spoken.value() == 101


def test_a_module_that_cannot_be_imported_is_one_sentence_and_code_2(broker: ScriptedBroker) -> None:
    with worker_process(broker, "--import", "no_such_module", "--concurrency", "2") as worker:
        code, errors = worker.ended()
    assert code == 2
    assert errors.count("no_such_module: it cannot be imported") == 1
    assert "Traceback" not in errors


def test_children_that_end_before_they_are_ready_are_not_replaced_for_ever(broker: ScriptedBroker) -> None:
    with worker_process(broker, "--import", "tests.support.worker_ending") as worker:
        code, errors = worker.ended()
    assert code == 1
    assert "exited with code 7" in errors
    assert "before they are ready" in errors
