"""The broker's log on stderr: text for people, or one JSON object per line. Payloads are never logged."""

from __future__ import annotations

import json
import logging
import sys
import time

NAME = "dagorama_broker"
TEXT = "%(asctime)s %(levelname)s %(message)s"


class StderrHandler(logging.Handler):
    """Writes to the current sys.stderr, which may be replaced at any time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if sys.stderr is not None:
                sys.stderr.write(self.format(record) + "\n")
                sys.stderr.flush()
        except Exception:
            self.handleError(record)


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: time (UTC), level, logger, message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


_handler = StderrHandler()


def configure(level: str, format: str) -> None:
    """Set up the log of this process; a second call changes level and format, and adds no handler.

    `level` applies to the broker's log; of other libraries only warnings are logged, in the same format.
    """
    _handler.setFormatter(JsonFormatter() if format == "json" else logging.Formatter(TEXT))
    logging.getLogger().addHandler(_handler)
    logging.getLogger(NAME).setLevel(level)
