"""Resources that a worker process opens once and uses in many nodes: `@resource` on a generator function."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import update_wrapper
from inspect import isgeneratorfunction
from typing import Generic, TypeVar

from dagorama.errors import ResourceNotOpened
from dagorama.logging import get_logger

T = TypeVar("T")


class _Override(Generic[T]):
    """One `override` context and its value. Contexts are told apart by identity: values may be equal, or arrays."""

    def __init__(self, value: T) -> None:
        self.value = value


class _Open(Generic[T]):
    """A resource of one process: its value, and the generator that closes it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a resource that needs itself must not wait for itself
        self.is_opening = False
        self.generator: Iterator[T] | None = None
        self.value: T | None = None
        self.overrides: list[_Override[T]] = []


#: By process, and by module, name and code of the factory: a class that travels by value brings a copy of its resource.
_opened: dict[tuple[int, str, str, object], _Open[object]] = {}
_lock = threading.Lock()
os.register_at_fork(after_in_child=_opened.clear)  # the parent closes what it has opened


class Resource(Generic[T]):
    """A function that returns the same value whenever it is called in a process; `resource` makes it."""

    __name__: str
    __qualname__: str

    def __init__(self, factory: Callable[[], Iterator[T]]) -> None:
        if not isgeneratorfunction(factory):
            raise TypeError(
                f"@resource needs a generator function, which yields the resource once and closes it afterwards;"
                f" {getattr(factory, '__qualname__', repr(factory))} is none"
            )
        self._factory = factory
        self._key = factory.__module__, factory.__qualname__, factory.__code__
        update_wrapper(self, factory)

    def __call__(self) -> T:
        """Return the resource of this process, which is opened by the first call.

        Raises ResourceNotOpened if that fails; the next call tries again. If a node made the call, its worker returns
        the node, and another worker gets it.
        """
        state = self._state()
        with state.lock:
            if state.overrides:
                return state.overrides[-1].value
            if state.generator is None:
                self._open(state)
            return state.value  # type: ignore[return-value]  # it was opened

    @contextmanager
    def override(self, value: T) -> Iterator[None]:
        """Return this value instead, in this process and within the context: for tests.

        Contexts may be nested, and may end in any order: the latest one that has not ended counts.
        """
        state, override = self._state(), _Override(value)
        with state.lock:
            state.overrides.append(override)
        try:
            yield
        finally:
            with state.lock:
                state.overrides.remove(override)

    def close(self) -> None:
        """Close the resource of this process, if it is open; the next call opens it again. Processes do it at exit."""
        state = self._state()
        with state.lock:
            generator, state.generator, state.value = state.generator, None, None
            if generator is None:
                return
            with suppress(StopIteration):
                next(generator)
                raise RuntimeError(f"the resource {self.__qualname__} yields more than once")

    def __reduce__(self) -> str | tuple[object, ...]:
        """Pickle the resource by name, or with its function if that is pickled by value, as in a script."""
        is_by_value = self.__module__ == "__main__" or "<locals>" in self.__qualname__
        return (Resource, (self._factory,)) if is_by_value else self.__qualname__

    def __repr__(self) -> str:
        return f"<resource {self.__module__}.{self.__qualname__}>"

    def _state(self) -> _Open[T]:
        with _lock:
            return _opened.setdefault((os.getpid(), *self._key), _Open())  # type: ignore[return-value]  # by the key

    def _open(self, state: _Open[T]) -> None:
        if state.is_opening:
            raise ResourceNotOpened(f"the resource {self.__qualname__} needs itself to be opened")
        state.is_opening = True
        generator = self._factory()
        try:
            state.value = next(generator)
        except StopIteration:
            raise ResourceNotOpened(
                f"the resource {self.__qualname__} could not be opened: it yields nothing"
            ) from None
        except ResourceNotOpened:
            raise
        except Exception as error:
            text = f"{type(error).__qualname__}: {error}".rstrip(": ")
            raise ResourceNotOpened(f"the resource {self.__qualname__} could not be opened: {text}") from error
        finally:
            state.is_opening = False
        state.generator = generator
        atexit.register(self._close_at_exit, os.getpid())

    def _close_at_exit(self, process: int) -> None:
        if process != os.getpid():
            return
        try:
            self.close()
        except Exception:
            get_logger().exception("the resource %s could not be closed", self.__qualname__)


def resource(factory: Callable[[], Iterator[T]]) -> Resource[T]:
    """Turn a generator function into a resource that each worker process opens once, and closes when it ends.

    The function yields once: the code before the `yield` opens the resource, such as a model on a GPU or a pool of
    connections, and the code after it closes the resource. Nodes call the function to get the value:

        @resource
        def model() -> Iterator[Model]:
            loaded = Model("weights")
            yield loaded
            loaded.close()

        class Pictures(DAGDefinition):
            @dagorama(taint_name="GPU").syncfn
            def classify(self, picture: bytes) -> int:
                return model().classify(picture)

    The first node that needs the resource opens it, and the time counts towards the node's timeout. If that fails, the
    worker returns the node and is granted no more nodes of that function; `dagorama explain` and `dagorama status` show
    the reason. A process that is killed does not close its resources. Threads and coroutines of a process share the
    resource.
    """
    return Resource(factory)
