"""Definitions and their instances: an instance behaves as its definition and shares nothing with another."""

import copy
import functools
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from dagorama.decorators import dagorama
from dagorama.definition import (
    DAGDefinition,
    DAGInstance,
    dagorama_context,
    generate_instance_id,
    resolve,
)
from dagorama.errors import (
    DefinitionNotRegistered,
    NotFound,
    NotInInstance,
    PromiseMisuse,
    WrongInstance,
)
from dagorama.models.promise import DAGPromise
from dagorama.serializer import register_definition
from tests.support.recording_broker import RecordingBroker


class Rollup(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> Counter[int]:
        return self.rollup([self.work(number) for number in range(4)])

    @dagorama().syncfn
    def work(self, number: int) -> int:
        return number // 2

    @dagorama().syncfn
    def rollup(self, results: list[int]) -> Counter[int]:
        return Counter(results)


class PlainEntry(Rollup):
    """Its entry point is not decorated: the first nodes are made where the definition is called."""

    def entrypoint(self) -> Counter[int]:  # type: ignore[override]  # it is plain
        return self.rollup([self.work(number) for number in range(4)])


class AsyncRollup(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, pieces: int) -> int:
        return await self.total([await self.work(number) for number in range(pieces)])

    @dagorama().asyncfn
    async def work(self, number: int) -> int:
        return number

    @dagorama().asyncfn
    async def total(self, results: list[int]) -> int:
        return sum(results)


class AsyncPlainEntry(AsyncRollup):
    async def entrypoint(self, pieces: int) -> int:  # type: ignore[override]  # it is plain
        return await self.total([await self.work(number) for number in range(pieces)])


# --- calling a definition


def test_a_call_gives_an_instance_and_a_promise(broker: RecordingBroker) -> None:
    instance, promise = Rollup()()
    assert isinstance(instance, DAGInstance)
    assert isinstance(promise, DAGPromise)
    assert broker.instances[instance.instance_id.bytes].entry == promise.node_id == broker.only.id
    assert broker.instances[instance.instance_id.bytes].definition == f"{__name__}:Rollup"
    assert promise.instance_id == instance.instance_id


def test_the_whole_graph_comes_out(broker: RecordingBroker) -> None:
    instance, promise = Rollup()()
    broker.run()
    assert resolve(instance, promise) == Counter({0: 2, 1: 2})


def test_a_plain_entry_point_sends_all_its_nodes_at_once(broker: RecordingBroker) -> None:
    instance, promise = PlainEntry()()
    assert broker.submissions == 1
    assert len(broker.nodes) == 5
    assert broker.called("rollup")[0].sources == [node.id for node in broker.called("work")]
    broker.run()
    assert resolve(instance, promise) == Counter({0: 2, 1: 2})


@pytest.mark.parametrize("definition", [AsyncRollup, AsyncPlainEntry])
async def test_an_async_entry_point_is_awaited(broker: RecordingBroker, definition: type[AsyncRollup]) -> None:
    instance, promise = await definition()(3)
    assert broker.submissions == 1
    broker.run()
    assert resolve(instance, promise) == 3


def test_a_promise_of_the_entry_point_was_made_where_the_definition_was_called(broker: RecordingBroker) -> None:
    _, promise = Rollup()()
    assert promise._place is not None
    assert promise._place[0] == __file__


def test_a_plain_entry_point_may_return_no_promise(broker: RecordingBroker) -> None:
    class Several(Rollup):
        def entrypoint(self) -> Any:  # type: ignore[override]  # it is plain
            return [self.work(number) for number in (2, 4)]

    several: Any = Several()
    instance, promises = several()
    broker.run()
    assert [resolve(instance, promise) for promise in promises] == [1, 2]
    assert resolve(instance, promises) == [1, 2]
    assert broker.instances[instance.instance_id.bytes].entry == b""


def test_an_instance_goes_on_after_its_entry_point(broker: RecordingBroker) -> None:
    instance, promise = PlainEntry()()
    more = instance.work(8)
    broker.run()
    assert resolve(instance, more) == 4
    assert more.node_id[:12] != promise.node_id[:12]


def test_an_instance_made_without_its_definition_takes_calls(broker: RecordingBroker) -> None:
    instance = DAGInstance(generate_instance_id(), Rollup())
    promise = instance.entrypoint()
    broker.run()
    assert resolve(instance, promise) == Counter({0: 2, 1: 2})


def test_a_new_instance_id_is_known_to_the_broker(broker: RecordingBroker) -> None:
    identifier = generate_instance_id()
    assert isinstance(identifier, UUID)
    assert identifier.bytes in broker.instances


def test_the_originals_calls_go_over_the_same_channel(broker: RecordingBroker) -> None:
    from dagorama.api.api_pb2 import InstanceConfigurationMessage

    with dagorama_context() as context:
        assert context.CreateInstance(InstanceConfigurationMessage(identifier="x")).identifier == "x"


# --- entry points that raise


class Raises(Rollup):
    leaked: Any = None

    def entrypoint(self) -> Any:  # type: ignore[override]  # it is plain
        self.__class__.leaked = self
        self.work(1)
        raise ZeroDivisionError


class AsyncRaises(AsyncRollup):
    async def entrypoint(self, pieces: int = 0) -> Any:  # type: ignore[override]  # it is plain
        await self.work(1)
        raise ZeroDivisionError


def test_an_entry_point_that_raises_leaves_nothing(broker: RecordingBroker) -> None:
    with pytest.raises(ZeroDivisionError):
        Raises()()
    assert not broker.requests
    with pytest.raises(NotInInstance, match="after its node had ended"):
        Raises.leaked.work(2)


async def test_an_async_entry_point_that_raises_leaves_nothing(broker: RecordingBroker) -> None:
    with pytest.raises(ZeroDivisionError):
        await AsyncRaises()()
    assert not broker.requests


def test_an_entry_point_that_is_called_wrongly_leaves_nothing(broker: RecordingBroker) -> None:
    with pytest.raises(TypeError):
        AsyncRollup()()  # type: ignore[call-overload]
    assert not broker.requests


# --- promises of other instances


def test_a_promise_of_another_instance_is_refused_with_both_places(broker: RecordingBroker) -> None:
    (_, stranger), (instance, _) = Rollup()(), Rollup()()
    before = len(broker.requests)
    with pytest.raises(WrongInstance, match=rf"work was called at {__file__}:\d+ with .*, made at {__file__}:\d+"):
        instance.work([stranger])
    assert len(broker.requests) == before


def test_an_entry_point_may_not_return_another_instances_promise(broker: RecordingBroker) -> None:
    class Outer(DAGDefinition):
        def entrypoint(self) -> Any:
            _, promise = Rollup()()
            return promise

    with pytest.raises(WrongInstance, match="decorate the entry point"):
        Outer()()
    assert len(broker.instances) == 1


class Inner(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return number + 1


class Calls(DAGDefinition):
    """A node that calls another definition."""

    @dagorama().syncfn
    def entrypoint(self, passed_on: bool) -> Any:
        instance, promise = Inner()(41)
        instance.entrypoint(0)
        return self.use(promise) if passed_on else promise

    @dagorama().syncfn
    def use(self, value: Any) -> Any:
        return value


def test_a_node_may_return_the_promise_of_an_instance_that_it_made(broker: RecordingBroker) -> None:
    instance, promise = Calls()(False)
    broker.run()
    assert resolve(instance, promise) == 42
    assert len(broker.instances) == 2
    assert len(broker.called("entrypoint")) == 3


def test_a_node_may_not_pass_it_on(broker: RecordingBroker) -> None:
    Calls()(True)
    with pytest.raises(WrongInstance, match=r"use was called at .* with .*Inner.entrypoint"):
        broker.run()


# --- an instance behaves as its definition


class Base(DAGDefinition):
    count = 0

    @dagorama().syncfn
    def entrypoint(self) -> Any:
        return self.step(1)

    @dagorama().syncfn
    def step(self, number: int) -> str:
        return f"{type(self).__name__} {self.name()} base {number}"

    def name(self) -> str:
        return "base"

    def plain(self) -> Any:
        return self


class Override(Base):
    @dagorama().syncfn
    def step(self, number: int) -> str:
        return super().step(number + 10)

    def name(self) -> str:
        return "override of " + super().name()


class Inherits(Base):
    def name(self) -> str:
        return "inherits"


class Mixin:
    @dagorama().syncfn
    def mixed(self) -> str:
        return "mixed"


class WithMixin(Mixin, Base):
    @dagorama().syncfn
    def entrypoint(self) -> Any:
        return self.mixed()


def test_a_subclass_override_is_what_runs_and_super_is_a_node_too(broker: RecordingBroker) -> None:
    instance, promise = Override()()
    broker.run()
    assert resolve(instance, promise) == "Override override of base base 11"
    assert [node.function.name for node in broker.nodes.values()] == [
        f"{__name__}:Override.entrypoint",
        f"{__name__}:Override.step",
        f"{__name__}:Override.step@{__name__}:Base",
    ]


def test_an_inherited_method_runs_on_the_subclass(broker: RecordingBroker) -> None:
    instance, promise = Inherits()()
    broker.run()
    assert resolve(instance, promise) == "Inherits inherits base 1"


def test_a_method_may_come_from_a_mixin(broker: RecordingBroker) -> None:
    instance, promise = WithMixin()()
    broker.run()
    assert resolve(instance, promise) == "mixed"


class Everything(Base):
    shared: list[int]

    def __init__(self) -> None:
        self.number = 7
        self.shared = []
        self.third_party = functools.partial(max, 3)
        self.callback: Callable[[int], Any] = len  # type: ignore[assignment]
        self.stored = self.plain
        self._private = "hidden"

    @classmethod
    def made_by_class(cls) -> Any:
        return cls

    @staticmethod
    def static(number: int) -> int:
        return -number

    @property
    def doubled(self) -> int:
        return self.number * 2

    @doubled.setter
    def doubled(self, value: int) -> None:
        self.number = value // 2

    @functools.cached_property
    def expensive(self) -> object:
        return object()

    def __getattr__(self, name: str) -> str:
        if name.startswith("made_up"):
            return name.upper()
        raise AttributeError(name)


@pytest.fixture
def everything() -> Any:
    return DAGInstance(UUID(int=1), Everything())


def test_an_instance_is_of_its_definition_and_a_dag_instance(everything: Any) -> None:
    assert isinstance(everything, Everything)
    assert isinstance(everything, Base)
    assert isinstance(everything, DAGInstance)
    assert not isinstance(everything, Override)
    assert everything.__class__ is Everything


def test_methods_get_the_instance(everything: Any) -> None:
    assert everything.plain() is everything
    assert everything.stored() is everything
    assert everything.made_by_class() is Everything
    assert everything.static(4) == -4


def test_callables_stored_on_self_are_left_alone(everything: Any) -> None:
    assert everything.third_party(2) == 3
    assert everything.callback([1, 2]) == 2


def test_properties_see_the_instance(everything: Any) -> None:
    everything.number = 10
    assert everything.doubled == 20
    everything.doubled = 6
    assert everything.number == 3
    assert everything.definition.number == 7


def test_a_cached_property_is_cached_on_the_instance(everything: Any) -> None:
    assert everything.expensive is everything.expensive
    assert everything.expensive is not DAGInstance(UUID(int=2), everything.definition).expensive


def test_names_that_a_definition_makes_up_are_there(everything: Any) -> None:
    assert everything.made_up_name == "MADE_UP_NAME"
    assert everything._private == "hidden"
    with pytest.raises(AttributeError):
        _ = everything.missing
    assert not hasattr(everything, "missing")


def test_what_an_instance_sets_stays_with_it(everything: Any) -> None:
    other = DAGInstance(UUID(int=2), everything.definition)
    everything.number = 8
    everything.count = 5
    everything.new = "new"
    assert (everything.number, everything.count, everything.new) == (8, 5, "new")
    assert (other.number, other.count, hasattr(other, "new")) == (7, 0, False)
    assert everything.definition.number == 7
    assert Everything.count == 0


def test_what_an_instance_set_can_be_deleted_and_nothing_else(everything: Any) -> None:
    everything.number = 8
    del everything.number
    assert everything.number == 7
    with pytest.raises(AttributeError, match="other instances share"):
        del everything.number
    with pytest.raises(AttributeError):
        del everything.missing
    with pytest.raises(AttributeError):
        del everything.doubled


def test_dir_shows_both(everything: Any) -> None:
    everything.new = 1
    assert {"new", "number", "plain", "instance_id"} <= set(dir(everything))


class Slotted(DAGDefinition):
    __slots__ = ("slot",)

    def __init__(self) -> None:
        self.slot = 1

    def entrypoint(self) -> None: ...


def test_slots_are_readable_and_hidden_by_what_is_set() -> None:
    definition = Slotted()
    instance: Any = DAGInstance(UUID(int=1), definition)
    assert instance.slot == 1
    instance.slot = 2
    assert (instance.slot, definition.slot) == (2, 1)


@dataclass
class Configured(DAGDefinition):
    factor: int

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        self.factor += 1  # dagorama: ignore[DAG008]  # the subject of the test
        return self.scaled(number)

    @dagorama().syncfn
    def scaled(self, number: int) -> int:
        return number * self.factor


def test_what_a_node_sets_on_self_no_other_node_sees(broker: RecordingBroker) -> None:
    definition = Configured(3)
    register_definition(definition)
    instance, promise = definition(5)
    broker.run()
    assert resolve(instance, promise) == 15
    assert definition.factor == 3


# --- instances outlive their process


def test_an_instance_pickles_with_what_it_was_set(everything: Any) -> None:
    everything.definition.third_party = None
    everything.definition.__dict__.pop("stored")
    everything.number = 8
    again = pickle.loads(pickle.dumps(everything))
    assert again.instance_id == everything.instance_id
    assert again.number == 8
    assert again.definition.number == 7
    assert isinstance(again, DAGInstance)


def test_an_instance_can_be_copied(everything: Any) -> None:
    again = copy.copy(everything)
    again.number = 9
    assert (again.number, everything.number) == (9, 7)
    assert again.definition is everything.definition


def test_an_instance_is_made_from_its_text_id() -> None:
    identifier = UUID(int=77)
    instance = DAGInstance(str(identifier), Rollup())
    assert instance.instance_id == identifier
    assert str(identifier) in repr(instance)


def test_attach_gives_back_instance_and_promise(broker: RecordingBroker) -> None:
    made, promise = Rollup()()
    for identifier in (made.instance_id, str(made.instance_id)):
        instance, entry = Rollup.attach(identifier)
        assert instance.instance_id == made.instance_id
        assert entry == promise
    broker.run()
    assert resolve(instance, entry) == Counter({0: 2, 1: 2})


def test_attach_refuses_what_is_not_there(broker: RecordingBroker) -> None:
    made, _ = Rollup()()
    with pytest.raises(NotFound):
        Rollup.attach(UUID(int=5))
    with pytest.raises(WrongInstance, match=f"is of {__name__}:Rollup, not of {__name__}:Inner"):
        Inner.attach(made.instance_id)
    with pytest.raises(NotFound, match="no entry point"):
        Rollup.attach(generate_instance_id())


class NeedsMuch(DAGDefinition):
    def __init__(self, number: int) -> None:
        self.number = number

    @dagorama().syncfn
    def entrypoint(self) -> int:
        return self.number


def test_attach_says_when_a_definition_must_be_registered_first(broker: RecordingBroker) -> None:
    made, _ = NeedsMuch(4)()
    with pytest.raises(DefinitionNotRegistered, match=r"register_definition\(NeedsMuch"):
        NeedsMuch.attach(made.instance_id)
    definition = NeedsMuch(5)
    register_definition(definition)
    instance, _ = NeedsMuch.attach(made.instance_id)
    assert instance.definition is definition


def test_a_definition_without_an_entry_point_cannot_be_made() -> None:
    class Nothing(DAGDefinition):
        pass

    with pytest.raises(TypeError, match="entrypoint"):
        Nothing()


def test_an_async_promise_is_not_taken_for_something_to_await(broker: RecordingBroker) -> None:
    _, promise = PlainEntry()()
    with pytest.raises(PromiseMisuse):
        bool(promise)
