"""Whatever goes wrong has an end, seen from outside: hung functions, cancelled ones, retries, limits, deaths."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dagorama import DAGDefinition, NodeCancelled, NodeFailed, ProcessDied, QueueTimeout, resolve
from dagorama.client.connection import connection
from dagorama.runner import WorkerHandle
from tests.support.brokers import launch_broker
from tests.support.ends import HANGS, WAIT, Beside, Fan, Hanging, Limited, Long, Retried
from tests.support.starting import start
from tests.support.workers import launch_workers


@contextmanager
def running(workers: int = 1, grace: float = WAIT) -> Iterator[list[WorkerHandle]]:
    """A broker and workers; a cancelled run has `grace` seconds to end by itself."""
    with (
        launch_broker(port=0, environment={"DAGORAMA_CANCEL_GRACE": str(grace)}),
        launch_workers(workers) as handles,
    ):
        yield handles


@pytest.fixture(scope="module")
def shared_worker() -> Iterator[None]:
    with running():
        yield


@pytest.fixture
def worker(shared_worker: None) -> Iterator[None]:
    """A worker of one process, which tests share: a test must leave nothing unfinished."""
    yield
    assert not connection().list_instances(unfinished=True).instances


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """A fifo by which a node tells something: `read_text` waits for it."""
    path = tmp_path / "line"
    os.mkfifo(path)
    return path


def failure_of(definition: DAGDefinition, *args: Any) -> NodeFailed:
    instance, promise = start(definition, *args)
    with pytest.raises(NodeFailed) as caught:
        resolve(instance, promise, timeout=WAIT)
    return caught.value


def value_of(definition: DAGDefinition, *args: Any) -> Any:
    instance, promise = start(definition, *args)
    return resolve(instance, promise, timeout=WAIT)


# --- timeouts ----------------------------------------------------------------------------------------------


def test_a_hung_function_is_stopped_at_its_timeout_and_retried_and_fails_with_a_sentence(
    worker: None, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    failure = failure_of(Hanging(), "hang", str(notes))
    assert failure.type == "builtins.TimeoutError"
    assert failure.message == "it ran for longer than its timeout of 1 second"
    assert (failure.attempts, len(failure.earlier)) == (2, 1)
    assert isinstance(failure.__cause__, TimeoutError)
    pids = notes.read_text().split()
    assert len(set(pids)) == 2, "its process is stopped with it"
    assert str(value_of(Hanging(), "quick")) not in pids


def test_a_timeout_that_is_given_up_on_is_followed_by_no_other_run(worker: None) -> None:
    failure = failure_of(Hanging(), "hang_for_good")
    assert (failure.type, failure.attempts) == ("builtins.TimeoutError", 1)


def test_a_run_after_one_that_hung_succeeds_and_knows_that_it_is_the_second(worker: None) -> None:
    assert value_of(Hanging(), "hang_once") == 2


def test_an_async_function_is_stopped_at_its_timeout_where_it_stands_and_its_process_lives(
    worker: None, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    failure = failure_of(Hanging(), "hang_async", str(notes))
    assert failure.message == "it ran for longer than its timeout of 1 second"
    assert "in hang_async" in failure.traceback
    assert str(value_of(Hanging(), "quick")) == notes.read_text().strip()


def test_an_async_function_that_swallows_its_timeout_fails_all_the_same(worker: None) -> None:
    assert failure_of(Hanging(), "swallow").type == "builtins.TimeoutError"


def test_an_async_function_that_blocks_the_loop_past_its_timeout_is_stopped_with_its_process() -> None:
    with running(grace=0.1):
        assert failure_of(Hanging(), "block_the_loop").type == "builtins.TimeoutError"


def test_nodes_that_a_stopped_process_had_not_started_run_once_and_uncounted(worker: None, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    assert value_of(Beside(), str(notes)) == ("builtins.TimeoutError", [0, 1, 2])
    assert notes.read_text().split() == ["1", "1", "1"]


# --- cancelling --------------------------------------------------------------------------------------------


def test_a_cancelled_function_that_asks_hears_of_it_and_its_process_lives(worker: None, line: Path) -> None:
    pid = value_of(Long(), "pid", "")
    instance, promise = start(Long(), "listen", str(line))
    assert line.read_text() == "runs"
    assert instance.cancel() == 2
    assert line.read_text() == "heard of it"
    with pytest.raises(NodeCancelled):
        resolve(instance, promise, timeout=WAIT)
    assert value_of(Long(), "pid", "") == pid


def test_a_cancelled_function_that_does_not_ask_is_stopped_after_the_grace(line: Path) -> None:
    with running(grace=0.1):
        pid = value_of(Long(), "pid", "")
        instance, promise = start(Long(), "ignore", str(line))
        with line.open("rb", buffering=0) as told:
            assert told.read(4) == b"runs"
            instance.cancel()
            assert told.read() == b"", "this ends when its process does"
        with pytest.raises(NodeCancelled):
            resolve(instance, promise, timeout=WAIT)
        assert value_of(Long(), "pid", "") != pid


def test_a_cancelled_async_function_gets_cancelled_error_and_its_process_lives(worker: None, line: Path) -> None:
    pid = value_of(Long(), "pid", "")
    instance, _ = start(Long(), "wait", str(line))
    assert line.read_text() == "runs"
    instance.cancel()
    assert line.read_text() == "told, True"
    assert value_of(Long(), "pid", "") == pid


def test_an_async_function_is_told_while_a_sync_one_holds_the_process(worker: None, line: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    os.mkfifo(other)
    waiting, _ = start(Long(), "wait", str(line))
    assert line.read_text() == "runs"
    listening, _ = start(Long(), "listen", str(other))
    assert other.read_text() == "runs"
    waiting.cancel()
    assert line.read_text() == "told, True"
    listening.cancel()
    assert other.read_text() == "heard of it"


def test_what_is_queued_when_it_is_cancelled_never_runs(worker: None, line: Path, tmp_path: Path) -> None:
    written = tmp_path / "written"
    blocking, _ = start(Long(), "listen", str(line))
    assert line.read_text() == "runs"
    queued = [start(Long(), "write", str(written)) for _ in range(3)]
    for instance, _ in queued:
        instance.cancel()
    blocking.cancel()
    assert line.read_text() == "heard of it"
    value_of(Long(), "pid", "")
    for instance, promise in queued:
        with pytest.raises(NodeCancelled):
            resolve(instance, promise, timeout=WAIT)
    assert not written.exists()


# --- retries -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["some", "others"])
@pytest.mark.parametrize(("kind", "runs"), [("flaky", ["1", "2", "3"]), ("broken", ["1"])])
def test_only_what_is_worth_another_run_gets_one(
    worker: None, method: str, kind: str, runs: list[str], tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    assert failure_of(Retried(), method, kind, str(notes)).attempts == len(runs)
    assert notes.read_text().split() == runs


def test_an_exception_that_says_when_goes_before_the_policys_pause_and_its_give_up_on(worker: None) -> None:
    assert value_of(Retried(), "later", "", "") == 3


# --- failures as values ------------------------------------------------------------------------------------


def test_a_tolerated_failure_does_not_lose_a_fan_out() -> None:
    with running(workers=2):
        total, failures = value_of(Fan(), [1, 2, 0, 4])
    assert total == 1.75
    [failure] = failures
    assert failure.endswith("Fan.invert failed after 1 attempt: ZeroDivisionError: division by zero")


# --- limits ------------------------------------------------------------------------------------------------


def test_a_function_that_may_take_down_one_process_fails_with_the_first(worker: None, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    failure = failure_of(Limited(), "die", str(notes))
    assert type(failure) is ProcessDied
    assert "killed by SIGKILL" in failure.message
    assert notes.read_text().split() == ["died"]


def test_no_more_than_max_concurrency_run_at_once_on_all_workers(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with running(workers=4):
        assert value_of(Limited(), "crowd", str(notes)) == 12
    at_once = [0]
    for step in notes.read_text().split():
        at_once.append(at_once[-1] + int(step))
    assert len(at_once) == 25
    assert max(at_once) <= 2


def test_nodes_of_an_instance_run_by_priority(worker: None, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    value_of(Limited(), "in_order", str(notes))
    assert notes.read_text().split() == ["high", "high", "ordinary", "low", "low"]


def test_a_delayed_node_runs_after_its_delay(worker: None) -> None:
    began = time.monotonic()
    assert value_of(Limited(), "delayed", "") - began >= HANGS


def test_a_node_that_no_worker_takes_fails_after_its_queue_timeout(worker: None) -> None:
    failure = failure_of(Limited(), "unwanted", "")
    assert type(failure) is QueueTimeout
