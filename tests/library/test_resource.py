"""Resources: opened once in each process, shared by threads, closed at exit; a node that cannot open one goes back."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from dagorama import (
    DAGDefinition,
    ResourceNotOpened,
    cancel,
    dagorama,
    resolve,
    resource,
)
from dagorama.client.connection import connection
from tests.support.brokers import launch_broker
from tests.support.workers import launch_workers

events: list[str] = []


@resource
def thing() -> Iterator[object]:
    """Return a new object."""
    events.append("open")
    yield object()
    events.append("close")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    thing.close()
    events.clear()
    yield
    thing.close()


# --- in one process ---------------------------------------------------------------------------------------


def test_it_is_opened_by_the_first_call_and_once() -> None:
    assert events == []
    assert thing() is thing()
    assert events == ["open"]


def test_it_is_closed_once_and_opened_again_by_the_next_call() -> None:
    first = thing()
    thing.close()
    thing.close()
    assert events == ["open", "close"]
    assert thing() is not first


def test_threads_share_it() -> None:
    barrier = Barrier(8)

    def get(_: int) -> object:
        barrier.wait()
        return thing()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(get, range(8)))) == 1
    assert events == ["open"]


def test_a_test_can_put_another_value_in_its_place() -> None:
    with thing.override("fake"):
        assert thing() == "fake"
        with thing.override("inner"):
            assert thing() == "inner"
        assert thing() == "fake"
    assert events == []


class Compared:
    """A value such as an array of numpy: it is compared by element, so the result is no bool."""

    def __eq__(self, other: object) -> Any:
        return Elementwise()


class Elementwise:
    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


def test_values_that_cannot_be_compared_can_be_put_in_its_place_too() -> None:
    outer, inner = Compared(), Compared()
    with thing.override(outer):
        with thing.override(inner):
            assert thing() is inner
        assert thing() is outer


def test_an_override_that_ends_first_takes_its_own_value_away_and_no_equal_one() -> None:
    first, second, third = [0], [1], [0]
    contexts = [thing.override(value) for value in (first, second, third)]
    for context in contexts:
        context.__enter__()
    contexts[2].__exit__(None, None, None)
    assert thing() is second
    contexts[1].__exit__(None, None, None)
    assert thing() is first
    contexts[0].__exit__(None, None, None)
    assert events == []


def test_it_keeps_the_name_and_the_docstring_of_its_function() -> None:
    assert thing.__name__ == "thing"
    assert thing.__doc__ == "Return a new object."
    assert "test_resource.thing" in repr(thing)


def test_a_copy_of_it_is_the_same_resource() -> None:
    assert pickle.loads(pickle.dumps(thing))() is thing()


def test_a_fork_opens_its_own() -> None:
    mine = id(thing())
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            events.clear()
            thing()
            os.write(writing, ",".join(events).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"open"
    assert id(thing()) == mine
    assert events == ["open"]


@pytest.mark.parametrize("factory", [lambda: 1, print, "text", iter, object])
def test_a_function_that_yields_nothing_is_refused_at_once(factory: Any) -> None:
    with pytest.raises(TypeError, match="generator function"):
        resource(factory)


def failing(error: Callable[[], Exception]) -> Callable[[], object]:
    @resource
    def broken() -> Iterator[object]:
        raise error()
        yield

    return broken


def test_an_error_says_which_resource_and_why_and_has_the_cause() -> None:
    with pytest.raises(ResourceNotOpened, match=r"broken could not be opened: OSError: no GPU") as caught:
        failing(lambda: OSError("no GPU"))()
    assert isinstance(caught.value.__cause__, OSError)


def test_the_next_call_tries_again() -> None:
    tries: list[int] = []

    @resource
    def slow_to_start() -> Iterator[int]:
        tries.append(1)
        if len(tries) < 2:
            raise OSError("not yet")
        yield 7

    with pytest.raises(ResourceNotOpened):
        slow_to_start()
    assert slow_to_start() == 7
    slow_to_start.close()


def test_one_resource_can_use_another_but_not_itself() -> None:
    @resource
    def outer() -> Iterator[tuple[object]]:
        yield (thing(),)

    assert outer() == (thing(),)
    outer.close()

    @resource
    def snake() -> Iterator[object]:
        yield snake()

    with pytest.raises(ResourceNotOpened, match="needs itself"):
        snake()


def test_a_function_that_yields_not_at_all_or_twice_is_told() -> None:
    @resource
    def empty() -> Iterator[int]:
        yield from ()

    @resource
    def twice() -> Iterator[int]:
        yield 1
        yield 2

    with pytest.raises(ResourceNotOpened, match="yields nothing"):
        empty()
    assert twice() == 1
    with pytest.raises(RuntimeError, match="more than once"):
        twice.close()


# --- in workers -------------------------------------------------------------------------------------------


@resource
def model() -> Iterator[str]:
    folder = Path(os.environ["MODEL_FOLDER"])
    name = f"{os.getpid()}"
    (folder / f"opened-{name}").touch()
    yield name
    (folder / f"closed-{name}").touch()


class Uses(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, count: int) -> list[str]:
        return [self.use(number) for number in range(count)]

    @dagorama().syncfn
    def use(self, number: int) -> str:
        return model()


@resource
def missing() -> Iterator[object]:
    raise FileNotFoundError("weights.bin")
    yield


class Lacks(DAGDefinition):
    @dagorama(max_deaths=1).syncfn
    def entrypoint(self) -> object:
        return missing()


def test_each_process_of_a_worker_opens_it_once_and_closes_it_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_FOLDER", f"{tmp_path}")
    with launch_broker(0):
        with launch_workers(2):
            used = {*resolve(*Uses()(40), timeout=60)}
        opened = {path.name for path in tmp_path.glob("opened-*")}
        closed = {path.name for path in tmp_path.glob("closed-*")}
    assert opened == {f"opened-{name}" for name in used}
    assert closed == {f"closed-{name}" for name in used}


def test_a_node_that_cannot_open_one_waits_for_another_worker_and_says_why() -> None:
    with launch_broker(0), launch_workers(1):
        instance, promise = Lacks()()
        with pytest.raises(TimeoutError, match=r"it cannot open a resource.*missing.*weights\.bin"):
            resolve(instance, promise, timeout=5)
        (node,) = connection().list_nodes(instance.instance_id.bytes)
        assert (node.failed_attempts, node.crashes) == (0, 0)
        cancel(instance)
