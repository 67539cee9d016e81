"""Who may call what, by raw stubs: no token, another's token, each role, limited workers, replaced tokens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dagorama.api import api_pb2, broker_pb2
from dagorama.api.api_pb2_grpc import DagoramaStub
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama.api.contract import Role
from dagorama_broker.rpc import overview
from dagorama_broker.rpc.auth import LOOK, SETTLE
from dagorama_broker.rpc.permissions import CALLS, HEALTH, ORIGINAL, OURS, SCALER
from tests.support import raw
from tests.support.raw import FUNCTION, PATIENCE, Dag, RawWorker, Served, refused, serving
from tests.support.tokens import Tokens

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub

UNKNOWN = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
GPU = broker_pb2.Function(name="work:Task.train", hash="hash-3", queue="models", taint="GPU")


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    tokens = Tokens(tmp_path / "tokens.toml")
    for role in Role:
        tokens.add(role, role)
    return tokens


@asynccontextmanager
async def guarded(tokens: Tokens) -> AsyncIterator[Served]:
    async with serving(tokens=str(tokens.path)) as served:
        yield served


def stubs(served: Served, token: str | None) -> BrokerAsyncStub:
    stub: BrokerAsyncStub = BrokerStub(bearing(served.channel, token))
    return stub


class Bearing:
    """A channel whose calls carry what is given as a token."""

    def __init__(self, channel: grpc.aio.Channel, header: tuple[tuple[str, str | bytes], ...]) -> None:
        self._channel, self._header = channel, header

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        def method(*named: Any, **how: Any) -> Callable[..., Any]:
            call = getattr(self._channel, kind)(*named, **how)
            return lambda *arguments, **options: call(*arguments, metadata=self._header, **options)

        return method


def bearing(channel: grpc.aio.Channel, token: str | None) -> Any:
    return Bearing(channel, (("authorization", f"Bearer {token}"),) if token is not None else ())


def bearing_header(served: Served, authorization: str) -> BrokerAsyncStub:
    channel: Any = Bearing(served.channel, (("authorization", authorization),))
    stub: BrokerAsyncStub = BrokerStub(channel)
    return stub


async def worker_of(served: Served, token: str, **hello: Any) -> RawWorker:
    worker = RawWorker(stubs(served, token), **hello)
    served.workers.append(worker)
    await worker.connect()
    return worker


async def submit(served: Served, tokens: Tokens, *functions: broker_pb2.Function) -> Dag:
    """A node of each of these functions."""
    dag = Dag()
    arguments = [b"a"] * len(functions)
    request = dag.submission(*arguments, functions=functions, function=list(range(len(functions))))
    await raw.submit(stubs(served, tokens["client"]), request)
    return dag


# --- every call ---------------------------------------------------------------------------------------

#: Each call of ours with something to send. What comes back but for the two statuses is of no interest here.
SENT: Mapping[str, Any] = {
    "SubmitStream": [broker_pb2.SubmitRequest()],
    "Work": [broker_pb2.WorkerMessage()],
    "Wait": broker_pb2.WaitRequest(),
    "Exchange": [broker_pb2.Requests()],
    "PutValue": [broker_pb2.ValueChunk(data=b"value")],
    "GetValue": broker_pb2.GetValueRequest(),
    "ImportValue": broker_pb2.ImportValueRequest(sha256=bytes(32)),
    "GetSharedFolder": broker_pb2.GetSharedFolderRequest(),
    "KeepValue": broker_pb2.KeepValueRequest(sha256=bytes(32), length=1),
    "FindValue": broker_pb2.FindValueRequest(sha256=bytes(32)),
    "GetInstance": broker_pb2.GetInstanceRequest(),
    "GetStatus": broker_pb2.GetStatusRequest(),
    "ListInstances": broker_pb2.ListInstancesRequest(),
    "ListNodes": broker_pb2.ListNodesRequest(),
    "Explain": broker_pb2.ExplainRequest(),
    "GetNode": broker_pb2.GetNodeRequest(),
    "FindIds": broker_pb2.FindIdsRequest(),
    "Watch": broker_pb2.WatchRequest(),
    "ExplainNode": broker_pb2.ExplainNodeRequest(),
    "NameNodes": broker_pb2.NameNodesRequest(),
    "ListFailures": broker_pb2.ListFailuresRequest(),
    "GetShape": broker_pb2.GetShapeRequest(),
    "WhoAmI": broker_pb2.WhoAmIRequest(),
    "GetMap": broker_pb2.GetMapRequest(),
    "WatchNodes": broker_pb2.WatchNodesRequest(),
    "GetSeries": broker_pb2.GetSeriesRequest(),
    "ListActions": broker_pb2.ListActionsRequest(),
    "ListCache": broker_pb2.ListCacheRequest(),
    "ClearCache": broker_pb2.ClearCacheRequest(function="work:Task.cached"),
    "Cancel": broker_pb2.CancelRequest(),
    "Retry": broker_pb2.RetryRequest(),
    "SendSignal": broker_pb2.SendSignalRequest(),
    "Rebind": broker_pb2.RebindRequest(),
    "PauseQueue": broker_pb2.PauseQueueRequest(),
    "DrainWorker": broker_pb2.DrainWorkerRequest(),
    "Delete": broker_pb2.DeleteRequest(),
    "WatchQueues": broker_pb2.WatchQueuesRequest(now=True),
    "Events": broker_pb2.EventsRequest(),
    "GetLogs": broker_pb2.GetLogsRequest(),
    "GetStack": broker_pb2.GetStackRequest(),
    "Demand": broker_pb2.DemandRequest(),
    "WatchDemand": broker_pb2.DemandRequest(),
    "PutSchedule": broker_pb2.PutScheduleRequest(),
    "RemoveSchedule": broker_pb2.RemoveScheduleRequest(),
    "PauseSchedule": broker_pb2.PauseScheduleRequest(),
    "ListSchedules": broker_pb2.ListSchedulesRequest(),
}
CLIENTS = {
    "SubmitStream", "Wait", "Exchange", "PutValue", "GetValue", "ImportValue", "GetSharedFolder", "GetInstance",
    "KeepValue", "FindValue", "GetStatus", "ListInstances", "ListNodes", "Explain", "GetNode", "FindIds", "Watch",
    "ExplainNode",
    "NameNodes", "ListFailures", "GetShape", "Cancel", "Retry", "Delete", "WatchQueues", "Events", "GetLogs",
    "GetStack", "WhoAmI", "GetMap", "WatchNodes", "GetSeries", "ListActions", "PutSchedule", "RemoveSchedule",
    "PauseSchedule", "ListSchedules", "SendSignal", "ListCache", "ClearCache",
}  # fmt: skip
READERS = {
    "GetInstance", "GetStatus", "ListInstances", "ListNodes", "GetNode", "FindIds", "Watch", "ExplainNode",
    "NameNodes", "ListFailures", "GetShape", "WatchQueues", "Events", "WhoAmI", "GetMap", "WatchNodes", "GetSeries",
    "ListActions", "Demand", "WatchDemand", "ListSchedules", "ListCache",
}  # fmt: skip
MAY = {
    "client": CLIENTS,
    "worker": {
        "Work",
        "Wait",
        "Exchange",
        "PutValue",
        "GetValue",
        "ImportValue",
        "GetSharedFolder",
        "KeepValue",
        "FindValue",
        "GetInstance",
        "Explain",
        "WhoAmI",
        "Demand",
        "WatchDemand",
        "SendSignal",
    },
    "reader": READERS,
    "signaller": READERS | {"SendSignal"},
    "admin": set(SENT),
}  # fmt: skip


async def answered(stub: BrokerAsyncStub, call: str) -> Any:
    """Make a call, and return it after its first answer."""
    sent = SENT[call]
    answer = getattr(stub, call)(iter(sent) if isinstance(sent, list) else sent, timeout=PATIENCE)
    await (answer.read() if hasattr(answer, "read") else answer)
    return answer


async def status_of(stub: BrokerAsyncStub, call: str) -> grpc.StatusCode:
    try:
        answer = await answered(stub, call)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.INTERNAL:  # the stream ended while grpc.aio wrote to it: see `RawWorker`
            return await status_of(stub, call)
        return error.code()
    return await answer.code() if not hasattr(answer, "read") else grpc.StatusCode.OK


def test_the_table_has_every_call_of_the_contract_and_no_other() -> None:
    service = broker_pb2.DESCRIPTOR.services_by_name["Broker"]
    assert {name for name in CALLS if SCALER not in name} == {OURS + method.name for method in service.methods}
    assert set(SENT) == {method.name for method in service.methods}
    original = api_pb2.DESCRIPTOR.services_by_name["Dagorama"].full_name
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    assert (f"/{original}/", f"/{health}/") == (ORIGINAL, HEALTH)
    assert f"/{service.full_name}/" == OURS


async def test_a_reader_gets_neither_the_arguments_of_a_node_nor_its_tracebacks(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        dag = await submit(served, tokens, FUNCTION)
        request = broker_pb2.GetNodeRequest(instance=dag.instance, node=dag.id(0), arguments=True)
        with refused(DENIED, "may not read arguments and values of nodes"):
            await stubs(served, tokens["reader"]).GetNode(request)
        assert (await stubs(served, tokens["client"]).GetNode(request)).arguments
        request.arguments = False
        assert not (await stubs(served, tokens["reader"]).GetNode(request)).arguments
        request.value = True
        with refused(DENIED, "may not read arguments and values of nodes"):
            await stubs(served, tokens["reader"]).GetNode(request)
        request.value = False
        worker = await worker_of(served, tokens["worker"])
        await worker.durable(await worker.fail(await worker.node(), message="why", traceback="where"))
        failures = [(await stubs(served, tokens[role]).GetNode(request)).failure for role in ("reader", "client")]
        assert [(failure.message, failure.traceback) for failure in failures] == [("why", ""), ("why", "where")]


async def test_a_reader_gets_logs_and_stacks_only_if_its_record_says_so(tokens: Tokens) -> None:
    trusted = tokens.add("trusted", "reader", logs=True)
    for call in ("GetLogs", "GetStack"):
        async with guarded(tokens) as served:
            request = SENT[call]
            request.instance = request.node = bytes(16)
            with refused(DENIED, "does not allow logs, which may hold secrets: add `logs = true` to its record"):
                await answered(stubs(served, tokens["reader"]), call)
            with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
                await answered(stubs(served, trusted), call)


@pytest.mark.parametrize("role", MAY)
async def test_each_role_may_make_its_calls_and_no_others(tokens: Tokens, role: str) -> None:
    async with guarded(tokens) as served:
        stub = stubs(served, tokens[role])
        found = {call: await status_of(stub, call) for call in SENT}
    assert {call for call, status in found.items() if status not in (UNKNOWN, DENIED)} == MAY[role]
    assert {status for call, status in found.items() if call not in MAY[role]} <= {DENIED}


async def test_callers_learn_who_they_are_and_what_they_may_call(tokens: Tokens) -> None:
    trusted = tokens.add("trusted", "reader", logs=True)
    async with guarded(tokens) as served:
        for role in MAY:
            found = await stubs(served, tokens[role]).WhoAmI(broker_pb2.WhoAmIRequest())
            assert (found.name, found.role, found.tokens) == (role, role, True)
            assert set(found.calls) == MAY[role]
            assert found.logs == (role in ("admin", "client"))
            assert found.version == overview.version()
        assert (await stubs(served, trusted).WhoAmI(broker_pb2.WhoAmIRequest())).logs
    async with serving() as served:
        found = await served.stub.WhoAmI(broker_pb2.WhoAmIRequest())
        assert (found.name, found.role, found.tokens, found.logs) == ("", "admin", False, True)
        assert set(found.calls) == set(SENT)


async def test_a_worker_may_wait_on_an_open_stream_and_not_submit(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        dag = await submit(served, tokens, FUNCTION)
        talk = stubs(served, tokens["worker"]).Exchange()
        asks = [
            broker_pb2.Request(number=1, submit=Dag().submission(b"a")),
            broker_pb2.Request(
                number=2, wait=broker_pb2.WaitRequest(instance=dag.instance, node=[dag.id(0)], now=True)
            ),
        ]
        await talk.write(broker_pb2.Requests(request=asks))
        answers: list[broker_pb2.Response] = []
        while sum(answer.done for answer in answers) < 2:
            message = await talk.read()
            assert isinstance(message, broker_pb2.Responses)
            answers += message.response
        refusals = {answer.number: answer.refusal.message for answer in answers if answer.done}
        refusal = "the token 'worker' has the role worker, which may not call dagorama.v1.Broker/SubmitStream"
        assert refusals == {1: refusal, 2: ""}
        talk.cancel()


@pytest.mark.parametrize(
    "token", [None, "", "dgt_unheard-of", "x" * 4000], ids=["none", "empty", "unknown", "a very long one"]
)
async def test_without_a_token_that_is_known_nothing_may_be_called(tokens: Tokens, token: str | None) -> None:
    async with guarded(tokens) as served:
        stub = stubs(served, token)
        assert {await status_of(stub, call) for call in SENT} == {UNKNOWN}
        with refused(UNKNOWN, "token"):
            await stub.GetStatus(broker_pb2.GetStatusRequest())
        # A stream that never says anything is not waited for.
        call = stub.Work()
        with refused(UNKNOWN, "token"):
            await call.read()


async def test_the_digest_is_not_the_token_and_another_scheme_is_none(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        digest = tokens.path.read_text().split('sha256 = "')[1].split('"')[0]
        assert await status_of(stubs(served, digest), "GetStatus") is UNKNOWN
        stub = bearing_header(served, f"Basic {tokens['admin']}")
        assert await status_of(stub, "GetStatus") is UNKNOWN
        stub = bearing_header(served, f"bearer {tokens['admin']}")
        assert await status_of(stub, "GetStatus") is grpc.StatusCode.OK


@pytest.mark.slow
async def test_health_asks_for_no_token(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        health: Any = health_pb2_grpc.HealthStub(served.channel)
        reply = await health.Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        assert (await health.Watch(health_pb2.HealthCheckRequest()).read()).status == reply.status


async def test_the_originals_calls_are_told_that_they_carry_no_token(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        for token in (None, tokens["admin"]):
            stub = DagoramaStub(bearing(served.channel, token))
            with refused(UNKNOWN, "the calls of dagorama 0.1.10 carry no token"):
                await stub.CreateWorker(api_pb2.WorkerConfigurationMessage())


async def test_a_call_that_is_in_no_table_is_denied_to_all_roles(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        for method in (f"{OURS}Shutdown", "/other.Service/Call", "/grpc.reflection.v1.ServerReflection/Info"):
            call = bearing(served.channel, tokens["admin"]).unary_unary(method)
            with refused(DENIED, "no role may call"):
                await call(b"")
            with refused(UNKNOWN):
                await cast(Any, served.channel).unary_unary(method)(b"")


async def test_without_a_file_of_tokens_no_token_is_required(served: Served) -> None:
    for token in (None, "whatever"):
        assert await status_of(stubs(served, token), "GetStatus") is grpc.StatusCode.OK


# --- workers that are limited -------------------------------------------------------------------------


async def test_a_taint_is_a_boundary(tokens: Tokens) -> None:
    tokens.add("plain", "worker", tolerations=[])
    tokens.add("gpu", "worker", tolerations=["GPU"])
    async with guarded(tokens) as served:
        await submit(served, tokens, GPU)
        stranger = await worker_of(served, tokens["plain"], tolerations=["GPU"])
        ended = await stranger.end()
        assert ended.code() is DENIED
        assert ended.details() == "the token 'plain' allows no tolerations, and this worker requests GPU"
        worker = await worker_of(served, tokens["plain"])
        assert not worker.given
        too_much = await worker_of(served, tokens["gpu"], tolerations=["GPU", "FPGA"])
        assert "allows the tolerations GPU, and this worker requests FPGA" in str((await too_much.end()).details())
        assert (await (await worker_of(served, tokens["gpu"], tolerations=["GPU"])).node()).function.name == GPU.name


async def test_a_worker_of_some_queues_gets_those_and_may_not_ask_for_others(tokens: Tokens) -> None:
    tokens.add("images", "worker", queues=["images"])
    image = broker_pb2.Function(name="work:Task.image", hash="h", queue="images")
    other = broker_pb2.Function(name="work:Task.other", hash="h", queue="other")
    async with guarded(tokens) as served:
        await submit(served, tokens, other, image, other)
        refused_one = await worker_of(served, tokens["images"], include_queues=["images", "other"])
        assert "allows the queues images, and this worker requests other" in str((await refused_one.end()).details())
        # One that asks for all gets those.
        worker = await worker_of(served, tokens["images"], slots=3)
        assert (await worker.node()).function.queue == "images"
        status = await stubs(served, tokens["reader"]).GetStatus(broker_pb2.GetStatusRequest())
        assert [list(each.include_queues) for each in status.workers] == [["images"]]
        assert [each.reason for each in status.unschedulable] == [
            "the only connected worker may not run it: it does not include queue 'other' (start one with "
            "--include-queue other)"
        ]


async def test_a_claim_cannot_be_presented_by_who_could_not_have_been_given_it(tokens: Tokens) -> None:
    tokens.add("plain", "worker", tolerations=[])
    async with guarded(tokens) as served:
        await submit(served, tokens, GPU)
        worker = await worker_of(served, tokens["worker"], tolerations=["GPU"])
        node = await worker.node()
        await worker.vanish()
        await served.until(lambda broker: not broker.sessions)
        held = {"held_node": [node.key], "held_attempt": [node.attempt], "held_slot": [0]}
        thief = await worker_of(served, tokens["plain"], **held)
        await thief.until(lambda: thief.refused)
        assert thief.refused == [node.attempt]


# --- tokens come and go -------------------------------------------------------------------------------


async def read_again(served: Served) -> None:
    """Until the broker has looked at its file once more."""
    await asyncio.sleep(LOOK + SETTLE + 0.3)


@pytest.mark.slow
async def test_several_tokens_are_good_at_once_and_one_can_be_replaced(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        tokens.add("client-2", "client")
        await read_again(served)
        for name in ("client", "client-2"):
            assert await status_of(stubs(served, tokens[name]), "GetStatus") is grpc.StatusCode.OK
        tokens.take_away("client")
        await read_again(served)
        assert await status_of(stubs(served, tokens["client"]), "GetStatus") is UNKNOWN
        assert await status_of(stubs(served, tokens["client-2"]), "GetStatus") is grpc.StatusCode.OK


async def test_streams_end_when_their_token_is_taken_away_and_only_those(tokens: Tokens) -> None:
    tokens.add("other", "worker")
    async with guarded(tokens) as served:
        dag = await submit(served, tokens, GPU)
        worker, other = await worker_of(served, tokens["worker"]), await worker_of(served, tokens["other"])
        wait = stubs(served, tokens["client"]).Wait(
            broker_pb2.WaitRequest(instance=dag.instance, node=[dag.id(0)]), timeout=10
        )
        waited = asyncio.create_task(wait.read())
        node = served.broker.scheduler.graph.find(dag.id(0))
        assert node is not None
        await served.until(lambda broker: node.key in broker.watching)
        tokens.take_away("worker")
        tokens.take_away("client")
        ended = await worker.end()
        assert ended.code() is grpc.StatusCode.UNAVAILABLE
        assert ended.details() == "the token 'worker' has expired or was changed: call again"
        with refused(grpc.StatusCode.UNAVAILABLE, "the token 'client' has expired or was changed"):
            await waited
        await worker.connect()
        assert (await worker.end()).code() is UNKNOWN
        assert other.ended is None


async def test_a_worker_whose_limits_change_is_asked_to_come_again(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        worker = await worker_of(served, tokens["worker"], tolerations=["GPU"])
        tokens.add("worker", "worker", tolerations=[])
        assert (await worker.end()).code() is grpc.StatusCode.UNAVAILABLE
        await worker.connect()
        assert (await worker.end()).code() is DENIED


async def test_a_token_expires_and_its_streams_with_it(tokens: Tokens) -> None:
    tokens.add("old", "reader", expires=datetime.now(UTC) - timedelta(seconds=1))
    # Whole seconds are written down.
    tokens.add("short", "worker", expires=datetime.now(UTC) + timedelta(seconds=2))
    async with guarded(tokens) as served:
        with refused(UNKNOWN, "the token 'old' has expired"):
            await stubs(served, tokens["old"]).GetStatus(broker_pb2.GetStatusRequest())
        worker = await worker_of(served, tokens["short"])
        assert worker.welcome
        assert (await worker.end()).code() is grpc.StatusCode.UNAVAILABLE
        await worker.connect()
        assert "has expired" in str((await worker.end()).details())


@pytest.mark.parametrize("damage", ["gone", "not TOML", "empty", "writable by all"])
async def test_a_file_that_cannot_be_used_changes_nothing_and_is_logged(
    tokens: Tokens, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with guarded(tokens) as served:
        worker = await worker_of(served, tokens["worker"])
        with damaged(tokens.path, damage):
            await read_again(served)
            assert await status_of(stubs(served, tokens["reader"]), "GetStatus") is grpc.StatusCode.OK
            assert worker.ended is None
    assert "the tokens that were read before stay valid" in caplog.text


@contextmanager
def damaged(path: Path, damage: str) -> Iterator[None]:
    if damage == "gone":
        path.unlink()
    elif damage == "not TOML":
        path.write_text("[[token]")
    elif damage == "empty":
        path.write_text("")
    else:
        path.chmod(0o666)
    yield


@pytest.mark.slow
async def test_a_file_is_not_read_while_it_is_being_written(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        worker = await worker_of(served, tokens["worker"])
        records = tokens.path.read_text()
        until = asyncio.get_running_loop().time() + LOOK + 2 * SETTLE
        with tokens.path.open("w") as file:  # each prefix is a valid file, without the token of the worker
            while asyncio.get_running_loop().time() < until:
                print("# a comment", file=file, flush=True)
                await asyncio.sleep(SETTLE / 4)
            file.write(records)
        await read_again(served)
        assert worker.ended is None


async def test_sighup_reads_the_file_at_once(tokens: Tokens) -> None:
    async with guarded(tokens) as served:
        before = await status_of(stubs(served, tokens["reader"]), "GetStatus")
        tokens.take_away("reader")
        os.kill(os.getpid(), 1)
        await asyncio.sleep(0)
        async with asyncio.timeout(LOOK / 2):
            while await status_of(stubs(served, tokens["reader"]), "GetStatus") is grpc.StatusCode.OK:
                pass
        assert before is grpc.StatusCode.OK
