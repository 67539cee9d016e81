"""What user code logs in a child of a worker."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import UUID

import pytest

from dagorama.context import RunningNode, current_run
from dagorama.logging import StderrHandler
from dagorama.worker.child import node_logging

CALL = SimpleNamespace(instance=UUID(int=1).bytes, id=UUID(int=7).bytes, work=SimpleNamespace(name="app.work:Dag.step"))


@contextmanager
def a_child() -> Iterator[None]:
    """Logging as a child finds it, without what pytest adds to root, while a node runs."""
    root, factory, basic_config = logging.root, logging.getLogRecordFactory(), logging.basicConfig
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    token = current_run.set(RunningNode(2, call=CALL))
    try:
        node_logging.configure()
        yield
    finally:
        current_run.reset(token)
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.setLogRecordFactory(factory)
        logging.basicConfig = basic_config


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_what_a_node_logs_is_shown_with_the_node_that_it_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    with a_child():
        logging.info("by root")
        logging.getLogger("app.mine").warning("by %s", "its own")
        logging.debug("not shown")
        first, second = shown(capsys)
        assert first.endswith("- root - [INFO] - [00000000 #7 Dag.step, attempt 2] by root")
        assert second.endswith("- app.mine - [WARNING] - [00000000 #7 Dag.step, attempt 2] by its own")


def test_a_record_that_our_factory_has_not_made_is_shown_with_its_node_too(capsys: pytest.CaptureFixture[str]) -> None:
    of_another_process = logging.LogRecord("app.other", logging.WARNING, "file", 1, "of another", (), None)
    with a_child():
        logging.getLogger("app.other").handle(of_another_process)
        logging.setLogRecordFactory(logging.LogRecord)
        logging.warning("by the factory of a library")
        first, second = shown(capsys)
        assert first.endswith("- app.other - [WARNING] - [00000000 #7 Dag.step, attempt 2] of another")
        assert second.endswith("- root - [WARNING] - [00000000 #7 Dag.step, attempt 2] by the factory of a library")


def test_outside_of_a_node_a_record_is_of_none(capsys: pytest.CaptureFixture[str]) -> None:
    with a_child():
        token = current_run.set(None)
        logging.info("%s", "at import")
        current_run.reset(token)
        assert shown(capsys)[0].endswith("- root - [INFO] - at import")


def test_the_level_is_that_of_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", "debug")
    with a_child():
        logging.debug("now")
        assert len(shown(capsys)) == 1


def test_basic_config_does_what_it_does_anywhere_and_records_know_their_node(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with a_child():
        logging.info("before")
        logging.basicConfig(level=logging.DEBUG, format="%(dagorama_instance)s %(dagorama_function)s %(message)s")
        logging.debug("after")
        logging.basicConfig(format="a second one does nothing")
        logging.info("once")
        before, after, once = shown(capsys)
        assert before.endswith("before")
        assert after == f"{UUID(int=1)} app.work:Dag.step after"
        assert once.endswith("app.work:Dag.step once")


def test_dict_config_does_what_it_does_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    with a_child():
        logging.config.dictConfig({
            "version": 1, "disable_existing_loggers": False,
            "formatters": {"own": {"format": "%(dagorama_node)s %(dagorama_attempt)s %(message)s"}},
            "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
            "root": {"level": "INFO", "handlers": ["own"]},
        })  # fmt: skip
        logging.info("mine")
        assert shown(capsys) == [f"{UUID(int=7)} 2 mine"]


def test_what_a_handler_of_the_users_takes_is_not_shown_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with a_child():
        logger = logging.getLogger("app.with_handler")
        handler = StderrHandler()
        logger.addHandler(handler)
        logger.getChild("part").warning("taken")
        logging.getLogger("app.other").warning("not taken")
        logger.removeHandler(handler)
        taken, other = shown(capsys)
        assert taken == "taken"
        assert other.endswith("not taken")
