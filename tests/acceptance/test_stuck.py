"""Work that no connected worker may run: who waits, who launched workers, and who looks at a worker, learn why."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagorama import DAGDefinition, aresolve, as_completed, dagorama, execute_worker, resolve, resolve_all
from dagorama.__main__ import main
from dagorama.errors import WorkersNotStarted
from dagorama.graph.shipping import Header, Parcel, Shipment
from dagorama.user_code.class_code import ClassCode
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.workers import launch_workers

ROOT = Path(__file__).parents[2]
WAIT = 60.0  #: seconds after which something that should happen is taken not to
NOBODY = "no worker is connected (start one with `worker`)"
NO_GPU = "it does not tolerate 'GPU' (start one with --toleration GPU)"


class Branching(DAGDefinition):
    """Two nodes, of which one needs a GPU."""

    @dagorama().syncfn
    def entrypoint(self) -> int:
        return self.total(self.plain(), self.gpu())

    @dagorama().syncfn
    def plain(self) -> int:
        return 1

    @dagorama(taint_name="GPU").syncfn
    def gpu(self) -> int:
        return 2

    @dagorama().syncfn
    def total(self, plain: int, gpu: int) -> int:
        return plain + gpu


class OnGpu(DAGDefinition):
    @dagorama(taint_name="GPU").syncfn
    def entrypoint(self) -> int:
        return 1


class Gated(DAGDefinition):
    """Ends when a file is there."""

    @dagorama().syncfn
    def entrypoint(self, fifo: str) -> int:
        return len(Path(fifo).read_bytes())


NAME = f"{__name__}:Branching"


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[LaunchedBroker]:
    monkeypatch.setenv("DAGORAMA_WARN_AFTER", "0.2")
    with launch_broker(port=0) as made:
        yield made


class Log:
    """What the client's log says, as it is said."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def event(self) -> threading.Event:
        """Set by the next record."""
        said = threading.Event()
        self._caplog.handler.addFilter(lambda _: said.set() or True)
        return said

    def waits(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if "still waiting" in record.getMessage()]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


@contextmanager
def worker(*flags: str, folder: str | Path = "/", **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a person starts it."""
    command = [sys.executable, "-m", "dagorama.worker", *flags]
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def process_of(broker: LaunchedBroker) -> int:
    assert broker.pid is not None
    return broker.pid


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """The lines of its stderr up to the one with that text."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"it ended without {text!r}: {lines}")


# --- who waits ------------------------------------------------------------------------------------------


ENOUGH = 2.0  #: seconds in which a busy machine warns too


def wait_by_resolve() -> None:
    resolve(*Branching()(), timeout=ENOUGH)


def wait_by_aresolve() -> None:
    asyncio.run(aresolve(*Branching()(), timeout=ENOUGH))


def wait_by_resolve_all() -> None:
    resolve_all([Branching()() for _ in range(12)], timeout=ENOUGH)


def wait_by_as_completed() -> None:
    instance, promise = Branching()()
    list(as_completed(instance, [promise], timeout=ENOUGH))


@pytest.mark.parametrize("wait", [wait_by_resolve, wait_by_aresolve, wait_by_resolve_all, wait_by_as_completed])
def test_a_wait_without_workers_warns_once_and_its_timeout_says_why(
    broker: LaunchedBroker, log: Log, wait: Callable[[], None]
) -> None:
    with pytest.raises(TimeoutError) as error:
        wait()
    count = 12 if wait is wait_by_resolve_all else 1
    nodes = f"{count} queued node{'s' if count > 1 else ''} of {NAME}.entrypoint cannot run: {NOBODY}"
    assert str(error.value).endswith(f": {nodes}")
    assert log.waits() == [f"still waiting after 0.2 seconds: {nodes}; the wait goes on"]


def test_a_short_timeout_says_why_as_well(broker: LaunchedBroker, log: Log) -> None:
    instance, promise = Branching()()
    for timeout in (0, 0.05):
        with pytest.raises(TimeoutError, match="no worker is connected"):
            resolve(instance, promise, timeout=timeout)
    assert log.waits() == []


def test_the_warning_comes_again_when_the_reason_has_changed(broker: LaunchedBroker, log: Log) -> None:
    instance, promise = Branching()()
    with worker(PYTHONPATH=str(ROOT)) as process:
        read_until(process, "connected to the broker")
        with pytest.raises(TimeoutError, match=r"1 queued node of .*Branching\.gpu cannot run: the only .*GPU"):
            resolve(instance, promise, timeout=2.0)
        (said,) = log.waits()
        assert NO_GPU in said
        process.terminate()
        process.wait(WAIT)
    with pytest.raises(TimeoutError):
        resolve(instance, promise, timeout=1.0)
    assert NOBODY in log.waits()[-1]
    assert len(log.waits()) == 2


def test_a_wait_for_what_runs_warns_of_nothing_and_its_timeout_says_where_it_runs(
    broker: LaunchedBroker, log: Log, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with launch_workers(1):
        instance, promise = Gated()(str(fifo))
        behind = Gated()(os.devnull)
        with fifo.open("wb"):  # it has been opened there: the node runs
            with pytest.raises(TimeoutError, match=r"\S+:\d+ runs it"):
                resolve(instance, promise, timeout=1.0)
            with pytest.raises(
                TimeoutError, match=r"1 process is busy on 1 worker that may run it; .*; no older node is queued"
            ):
                resolve(*behind, timeout=0)
        assert resolve(instance, promise, timeout=WAIT) == 0
    assert log.waits() == []


async def test_a_wait_without_a_broker_says_that_none_answers(broker: LaunchedBroker, log: Log) -> None:
    instance, promise = Branching()()
    said = log.event()
    os.kill(process_of(broker), signal.SIGSTOP)
    try:
        waiting = asyncio.ensure_future(aresolve(instance, promise))
        assert await asyncio.to_thread(said.wait, WAIT)
        waiting.cancel()
    finally:
        os.kill(process_of(broker), signal.SIGCONT)
    assert any(f"the broker at {broker.host}:{broker.port} does not answer" in said for said in log.waits())


# --- a worker in the wrong folder -----------------------------------------------------------------------


def test_client_and_worker_both_name_a_module_that_the_worker_cannot_import(
    broker: LaunchedBroker, tmp_path: Path
) -> None:
    (tmp_path / "only_here.py").write_text(
        textwrap.dedent("""
        from dagorama import DAGDefinition, dagorama, resolve

        class Task(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self) -> int:
                return 1
    """)
    )
    script = "from only_here import *; instance, promise = Task()(); resolve(instance, promise, timeout=4)"
    with worker() as process:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=WAIT,
            env={**os.environ, "DAGORAMA_WARN_AFTER": "1"},
        )  # fmt: skip
        told = read_until(process, "returned nodes")
    assert "returned nodes of only_here:Task.entrypoint" in told[-1]
    assert "No module named 'only_here'" in told[-1]
    warning = next(line for line in done.stderr.splitlines() if "still waiting" in line)
    assert "[WARNING]" in warning
    assert "1 queued node of only_here:Task.entrypoint cannot run" in warning
    assert "No module named 'only_here'" in warning
    assert "No module named 'only_here'" in done.stderr.splitlines()[-1], "the TimeoutError"


# --- workers that leave on completion -------------------------------------------------------------------


def test_workers_that_leave_say_what_is_left_and_end_with_3(
    broker: LaunchedBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    instance, promise = Branching()()
    with launch_workers(2, exit_on_completion=True) as workers:
        for each in workers:
            each.join(WAIT)
        assert [each.exitcode for each in workers] == [3, 3]
        with pytest.raises(TimeoutError, match=r"the workers that launch_workers\(\) started have ended: left undone"):
            resolve(instance, promise, timeout=0)
    assert resolve(instance, promise) is None
    left = [line for line in capfd.readouterr().err.splitlines() if "left undone" in line]
    (said,) = left
    assert f"worker: left undone: 1 queued node of {NAME}.gpu cannot run: " in said
    assert NO_GPU in said


def test_workers_that_may_leave_before_they_are_ready_have_started_all_the_same(broker: LaunchedBroker) -> None:
    with launch_workers(2, exit_on_completion=True) as workers:
        for each in workers:
            each.join(WAIT)
        assert [each.exitcode for each in workers] == [0, 0]
    OnGpu()()
    with launch_workers(1, exit_on_completion=True) as [only]:
        only.join(WAIT)
        assert only.exitcode == 3


def test_workers_that_leave_nothing_end_with_0(broker: LaunchedBroker) -> None:
    instance, promise = Branching()()
    with worker("--toleration", "GPU", "--exit-on-completion", PYTHONPATH=str(ROOT)) as process:
        _, said = process.communicate(timeout=WAIT)
    assert process.returncode == 0
    assert "left" not in said
    assert resolve(instance, promise) == 3


def test_a_worker_in_this_process_warns_of_what_is_left(
    broker: LaunchedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    Branching()()
    execute_worker(infinite_loop=False)
    assert any(f"left undone: 1 queued node of {NAME}.gpu" in message for message in caplog.messages)


# --- workers that cannot start --------------------------------------------------------------------------


def test_launch_workers_raises_when_its_workers_cannot_start(
    monkeypatch: pytest.MonkeyPatch, broker: LaunchedBroker
) -> None:
    parcel = Parcel([Header("away:Task", ClassCode({}, ""), is_called=True)], [], b"no pickle")
    monkeypatch.setattr("dagorama.graph.shipping.pack", lambda: Shipment(None, False, [parcel], {}))
    unreadable = "away:Task was sent here but cannot be read"
    with pytest.raises(WorkersNotStarted, match=unreadable), launch_workers(2):
        raise AssertionError


def test_launch_workers_raises_when_the_broker_refuses_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.touch(mode=0o600)
    with launch_broker(port=0, environment={"DAGORAMA_TOKENS_FILE": str(tokens)}):
        monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", "dgt_" + "x" * 43)
        with pytest.raises(WorkersNotStarted, match=r"the broker at .* refuses it"), launch_workers(1):
            raise AssertionError


def test_launch_workers_does_not_wait_for_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "1")
    with launch_workers(1) as [only]:
        assert only.is_alive()


NO_SEMAPHORES = {
    "the system refuses them": """
import _multiprocessing

class SemLock(_multiprocessing.SemLock):
    def __new__(cls, *arguments, **more):
        raise OSError(38, "Function not implemented")

_multiprocessing.SemLock = SemLock
""",
    "Python was built without them": "import _multiprocessing; del _multiprocessing.SemLock",
}


@pytest.mark.parametrize("missing", NO_SEMAPHORES)
def test_workers_run_without_posix_semaphores(broker: LaunchedBroker, tmp_path: Path, missing: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_SEMAPHORES[missing])
    instance, promise = Branching()()
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    flags = ("--toleration", "GPU", "--concurrency", "2", "--exit-on-completion")
    with worker(*flags, PYTHONPATH=path) as process:
        _, said = process.communicate(timeout=WAIT)
    assert (process.returncode, resolve(instance, promise)) == (0, 3), said


# --- a worker's words -----------------------------------------------------------------------------------


def test_a_worker_says_what_it_takes_and_when_it_has_a_broker(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'store'}"
    flags = ("--toleration", "GPU", "--include-queue", "heavy", "--import", "tests.support.registering")
    with launch_broker(port=0, store=store) as broker:
        port = broker.port
        with worker(*flags, PYTHONPATH=str(ROOT)) as process:
            first = "".join(read_all_of(process, "connected to the broker", "definitions: "))
            assert "1 at a time, of queues heavy, tolerations: GPU" in first
            assert "tests.support.troubles:Adding" in first
            os.kill(process_of(broker), signal.SIGKILL)
            assert "lost the connection" in read_until(process, "lost the connection")[-1]
            with launch_broker(port=port, store=store):
                assert read_until(process, "again")[-1].endswith(f":{port} again\n")


def test_a_worker_continues_if_its_output_is_not_read(broker: LaunchedBroker) -> None:
    with worker(PYTHONPATH=str(ROOT)) as process:
        assert process.stderr is not None
        process.stderr.close()
        instance, promise = Branching()()
        with worker("--toleration", "GPU", PYTHONPATH=str(ROOT)):
            assert resolve(instance, promise, timeout=WAIT) == 3
        assert process.poll() is None
        process.stderr = None


def read_all_of(process: subprocess.Popen[str], *texts: str) -> list[str]:
    lines: list[str] = []
    while missing := [text for text in texts if not any(text in line for line in lines)]:
        lines += read_until(process, missing[0])
    return lines


def test_at_info_a_worker_says_of_each_node_which_it_was(broker: LaunchedBroker) -> None:
    instance, promise = Branching()()
    flags = ("--toleration", "GPU", "--exit-on-completion")
    with worker(*flags, PYTHONPATH=str(ROOT), DAGORAMA_LOG_LEVEL="INFO") as process:
        _, said = process.communicate(timeout=WAIT)
    ran = [line for line in said.splitlines() if f"ran {NAME}." in line]
    assert len(ran) == 4
    assert f"ran {NAME}.entrypoint: instance {instance.instance_id}, node {promise.identifier}, attempt 1, " in ran[0]
    assert ran[0].endswith(" seconds")


def test_by_default_nothing_is_said_of_nodes_and_what_is_given_back_once(
    broker: LaunchedBroker, tmp_path: Path
) -> None:
    # Hides this package: if dagorama is installed as editable, the tree is on the path of each program.
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    for _ in range(3):
        Branching()()
    with worker("--exit-on-completion", "--concurrency", "2", PYTHONPATH=str(tmp_path)) as process:
        _, said = process.communicate(timeout=WAIT)
    assert process.returncode == 3
    assert sum("returned nodes" in line for line in said.splitlines()) == 1
    assert "left undone: 3 queued nodes" in said


# --- a person who looks ---------------------------------------------------------------------------------


def test_the_command_shows_stuck_instances_with_the_reason(broker: LaunchedBroker) -> None:
    instance, _ = Branching()()
    with worker("--exit-on-completion", PYTHONPATH=str(ROOT)) as process:
        process.communicate(timeout=WAIT)
    reason = f"1 queued node of {NAME}.gpu: {NOBODY}"

    def shown(*arguments: str) -> str:
        result = CliRunner().invoke(main, [*arguments])
        assert result.exit_code == 0
        return result.stdout

    (line,) = shown("list").splitlines()[1:]
    assert line.split()[1] == "stuck"
    assert reason[:90] in line
    facts = dict(line.split(None, 1) for line in shown("show", f"{instance.instance_id}").splitlines()[:4])
    assert (facts["state"], facts["reason"]) == ("stuck", reason)
