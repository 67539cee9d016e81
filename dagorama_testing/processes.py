"""A broker and workers in processes of their own, for the tests of one session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from secrets import token_urlsafe

from dagorama.client.connection import connection
from dagorama.runner import WorkerHandle, launch_workers
from dagorama_broker.launch import MEMORY, LaunchedBroker, environment_with

#: Worker processes of a session.
WORKERS = 2
#: Variables that would lead a test to another broker, or give it another key.
OTHERS = (
    "DAGORAMA_AUTH_TOKEN", "DAGORAMA_AUTH_TOKEN_FILE", "DAGORAMA_SIGNING_KEYS_FILE", "DAGORAMA_TLS_CA",
    "DAGORAMA_TLS_CERT", "DAGORAMA_TLS_KEY", "DAGORAMA_TLS_NAME",
)  # fmt: skip


class Processes:
    """A broker on a free port, with a store in memory and a key of its own, and workers once they are needed."""

    def __init__(self) -> None:
        """Start the broker. Raises BrokerNotStarted."""
        self._stack = ExitStack()
        self._workers: list[WorkerHandle] = []
        self._key = token_urlsafe(32)
        self.broker = LaunchedBroker(0, MEMORY, "WARNING", {})
        self._stack.callback(self.broker.stop)
        try:
            self.broker.start()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Make the environment name this broker and its key for the block; restore it afterwards."""
        own = {
            "DAGORAMA_HOST": self.broker.host,
            "DAGORAMA_PORT": str(self.broker.port),
            "DAGORAMA_SIGNING_KEYS": self._key,
        }
        with environment_with(**dict.fromkeys(OTHERS), **own):
            yield

    def workers(self) -> list[WorkerHandle]:
        """Return the workers, started with the first call. Call it within `environment`. Raises WorkersNotStarted."""
        if not self._workers:
            self._workers = self._stack.enter_context(launch_workers(WORKERS))
        return list(self._workers)

    def cancel_unfinished(self) -> None:
        """Cancel what a test has left unfinished, so that it takes no worker from the next one."""
        link = connection()
        for instance in link.list_instances(unfinished=True).instances:
            link.cancel(instance.instance, [])

    def close(self) -> None:
        """End workers and broker."""
        with self._stack:
            self._workers = []
