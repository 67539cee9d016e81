"""What a scrape of a broker says about the work that it did."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import VALUES_AWAY
from dagorama_broker.engine import series
from dagorama_broker.monitoring.ports import monitored
from dagorama_broker.settings import Settings
from dagorama_monitoring import exposition
from tests.support.fetching import afetch, fetch, url_in
from tests.support.object_fixtures import bucket, gateway, object_server
from tests.support.object_server import Gateway
from tests.support.raw import FUNCTION, LEAF, MEMORY, PATIENCE, Dag, Served, serving, submit
from tests.support.scrape import Scrape

__all__ = ["bucket", "gateway", "object_server"]

QUEUE, NAME = FUNCTION.queue or FUNCTION.name, FUNCTION.name


class Listening(logging.Handler):
    """Hears where the broker listens."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.url = ""

    def emit(self, record: logging.LogRecord) -> None:
        if (line := record.getMessage()).startswith("HTTP at "):
            self.url = url_in(line)


@pytest.fixture
def url() -> Iterator[Callable[[], str]]:
    log, listening = logging.getLogger("dagorama_broker"), Listening()
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(listening)
    yield lambda: listening.url
    log.removeHandler(listening)
    log.setLevel(before)


@pytest.fixture
def scrape(url: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], "asyncio.Future[Scrape]"]:
    monkeypatch.setattr(exposition, "FRESH", 0.0)

    async def scraped() -> Scrape:
        return await asyncio.to_thread(Scrape, url())

    return lambda: asyncio.ensure_future(scraped())


@pytest_asyncio.fixture
async def measured(url: object) -> AsyncIterator[Served]:
    async with serving(metrics_port=0) as served:
        yield served


Scraping = Callable[[], "asyncio.Future[Scrape]"]


async def test_ended_nodes_are_counted_by_queue_function_and_outcome(measured: Served, scrape: Scraping) -> None:
    dag = Dag()
    await submit(measured.stub, dag.submission(b"a", b"b", b"c"))
    worker = await measured.worker(slots=3)
    one, two, _ = await worker.nodes(3)
    await worker.complete(one)
    await worker.durable(await worker.fail(two))
    await measured.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    now = await scrape()
    assert now.value("dagorama_nodes_created_total") == 3
    for outcome in ("completed", "failed", "cancelled"):
        labels = {"queue": QUEUE, "function": NAME, "outcome": outcome}
        assert now.value("dagorama_nodes_finished_total", **labels) == 1
    assert now.value("dagorama_instance_duration_seconds_count") == 1
    assert now.value("dagorama_instances") == 0


async def test_queues_and_workers_are_shown_as_they_are_now(measured: Served, scrape: Scraping) -> None:
    await submit(measured.stub, Dag().submission(b"a", b"b"))
    await measured.stub.PauseQueue(pb.PauseQueueRequest(queue="other"))
    now = await scrape()
    assert now.value("dagorama_queue_nodes", queue=QUEUE, state="queued") == 2
    assert now.value("dagorama_nodes", state="queued") == 2
    assert now.value("dagorama_queue_oldest_ready_seconds", queue=QUEUE) is not None
    assert (now.value("dagorama_queue_paused", queue=QUEUE), now.value("dagorama_queue_paused", queue="other")) == (
        0,
        1,
    )
    assert now.value("dagorama_workers") == 0
    worker = await measured.worker(slots=3)
    await worker.nodes(2)
    now = await scrape()
    assert now.value("dagorama_queue_nodes", queue=QUEUE, state="claimed") == 2
    assert now.value("dagorama_workers", state="busy") == 1
    assert (now.value("dagorama_slots", state="busy"), now.value("dagorama_slots", state="free")) == (2, 1)


async def test_the_oldest_ready_node_ages(monkeypatch: pytest.MonkeyPatch, url: object, scrape: Scraping) -> None:
    monkeypatch.setattr(series, "SECOND", 0.01)
    async with serving(metrics_port=0) as served:
        await submit(served.stub, Dag().submission(b"a"))
        async with asyncio.timeout(PATIENCE):
            while not (await scrape()).value("dagorama_queue_oldest_ready_seconds", queue=QUEUE):
                pass
        worker = await served.worker()
        await worker.node()
        assert (await scrape()).value("dagorama_queue_oldest_ready_seconds", queue=QUEUE) == 0


async def test_a_node_between_two_attempts_is_in_backoff(measured: Served, scrape: Scraping) -> None:
    retried = pb.Function(name=NAME, hash="h", queue="retried", retry=pb.Retry(max_attempts=2, interval=3600.0))
    await submit(measured.stub, Dag().submission(b"a", functions=(retried,)))
    worker = await measured.worker()
    await worker.durable(await worker.fail(await worker.node()))
    now = await scrape()
    states = {state: now.value("dagorama_queue_nodes", queue="retried", state=state) for state in ("queued", "backoff")}
    assert states == {"queued": 0, "backoff": 1}
    assert now.value("dagorama_nodes", state="backoff") == 1
    assert now.value("dagorama_node_retries_total", reason="failed") == 1


async def test_run_times_are_a_histogram_by_function_in_seconds(measured: Served, scrape: Scraping) -> None:
    await submit(measured.stub, Dag().submission(b"a", b"b"))
    worker = await measured.worker(slots=2)
    one, two = await worker.nodes(2)
    await worker.durable(await worker.complete(one, two, microseconds=[100, 3_000_000]))
    now = await scrape()
    assert now.value("dagorama_node_run_seconds_count", function=NAME) == 2
    assert now.value("dagorama_node_run_seconds_sum", function=NAME) == pytest.approx(3.0001)
    assert now.value("dagorama_node_run_seconds_bucket", function=NAME, le="0.000128") == 1
    assert now.value("dagorama_node_run_seconds_bucket", function=NAME, le="2.097152") == 1
    assert now.value("dagorama_node_run_seconds_bucket", function=NAME, le="4.194304") == 2


async def test_retries_and_deaths_are_counted_by_reason_and_cause(measured: Served, scrape: Scraping) -> None:
    await submit(measured.stub, Dag().submission(b"a"))
    worker = await measured.worker()
    node = await worker.node()
    await worker.say(deaths=[pb.SlotDeath(slot=0, running=[node.attempt], cause="killed by SIGKILL, peak memory 3 MB")])
    await worker.node()  # it is granted again
    now = await scrape()
    assert now.value("dagorama_worker_deaths_total", cause="SIGKILL") == 1
    assert now.value("dagorama_node_retries_total", reason="process_died") == 1


async def test_nodes_whose_code_no_worker_has_are_counted(measured: Served, scrape: Scraping) -> None:
    await submit(measured.stub, Dag().submission(b"a", b"b", functions=(LEAF,)))
    assert (await scrape()).value("dagorama_unserved_code_nodes") == 0  # there is no worker at all
    worker = await measured.worker()
    node = await worker.node()
    returned = pb.Return(node=[node.key], attempt=[node.attempt], reason=pb.CODE_MISMATCH, function=LEAF.name)
    await worker.say(returns=[returned])
    await measured.until(lambda broker: not any(session.worker.slots[0].held for session in broker.sessions.values()))
    assert (await scrape()).value("dagorama_unserved_code_nodes") == 2


async def test_commits_are_measured_with_the_nodes_in_them(measured: Served, scrape: Scraping) -> None:
    await submit(measured.stub, Dag().submission(*[b"a"] * 50))
    now = await scrape()
    assert (now.value("dagorama_commit_seconds_count") or 0) >= 1
    assert now.value("dagorama_commit_batch_nodes_sum") == 50


async def test_the_size_of_the_store_is_told_if_it_is_in_files(
    scrape: Scraping, url: Callable[[], str], tmp_path: Path
) -> None:
    async with serving(metrics_port=0, store=f"sqlite:///{tmp_path}/broker.sqlite3"):
        now = await scrape()
    assert (now.value("dagorama_store_bytes", part="database") or 0) > 4096
    assert (now.value("dagorama_store_free_bytes") or 0) > 0


async def test_an_object_store_that_does_not_answer_is_told_while_the_broker_stays_healthy(
    scrape: Scraping, gateway: Gateway, bucket: str, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/broker.sqlite3"
    async with serving(metrics_port=0, store=store, values=bucket) as served:
        assert (await scrape()).value("dagorama_values_reachable") == 1
        gateway.shut()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.stub.PutValue(iter([pb.ValueChunk(data=b"value")]))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (VALUES_AWAY, "1") in list(refused.value.trailing_metadata() or ())
        assert (await scrape()).value("dagorama_values_reachable") == 0
        await submit(served.stub, Dag().submission(b"a"))
        gateway.open()
        await served.stub.PutValue(iter([pb.ValueChunk(data=b"value")]))
        assert (await scrape()).value("dagorama_values_reachable") == 1


async def test_a_broker_in_memory_has_no_size_of_its_store(measured: Served, scrape: Scraping) -> None:
    assert "dagorama_store_bytes" not in (await scrape()).names


async def test_instances_of_an_earlier_broker_are_measured_from_their_creation(
    scrape: Scraping, url: Callable[[], str], tmp_path: Path
) -> None:
    settings = replace(MEMORY, store=f"sqlite:///{tmp_path}/broker.sqlite3")
    async with serving(settings) as served:
        await submit(served.stub, Dag().submission(b"a"))
    async with serving(settings, metrics_port=0) as served:
        worker = await served.worker()
        await worker.durable(await worker.complete(await worker.node()))
        assert (await scrape()).value("dagorama_instance_duration_seconds_count") == 1


async def test_signals_and_nodes_that_wait_for_them_are_counted(measured: Served, scrape: Scraping) -> None:
    dag, function = Dag(), pb.Function(name="dagorama:wait_for(go)", hash="h")
    waits = [pb.SignalWait(node=place, name="go") for place in (0, 1)]
    await submit(measured.stub, dag.submission(b"a", b"b", functions=[function], waits=waits))
    for name in ("go", "later", "later"):
        await measured.stub.SendSignal(pb.SendSignalRequest(instance=dag.instance, name=name, value=b"1"))
    metrics = await scrape()
    assert metrics.value("dagorama_signals_kept") == 2
    assert metrics.value("dagorama_signal_waits") == 1
    assert metrics.value("dagorama_signals_taken_total") == 1


async def test_no_label_holds_an_id_or_a_host(measured: Served, scrape: Scraping) -> None:
    dag = Dag()
    await submit(measured.stub, dag.submission(b"a"))
    worker = await measured.worker(name="a-host:4711")
    await worker.durable(await worker.complete(await worker.node()))
    now = await scrape()
    labels = set().union(*now.labels.values())
    assert labels <= {
        "queue", "function", "outcome", "state", "reason", "result", "cause", "direction", "part", "version", "python",
    }  # fmt: skip
    assert "a-host" not in now.text
    assert dag.instance.hex() not in now.text.replace("-", "")


async def test_scrapes_within_a_second_share_a_snapshot(measured: Served, url: Callable[[], str]) -> None:
    before = await asyncio.to_thread(Scrape, url())
    await submit(measured.stub, Dag().submission(b"a"))
    assert (await asyncio.to_thread(Scrape, url())).value("dagorama_nodes_created_total") in (0, 1)
    assert before.value("dagorama_nodes_created_total") == 0


async def test_openmetrics_and_gzip_are_spoken_on_request(measured: Served, url: Callable[[], str]) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    reply = await asyncio.to_thread(lambda: fetch(f"{url()}/metrics", **accept))
    assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
    assert reply.text.endswith("# EOF\n")
    head = await asyncio.to_thread(lambda: fetch(f"{url()}/metrics", "HEAD", accept_encoding="gzip"))
    assert head.headers["Content-Encoding"] == "gzip"
    assert int(head.headers["Content-Length"]) < len(reply.text)


async def test_a_broker_that_reads_its_store_says_so(url: Callable[[], str]) -> None:
    async with monitored(Settings(metrics_port=0)):
        assert (await afetch(f"{url()}/metrics"))[:2] == (503, "the broker is reading its store\n")


async def test_health_and_metrics_may_share_a_port(url: Callable[[], str]) -> None:
    async with serving(metrics_port=0, health_port=0):
        assert (await afetch(f"{url()}/metrics")).status == 200
        assert (await afetch(f"{url()}/readyz")).status == 200


WITHOUT_EXTRA = """
import sys
sys.modules["prometheus_client"] = None
from importlib import util
util.find_spec = lambda name, find=util.find_spec: None if name == "prometheus_client" else find(name)
from dagorama_broker.cli import main
main(["serve", "--port", "0", "--store", "memory://", "--metrics-port", "0"])
"""


def test_without_the_extra_one_sentence_says_how_to_install_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRA], capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert done.stderr == (
        "dagorama-broker: --metrics-port (DAGORAMA_METRICS_PORT) needs a package: pip install 'dagorama[metrics]'\n"
        "See docs/reference/errors.md#settingserror\n"
    )
