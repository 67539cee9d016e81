"""Logging of user code in a child: each record names its node, and is printed even if user code adds no handler.

The rule: logging works in a node as it does elsewhere. Our handler prints no record that another handler prints, and
for basicConfig and dictConfig the root logger looks as if our handler did not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from dagorama.context import CurrentNode, running
from dagorama.logging import FORMAT, StderrHandler, get_logger
from dagorama.settings import captured_log_level, node_log_level
from dagorama.worker.child.call import Call

NODE_FORMAT = FORMAT.replace("%(message)s", "%(dagorama_prefix)s%(message)s")


class LastResort(StderrHandler):
    """A handler of the root logger for records that no other handler receives."""

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_taken(logging.getLogger(record.name)):
            return
        if not hasattr(record, "dagorama_prefix"):  # it is of another process, or user code has replaced our factory
            record.dagorama_prefix = _prefix(running())
        super().emit(record)

    def _is_taken(self, logger: logging.Logger | None) -> bool:
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


def configure() -> None:
    """Set up logging in a child before any user code runs. DAGORAMA_LOG_LEVEL is the lowest level that is printed.

    DAGORAMA_LOGS_LEVEL is the lowest one that is sent to the broker.
    """
    logging.setLogRecordFactory(_naming_the_node(logging.getLogRecordFactory()))
    handler = LastResort()
    handler.setFormatter(logging.Formatter(NODE_FORMAT))
    handler.setLevel(node_log_level())
    # It must be a handler of root: if root has no handler, logging.info() calls basicConfig().
    logging.root.addHandler(handler)
    levels = logging.getLevelNamesMapping()
    logging.root.setLevel(min(levels[node_log_level()], levels[captured_log_level()]))
    logging.basicConfig = _without(handler, logging.basicConfig)


def _without(handler: logging.Handler, basic_config: Callable[..., None]) -> Callable[..., None]:
    """Return a basicConfig that ignores this handler: otherwise it would do nothing, because root has a handler."""

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
    """Return a record factory that adds the attributes `dagorama_instance`, `dagorama_node`, `dagorama_function`,
    `dagorama_attempt`, and `dagorama_prefix`, a short form of them. All are empty if no node is running."""

    @wraps(make)
    def made(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        node = running()
        record.dagorama_instance = str(node.instance_id) if node else ""
        record.dagorama_node = str(node.node_id) if node else ""
        record.dagorama_function = node.function if node else ""
        record.dagorama_attempt = node.attempt if node else ""
        record.dagorama_prefix = _prefix(node)
        return record

    return made


def _prefix(node: CurrentNode | None) -> str:
    return f"[{node.short}] " if node else ""


def log_completed(call: Call, microseconds: int) -> None:
    """Log that a node has returned a value."""
    get_logger().info(
        "ran %s: instance %s, node %s, attempt %d, %.6f seconds",
        call.work.name,
        UUID(bytes=call.instance),
        UUID(bytes=call.id),
        call.runs + 1,
        microseconds / 1e6,
    )
