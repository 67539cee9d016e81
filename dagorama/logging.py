"""The logger of client and worker.

The rule: importing dagorama configures nothing; get_logger() does, once. Payloads are never logged.
"""

import logging
import sys

from dagorama.settings import log_level

NAME = "Dagorama"
FORMAT = "%(asctime)s - %(name)s - [%(levelname)s] - %(message)s"


class StderrHandler(logging.Handler):
    """A handler that writes to the current sys.stderr, not to the one that it had when it was made."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if sys.stderr is not None:
                sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


_handler = StderrHandler()
_handler.setFormatter(logging.Formatter(FORMAT))


def get_log_level() -> int:
    """Return the number of the level of DAGORAMA_LOG_LEVEL; raise SettingsError for an unknown level."""
    return logging.getLevelNamesMapping()[log_level()]


def get_logger() -> logging.Logger:
    """Return the logger "Dagorama", with one handler, at the level that the environment names now."""
    logger = logging.getLogger(NAME)
    level = get_log_level()
    # Setting a level clears a cache of every logger in the process.
    if logger.level != level:
        logger.setLevel(level)
    logger.addHandler(_handler)
    return logger


def get_default_console_width(default_value: int = 80) -> int:
    """Return the columns of the terminal; `default_value` if there is none."""
    import shutil  # two milliseconds of every start that does not ask for the width

    return shutil.get_terminal_size((default_value, 0)).columns
