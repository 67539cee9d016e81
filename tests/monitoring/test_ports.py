"""A broker tells probes whether it is alive and ready."""

import asyncio

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker import server
from dagorama_broker.errors import BindError
from dagorama_broker.monitoring.ports import monitored
from dagorama_broker.settings import Settings
from tests.support.fetching import afetch, url_in
from tests.support.raw import MEMORY, PATIENCE, serving


@pytest.fixture
def url(caplog: pytest.LogCaptureFixture) -> "Url":
    caplog.set_level("INFO", "dagorama_broker")
    return Url(caplog)


class Url:
    """The address that the broker has logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def of(self, page: str) -> str:
        (line,) = [line for line in self._caplog.messages if line.startswith("HTTP at ")]
        return url_in(line) + page


async def test_a_serving_broker_is_live_and_ready(url: Url) -> None:
    async with serving(health_port=0):
        assert (await afetch(url.of("/livez")))[:2] == (200, "live\n")
        assert (await afetch(url.of("/readyz")))[:2] == (200, "ready\n")


async def test_a_broker_that_reads_its_store_is_live_and_not_ready(url: Url) -> None:
    async with monitored(Settings(health_port=0)):
        assert (await afetch(url.of("/livez"))).status == 200
        assert (await afetch(url.of("/readyz")))[:2] == (503, "not ready: the broker is reading its store\n")


async def test_a_broker_that_leaves_is_live_and_not_ready(url: Url, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GRACE", PATIENCE)
    async with serving(health_port=0) as served:
        submission = served.stub.SubmitStream()  # the broker waits for its end
        await submission.write(pb.SubmitRequest())
        worker = await served.worker()
        served.stop()
        await worker.until(lambda: worker.draining)
        assert (await afetch(url.of("/readyz")))[:2] == (503, "not ready: the broker is shutting down\n")
        assert (await afetch(url.of("/livez"))).status == 200
        submission.cancel()


async def test_a_port_in_use_is_one_sentence_with_the_option(url: Url) -> None:
    async with monitored(Settings(health_port=0)):
        port = int(url.of("").rpartition(":")[2])
        with pytest.raises(BindError, match=rf"HTTP on 127.0.0.1:{port}: .* choose another port with --health-port"):
            async with monitored(Settings(health_port=port)):
                await asyncio.sleep(0)


async def test_without_a_port_nothing_listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "dagorama_broker")
    async with monitored(MEMORY):
        assert not [line for line in caplog.messages if line.startswith("HTTP")]
