"""`dagorama show --arguments` and `dagorama debug` with values that are JSON, and with pickles."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from dagorama import DAGDefinition, NodeFailed, dagorama, execute_worker, resolve
from dagorama.values.keys import new_key
from tests.support.brokers import launch_broker
from tests.support.commands import data, forked, printed


@dataclass
class Order:
    name: str
    prices: list[float]


class Bill(DAGDefinition, codec="json"):
    @dagorama
    def entrypoint(self, order: Order, tip: float = 0) -> str:
        return self.text(self.total(order), tip=tip)

    @dagorama
    def total(self, order: Order) -> float:
        return sum(order.prices)

    @dagorama
    def text(self, total: float, *, tip: float) -> str:
        return f"{total + tip:.2f}\x1b[31m"


OF_A_FOLDER = """
from dataclasses import dataclass

from dagorama import DAGDefinition, dagorama


@dataclass
class Point:
    x: int


class Drawn(DAGDefinition):
    @dagorama
    def entrypoint(self, point: Point) -> int:
        return point.x


def made():
    return Drawn()(Point(3))
"""


@pytest.fixture(scope="module")
def bill() -> Iterator[str]:
    with launch_broker(port=0):
        instance, promise = Bill()(Order("a" * 2_000, [1.0, 2.5]), tip=0.5)
        execute_worker(infinite_loop=False)
        assert resolve(instance, promise, timeout=0) == "4.00\x1b[31m"
        yield str(instance.instance_id)


def test_json_is_shown_by_parameter_with_names_for_promises(bill: str) -> None:
    first, total, text = (data("show", bill, f"/{number}", "--arguments") for number in (1, 2, 3))
    assert total["value"] == ["3.5"]
    assert first["arguments"][1] == "tip=0.5"
    assert text["arguments"] == [f'total="<value of node {bill[:8]}/2>"', "tip=0.5"]
    assert first["value"] == [f'"<value of node {bill[:8]}/3>"']


def test_long_values_are_cut_and_escapes_do_not_reach_a_terminal(bill: str) -> None:
    shown = data("show", bill, "/2", "--arguments")["arguments"][0]
    assert shown.startswith('order={"name": "aaa')
    assert (shown.endswith("a ..."), len(shown) < 1_100) == (True, True)
    assert '"4.00\\u001b[31m"' in printed("show", bill, "/3", "--arguments")


def test_without_the_key_json_is_shown_as_not_verified(bill: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", new_key())
    shown = data("show", bill, "/2", "--arguments")
    assert shown["value"][0].startswith("not verified: the signing key")
    assert shown["value"][1] == "3.5"
    assert shown["arguments"][0].startswith("not verified: the signing key")


def test_values_are_only_asked_for_with_the_option(bill: str) -> None:
    shown = data("show", bill, "/2")
    assert (shown["arguments"], shown["value"]) == (None, None)


def test_arguments_are_unpickled_with_the_modules_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_this_folder.py").write_text(OF_A_FOLDER)
    monkeypatch.chdir(tmp_path)
    with launch_broker(port=0):
        with monkeypatch.context() as here:
            here.syspath_prepend(tmp_path)
            instance, _ = import_module("of_this_folder").made()
            here.delitem(sys.modules, "of_this_folder")
        with monkeypatch.context() as path:
            path.setattr(sys, "path", list(sys.path))
            shown = data("show", instance.instance_id, "/1", "--arguments")
    assert shown["arguments"] == ["Point(x=3)"]


def test_debug_prints_a_json_result_as_json(bill: str) -> None:
    ran = forked("debug", bill, "/2")
    assert (ran.returncode, ran.stdout) == (0, "3.5\n")
    assert "value of node" not in forked("debug", bill, "/3").stdout


class Wrong(DAGDefinition, codec="json"):
    @dagorama
    def entrypoint(self) -> int:
        return "text"  # type: ignore[return-value]


def test_a_result_of_a_wrong_type_says_where_to_read_more() -> None:
    with launch_broker(port=0):
        instance, promise = Wrong()()
        execute_worker(infinite_loop=False)
        with pytest.raises(NodeFailed):
            resolve(instance, promise, timeout=0)
        shown = printed("show", instance.instance_id, "/1")
    assert "TypeMismatch: Wrong.entrypoint(): the result is of type str; int is expected" in shown
    assert "errors.md#typemismatch" in shown
