"""Workers for tests whose subject is not their start: forks of a process that has imported the worker and pytest.

They are processes as `dagorama.launch_workers` starts them, in half of the time. Nodes that are methods of a
class in a test module make a worker import pytest with it, which takes longer than all else that the worker does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dagorama import runner
from dagorama.runner import WorkerHandle
from dagorama.worker import launcher
from tests.support.forks import Fork, Program, fork_server

#: Modules that a worker imports before it imports gRPC; from a process with gRPC it could not fork its children.
IMPORTS = ("dagorama.worker.main", "dagorama.worker.child.main", "asyncio", "pytest")
#: The command of the worker too.
WORKER = Program("dagorama.worker.__main__:main", IMPORTS, has_session=False)


@contextmanager
def launch_workers(n: int = 1, exit_on_completion: bool = False) -> Iterator[list[WorkerHandle]]:
    """Run workers for the length of the block, as `dagorama.launch_workers` does."""
    block = runner.launch_workers(n, exit_on_completion)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "_start", _start)
        workers = block.__enter__()
    try:
        yield workers
    except BaseException as error:
        if not block.__exit__(type(error), error, error.__traceback__):
            raise
    else:
        block.__exit__(None, None, None)


def _start(command: list[str], descriptor: int) -> Fork:
    return fork_worker(command[2:], dict(os.environ), (1, 2), descriptor)


def fork_worker(
    flags: list[str], environment: dict[str, str], outputs: tuple[int, int], *inherited: int, has_session: bool = False
) -> Fork:
    """Start a worker with these flags of the command, stdout and stderr."""
    program = WORKER._replace(has_session=has_session)
    return fork_server(IMPORTS).fork(program, flags, environment, outputs, *inherited)
