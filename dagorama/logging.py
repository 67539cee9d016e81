"""The logger of client and worker.

The rule: importing dagorama configures nothing; get_logger() does, once, and payloads are never logged.
"""

import logging
import shutil
import sys

from dagorama.settings import log_level

NAME = "Dagorama"
FORMAT = "%(asctime)s - %(name)s - [%(levelname)s] - %(message)s"


class StderrHandler(logging.Handler):
    """Writes to whatever sys.stderr is when a record comes, not to what it was when the handler was made."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if sys.stderr is not None:
                sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


_handler = StderrHandler()
_handler.setFormatter(logging.Formatter(FORMAT))


def get_log_level() -> int:
    """The level of DAGORAMA_LOG_LEVEL as the logging module numbers it; raises SettingsError for an unknown one."""
    return logging.getLevelNamesMapping()[log_level()]


def get_logger() -> logging.Logger:
    """The logger "Dagorama", with one handler, at the level that the environment names now."""
    logger = logging.getLogger(NAME)
    level = get_log_level()
    # Setting a level empties a cache of every logger in the process.
    if logger.level != level:
        logger.setLevel(level)
    logger.addHandler(_handler)
    return logger


def get_default_console_width(default_value: int = 80) -> int:
    """Columns of the terminal; `default_value` where there is none."""
    return shutil.get_terminal_size((default_value, 0)).columns
