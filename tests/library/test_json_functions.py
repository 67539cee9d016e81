"""Functions with codec="json": what decorators accept, and what reaches nodes, whatever the codec of the other side."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

import pytest

from dagorama import (
    DAGDefinition,
    NodeFailed,
    StaticRetry,
    TypeMismatch,
    ValueNotReadable,
    batch,
    dagorama,
    outcome,
    put,
    resolve,
    start,
)
from dagorama.calls.functions import from_wrapper
from dagorama.client.connection import connection
from dagorama.client.large_values import LARGE_FROM
from dagorama.errors import InstanceExists
from dagorama.graph.options import Codec
from dagorama.models.failure import Failure
from dagorama.values.json_shown import shown_arguments, shown_result
from dagorama_testing import inline, run_inline

T = TypeVar("T")


@dataclass
class Item:
    name: str
    price: float


@dataclass
class Order:
    items: list[Item]
    note: str | None = None


class Shop(DAGDefinition, codec="json"):
    """JSON and pickle functions that call each other."""

    @dagorama
    def entrypoint(self, count: int) -> dict[str, float]:
        items = [self.item(number) for number in range(count)]
        order = self.passed_on(Order(items, note="of promises"))
        return {"total": self.total(order, self.picked(items[0]))}

    @dagorama
    def item(self, number: int) -> Item:
        return Item(f"no. {number}", number)

    @dagorama
    def total(self, order: Order, first: Item) -> float:
        assert isinstance(order, Order)
        assert order.items[0] == first
        return sum(item.price for item in order.items)

    @dagorama(codec="pickle")
    def picked(self, item: Any) -> Any:
        assert type(item) is Item
        return item

    @dagorama(codec="pickle")
    def passed_on(self, order: Any) -> Any:
        assert all(type(item) is Item for item in order.items)
        return order


def test_json_and_pickle_functions_take_each_others_values() -> None:
    assert run_inline(Shop(), 4) == {"total": 6.0}


def test_a_self_without_a_name_is_no_argument() -> None:
    class Last(DAGDefinition, codec="json"):
        @dagorama
        def entrypoint(self) -> int:
            return self.last(1, 2)

        @dagorama
        def last(*args: int) -> int:  # pyright: ignore[reportGeneralTypeIssues]  # a wrapper may look like this
            return args[-1]

    assert run_inline(Last()) == 2


def test_arguments_and_results_are_json_for_other_readers() -> None:
    with inline():
        instance, promise = Shop()(2)
        assert resolve(instance, promise, timeout=10) == {"total": 1.0}
        link, key = connection(), instance.instance_id.bytes
        shown = {}
        for node in link.list_nodes(key):
            details = link.get_node(key, node.node, arguments=True, value=True)
            name = node.function.name.rpartition(".")[2]
            shown[name] = shown_arguments(details.arguments, lambda _: "x"), shown_result(details.value, lambda _: "x")
    assert shown["item"] == ([("number", "1")], ("", '{"name": "no. 1", "price": 1.0}'))
    assert shown["total"][0] == [("order", '"<value of node x>"'), ("first", '"<value of node x>"')]
    assert shown["entrypoint"] == ([("count", "2")], ("", '{"total": "<value of node x>"}'))
    assert shown["picked"] == (None, None)


class Wrong(DAGDefinition, codec="json"):
    runs = 0

    @dagorama
    def entrypoint(self, how: str) -> int:
        if how == "result":
            return self.result()
        return self.doubled(self.text()) if how == "source" else self.doubled("1")  # type: ignore[call-overload]

    @dagorama(retry=StaticRetry(max_attempts=3, interval=1))
    def result(self) -> int:
        Wrong.runs += 1
        return "one"  # type: ignore[return-value]  # what is tested

    @dagorama(codec="pickle")
    def text(self) -> Any:
        return "one"

    @dagorama(retry=StaticRetry(max_attempts=3, interval=1))
    def doubled(self, number: int) -> int:
        Wrong.runs += 1
        return number * 2


@pytest.mark.parametrize(
    ("how", "words", "runs"),
    [
        ("result", r"result\(\): the result is of type str; int is expected", 1),
        ("source", r"argument 'number' \(the value of a promise\) is of type str; int is expected", 0),
        ("call", r"doubled\(\): argument 'number' is of type str; int is expected", 0),
    ],
)
def test_a_value_of_a_wrong_type_fails_the_node_for_good(how: str, words: str, runs: int) -> None:
    Wrong.runs = 0
    with inline(), pytest.raises(NodeFailed, match=words) as failed:
        resolve(*Wrong()(how), timeout=10)
    assert (failed.value.type, failed.value.attempts) == ("dagorama.errors.TypeMismatch", 1)
    assert Wrong.runs == runs


class Promised(DAGDefinition, codec="json"):
    """Functions that return promises of values of other types than their annotation."""

    @dagorama
    def entrypoint(self, how: str) -> int | list[int | None]:
        found: int | list[int | None] = getattr(self, how)()
        return found

    @dagorama
    def other(self) -> int:
        return self.text()  # type: ignore[return-value]  # what is tested

    @dagorama
    def item(self) -> list[int | None]:
        return [1, self.text()]  # type: ignore[list-item]  # what is tested

    @dagorama
    def nothing(self) -> int:
        return self.none()  # type: ignore[return-value]  # what is tested

    @dagorama
    def fits(self) -> list[int | None]:
        return [self.maybe(), self.none(), self.anything()]

    @dagorama
    def late(self) -> int:
        found: int = self.anything()
        return found

    @dagorama
    def text(self) -> str:
        return "one"

    @dagorama
    def none(self) -> None:
        return None

    @dagorama
    def maybe(self) -> int | str:
        return 1

    @dagorama
    def anything(self) -> Any:
        return 1.5 if self.scaled() is None else 1

    def scaled(self) -> object:
        return True


class Scaled(Promised):
    def scaled(self) -> object:
        return None


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            "other",
            r"Promised\.other\(\): the result is a promise of Promised\.text, which returns str; int is expected",
        ),
        (
            "item",
            r"item\(\): the result\[1\] is a promise of Promised\.text, which returns str; int \| None is expected",
        ),
        ("nothing", r"nothing\(\): the result is a promise of Promised\.none, which returns None; int is expected"),
    ],
)
def test_a_promise_that_can_never_fit_fails_the_node_that_returns_it(how: str, words: str) -> None:
    with inline(), pytest.raises(NodeFailed, match=words) as failed:
        resolve(*Promised()(how), timeout=10)
    assert failed.value.type == "dagorama.errors.TypeMismatch"
    assert failed.value.function.endswith(f"Promised.{how}")


def test_a_promise_that_may_fit_is_returned() -> None:
    assert run_inline(Promised(), "fits") == [1, None, 1]


def test_a_reader_is_told_which_function_returned_a_promise_whose_value_does_not_fit() -> None:
    with (
        inline(),
        pytest.raises(TypeMismatch, match=r"the result of Promised\.late .*float.*int is expected: Promised\.late has"),
    ):
        resolve(*Scaled()("late"), timeout=10)


def test_a_wrong_argument_of_an_entry_point_is_refused_at_the_call() -> None:
    with inline(), pytest.raises(TypeMismatch, match="argument 'count' is of type str; int is expected"):
        Shop()("2")  # type: ignore[arg-type]


class Chain(DAGDefinition, codec="json"):
    @dagorama
    def entrypoint(self, left: int) -> int:
        return self.entrypoint(left - 1) if left else 7


def test_promises_of_promises_are_followed_without_recursion() -> None:
    assert run_inline(Chain(), 1_500) == 7


class Rolled(DAGDefinition, codec="json"):
    @dagorama
    def entrypoint(self) -> list[str]:
        return self.rollup([outcome(self.one(number)) for number in range(3)])

    @dagorama
    def one(self, number: int) -> int:
        return 6 // number

    @dagorama
    def rollup(self, parts: list[int | Failure]) -> list[str]:
        return [part.type if isinstance(part, Failure) else str(part) for part in parts]


def test_a_failure_is_a_value_of_its_own_type() -> None:
    assert run_inline(Rolled()) == ["builtins.ZeroDivisionError", "6", "3"]


class Large(DAGDefinition, codec="json"):
    @dagorama
    async def entrypoint(self, size: int) -> int:
        return await self.length(await self.text(size), "y" * size)

    @dagorama
    async def text(self, size: int) -> str:
        return "x" * size

    @dagorama
    async def length(self, text: str, other: str) -> int:
        await asyncio.sleep(0)
        return len(text) + len(other)


def test_large_values_are_stored_separately() -> None:
    size = 2 * LARGE_FROM
    assert run_inline(Large(), size) == 2 * size


def test_a_stored_value_of_put_is_refused_because_it_is_a_pickle() -> None:
    with inline(), pytest.raises(TypeMismatch, match="stored with put"):
        Chain()(put(3))


class Configured(DAGDefinition):
    def __init__(self, base: int) -> None:
        self.base = base

    @dagorama(codec="json")
    def entrypoint(self, number: int) -> int:
        return number + self.base


def test_constructor_arguments_are_refused_because_they_are_a_pickle() -> None:
    with inline(), pytest.raises(TypeMismatch, match="was constructed with would be sent as a pickle"):
        Configured(1)(2)


def test_a_start_with_equal_json_finds_the_instance() -> None:
    class Total(DAGDefinition, codec="json"):
        @dagorama
        def entrypoint(self, order: Order) -> float:
            return sum(item.price for item in order.items)

    with inline():
        one, _ = start(Total(), id="a")(Order([Item("a", 1)]))
        two, promise = start(Total(), id="a")(Order([Item("a", 1.0)]))
        assert one.instance_id == two.instance_id
        assert resolve(two, promise, timeout=10) == 1.0
        with pytest.raises(InstanceExists):
            start(Total(), id="a")(Order([Item("a", 2.0)]))


def twice(instance: Any) -> None:
    with batch():
        instance.entrypoint(1)
        instance.entrypoint("1")


def test_a_batch_of_calls_is_refused_as_a_whole_if_one_argument_is_wrong() -> None:
    with inline():
        instance, _ = Chain()(0)
        with pytest.raises(TypeMismatch):
            twice(instance)
        assert len(connection().list_nodes(instance.instance_id.bytes)) == 1


# --- code that changes while nodes wait ---------------------------------------------------------------------


class Changing(DAGDefinition, codec="json"):
    @dagorama
    def entrypoint(self, number: int) -> int:
        return self.work(number)

    @dagorama
    def work(self, number: int) -> int:
        return number + 1


def deploy(codec: Codec) -> None:
    """Give the method another codec, as a new version of its module would."""
    decorated = from_wrapper(Changing.work)
    decorated.codec, decorated._json = codec, None
    decorated.forget(Changing)


@pytest.mark.parametrize(("before", "after", "error"), [
    ("json", "pickle", ValueNotReadable), ("pickle", "json", TypeMismatch),
])  # fmt: skip
def test_arguments_of_the_other_codec_are_refused_and_not_loaded(
    before: Codec, after: Codec, error: type[Exception]
) -> None:
    try:
        deploy(before)
        with inline() as world:
            instance, promise = Changing()(1)
            world.run(nodes=1)
            deploy(after)
            with pytest.raises(NodeFailed) as failed:
                resolve(instance, promise, timeout=10)
        assert isinstance(failed.value.__cause__, error)
    finally:
        deploy("json")


# --- decoration -------------------------------------------------------------------------------------------


def test_missing_annotations_are_refused_at_the_decoration() -> None:
    with pytest.raises(TypeMismatch, match=r"One\.work has .*, and its parameter 'number' has no annotation"):

        class One(DAGDefinition):
            @dagorama(codec="json")
            def work(self, number):  # type: ignore[no-untyped-def]
                return number

    with pytest.raises(TypeMismatch, match=r"Two\.work has codec=\"json\", and no annotation of its result"):

        class Two(DAGDefinition, codec="json"):
            @dagorama
            def work(self, number: int):  # type: ignore[no-untyped-def]
                return number


def test_annotations_without_a_json_form_are_refused_at_the_decoration() -> None:
    with pytest.raises(TypeMismatch, match=r"parameter 'items' of .*Task\.work, .*: complex has no JSON"):

        class Task(DAGDefinition):
            @dagorama(codec="json")
            def work(self, items: list[complex]) -> None: ...


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match='codec is \'yaml\': it must be "json" or "pickle"'):
        dagorama(codec="yaml")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="codec is 'yaml'"):

        class Task(DAGDefinition, codec="yaml"):  # type: ignore[arg-type]
            pass


def test_a_name_that_never_exists_is_refused_at_the_first_call() -> None:
    class Task(DAGDefinition, codec="json"):
        @dagorama
        def entrypoint(self, order: Nowhere) -> int:  # type: ignore[name-defined]  # noqa: F821
            return 1

    with inline(), pytest.raises(TypeMismatch, match=r"'Nowhere' is not defined.*at the top level"):
        Task()(1)


class Early(DAGDefinition, codec="json"):
    @dagorama
    def entrypoint(self, late: Late) -> Late:
        return late


class Late(TypedDict):
    number: int


def test_a_name_that_is_defined_later_is_found_at_the_first_call() -> None:
    assert run_inline(Early(), {"number": 1}) == {"number": 1}


def test_local_classes_are_found_in_annotations_that_are_texts() -> None:
    @dataclass
    class Inner:
        number: int

    @dataclass
    class Outer:
        inner: Inner

    class Task(DAGDefinition, codec="json"):
        @dagorama
        def entrypoint(self, outer: Outer) -> Inner:
            return outer.inner

    assert run_inline(Task(), Outer(Inner(1))) == Inner(1)


def defined_elsewhere() -> Any:
    class Task(DAGDefinition, codec="json"):
        @dagorama
        def entrypoint(self, item: Item) -> Item:
            return item

    return Task()


def test_local_names_of_callers_do_not_count() -> None:
    Item = int  # hides the class of the module here
    assert Item("1") == 1
    assert type(run_inline(defined_elsewhere(), globals()["Item"]("a", 1.0))) is globals()["Item"]


def test_subclasses_inherit_the_codec_of_a_class_and_a_method_may_have_another() -> None:
    class Base(DAGDefinition, codec="json"):
        @dagorama
        def entrypoint(self, number: int) -> int:
            return self.work(number)

        @dagorama
        def work(self, number: int) -> int:
            return number

    class Sub(Base):
        @dagorama
        def work(self, number: int) -> int:
            return super().work(number + 1)

    class Plain(Base, codec="pickle"):
        @dagorama
        def work(self, number: int) -> int:
            return number + 10

    codecs = {cls: cls.work._dagorama_decorated.codec for cls in (Base, Sub, Plain)}  # type: ignore[attr-defined]
    assert list(codecs.values()) == ["json", "json", "pickle"]
    assert [run_inline(cls(), 1) for cls in (Base, Sub, Plain)] == [1, 2, 11]


def test_a_generic_record_has_the_type_of_its_arguments() -> None:
    assert run_inline(Boxes(), Box(3)) == Box("3")
    with inline(), pytest.raises(TypeMismatch, match=r"argument 'box'\.content is of type str; int is expected"):
        Boxes()(Box("3"))  # type: ignore[arg-type]


@dataclass
class Box(Generic[T]):
    content: T


class Boxes(DAGDefinition, codec="json"):
    @dagorama
    def entrypoint(self, box: Box[int]) -> Box[str]:
        return Box(str(box.content))
