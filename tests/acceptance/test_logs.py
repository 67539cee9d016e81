"""What nodes print and log: from Python and as a command, also while they run, and after their process has died."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import json
import logging
import math
import os
import pty
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dagorama import (
    DAGDefinition,
    LogRecord,
    NodeFailed,
    NotFound,
    PromiseMisuse,
    StaticRetry,
    batch,
    current,
    dagorama,
    execute_worker,
    logs,
    resolve,
)
from dagorama.api import broker_pb2
from dagorama.client.connection import connection
from dagorama.client.logs import Logs
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.commands import FORKED
from tests.support.forks import completed
from tests.support.workers import launch_workers

MODULE = __name__


class Talks(DAGDefinition):
    """A node that does what it is told."""

    @dagorama().syncfn
    def entrypoint(self, what: str, *details: Any) -> None:
        DO[what](*details)


class TalksAsync(DAGDefinition):
    """Nodes that run side by side in one process."""

    @dagorama().asyncfn
    async def entrypoint(self, count: int) -> list[int]:
        return [await self.talk(number, count) for number in range(count)]

    @dagorama().asyncfn
    async def talk(self, number: int, count: int) -> int:
        for step in range(3):
            print(f"{number}: {step}")
            await asyncio.sleep(0.01)
        await asyncio.to_thread(print, f"{number}: thread")
        return number


class Retried(DAGDefinition):
    """A node that fails the first time."""

    @dagorama(retry=StaticRetry(max_attempts=2, interval=0.01)).syncfn
    def entrypoint(self) -> int:
        print("attempt", current().attempt)
        if current().attempt == 1:
            raise ValueError("the first time")
        return 1


def say_everything() -> None:
    print("to stdout", 1)
    print("to stderr", file=sys.stderr)
    sys.stdout.write("in pieces ")
    sys.stdout.writelines(["of one ", "line\n"])
    sys.stdout.buffer.write(b"bytes \xff\xfe\n")
    print("\x1b[31mred\x1b[0m \u202eabc")
    print("no newline", end="")


def use_threads() -> None:
    thread = threading.Thread(target=lambda: print("in a thread"))
    thread.start()
    thread.join()
    print("done")


def log() -> None:
    logging.getLogger("mine").debug("too low")
    logging.getLogger("mine").warning("careful, %s", "you")
    try:
        raise KeyError("gone")
    except KeyError:
        logging.getLogger("mine").exception("failed")
    logging.getLogger("mine").info("wrong %d", "arguments")
    current().logger.info("by current")
    warnings.warn("be warned", stacklevel=1)


def log_with_own_handler(path: str) -> None:
    logger = logging.getLogger("own")
    logger.propagate = False
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("OWN %(message)s"))
    logger.handlers = [handler, logging.FileHandler(path)]
    logger.warning("once")
    logger.handlers[1].close()
    logger.handlers = []


def write_elsewhere(path: str) -> None:
    with open(path, "w") as file:
        print("into a file", file=file)
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        print("redirected")
    assert text.getvalue() == "redirected\n"
    print("kept")


def check_streams() -> None:
    assert {isinstance(each, io.TextIOBase) for each in (sys.stdout, sys.stderr)} == {True}
    assert sys.stdout.fileno() == 1
    assert sys.stdout.encoding.lower() == "utf-8"
    again = io.TextIOWrapper(sys.stdout.buffer, "latin-1")
    again.write("wrapped: \xe9\n")
    again.flush()
    again.detach()
    subprocess.run(["echo", "by a program"], stdout=sys.stdout.fileno(), check=True)
    print("after it", flush=True)


def print_much(megabytes: int) -> None:
    line = "x" * 99
    for _ in range(megabytes * 10_000):
        print(line)
    print("the end")


def fork() -> None:
    print("before")
    pid = os.fork()
    if not pid:
        print("in the fork")
        os._exit(0)
    os.waitpid(pid, 0)
    print("after")


def crash(path: str) -> None:
    wait_for(path)
    ctypes.string_at(0)


def wait_for(path: str) -> None:
    print("waiting")
    logging.warning("for %s", Path(path).name)
    while not Path(path).exists():
        time.sleep(0.01)
    print("over")


DO = {
    each.__name__: each
    for each in (
        say_everything, use_threads, log, log_with_own_handler, write_elsewhere, check_streams, print_much, fork, crash,
        wait_for,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchedBroker]:
    store = f"sqlite:///{tmp_path_factory.mktemp('logs')}/store"
    with launch_broker(port=0, store=store) as broker, launch_workers(1):
        yield broker


def ran(what: str, *details: Any) -> list[LogRecord]:
    instance, promise = Talks()(what, *details)
    resolve(instance, promise, timeout=60)
    return list(logs(instance))


def said(records: list[LogRecord]) -> list[tuple[str, str]]:
    return [(record.stream, record.text) for record in records]


def test_what_a_node_prints_is_kept_with_its_node(broker: LaunchedBroker) -> None:
    before = time.time()
    records = ran("say_everything")
    assert said(records) == [
        ("stdout", "to stdout 1"),
        ("stderr", "to stderr"),
        ("stdout", "in pieces of one line"),
        ("stdout", "bytes \\xff\\xfe"),
        ("stdout", "\x1b[31mred\x1b[0m \u202eabc"),
        ("stdout", "no newline"),
    ]
    assert records[3].data == b"bytes \xff\xfe"
    assert {(record.function, record.attempt) for record in records} == {(f"{MODULE}:Talks.entrypoint", 1)}
    assert before - 1 < records[0].time < time.time() + 1


def test_a_thread_of_a_node_prints_for_the_node(broker: LaunchedBroker) -> None:
    assert said(ran("use_threads")) == [("stdout", "in a thread"), ("stdout", "done")]


def test_log_records_have_their_level_and_come_once(broker: LaunchedBroker) -> None:
    records = ran("log")
    found = [(record.level, record.logger, record.text.partition("\n")[0]) for record in records if record.level]
    assert found[:2] == [(30, "mine", "careful, you"), (40, "mine", "failed")]
    assert "KeyError: 'gone'" in records[1].text
    assert found[2][2].startswith("'wrong %d' % ('arguments',) (TypeError")
    assert found[3] == (20, MODULE, "by current")
    assert [record.stream for record in records].count("logging") == 4
    assert any("be warned" in record.text for record in records if record.stream == "stderr")


def test_handlers_of_the_user_get_their_records_and_none_is_captured_twice(
    broker: LaunchedBroker, tmp_path: Path
) -> None:
    path = tmp_path / "own.log"
    assert said(ran("log_with_own_handler", str(path))) == [("logging", "once")]
    assert path.read_text() == "once\n"


def test_what_is_written_elsewhere_stays_there(broker: LaunchedBroker, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert said(ran("write_elsewhere", str(path))) == [("stdout", "kept")]
    assert path.read_text() == "into a file\n"


def test_the_streams_are_as_usable_as_before(broker: LaunchedBroker) -> None:
    records = ran("check_streams")
    assert [record.data for record in records] == [b"wrapped: \xe9", b"after it"]


def test_async_nodes_side_by_side_have_their_own_logs(broker: LaunchedBroker) -> None:
    async def spawn() -> Any:
        return await TalksAsync()(5)

    instance, promise = asyncio.run(spawn())
    assert resolve(instance, promise, timeout=60) == list(range(5))
    by_node: dict[object, list[str]] = {}
    for record in logs(instance):
        by_node.setdefault(record.node_id, []).append(record.text)
    assert sorted(by_node.values()) == [
        [f"{number}: {step}" for step in (0, 1, 2, "thread")] for number in range(5)
    ]  # fmt: skip


def test_much_output_is_bounded_and_says_what_is_missing(broker: LaunchedBroker) -> None:
    records = ran("print_much", 50)
    kept = sum(len(record.data) + 1 for record in records if not record.left_out)
    assert kept < 2 * (64 << 10)
    assert kept + sum(record.left_out for record in records) == 50 * 1_000_000 + len("the end\n")
    assert records[0].data == b"x" * 99
    assert records[-1].text == "the end"
    (mark, *_) = [record for record in records if record.left_out]
    assert mark.text.endswith("bytes left out ...")


def test_a_fork_of_a_node_prints_and_disturbs_nothing(broker: LaunchedBroker) -> None:
    assert said(ran("fork")) == [("stdout", "before"), ("stdout", "after")]


def test_each_attempt_is_told_from_the_others(broker: LaunchedBroker) -> None:
    instance, promise = Retried()()
    resolve(instance, promise, timeout=60)
    assert [(record.attempt, record.text) for record in logs(instance)] == [(1, "attempt 1"), (2, "attempt 2")]
    assert [record.text for record in logs(instance, promise, attempt=2)] == ["attempt 2"]


def test_what_a_node_printed_before_its_process_died_is_kept(broker: LaunchedBroker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    instance, promise = Talks()("crash", str(gate))
    live = iter(logs(instance, follow=True))
    assert next(live).text == "waiting"
    gate.touch()
    with pytest.raises(NodeFailed, match="SIGSEGV"):
        resolve(instance, promise, timeout=120)
    assert "waiting" in [record.text for record in logs(instance)]


def test_logs_are_followed_while_the_node_runs(broker: LaunchedBroker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    instance, _ = Talks()("wait_for", str(gate))
    live = iter(logs(instance, follow=True))
    assert [next(live).text, next(live).text] == ["waiting", "for gate"]
    gate.touch()
    assert [record.text for record in live] == ["over"]


async def test_logs_are_an_asynchronous_iterator_too(broker: LaunchedBroker) -> None:
    instance, promise = Talks()("use_threads")
    await asyncio.to_thread(resolve, instance, promise, timeout=60)
    assert [record.text async for record in logs(instance, follow=True)] == ["in a thread", "done"]


def test_following_goes_on_when_the_broker_is_restarted(tmp_path: Path) -> None:
    store, gate = f"sqlite:///{tmp_path}/store", tmp_path / "gate"
    with launch_broker(port=0, store=store) as broker, launch_workers(1):
        instance, _ = Talks()("wait_for", str(gate))
        live = iter(logs(instance, follow=True))
        assert [next(live).text, next(live).text] == ["waiting", "for gate"]
        broker.restart()
        gate.touch()
        assert [record.text for record in live] == ["over"]
        assert [record.text for record in logs(instance)] == ["waiting", "for gate", "over"]


def test_a_worker_may_keep_its_logs_to_itself(broker: LaunchedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_LOGS", "off")
    with launch_broker(port=0), launch_workers(1):
        assert ran("say_everything") == []


def test_the_level_of_records_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_LOGS_LEVEL", "debug")
    with launch_broker(port=0), launch_workers(1):
        assert ran("log")[0].text == "too low"


def test_a_worker_in_this_process_does_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    streams = sys.stdout, sys.stderr
    with launch_broker(port=0):
        instance, promise = Talks()("use_threads")
        execute_worker(infinite_loop=False)
        assert said(list(logs(instance, promise))) == [("stdout", "in a thread"), ("stdout", "done")]
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr().out == "in a thread\ndone\n"


def test_what_has_no_logs_is_refused(broker: LaunchedBroker) -> None:
    with batch():
        instance, promise = Talks()("log")
        with pytest.raises(PromiseMisuse, match="after the block"):
            logs(instance)
    with pytest.raises(TypeError, match="must be the instance"):
        logs(promise)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(ValueError, match=r"^attempt is -1: it must be the number of an attempt, from 1, or 0 for all$"):
        logs(instance, attempt=-1)
    with pytest.raises(ValueError, match=r"^since is nan: it must be a number of seconds since 1970$"):
        logs(instance, since=math.nan)
    with pytest.raises(TypeError, match=r"^function is 3: it must be a name"):
        logs(instance, function=3)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(NotFound, match="is not known"):
        list(Logs(connection(), broker_pb2.GetLogsRequest(instance=bytes(16))))


# --- the command --------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return completed(FORKED, ["logs", *arguments], dict(os.environ))


def test_the_command_prints_what_the_node_wrote_byte_by_byte(broker: LaunchedBroker) -> None:
    instance, promise = Talks()("say_everything")
    resolve(instance, promise, timeout=60)
    shown = command(f"{instance.instance_id}"[:8], f"{promise.identifier}")
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert shown.stdout.splitlines()[3:5] == [b"bytes \xff\xfe", "\x1b[31mred\x1b[0m \u202eabc".encode()]
    of_all = command(f"{instance.instance_id}")
    assert of_all.stdout.splitlines()[0] == f"{promise.identifier.hex[:8]}/1 Talks.entrypoint | to stdout 1".encode()


def test_the_command_prints_levels_times_and_json(broker: LaunchedBroker) -> None:
    instance, promise = Talks()("log")
    resolve(instance, promise, timeout=60)
    shown = command(f"{instance.instance_id}", f"{promise.identifier}", "--times").stdout.decode()
    assert f"{time.localtime().tm_year}-" in shown
    assert " WARNING mine: careful, you\n" in shown
    first, *_ = map(json.loads, command(f"{instance.instance_id}", "--json").stdout.splitlines())
    assert (first["level"], first["logger"], first["stream"]) == ("WARNING", "mine", "logging")
    assert (first["text"], first["node"], first["attempt"]) == ("careful, you", f"{promise.identifier}", 1)


def test_a_terminal_is_not_controlled_by_what_a_node_wrote(broker: LaunchedBroker) -> None:
    instance, promise = Talks()("say_everything")
    resolve(instance, promise, timeout=60)
    safe, raw = shown_on_a_terminal(f"{instance.instance_id}"), shown_on_a_terminal(f"{instance.instance_id}", "--raw")
    assert b"\\x1b[31mred\\x1b[0m \\u202eabc" in safe
    assert b"\x1b[31m" not in safe
    assert b"bytes \\xff\\xfe" in safe
    assert b"\x1b[31mred" in raw


def shown_on_a_terminal(*arguments: str) -> bytes:
    primary, secondary = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "dagorama", "logs", *arguments], stdout=secondary) as shown:
        os.close(secondary)
        written = b""
        while True:
            try:
                written += os.read(primary, 4096)
            except OSError:  # the other end is closed
                break
    os.close(primary)
    assert shown.returncode == 0
    return written


def test_the_command_follows_and_ends_with_the_node(broker: LaunchedBroker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    instance, promise = Talks()("wait_for", str(gate))
    arguments = [sys.executable, "-m", "dagorama", "logs", f"{instance.instance_id}", f"{promise.identifier}", "-f"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as followed:
        assert followed.stdout is not None
        assert followed.stdout.readline() == b"waiting\n"
        gate.touch()
        assert followed.stdout.read() == b"WARNING root: for gate\nover\n"
    assert followed.returncode == 0


def test_the_command_says_if_there_are_none_and_what_is_wrong(broker: LaunchedBroker) -> None:
    instance, promise = Talks()("use_threads")
    resolve(instance, promise, timeout=60)
    nothing = command(f"{instance.instance_id}", "--attempt", "7")
    assert (nothing.returncode, nothing.stdout) == (0, b"")
    assert nothing.stderr.startswith(b"No such logs are kept: ")
    assert (
        b"no node of 'Talks.speak' has printed"
        in command(f"{instance.instance_id}", "--function", "Talks.speak").stderr
    )
    assert command(f"{instance.instance_id}", "--since", "60").stdout
    later = command(f"{instance.instance_id}", "--since", "2999-01-01")
    assert later.stdout == b""
    assert command(f"{instance.instance_id}", "--since=nan").returncode == 2
    assert command(f"{instance.instance_id}", "--since=-1").returncode == 2
    wrong = command(f"{instance.instance_id}", "--since", "yesterday")
    assert wrong.returncode == 2
    assert b"must be a number of seconds" in wrong.stderr
    unknown = command("0" * 32)
    assert unknown.returncode == 1
    assert unknown.stderr.startswith(b"dagorama: ")
