"""Capturing the streams and loggers of a process: they behave as before, also when others have replaced them."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.context import RunningNode, current_run
from dagorama.worker.attempt_log import AttemptLog
from dagorama.worker.child import capture
from dagorama.worker.child.capture import Tee
from dagorama.worker.child.live_logs import LiveLogs
from dagorama.worker.child.outbox import Outbox

CALL = SimpleNamespace(
    node=1, attempt=2, instance=UUID(int=1).bytes, id=UUID(int=7).bytes, work=SimpleNamespace(name="m:D.f")
)


class Caught:
    """The records of one run."""

    def __init__(self) -> None:
        self.parts: list[pb.NodeLog] = []
        self.log = AttemptLog(CALL, 1, self, lambda: None)
        attempt: Any = SimpleNamespace()
        self.run = RunningNode(1, attempt=attempt, call=CALL, open_log=lambda run: self.log)

    def logged(self, log: pb.NodeLog) -> None:
        self.parts.append(log)

    def reported(self, report: pb.NodeReport) -> None: ...

    @property
    def texts(self) -> list[bytes]:
        self.log.close()
        return [record.text for part in self.parts for record in pb.LogRecords.FromString(part.records).record]


@contextmanager
def running() -> Iterator[Caught]:
    """A run whose output is captured."""
    caught = Caught()
    token = current_run.set(caught.run)
    try:
        with capture.installed(True):
            yield caught
    finally:
        current_run.reset(token)


def test_a_run_that_prints_nothing_has_no_log() -> None:
    caught = Caught()
    token = current_run.set(caught.run)
    with capture.installed(True):
        pass
    current_run.reset(token)
    assert caught.run.log is None


def test_outside_of_runs_nothing_is_captured() -> None:
    with running() as caught:
        token = current_run.set(None)
        print("between the nodes")
        current_run.reset(token)
        assert caught.run.log is None


def test_two_workers_in_one_process_capture_once() -> None:
    before = sys.stdout
    with running() as caught:
        with capture.installed(True):
            print("once")
        print("and again")
    assert sys.stdout is before
    assert caught.texts == [b"once", b"and again"]


def test_a_stream_that_user_code_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    own = io.StringIO()
    with running() as caught:
        monkeypatch.setattr(sys, "stdout", own)
        print("mine")
    assert sys.stdout is own
    assert own.getvalue() == "mine\n"
    assert caught.texts == []


def test_a_library_that_has_wrapped_the_handlers_since_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    with running() as caught:
        inner = logging.Logger.callHandlers

        def wrapped(self: logging.Logger, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            inner(self, record)

        monkeypatch.setattr(logging.Logger, "callHandlers", wrapped)
        logging.getLogger("a").error("one")
    assert logging.Logger.callHandlers is wrapped
    logging.getLogger("a").error("two")
    assert seen == ["one", "two"]
    assert caught.texts == [b"one"]


def test_records_below_the_level_are_not_captured_even_if_a_handler_prints_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGORAMA_LOGS_LEVEL", "WARNING")
    with running() as caught:
        logger = logging.getLogger("own.debug")
        handler = logging.StreamHandler(sys.stdout)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.debug("low")
        logger.warning("high")
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert caught.texts == [b"high"]


def test_a_handler_that_raises_loses_no_record() -> None:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no disk")

    with running() as caught:
        logger, handler = logging.getLogger("own.raises"), Raises()
        logger.addHandler(handler)
        with pytest.raises(OSError, match="no disk"):
            logger.error("kept")
        logger.removeHandler(handler)
        print("after")
    assert caught.texts == [b"kept", b"after"]


def test_a_captured_stream_is_pickled_by_reference() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    with running():
        assert isinstance(sys.stdout, Tee)
        assert cloudpickle.loads(cloudpickle.dumps(sys.stdout)) is sys.stdout
        assert cloudpickle.loads(cloudpickle.dumps(sys.stderr)) is sys.stderr


def test_text_that_cannot_be_encoded_is_kept_as_far_as_it_can() -> None:
    with running() as caught:
        stream = Tee(io.StringIO(), 0)
        stream.writelines(["a\udcffb\n", "a\ud800b\n"])
    assert caught.texts == [b"a\xffb", b"a\\ud800b"]


def test_threads_that_print_first_at_the_same_time_have_one_log() -> None:
    live = LiveLogs(Outbox(lambda kind, outcome: None))
    attempt: Any = SimpleNamespace()
    run = RunningNode(1, attempt=attempt, call=CALL, open_log=live.open)
    assert live.open(run) is live.open(run) is run.opened_log()
    live.close()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_run_goes_on_if_the_output_of_the_worker_cannot_be_written(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, name, full)
        with running() as caught:
            print("text", file=getattr(sys, name), flush=True)
            getattr(sys, name).buffer.write(b"bytes\n")
            getattr(sys, name).buffer.flush()
        assert caught.texts == [b"text", b"bytes"]
        with capture.installed(True), pytest.raises(OSError, match="No space left"):
            print("outside of runs it is an error as before", file=getattr(sys, name), flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # the stream still has the last line
