"""Whatever goes wrong has an end, seen from outside: hung functions, cancelled ones, retries, limits, deaths."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import iscoroutine
from pathlib import Path
from typing import Any

import pytest

from dagorama import (
    DAGDefinition,
    Failure,
    NodeCancelled,
    NodeFailed,
    ProcessDied,
    QueueTimeout,
    RetryLater,
    StaticRetry,
    cancelled,
    dagorama,
    launch_workers,
    outcome,
    resolve,
)
from dagorama.context import current_run
from dagorama.runner import WorkerHandle
from tests.support.brokers import launch_broker
from tests.support.starting import forever, note, start

WAIT = 30  #: seconds after which something that should happen is taken not to
HANGS = 1.0  #: seconds; a loaded machine takes a part of them to import the function
AGAIN = StaticRetry(max_attempts=2, interval=0)


@contextmanager
def running(workers: int = 1, grace: float = WAIT) -> Iterator[list[WorkerHandle]]:
    """A broker and workers; a cancelled run has `grace` seconds to end by itself."""
    with (
        launch_broker(port=0, environment={"DAGORAMA_CANCEL_GRACE": str(grace)}),
        launch_workers(workers) as handles,
    ):
        yield handles


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """A fifo by which a node tells something: `read_text` waits for it."""
    path = tmp_path / "line"
    os.mkfifo(path)
    return path


def run_number() -> int:
    run = current_run.get()
    assert run is not None
    return run.number


class Chosen(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, method: str, *args: Any) -> Any:
        promise = getattr(self, method)(*args)
        return await promise if iscoroutine(promise) else promise


class Hanging(Chosen):
    @dagorama(timeout=HANGS, retry=AGAIN).syncfn
    def hang(self, notes: str) -> int:
        note(notes, str(os.getpid()))
        forever()
        return 0

    # Long enough for the run that follows, whose new process has to import this first.
    @dagorama(timeout=2 * HANGS, retry=AGAIN).syncfn
    def hang_once(self) -> int:
        if run_number() == 1:
            forever()
        return run_number()

    @dagorama(timeout=HANGS, retry=StaticRetry(3, 0, give_up_on=(TimeoutError,))).syncfn
    def hang_for_good(self) -> None:
        forever()

    @dagorama(timeout=HANGS).asyncfn
    async def hang_async(self, notes: str) -> int:
        note(notes, str(os.getpid()))
        await asyncio.Event().wait()
        return 0

    @dagorama(timeout=HANGS).asyncfn
    async def swallow(self) -> int:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return 1

    @dagorama(timeout=HANGS).asyncfn
    async def block_the_loop(self) -> int:
        forever()
        return 0

    @dagorama(timeout=WAIT).syncfn
    def quick(self) -> int:
        return os.getpid()


def failure_of(definition: DAGDefinition, *args: Any) -> NodeFailed:
    instance, promise = start(definition, *args)
    with pytest.raises(NodeFailed) as caught:
        resolve(instance, promise, timeout=WAIT)
    return caught.value


def value_of(definition: DAGDefinition, *args: Any) -> Any:
    instance, promise = start(definition, *args)
    return resolve(instance, promise, timeout=WAIT)


# --- timeouts ----------------------------------------------------------------------------------------------


def test_a_hung_function_is_stopped_at_its_timeout_and_retried_and_fails_with_a_sentence(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with running():
        failure = failure_of(Hanging(), "hang", str(notes))
        assert failure.type == "builtins.TimeoutError"
        assert failure.message == "it ran for longer than its timeout of 1 second"
        assert (failure.attempts, len(failure.earlier)) == (2, 1)
        assert isinstance(failure.__cause__, TimeoutError)
        pids = notes.read_text().split()
        assert len(set(pids)) == 2, "its process is stopped with it"
        assert str(value_of(Hanging(), "quick")) not in pids


def test_a_timeout_that_is_given_up_on_is_followed_by_no_other_run() -> None:
    with running():
        failure = failure_of(Hanging(), "hang_for_good")
        assert (failure.type, failure.attempts) == ("builtins.TimeoutError", 1)


def test_a_run_after_one_that_hung_succeeds_and_knows_that_it_is_the_second() -> None:
    with running():
        assert value_of(Hanging(), "hang_once") == 2


def test_an_async_function_is_stopped_at_its_timeout_where_it_stands_and_its_process_lives(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with running():
        failure = failure_of(Hanging(), "hang_async", str(notes))
        assert failure.message == "it ran for longer than its timeout of 1 second"
        assert "in hang_async" in failure.traceback
        assert str(value_of(Hanging(), "quick")) == notes.read_text().strip()


def test_an_async_function_that_swallows_its_timeout_fails_all_the_same() -> None:
    with running():
        assert failure_of(Hanging(), "swallow").type == "builtins.TimeoutError"


def test_an_async_function_that_blocks_the_loop_past_its_timeout_is_stopped_with_its_process() -> None:
    with running(grace=0.1):
        assert failure_of(Hanging(), "block_the_loop").type == "builtins.TimeoutError"


class Beside(DAGDefinition):
    """Nodes that share the process of one that is stopped."""

    @dagorama().syncfn
    def entrypoint(self, notes: str) -> Any:
        return self.both(outcome(self.hang()), [self.stay(notes, number) for number in range(3)])

    @dagorama(timeout=HANGS).syncfn
    def hang(self) -> int:
        forever()
        return 0

    @dagorama().syncfn
    def stay(self, notes: str, number: int) -> int:
        note(notes, str(run_number()))
        return number

    @dagorama().syncfn
    def both(self, hung: int | Failure, others: list[int]) -> tuple[str, list[int]]:
        assert isinstance(hung, Failure)
        return hung.type, others


def test_nodes_that_a_stopped_process_had_not_started_run_once_and_uncounted(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with running():
        assert value_of(Beside(), str(notes)) == ("builtins.TimeoutError", [0, 1, 2])
    assert notes.read_text().split() == ["1", "1", "1"]


# --- cancelling --------------------------------------------------------------------------------------------


class Long(Chosen):
    @dagorama().syncfn
    def listen(self, line: str) -> None:
        Path(line).write_text("runs")
        while not cancelled():
            time.sleep(0.001)
        Path(line).write_text("heard of it")

    @dagorama().syncfn
    def ignore(self, line: str) -> None:
        with open(line, "wb", buffering=0) as file:
            file.write(b"runs")
            forever()

    @dagorama().asyncfn
    async def wait(self, line: str) -> None:
        Path(line).write_text("runs")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            Path(line).write_text(f"told, {cancelled()}")
            raise

    @dagorama().syncfn
    def pid(self, line: str) -> int:
        return os.getpid()

    @dagorama().syncfn
    def write(self, line: str) -> None:
        Path(line).write_text("ran")


def test_a_cancelled_function_that_asks_hears_of_it_and_its_process_lives(line: Path) -> None:
    with running():
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


def test_a_cancelled_async_function_gets_cancelled_error_and_its_process_lives(line: Path) -> None:
    with running():
        pid = value_of(Long(), "pid", "")
        instance, _ = start(Long(), "wait", str(line))
        assert line.read_text() == "runs"
        instance.cancel()
        assert line.read_text() == "told, True"
        assert value_of(Long(), "pid", "") == pid


def test_an_async_function_is_told_while_a_sync_one_holds_the_process(line: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    os.mkfifo(other)
    with running():
        waiting, _ = start(Long(), "wait", str(line))
        assert line.read_text() == "runs"
        listening, _ = start(Long(), "listen", str(other))
        assert other.read_text() == "runs"
        waiting.cancel()
        assert line.read_text() == "told, True"
        listening.cancel()
        assert other.read_text() == "heard of it"


def test_what_is_queued_when_it_is_cancelled_never_runs(line: Path, tmp_path: Path) -> None:
    written = tmp_path / "written"
    with running():
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


class Flaky(Exception): ...


class Broken(Exception): ...


class Retried(Chosen):
    @dagorama(retry=StaticRetry(3, 0, retry_on=(Flaky,))).syncfn
    def some(self, kind: str, notes: str) -> int:
        return fail_with(kind, notes)

    @dagorama(retry=StaticRetry(3, 0, give_up_on=(Broken,))).asyncfn
    async def others(self, kind: str, notes: str) -> int:
        return fail_with(kind, notes)

    @dagorama(retry=StaticRetry(3, 3600, give_up_on=(Exception,))).syncfn
    def later(self, kind: str, notes: str) -> int:
        if run_number() < 3:
            raise RetryLater(0)
        return run_number()


def fail_with(kind: str, notes: str) -> int:
    note(notes, str(run_number()))
    raise {"flaky": Flaky, "broken": Broken}[kind](kind)


@pytest.mark.parametrize("method", ["some", "others"])
@pytest.mark.parametrize(("kind", "runs"), [("flaky", ["1", "2", "3"]), ("broken", ["1"])])
def test_only_what_is_worth_another_run_gets_one(method: str, kind: str, runs: list[str], tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with running():
        assert failure_of(Retried(), method, kind, str(notes)).attempts == len(runs)
    assert notes.read_text().split() == runs


def test_an_exception_that_says_when_goes_before_the_policys_pause_and_its_give_up_on() -> None:
    with running():
        assert value_of(Retried(), "later", "", "") == 3


# --- failures as values ------------------------------------------------------------------------------------


class Fan(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, numbers: list[int]) -> Any:
        return self.rollup([outcome(self.invert(number)) for number in numbers])

    @dagorama().syncfn
    def invert(self, number: int) -> float:
        return 1 / number

    @dagorama().syncfn
    def rollup(self, parts: list[float | Failure]) -> tuple[float, list[str]]:
        failures = [part for part in parts if isinstance(part, Failure)]
        return sum(part for part in parts if not isinstance(part, Failure)), [str(each) for each in failures]


def test_a_tolerated_failure_does_not_lose_a_fan_out() -> None:
    with running(workers=2):
        total, failures = value_of(Fan(), [1, 2, 0, 4])
    assert total == 1.75
    [failure] = failures
    assert failure.endswith("Fan.invert failed after 1 attempt: ZeroDivisionError: division by zero")


# --- limits ------------------------------------------------------------------------------------------------


class Limited(Chosen):
    @dagorama(max_deaths=1).syncfn
    def die(self, notes: str) -> None:
        note(notes, "died")
        os.kill(os.getpid(), signal.SIGKILL)

    @dagorama().syncfn
    def crowd(self, notes: str) -> Any:
        return self.gathered([self.one_of_two(notes, number) for number in range(12)])

    @dagorama(max_concurrency=2).syncfn
    def one_of_two(self, notes: str, number: int) -> int:
        note(notes, "+1")
        time.sleep(0.01)  # so that the others have a chance to be wrong
        note(notes, "-1")
        return number

    @dagorama().syncfn
    def in_order(self, notes: str) -> Any:
        mixed = [self.low(notes), self.ordinary(notes), self.high(notes)]
        return self.gathered([*mixed, self.low(notes), self.high(notes)])

    @dagorama(priority=-1).syncfn
    def low(self, notes: str) -> int:
        note(notes, "low")
        return 0

    @dagorama().syncfn
    def ordinary(self, notes: str) -> int:
        note(notes, "ordinary")
        return 0

    @dagorama(priority=5).syncfn
    def high(self, notes: str) -> int:
        note(notes, "high")
        return 0

    @dagorama(delay=HANGS).syncfn
    def delayed(self, notes: str) -> float:
        return time.monotonic()

    @dagorama(taint_name="NOBODY-HAS-THIS", queue_timeout=HANGS).syncfn
    def unwanted(self, notes: str) -> None: ...

    @dagorama().syncfn
    def gathered(self, values: list[int]) -> int:
        return len(values)


def test_a_function_that_may_take_down_one_process_fails_with_the_first(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with running():
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


def test_nodes_of_an_instance_run_by_priority(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with running():
        value_of(Limited(), "in_order", str(notes))
    assert notes.read_text().split() == ["high", "high", "ordinary", "low", "low"]


def test_a_delayed_node_runs_after_its_delay() -> None:
    with running():
        began = time.monotonic()
        assert value_of(Limited(), "delayed", "") - began >= HANGS


def test_a_node_that_nobody_takes_fails_after_its_queue_timeout() -> None:
    with running():
        failure = failure_of(Limited(), "unwanted", "")
    assert type(failure) is QueueTimeout
