"""KEDA's external scaler, called as KEDA calls it: demand of pools, tokens in metadata, and when a pool is active."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dagorama.api import externalscaler_pb2 as pb
from dagorama_broker.rpc import demand
from dagorama_broker.rpc.permissions import CALLS, SCALER
from dagorama_broker.rpc.scaler import QUIET, Activity
from tests.rpc.test_auth import stubs, worker_of
from tests.rpc.test_demand import FUNCTIONS, nodes
from tests.support.certificates import Authority
from tests.support.keda import SERVICE, ExternalScaler, Trigger
from tests.support.raw import PATIENCE, Dag, Served, refused, serving, submit
from tests.support.tokens import Tokens

INVALID, UNKNOWN = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
VARIABLE = "DAGORAMA_AUTH_TOKEN"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "INTERVAL", 0.01)


def keda(served: Served, environment: Mapping[str, str] | None = None, /, **metadata: str) -> ExternalScaler:
    return ExternalScaler(served.channel, Trigger(metadata, environment or {}))


def with_token(served: Served, token: str, **metadata: str) -> ExternalScaler:
    return keda(served, {VARIABLE: token}, tokenFromEnv=VARIABLE, **metadata)


async def slots(scaler: ExternalScaler) -> float:
    (value,) = (await scaler.metrics("slots")).metricValues
    assert (value.metricName, value.metricValue) == ("slots", value.metricValueFloat)
    found: float = value.metricValueFloat
    return found


async def first(replies: Any) -> bool:
    async with asyncio.timeout(PATIENCE):
        told: bool = (await anext(aiter(replies))).result
        return told


async def refused_everywhere(scaler: ExternalScaler, status: grpc.StatusCode, text: str) -> None:
    """Make every call, and expect the same refusal."""
    for call in (scaler.is_active, scaler.metric_spec, lambda: scaler.metrics("slots")):
        with refused(status, text):
            await call()
    with refused(status, text):
        await first(scaler.stream())


# --- demand -------------------------------------------------------------------------------------------


async def test_each_pool_asks_for_the_slots_that_its_workers_need() -> None:
    async with serving() as served:
        everything = keda(served)
        assert not (await everything.is_active()).result
        assert await slots(everything) == 0
        await nodes(served, 0, 0, 0, 1, 1, 2)
        assert (await everything.is_active()).result
        assert await slots(everything) == 5
        assert await slots(keda(served, includeQueues="images")) == 2
        assert await slots(keda(served, includeQueues="images, models", tolerations="GPU")) == 3
        assert await slots(keda(served, excludeQueues="images", tolerations="GPU,FPGA")) == 4
        assert await slots(keda(served, share="0.5")) == 3
        assert not (await keda(served, includeQueues="models").is_active()).result


async def test_work_of_many_short_nodes_asks_for_one_slot_and_of_long_ones_for_each() -> None:
    async with serving() as served:
        await measured(served, 0, 50)
        await measured(served, 1, 10_000_000)
        await nodes(served, *[0] * 10_000)
        await nodes(served, *[1] * 100)
        assert await slots(keda(served, includeQueues="plain")) == 1
        assert await slots(keda(served, includeQueues="images", slotsPerPod="4")) == 100
        assert await slots(keda(served, includeQueues="images", horizon="100")) == 11


async def measured(served: Served, function: int, microseconds: int) -> None:
    await nodes(served, function)
    worker = await served.worker(include_queues=[FUNCTIONS[function].queue])
    await worker.durable(await worker.complete(await worker.node(), microseconds=[microseconds]))
    await worker.vanish()


async def test_keys_for_keda_itself_are_not_looked_at() -> None:
    async with serving() as served:
        keys = ("enableTLS", "unsafeSsl", "caCert", "tlsCertFile", "tlsClientCert", "tlsClientKey")
        assert await slots(keda(served, None, **dict.fromkeys(keys, "x"))) == 0


async def test_the_target_of_a_pod_is_its_number_of_slots() -> None:
    async with serving() as served:
        for metadata, target in (({}, 1), ({"slotsPerPod": "16"}, 16)):
            (spec,) = (await keda(served, None, **metadata).metric_spec()).metricSpecs
            assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == ("slots", target, target)
        with refused(INVALID, "its only one is 'slots'"):
            await keda(served).metrics("s0-slots")


async def test_signed_nodes_count_unless_the_pool_names_other_keys() -> None:
    async with serving() as served:
        key = b"\x0a\xbc"
        function = type(FUNCTIONS[0])(name="work:Task.signed", hash="h", key_id=key)
        await submit(served.stub, Dag().submission(b"a", functions=[function]))
        assert await slots(keda(served)) == 1
        assert await slots(keda(served, keyIds=key.hex())) == 1
        assert await slots(keda(served, keyIds="ff,ee")) == 0


async def test_keda_is_told_that_targets_are_not_streamed() -> None:
    async with serving() as served:
        with refused(grpc.StatusCode.UNIMPLEMENTED):
            await first(keda(served).stream_metric_spec())


def test_all_calls_of_the_contract_have_their_roles() -> None:
    service = pb.DESCRIPTOR.services_by_name["ExternalScaler"]
    assert f"/{service.full_name}/" == SERVICE == SCALER
    assert {f"{SCALER}{method.name}" for method in service.methods} == {name for name in CALLS if SCALER in name}


# --- activity -----------------------------------------------------------------------------------------


def test_a_pool_is_active_at_once_and_inactive_after_a_time_without_demand() -> None:
    activity = Activity(100.0)
    assert activity.see(0, 100.0) is None
    assert activity.see(3, 101.0) is True
    assert activity.see(2, 102.0) is None
    assert activity.see(0, 103.0) is None
    assert activity.see(0, 102.0 + QUIET - 0.1) is None
    assert activity.see(0, 102.0 + QUIET) is False
    assert activity.see(0, 999.0) is None
    assert activity.see(1, 999.5) is True


def test_a_short_pause_between_two_nodes_is_not_told() -> None:
    activity = Activity(0.0)
    assert activity.see(1, 0.0) is True
    assert [activity.see(0, at) for at in (1.0, 29.0)] == [None, None]
    assert activity.see(1, 30.5) is None
    assert [activity.see(0, at) for at in (31.0, 60.0, 60.5)] == [None, None, False]


def test_a_pool_that_never_had_demand_is_inactive_after_the_same_time() -> None:
    activity = Activity(0.0)
    assert activity.see(0, QUIET - 0.1) is None
    assert activity.see(0, QUIET) is False


async def test_a_stream_tells_when_work_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama_broker.rpc.scaler.QUIET", 0.0)
    async with serving() as served:
        images, plain = (keda(served, includeQueues=queue).stream() for queue in ("images", "plain"))
        assert [await first(images), await first(plain)] == [False, False]
        await nodes(served, 1)
        assert await first(images)
        worker = await served.worker(include_queues=["images"])
        await worker.complete(await worker.node())
        assert not await first(images)
        await nodes(served, 0)
        assert await first(plain)


async def test_a_stream_begins_with_the_demand_that_is_there_and_ends_with_the_broker() -> None:
    async with serving() as served:
        await nodes(served, 0)
        told = keda(served).stream()
        assert await first(told)
        served.stop()
        with refused(grpc.StatusCode.UNAVAILABLE):
            await first(told)


# --- tokens -------------------------------------------------------------------------------------------


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    tokens = Tokens(tmp_path / "tokens.toml")
    for role in ("client", "worker", "reader", "admin"):
        tokens.add(role, role)
    tokens.add("images", "worker", queues=["images"], tolerations=[])
    return tokens


async def test_the_token_of_the_scaled_pod_narrows_what_it_is_told(tokens: Tokens) -> None:
    async with serving(tokens=str(tokens.path)) as served:
        request = Dag().submission(*[b"a"] * 4, functions=FUNCTIONS, function=[0, 1, 1, 2])
        await submit(stubs(served, tokens["client"]), request)
        assert await slots(with_token(served, tokens["images"])) == 2
        assert await first(with_token(served, tokens["images"]).stream())
        for role in ("worker", "reader", "admin"):
            assert await slots(with_token(served, tokens[role], tolerations="GPU")) == 4
        await worker_of(served, tokens["worker"])
        for metadata, text in (
            ({"includeQueues": "plain"}, "allows the queues images, and this worker requests plain"),
            ({"tolerations": "GPU"}, "allows no tolerations, and this worker requests GPU"),
        ):
            await refused_everywhere(with_token(served, tokens["images"], **metadata), DENIED, text)


async def test_no_token_and_an_unknown_one_are_refused_and_no_token_is_logged(
    tokens: Tokens, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(tokens=str(tokens.path), log_level="DEBUG") as served:
        for scaler, status, text in (
            (keda(served), UNKNOWN, "requires a token: set tokenFromEnv"),
            (keda(served, tokenFromEnv="UNSET"), UNKNOWN, "requires a token: set tokenFromEnv"),
            (with_token(served, "dgt_wrong"), UNKNOWN, "unknown token"),
            (with_token(served, tokens["client"]), DENIED, "has the role client, which may not call externalscaler"),
            (keda(served, token=tokens["worker"]), UNKNOWN, "requires a token"),
            (with_token(served, tokens["worker"], other=tokens["worker"]), INVALID, "unknown key, 'other'"),
        ):
            await refused_everywhere(scaler, status, text)
        assert await slots(with_token(served, tokens["worker"])) == 0
    assert all(tokens[role] not in caplog.text for role in ("client", "worker"))
    assert "dgt_wrong" not in caplog.text


async def test_a_stream_ends_with_its_token(tokens: Tokens) -> None:
    async with serving(tokens=str(tokens.path)) as served:
        await submit(stubs(served, tokens["client"]), Dag().submission(b"a"))
        told = with_token(served, tokens["worker"]).stream()
        assert await first(told)
        tokens.take_away("worker")
        with refused(grpc.StatusCode.UNAVAILABLE, "has expired or was changed"):
            await first(told)


async def test_the_token_goes_through_tls(tokens: Tokens, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.pair("broker.test")
    async with serving(tokens=str(tokens.path), tls_cert=cert, tls_key=key) as served:
        credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
        options = [("grpc.ssl_target_name_override", "broker.test"), ("grpc.lb_policy_name", "round_robin")]
        async with grpc.aio.secure_channel(f"127.0.0.1:{served.port}", credentials, options) as channel:
            trigger = Trigger({"enableTLS": "true", "tokenFromEnv": VARIABLE}, {VARIABLE: tokens["worker"]})
            assert await slots(ExternalScaler(channel, trigger)) == 0


# --- metadata that cannot be used ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"queue": "images"}, "have an unknown key, 'queue'; known are includeQueues, excludeQueues, tolerations"),
        ({"token": "dgt_x"}, "must not hold a token"),
        ({"includeQueues": "a,,b"}, "includeQueues of a trigger has an empty name"),
        ({"includeQueues": "q" * 5000}, "the name of a queue or taint has 5000 characters"),
        ({"tolerations": ",".join(["t"] * 501)}, "a worker names 501 queues and taints"),
        ({"excludeQueues": "q" * 50_000}, "excludeQueues of a trigger has 50000 characters"),
        ({"slotsPerPod": "0"}, "slotsPerPod of a trigger is '0', and must be the --concurrency"),
        ({"slotsPerPod": "two"}, "slotsPerPod of a trigger is 'two'"),
        ({"slotsPerPod": "10001"}, "1 to 10,000"),
        ({"horizon": "0"}, "horizon of a trigger is '0', and must be a number above 0"),
        ({"horizon": "soon"}, "horizon of a trigger is 'soon'"),
        ({"horizon": "nan"}, "a horizon of nan seconds"),
        ({"share": "2"}, "a share of 2"),
        ({"keyIds": "key"}, "must be hexadecimal, as `dagorama keys list` prints"),
        ({"includeQueues": "a" * 39_000, "tolerations": "b" * 39_000}, "have more than 65,536 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_metadata_that_cannot_be_used_are_refused_with_the_reason(
    served: Served, metadata: dict[str, str], why: str
) -> None:
    await refused_everywhere(keda(served, None, **metadata), INVALID, why)


async def test_bytes_that_are_no_message_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        channel: Any = served.channel
        with refused(INVALID, "cannot be read as a message of this call"):
            await channel.unary_unary(f"{SERVICE}IsActive")(b"\xff\xff\xff")
        with refused(INVALID, "cannot be read as a message of this call"):
            await channel.unary_stream(f"{SERVICE}StreamIsActive")(b"\xff\xff\xff").read()
    assert not [record for record in caplog.records if record.exc_info]
