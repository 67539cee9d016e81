"""Arrays and values of put() through client, broker and workers: as files that all of them see, and in messages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dagorama import DAGDefinition, RequestRejected, dagorama, put, resolve
from dagorama.values.envelope import large_values
from tests.support.brokers import launch_broker
from tests.support.workers import launch_workers

MIB = 1 << 20
Array = npt.NDArray[np.float64]


class Arrays(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        return self.count([])

    @dagorama().syncfn
    def count(self, arrays: list[Array]) -> int:
        return len(arrays)

    @dagorama().syncfn
    def doubled(self, array: Array) -> Array:
        array *= 2  # it is this node's own
        return array

    @dagorama().syncfn
    def added(self, table: dict[str, Array], number: int) -> float:
        return float(table["a"].sum() + table["b"].sum()) + number

    @dagorama().syncfn
    def spread(self, size: int) -> list[float]:
        table = put({"a": np.ones(size), "b": np.zeros(size)})
        return [self.added(table, number) for number in range(3)]

    @dagorama().syncfn
    def after(self, fifo: str, size: int) -> Array:
        with open(fifo) as file:
            file.read()
        return np.full(size, 7.0)

    @dagorama().syncfn
    def made(self, size: int) -> dict[str, Array]:
        return put({"a": np.ones(size)})


@pytest.fixture(params=["files", "messages"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of values of a broker with two workers."""
    if request.param == "messages":
        monkeypatch.setenv("DAGORAMA_SHARED_FILES", "0")
    with launch_broker(port=0, store=f"sqlite:///{tmp_path / 'store'}"), launch_workers(2):
        yield tmp_path / "store.values"


def values_in(folder: Path) -> set[str]:
    return {file.name for file in folder.rglob("*") if len(file.name) == 64}


def test_arrays_arrive_unchanged_and_writable(store: Path) -> None:
    array = np.random.default_rng(1).random((300, 700))
    instance, _ = Arrays()()
    found = resolve(instance, instance.doubled(array), timeout=60)
    assert (found == array * 2).all()
    found[0, 0] = 1
    assert values_in(store) == {sha256(array.tobytes()).hexdigest(), sha256((array * 2).tobytes()).hexdigest()}
    unfinished = store / "unfinished"
    assert not unfinished.exists() or not os.listdir(unfinished)


def test_what_was_put_once_is_stored_once_and_given_to_many(store: Path) -> None:
    table = put({"a": np.full(MIB, 2.0), "b": np.full(MIB, 3.0)})
    instance, _ = Arrays()()
    promises = [instance.added(table, number) for number in range(20)]
    assert [resolve(instance, promise, timeout=60) for promise in promises] == [5 * MIB + n for n in range(20)]
    assert values_in(store) == {name.hex() for name in large_values(table._envelope)}  # type: ignore[attr-defined]
    assert len(values_in(store)) == 2
    assert not list((store / "unfinished").iterdir())


def test_a_node_puts_what_its_children_share(store: Path) -> None:
    instance, _ = Arrays()()
    assert resolve(instance, instance.spread(200_000), timeout=60) == [200_000, 200_001, 200_002]
    assert len(values_in(store)) == 2
    assert (resolve(instance, instance.made(100_000), timeout=60)["a"] == 1).all()


def test_what_is_past_the_limit_is_refused_before_it_is_put(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama.client.chunks.VALUE_LIMIT", MIB)
    with pytest.raises(RequestRejected, match="is more than dagorama carries"):
        put(bytes(MIB + 1))
    assert not values_in(store)


@pytest.mark.parametrize("shared", ["1", "0"], ids=["files", "messages"])
def test_a_result_that_was_ready_while_the_broker_was_dead_arrives(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGORAMA_SHARED_FILES", shared)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with launch_broker(port=0, store=f"sqlite:///{tmp_path / 'store'}") as broker, launch_workers(1):
        instance, _ = Arrays()()
        promise = instance.after(str(fifo), 100_000)
        with fifo.open("w"):  # when the node has opened it too
            broker.kill()
        broker.restart()
        assert (resolve(instance, promise, timeout=60) == 7).all()
    assert len(values_in(tmp_path / "store.values")) == 1


@pytest.mark.parametrize("socket", ["0", "1"])
def test_values_are_sent_again_if_another_broker_has_replaced_the_one_whose_folder_they_are_in(
    socket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a killed broker stays, and a client that has not noticed yet leaves values there."""
    monkeypatch.setenv("DAGORAMA_LOCAL_SOCKET", socket)
    array = np.arange(MIB, dtype=np.float64)
    with launch_broker(port=0, store=f"sqlite:///{tmp_path / 'first'}") as first:
        put(array)
        port = first.port
    with launch_broker(port=port, store=f"sqlite:///{tmp_path / 'second'}"), launch_workers(1):
        instance, _ = Arrays()()
        assert (resolve(instance, instance.doubled(array + 1), timeout=60) == (array + 1) * 2).all()
    assert not list((tmp_path / "first.values" / "unfinished").iterdir())
