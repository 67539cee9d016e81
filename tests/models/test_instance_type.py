"""What `type(self)` and special methods are in a node: those of the definition's class."""

import copy
import gc
import pickle
import typing
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any
from uuid import UUID

import pytest

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance
from dagorama.errors import ReservedName


class Base(DAGDefinition):
    """A base."""

    LIMIT = 3

    def entrypoint(self) -> None: ...

    @classmethod
    def named(cls) -> str:
        return cls.__name__

    @staticmethod
    def doubled(number: int) -> int:
        return 2 * number


class Task(Base):
    LIMIT = 7
    size: int = 2

    def __init__(self, start: int = 0) -> None:
        self.start = start

    @dagorama().syncfn
    def step(self, number: int) -> int:
        return number

    def plain(self) -> Any:
        return self


class Derived(Task):
    pass


def instance_of(definition: DAGDefinition, number: int = 1) -> Any:
    return DAGInstance(UUID(int=number), definition)


@pytest.fixture
def task() -> Any:
    return instance_of(Task())


# --- the type


def test_the_type_has_what_the_class_has(task: Any) -> None:
    kind = type(task)
    assert (kind.LIMIT, kind.named(), kind.doubled(4)) == (7, "Task", 8)
    assert kind.plain(task) is task
    assert (kind.__name__, kind.__qualname__, kind.__module__) == ("Task", "Task", __name__)
    assert kind.__doc__ == Task.__doc__
    assert kind.step is Task.step
    with pytest.raises(AttributeError, match="'Task' has no attribute 'missing'"):
        _ = kind.missing


def test_the_type_shows_what_the_class_shows(task: Any) -> None:
    kind = type(task)
    assert dir(kind) == dir(Task)
    assert (kind.__mro__, kind.__bases__) == (Task.__mro__, (Base,))
    assert dict(vars(kind)) == dict(vars(Task))
    assert kind.__annotations__ == Task.__annotations__
    assert typing.get_type_hints(kind) == typing.get_type_hints(Task)
    assert kind.__subclasses__() == [Derived]
    assert repr(kind) == repr(Task)


def test_calling_the_type_makes_a_definition(task: Any) -> None:
    made = type(task)(5)
    assert type(made) is Task
    assert made.start == 5


def test_the_type_equals_its_class_and_is_found_under_it(task: Any) -> None:
    kind = type(task)
    assert kind == Task
    assert Task == kind
    assert kind != Base
    assert {Task: "found"}[kind] == "found"
    assert kind is type(instance_of(Task(3), 2))


def test_the_type_takes_part_in_checks_as_its_class_does(task: Any) -> None:
    kind = type(task)
    assert isinstance(task, kind)
    assert isinstance(Task(), kind)
    assert isinstance(instance_of(Derived()), kind)
    assert not isinstance(instance_of(Base()), kind)
    assert issubclass(kind, Task)
    assert issubclass(kind, Base)
    assert issubclass(Derived, kind)
    assert not issubclass(kind, Derived)
    assert issubclass(kind, DAGInstance)


def test_what_is_set_on_the_type_is_set_on_the_class(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "LIMIT", 8)
    type(task).LIMIT += 1
    assert Task.LIMIT == 9
    type(task).made = 1
    del type(task).made
    assert not hasattr(Task, "made")


def test_the_type_is_pickled_as_its_class(task: Any) -> None:
    assert pickle.loads(pickle.dumps(type(task))) is Task
    assert copy.deepcopy(type(task)) is type(task)


def test_a_class_that_is_gone_takes_the_type_with_it() -> None:
    class Short(DAGDefinition):
        def entrypoint(self) -> None: ...

        def __len__(self) -> int:
            return len(repr(super()))

    gone = weakref.ref(Short)
    kind = weakref.ref(type(instance_of(Short())))
    del Short
    gc.collect()
    assert gone() is None
    gc.collect()  # the first one only took the type out of the table
    assert kind() is None


# --- special methods


class Container(DAGDefinition):
    def __init__(self) -> None:
        self.items = [3, 1, 2]
        self.entered = 0

    def entrypoint(self) -> None: ...

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[int]:
        yield from self.items

    def __getitem__(self, place: int) -> int:
        return self.items[place]

    def __contains__(self, item: object) -> bool:
        return item in self.items

    def __add__(self, other: int) -> int:
        return sum(self.items) + other

    def __enter__(self) -> Any:
        self.entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.entered -= 1

    def __str__(self) -> str:
        return "a container"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.items == other.items


class Sized(Container):
    def __len__(self) -> int:
        return super().__len__() + 10


def test_special_methods_act_on_the_instance() -> None:
    container = instance_of(Container())
    container.items = [5, 6]
    assert (len(container), list(container), container[1], 5 in container, container + 1) == (2, [5, 6], 6, True, 12)
    assert (str(container), f"{container}") == ("a container", "a container")
    with container as inside:
        assert inside is container
        assert container.entered == 1
    assert container.definition.entered == 0


def test_special_methods_are_inherited_and_reach_super() -> None:
    assert len(instance_of(Sized())) == 13


def test_what_a_class_does_not_support_an_instance_does_not(task: Any) -> None:
    assert task
    with pytest.raises(TypeError, match="'Task'"):
        len(task)
    with pytest.raises(TypeError):
        iter(task)


def test_equality_that_a_class_defines_is_that_of_its_instances() -> None:
    assert instance_of(Container()) == instance_of(Container(), 2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(instance_of(Container()))


@dataclass
class Configured(DAGDefinition):
    factor: int = 1

    def entrypoint(self) -> None: ...


def test_instances_of_a_dataclass_are_runs_that_differ_and_can_be_keys() -> None:
    one, other = instance_of(Configured()), instance_of(Configured(), 2)
    assert one != other
    assert {one: 1, other: 2}[one] == 1
    assert "instance 00000000" in repr(one)


def test_the_functions_of_dataclasses_take_an_instance() -> None:
    configured = instance_of(Configured(4))
    assert [field.name for field in fields(configured)] == ["factor"]
    assert replace(configured, factor=5) == Configured(5)


# --- names that dagorama uses


def test_a_class_that_uses_a_name_of_ours_is_refused() -> None:
    with pytest.raises(ReservedName, match=r"Method\.definition: dagorama uses the name 'definition' itself"):
        type("Method", (DAGDefinition,), {"definition": lambda self: 1})
    for name in ("instance_id", "attach", "__call__", "_dagorama_id", "_dagorama_anything"):
        with pytest.raises(ReservedName, match=name):
            type("Attribute", (DAGDefinition,), {name: 1})
    with pytest.raises(ReservedName, match="give the attribute or method another name"):
        type("Property", (DAGDefinition,), {"definition": property(lambda self: 1)})
    with pytest.raises(ReservedName):
        type("Annotated", (DAGDefinition,), {"__annotations__": {"definition": str}})
    with pytest.raises(ReservedName):
        type("Slotted", (DAGDefinition,), {"__slots__": ("definition",)})


def test_a_name_of_ours_is_refused_in_a_mixin_too() -> None:
    class Mixin:
        def definition(self) -> None: ...

    with pytest.raises(ReservedName, match=r"Mixin\.definition, which .*Mixed inherits"):

        class Mixed(Mixin, DAGDefinition):
            def entrypoint(self) -> None: ...


class SetsOurs(DAGDefinition):
    def __init__(self) -> None:
        self.definition = "of a word"

    def entrypoint(self) -> None: ...


def test_a_name_of_ours_that_was_set_on_a_definition_is_refused_when_it_is_called() -> None:
    with pytest.raises(ReservedName, match=r"SetsOurs\.definition"):
        SetsOurs()()


def test_a_node_cannot_set_or_delete_a_name_of_ours(task: Any) -> None:
    for name in ("definition", "instance_id", "_dagorama_scope"):
        with pytest.raises(ReservedName, match=name):
            setattr(task, name, 1)
        with pytest.raises(ReservedName, match=name):
            delattr(task, name)
    assert type(task.definition) is Task
