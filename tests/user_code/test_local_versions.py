"""Classes of one name that differ in what their source does not show: each instance runs on its own class."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition
from dagorama.user_code.class_code import code_of
from dagorama_testing import run_inline

Make = Callable[[int], type[DAGDefinition]]


class Setting:
    def __init__(self, value: int) -> None:
        self.value = value

    def get(self) -> int:
        return self.value


def first(value: int, *_: object) -> int:
    return value


def by_mixin(number: int) -> type[DAGDefinition]:
    class Mixin:
        def number(self) -> int:
            return number

    class Task(Mixin, DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            return self.number()

    return Task


def by_attribute(number: int) -> type[DAGDefinition]:
    class Task(DAGDefinition):
        setting = Setting(number)

        @dagorama
        def entrypoint(self) -> int:
            return self.setting.value

    return Task


def by_partial(number: int) -> type[DAGDefinition]:
    get = functools.partial(first, number)

    class Task(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            return get()

    return Task


def by_bound_method(number: int) -> type[DAGDefinition]:
    class Task(DAGDefinition):
        get = staticmethod(Setting(number).get)

        @dagorama
        def entrypoint(self) -> int:
            return self.get()

    return Task


def by_default(number: int) -> type[DAGDefinition]:
    class Task(DAGDefinition):
        @dagorama
        def entrypoint(self, given: tuple[Setting, ...] = (Setting(number),)) -> int:
            return given[0].value

    return Task


def by_field(number: int) -> type[DAGDefinition]:
    @dataclass
    class Task(DAGDefinition):
        number: int = field(default_factory=lambda: number)

        @dagorama
        def entrypoint(self) -> int:
            return self.number

    return Task


def by_methods(number: int) -> type[DAGDefinition]:
    """The decorated methods have the same code, but are not in both classes."""

    class Task(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            return getattr(self, "second", self.first)()

        @dagorama
        def first(self) -> int:
            return 1

        if number == 2:

            @dagorama
            def second(self) -> int:
                return 2

    return Task


@pytest.mark.parametrize(
    "make", [by_mixin, by_attribute, by_partial, by_bound_method, by_default, by_field, by_methods]
)
def test_an_instance_runs_on_its_own_class(make: Make) -> None:
    one, two = make(1), make(2)
    assert [run_inline(cls()) for cls in (one, two, one)] == [1, 2, 1]


def test_a_json_result_is_read_by_the_types_of_its_own_class() -> None:
    def make(kind: type) -> type[DAGDefinition]:
        class Task(DAGDefinition, codec="json"):
            @dagorama
            def entrypoint(self) -> kind:  # type: ignore[valid-type]  # the types differ, and the source does not
                number: kind = self.number()  # type: ignore[valid-type]  # as above
                return number

            @dagorama
            def number(self) -> kind:  # type: ignore[valid-type]  # as above
                return 1

        return Task

    whole, fraction = make(int), make(float)
    found: list[Any] = [run_inline(cls()) for cls in (whole, fraction, whole)]
    assert [type(value) for value in found] == [int, float, int]


def test_options_count_for_a_class_that_is_sent_by_value() -> None:
    def make(seconds: float) -> type[DAGDefinition]:
        class Task(DAGDefinition):
            @dagorama(timeout=seconds)
            def entrypoint(self) -> int:
                return 1

        return Task

    assert code_of(make(1)).text == code_of(make(1)).text != code_of(make(2)).text
