"""Looking for promises in plain data, as the original's callers do: classes, sharing and cycles are kept."""

from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from dagorama.inspection import extract_promise_identifiers, find_promises, map_promises, resolve_promises
from dagorama.models.promise import DAGPromise


def promise(number: int) -> DAGPromise[Any]:
    return DAGPromise(identifier=UUID(int=number))


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass
class Config:
    name: Any
    parts: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    inner: Any


class Tagged(list[Any]):
    tag = "none"


def number(found: DAGPromise[Any]) -> int:
    return found.identifier.int


CONTAINERS: dict[str, tuple[Any, Any]] = {
    "promise": (promise(1), 1),
    "list": ([promise(1), "a"], [1, "a"]),
    "tuple": ((promise(1), "a"), (1, "a")),
    "dict value": ({"a": promise(1)}, {"a": 1}),
    "dict key": ({promise(1): "a"}, {1: "a"}),
    "set": ({promise(1), "a"}, {1, "a"}),
    "frozenset": (frozenset({promise(1)}), frozenset({1})),
    "namedtuple": (Point(0, promise(1)), Point(0, 1)),
    "Counter": (Counter({"a": promise(1)}), Counter(a=1)),
    "defaultdict": (defaultdict(list, a=[promise(1)]), defaultdict(list, a=[1])),
    "OrderedDict": (OrderedDict(b=promise(1), a=2), OrderedDict(b=1, a=2)),
    "deque": (deque([promise(1), 2], maxlen=2), deque([1, 2], maxlen=2)),
    "dataclass": (Config(promise(1), [promise(1)]), Config(1, [1])),
    "frozen dataclass": (Frozen((promise(1),)), Frozen((1,))),
    "frozen dataclass in a set": ({Frozen((promise(1),))}, {Frozen((1,))}),
    "list subclass": (Tagged([promise(1)]), Tagged([1])),
    "nested": ([{"a": (promise(1), [{promise(1)}])}], [{"a": (1, [{1}])}]),
}


@pytest.mark.parametrize(("value", "mapped"), CONTAINERS.values(), ids=CONTAINERS)
def test_a_promise_is_found_and_mapped_in_every_container_which_keeps_its_class(value: Any, mapped: Any) -> None:
    assert find_promises(value) == [promise(1)]
    again = map_promises(value, number)
    assert again == mapped
    assert type(again) is type(mapped)
    assert getattr(again, "maxlen", None) == getattr(mapped, "maxlen", None)
    assert getattr(again, "default_factory", None) == getattr(mapped, "default_factory", None)


def test_the_original_is_left_as_it_was() -> None:
    value = {"a": [promise(1), Config("x", [promise(2)])]}
    map_promises(value, number)
    assert value == {"a": [promise(1), Config("x", [promise(2)])]}


def test_what_a_container_carries_beside_its_items_stays() -> None:
    value = Tagged([promise(1)])
    value.tag = "kept"
    assert map_promises(value, number).tag == "kept"


def test_promises_are_found_once_each_in_the_order_in_which_they_are_met() -> None:
    value = [promise(3), {"a": promise(1), promise(4): promise(3)}, (promise(2), promise(1))]
    assert [number(found) for found in find_promises(value)] == [3, 1, 4, 2]


def test_the_order_in_a_set_does_not_depend_on_the_process() -> None:
    value = {promise(n) for n in (5, 3, 9, 1)}
    assert [number(found) for found in find_promises([value, "x"])] == [1, 3, 5, 9]


def test_promises_in_a_promises_arguments_are_not_found() -> None:
    made = DAGPromise._made(bytes(12), 1, bytes(16), "m:C.f", (promise(9),), {}, None)
    assert find_promises([made]) == [made]


def test_the_mapper_is_asked_once_for_each_promise() -> None:
    asked: list[int] = []

    def ask(found: DAGPromise[Any]) -> list[int]:
        asked.append(number(found))
        return [number(found)]

    values = map_promises([promise(1), (promise(2), promise(1))], ask)
    assert asked == [1, 2]
    assert values[0] is values[1][1]


def test_sharing_is_kept() -> None:
    part = [promise(1)]
    first, second = map_promises([part, {"a": part}], number)
    assert first is second["a"]


def test_what_contains_itself_still_does() -> None:
    items: list[Any] = [promise(1)]
    items.append(items)
    again = map_promises(items, number)
    assert again[0] == 1
    assert again[1] is again


def test_cycles_through_tuples_and_dataclasses_are_kept() -> None:
    inner: list[Any] = [promise(1)]
    cycle = (inner, {"config": Config(promise(2))})
    inner.append(cycle)
    cycle[1]["config"].parts.append(cycle)
    again = map_promises(cycle, number)
    assert again[0][0] == 1
    assert again[0][1] is again
    assert again[1]["config"].name == 2
    assert again[1]["config"].parts[0] is again
    assert find_promises(cycle) == [promise(1), promise(2)]


def test_deep_and_wide_data_is_walked_without_recursion() -> None:
    deep: Any = promise(1)
    for _ in range(20_000):
        deep = [deep]
    mapped = map_promises(deep, number)
    for _ in range(20_000):
        (mapped,) = mapped
    assert mapped == 1
    assert len(find_promises([promise(n) for n in range(100_000)])) == 100_000


def test_shared_parts_are_walked_once() -> None:
    value: Any = [promise(1)]
    for _ in range(200):
        value = [value, value]
    assert find_promises(value) == [promise(1)]
    map_promises(value, number)


def test_other_objects_are_left_alone() -> None:
    class Other:
        inner = promise(1)

    other = Other()
    assert find_promises([other, Config, "text", None]) == []
    assert map_promises([other], number) == [other]


def test_values_take_the_place_of_their_promises() -> None:
    values = {str(promise(1).identifier): [1], str(promise(2).identifier): None}
    assert resolve_promises({"a": promise(1), "b": (promise(2),)}, values) == {"a": [1], "b": (None,)}


def test_a_promise_without_a_value_is_named() -> None:
    with pytest.raises(ValueError, match=str(promise(3).identifier)):
        resolve_promises([promise(3)], {})


def test_an_unhashable_value_cannot_be_a_member_of_a_set() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        map_promises({promise(1)}, lambda found: [found])


def test_identifiers_are_all_that_is_left_of_extracted_promises() -> None:
    made = DAGPromise._made(bytes(12), 1, bytes(16), "m:C.f", (1,), {}, ("app.py", 1))
    (left,) = extract_promise_identifiers([made])
    assert left == made
    assert (left.function_name, left.arguments, left.instance_id) == (None, None, None)
