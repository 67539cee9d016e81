"""Classes whose bases have an `__init_subclass__` that does not call the one of DAGDefinition."""

from __future__ import annotations

from typing import Any

import pytest

from dagorama import DAGDefinition, ReservedName, TypeMismatch, dagorama
from dagorama_testing import run_inline


class Hiding(DAGDefinition, codec="json"):
    made: list[str] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.made.append(cls.__name__)  # and no super().__init_subclass__(**kwargs)


def test_one_runs_like_any_other() -> None:
    class Task(Hiding):
        @dagorama
        def entrypoint(self) -> list[str]:
            return self.named("a")

        @dagorama
        def named(self, first: str) -> list[str]:
            return [first, *self.made]

    assert run_inline(Task()) == ["a", "Task"]


def test_its_methods_have_the_codec_of_its_base() -> None:
    class Task(Hiding):
        @dagorama
        def entrypoint(self, number: int) -> int:
            return number

    with pytest.raises(TypeMismatch):
        Task()("seven")  # type: ignore[arg-type]  # that is the mistake


def test_a_reserved_name_is_refused_when_the_definition_is_made() -> None:
    class Task(Hiding):
        instance_id = 7

        @dagorama
        def entrypoint(self) -> int:
            return 1

    with pytest.raises(ReservedName, match="instance_id"):
        Task()
