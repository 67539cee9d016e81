"""Stories of attempts: retries, deaths of processes, and nodes that wait too long."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dagorama import (
    DAGDefinition,
    ExponentialRetry,
    Failure,
    RetryLater,
    StaticRetry,
    at,
    current,
    dagorama,
    later,
    outcome,
    resolve,
    retry_failed,
)
from tests.parity.stage import WAIT, Failed, Stage, awaited, wait_for_all
from tests.parity.stories import deadly_story, story

SHORT = 0.05
SOON = StaticRetry(max_attempts=3, interval=SHORT)


class Stubborn(DAGDefinition):
    """Succeeds in a given attempt."""

    @dagorama
    def entrypoint(self, first: int) -> int:
        return self.plus(self.static(first), self.growing(first))

    @dagorama(retry=SOON)
    def static(self, first: int) -> int:
        return _attempt(first)

    @dagorama(retry=ExponentialRetry(max_attempts=3, base_interval=1, max_interval=SHORT))
    def growing(self, first: int) -> int:
        return _attempt(first)

    @dagorama
    def plus(self, left: int, right: int) -> int:
        return left + right


def _attempt(first: int) -> int:
    attempt = current().attempt
    if attempt < first:
        raise ConnectionError(f"no answer in attempt {attempt}")
    return attempt


@story
def a_node_runs_again_until_it_succeeds(stage: Stage) -> None:
    assert stage.told(*Stubborn()(3)) == 6


@story
def a_node_that_uses_up_its_attempts_names_them_all(stage: Stage) -> None:
    instance, _ = Stubborn()(1)
    found = stage.told(instance, instance.static(9))
    assert found.attempts == 3
    assert [message for _, message in found.earlier] == ["no answer in attempt 1", "no answer in attempt 2"]


class Choosy(DAGDefinition):
    @dagorama
    def entrypoint(self, kind: str) -> int:
        return self.chosen(kind)

    @dagorama(retry=StaticRetry(max_attempts=3, interval=SHORT, retry_on=(OSError,), give_up_on=(FileNotFoundError,)))
    def chosen(self, kind: str) -> int:
        match kind:
            case "retried":
                raise TimeoutError
            case "final":
                raise FileNotFoundError
        raise ValueError(kind)


@story
def only_the_chosen_exceptions_are_retried(stage: Stage) -> None:
    found = [stage.told(*Choosy()(kind)).attempts for kind in ("retried", "final", "another")]
    assert found == [3, 1, 1]


class Later(DAGDefinition):
    @dagorama(retry=StaticRetry(max_attempts=5, interval=3_600))
    def entrypoint(self) -> int:
        if current().attempt < 3:
            raise RetryLater(SHORT, "busy")
        return current().attempt


@story
def a_node_says_when_it_wants_to_run_again(stage: Stage) -> None:
    assert stage.told(*Later()()) == 3


class Asked(DAGDefinition):
    """Each node appends its name to a file when it starts; the first run of the first one asks for a pause."""

    @dagorama
    def entrypoint(self, starts: Path) -> None:
        self.write(starts, "first", "tenant-7")
        self.write(starts, "second", "tenant-7")

    @dagorama(retry=StaticRetry(max_attempts=2, interval=3_600), max_concurrency=1, concurrency_key="tenant")
    def write(self, starts: Path, name: str, tenant: str) -> None:
        with starts.open("a") as file:
            file.write(f"{name} {current().attempt}\n")
        if (name, current().attempt) == ("first", 1):
            raise RetryLater(SHORT, "busy", pause_key=True)


@story
def a_node_has_its_key_paused(stage: Stage) -> None:
    file = stage.folder / "starts"
    instance, promise = Asked()(file)
    assert stage.told(instance, promise) is None
    wait_for_all(instance)
    assert file.read_text().splitlines() == ["first 1", "first 2", "second 1"]


class NotPausable(DAGDefinition):
    @dagorama(retry=StaticRetry(max_attempts=2, interval=3_600))
    def entrypoint(self) -> None:
        raise RetryLater(SHORT, "busy", pause_key=True)


@story
def a_node_without_a_key_or_a_limit_has_nothing_to_pause(stage: Stage) -> None:
    found = stage.told(*NotPausable()())
    assert (found.type, found.attempts) == ("dagorama.errors.RetryLater", 1)
    assert "NotPausable.entrypoint has no rate, limit or max_concurrency" in found.message


class AsyncStubborn(DAGDefinition):
    @dagorama(retry=SOON)
    async def entrypoint(self, first: int) -> int:
        return _attempt(first)


@story
def an_async_node_runs_again(stage: Stage) -> None:
    assert stage.told(*awaited(AsyncStubborn()(2))) == 2


class Growing(DAGDefinition):
    """Fails after it has called for nodes, which then do not exist."""

    @dagorama(retry=SOON)
    def entrypoint(self) -> int:
        child = self.number(current().attempt)
        if current().attempt < 3:
            raise OSError("after a call")
        return child

    @dagorama
    def number(self, number: int) -> int:
        return number


@story
def nodes_of_a_failed_attempt_do_not_exist(stage: Stage) -> None:
    assert stage.told(*Growing()()) == 3


# --- deaths and waits ---------------------------------------------------------------------------------


class Mortal(DAGDefinition):
    """With real processes it kills its own; inline the world lets it die."""

    @dagorama
    def entrypoint(self, mark: Path | None) -> int:
        return self.once(mark)

    @dagorama
    def once(self, mark: Path | None) -> int:
        if mark is not None and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 1

    @dagorama(max_deaths=2)
    def always(self, kills: bool) -> int:
        if kills:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1


@deadly_story
def a_node_whose_process_dies_runs_again(stage: Stage) -> None:
    if stage.world is not None:
        stage.world.die(Mortal.once, times=1)
    assert stage.told(*Mortal()(None if stage.world else stage.folder / "died")) == 1


@deadly_story
def a_node_whose_process_always_dies_fails(stage: Stage) -> None:
    instance, _ = Mortal()(None)
    if stage.world is not None:
        stage.world.die(Mortal.always, times=None)
    assert stage.told(instance, instance.always(stage.world is None)).kind == "ProcessDied"


class Slow(DAGDefinition):
    """With real processes it is stopped; inline the world lets it hang."""

    @dagorama
    def entrypoint(self) -> int:
        return 1

    @dagorama(timeout=0.3)
    def sleeping(self, seconds: float) -> int:
        time.sleep(seconds)
        return 1


@deadly_story
def a_node_that_exceeds_its_timeout_fails(stage: Stage) -> None:
    instance, _ = Slow()()
    if stage.world is not None:
        stage.world.hang(Slow.sleeping)
    found = stage.told(instance, instance.sleeping(0 if stage.world else WAIT))
    assert found.type == "builtins.TimeoutError"


class Unwanted(DAGDefinition):
    @dagorama(taint_name="RARE", queue_timeout=SHORT)
    def entrypoint(self) -> int:
        return 1


@story
def a_node_that_no_worker_may_run_fails_at_its_queue_timeout(stage: Stage) -> None:
    found = stage.told(*Unwanted()())
    assert found.kind == "QueueTimeout"


class Delayed(DAGDefinition):
    @dagorama(delay=SHORT)
    def entrypoint(self) -> int:
        return 1


@story
def a_delayed_node_runs(stage: Stage) -> None:
    assert stage.told(*Delayed()()) == 1


class Postponed(DAGDefinition):
    @dagorama
    def entrypoint(self) -> int:
        return self.plus(later(self.one, SHORT)(), at(self.one, datetime.now(UTC) + timedelta(seconds=SHORT))())

    @dagorama
    def one(self) -> int:
        return 1

    @dagorama
    def plus(self, first: int, second: int) -> int:
        return first + second


@story
def single_calls_are_delayed(stage: Stage) -> None:
    assert stage.told(*Postponed()()) == 2


@story
def an_instance_is_started_later(stage: Stage) -> None:
    assert stage.told(*later(Postponed(), SHORT)()) == 2


# --- retries by hand ----------------------------------------------------------------------------------


class Repaired(DAGDefinition):
    @dagorama
    def entrypoint(self, file: Path) -> str:
        return self.told(outcome(self.size(file)), self.other())

    @dagorama
    def size(self, file: Path) -> int:
        return len(file.read_text())

    @dagorama
    def other(self) -> int:
        return 1

    @dagorama
    def told(self, found: int | Failure, other: int) -> str:
        return "nothing" if isinstance(found, Failure) else f"{found} {other}"

    @dagorama
    def doubled(self, size: int) -> int:
        return 2 * size


@story
def failed_nodes_are_retried_by_hand(stage: Stage) -> None:
    instance, _ = Repaired()(Path("missing"))
    doubled = instance.doubled(instance.size(stage.folder / "retried"))
    found = stage.told(instance, doubled)
    assert isinstance(found, Failed)
    stage.record.pop()  # it names the file
    (stage.folder / "retried").write_text("four")
    done = retry_failed(instance, doubled)
    stage.note((done.queued, done.waiting, done.completed))
    assert stage.told(instance, doubled) == 8


@story
def nodes_that_used_a_failure_are_retried_downstream(stage: Stage) -> None:
    instance, promise = Repaired()(stage.folder / "late")
    assert stage.told(instance, promise) == "nothing"
    (stage.folder / "late").write_text("12345")
    done = retry_failed(instance, downstream=True)
    stage.note((done.queued, done.waiting, done.completed))
    assert resolve(instance, promise, timeout=WAIT) == "5 1"
