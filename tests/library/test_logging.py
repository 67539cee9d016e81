"""The logger: one handler, today's sys.stderr, the level of the environment."""

import io
import logging
import subprocess
import sys

import pytest

from dagorama.logging import get_default_console_width, get_log_level, get_logger

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@pytest.mark.parametrize("level", LEVELS)
def test_records_from_the_set_level_up_are_written(
    level: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", level)
    logger = get_logger()
    for name in LEVELS:
        logger.log(logging.getLevelName(name), "a record of %s", name)
    written = [line.rpartition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert written == list(LEVELS[LEVELS.index(level) :])


def test_asking_twice_writes_each_record_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        get_logger()
    get_logger().error("once")
    assert capsys.readouterr().err.count("once") == 1


def test_records_go_to_what_sys_stderr_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = get_logger()
    for text in ("first", "second"):
        now = io.StringIO()
        monkeypatch.setattr(sys, "stderr", now)
        logger.error(text)
        assert text in now.getvalue()
    now.close()
    monkeypatch.setattr(sys, "stderr", None)
    logger.error("nowhere to go, and no error")


def test_a_level_is_followed_when_the_environment_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", "ERROR")
    assert get_logger().level == get_log_level() == logging.ERROR
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", "info")
    assert get_logger().level == get_log_level() == logging.INFO


def test_an_unknown_level_is_an_error_that_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", "VERBOSE")
    with pytest.raises(ValueError, match=r"VERBOSE.*DEBUG, INFO, WARNING, ERROR, CRITICAL"):
        get_logger()


def test_a_broken_port_does_not_stop_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "nonsense")
    assert get_logger().name == "Dagorama"


def test_importing_adds_no_handler() -> None:
    script = "import logging, dagorama.logging as d; print(len(logging.getLogger(d.NAME).handlers))"
    assert subprocess.check_output([sys.executable, "-c", script]).strip() == b"0"


def test_the_console_width_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "__stdout__", None)
    assert get_default_console_width(33) == 33
