"""`wait_for(name, type)`: a node that waits for a value which a person or a program sends.

The rule: no worker holds the node. The broker keeps it, and completes it when the signal comes.
"""

from __future__ import annotations

from functools import lru_cache
from sys import _getframe
from typing import Any, Final, TypeVar, overload

from dagorama.api.contract import WAIT_FUNCTION
from dagorama.errors import NotInInstance
from dagorama.graph.node_batch import FunctionSpec
from dagorama.graph.options import Options
from dagorama.graph.scope import attempt_scope, entry_scope
from dagorama.graph.waits import wait_of
from dagorama.values.signing import WAIT_DIGEST

T = TypeVar("T")

#: The queue that nodes which wait for signals belong to. Workers never see them.
QUEUE = "signals"
#: The default of a wait without default.
NO_DEFAULT: Final[Any] = object()


@overload
def wait_for(name: str, type_: type[T], *, timeout: float | None = None, default: T = ...) -> T: ...
@overload
def wait_for(name: str, type_: Any, *, timeout: float | None = None, default: Any = ...) -> Any: ...
def wait_for(name: str, type_: Any, *, timeout: float | None = None, default: Any = NO_DEFAULT) -> Any:
    """Return the promise of a value that `send()`, `dagorama send` or the dashboard sends to this instance.

    Call it in a node or an entry point; it is typed as the value, as the result of a decorated call is, and is passed
    on in the same way. The node that it creates runs nowhere and holds no slot; it survives restarts, and can be
    cancelled. Signals that come before it are kept and given to it; several waits for a `name` take signals in order.

    `type_` is a type that has a JSON form: a dataclass, a TypedDict, a pydantic model, a plain type or a union of
    these. A value that does not fit fails the node that uses it, with TypeMismatch.

    After `timeout` seconds the node fails with SignalTimeout, or takes `default` if there is one.

    Raises NotInInstance outside of nodes and entry points, TypeMismatch for a type without a JSON form or a default of
    another type, and ValueError for an invalid name or timeout.
    """
    wait = wait_of(name, type_, timeout, None if default is NO_DEFAULT else (default,))
    scope = entry_scope() or attempt_scope()
    if scope is None:
        raise NotInInstance(
            f"wait_for({name!r}) was called outside of an instance: call it in an entry point, or in a @dagorama method"
        )
    frame = _getframe(1)
    return scope.wait(_function(name), wait, (frame.f_code.co_filename, frame.f_lineno))


@lru_cache(maxsize=1024)
def _function(name: str) -> FunctionSpec:
    """Return the function of nodes that wait for this signal."""
    spec = FunctionSpec(f"{WAIT_FUNCTION}{name})", "", "", QUEUE, Options(), None, False, wait_for, wait_for.__name__)
    object.__setattr__(spec, "digest", WAIT_DIGEST)
    return spec
