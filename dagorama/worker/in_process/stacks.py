"""The stacks of the threads of this process, for a question where a node of its own worker stands."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator

from dagorama.api import broker_pb2 as pb

NOTE = "the worker runs in the process of a program, whose other threads are shown too"


def stack_reply(request: pb.StackRequest, is_running: bool) -> pb.StackReply:
    """Return the answer to a question about a node."""
    if not is_running:
        return pb.StackReply(number=request.number, problem="the worker does not run the node now")
    return pb.StackReply(number=request.number, stack="\n".join(_stacks()), note=NOTE)


def _stacks() -> Iterator[str]:
    """Yield the stack of each thread but this one, the latest call first, as faulthandler does."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            yield f"Thread {names.get(ident, ident)} (most recent call first):"
            for called in reversed(traceback.extract_stack(frame)):
                yield f'  File "{called.filename}", line {called.lineno} in {called.name}'
