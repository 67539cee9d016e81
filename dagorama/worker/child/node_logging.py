"""What user code logs in a child: each record says which node it is of, and is shown without a handler of the user's.

The rule: logging works in a node as it does anywhere. Our handler is silent about what another one takes, and
basicConfig and dictConfig find root as if it were not there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from dagorama.context import running
from dagorama.logging import FORMAT, StderrHandler
from dagorama.settings import node_log_level

NODE_FORMAT = FORMAT.replace("%(message)s", "%(dagorama_prefix)s%(message)s")


class LastResort(StderrHandler):
    """Root's handler of records that no other handler takes."""

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_taken(logging.getLogger(record.name)):
            super().emit(record)

    def _is_taken(self, logger: logging.Logger | None) -> bool:
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


def configure() -> None:
    """To be called in a child before any user code. DAGORAMA_LOG_LEVEL says from which level on records are shown."""
    logging.setLogRecordFactory(_naming_the_node(logging.getLogRecordFactory()))
    handler = LastResort()
    handler.setFormatter(logging.Formatter(NODE_FORMAT))
    # A handler of root, since logging.info() calls basicConfig() if there is none.
    logging.root.addHandler(handler)
    logging.root.setLevel(node_log_level())
    logging.basicConfig = _without(handler, logging.basicConfig)


def _without(handler: logging.Handler, basic_config: Callable[..., None]) -> Callable[..., None]:
    """A basicConfig that does what it does if root has no handler but this one: else it would do nothing."""

    @wraps(basic_config)
    def configured(**options: Any) -> None:
        logging.root.removeHandler(handler)
        try:
            basic_config(**options)
        finally:
            if not logging.root.handlers:
                logging.root.addHandler(handler)

    return configured


def _naming_the_node(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    """A factory of records that have the attributes `dagorama_instance`, `dagorama_node`, `dagorama_function` and
    `dagorama_attempt`, and `dagorama_prefix`, a short form of them; all empty if no node runs."""

    @wraps(make)
    def made(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        node = running()
        record.dagorama_instance = str(node.instance_id) if node else ""
        record.dagorama_node = str(node.node_id) if node else ""
        record.dagorama_function = node.function if node else ""
        record.dagorama_attempt = node.attempt if node else ""
        record.dagorama_prefix = f"[{node.short}] " if node else ""
        return record

    return made
