"""The tables of functions that need values: each of them is called with real promises, and fails because of them."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from importlib import import_module
from typing import Any
from uuid import UUID

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations
import pytest

from dagorama import DAGPromise
from dagorama_check.analysis.libraries import (
    MAPPING,
    NEED_ALL_VALUES,
    NEED_ITEMS,
    NEED_VALUES,
    OF_PROMISES,
    PLAIN_RESULTS,
    STUCK,
)
from dagorama_check.checking import check_files
from dagorama_check.codes import DEFAULT_CODES
from dagorama_check.files import made_file

ONE: DAGPromise[Any] = DAGPromise(UUID(int=1))
TWO: DAGPromise[Any] = DAGPromise(UUID(int=2))
#: What a function needs besides.
MORE: dict[str, tuple[Any, ...]] = {
    "builtins.divmod": (2,), "builtins.pow": (2,), "itertools.batched": (2,), "itertools.combinations": (2,),
    "itertools.islice": (2,), "itertools.permutations": (2,), "math.pow": (2,), "operator.add": (2,),
    "operator.floordiv": (2,), "operator.mod": (2,), "operator.mul": (2,), "operator.pow": (2,), "operator.sub": (2,),
    "operator.truediv": (2,), "os.path.join": ("a",), "random.sample": (1,), "shutil.copy": ("a",),
    "shutil.copyfile": ("a",), "shutil.move": ("a",), "textwrap.fill": (20,), "textwrap.wrap": (20,),
}  # fmt: skip
#: Good first arguments of functions that need the values of all arguments.
FIRST: dict[str, Any] = {
    "builtins.enumerate": [1], "builtins.zip": [1], "itertools.combinations": [1, 2], "itertools.islice": [1, 2],
    "itertools.permutations": [1, 2], "itertools.product": [1], "os.path.join": "a", "shutil.copy": __file__,
    "shutil.copyfile": __file__, "shutil.move": "/nowhere/at/all",
}  # fmt: skip


def function_named(name: str) -> Callable[..., Any]:
    module, _, attribute = name.rpartition(".")
    found = getattr(import_module(module), attribute, None)
    if found is None:
        pytest.skip(f"this Python has no {name}")
    called: Callable[..., Any] = found
    return called


#: The messages of functions that check what they get, and say what they expect.
EXPECTATIONS = "a Rational instance|the buffer API|must be a sequence|return an iterable|or an integer|Expected int"


def assert_refused(call: Callable[[], Any]) -> None:
    """Assert that a call fails because of a promise: the error says so, or what it expects instead."""
    with pytest.raises((TypeError, ValueError, AttributeError), match=f"(?i:promise)|{EXPECTATIONS}"):
        call()


@pytest.mark.parametrize("name", sorted(NEED_VALUES | NEED_ALL_VALUES))
def test_a_function_fails_if_its_first_argument_is_a_promise(name: str) -> None:
    function = function_named(name)
    assert_refused(lambda: function(ONE, *MORE.get(name, ())))


@pytest.mark.parametrize("name", sorted(NEED_ALL_VALUES))
def test_a_function_fails_if_its_second_argument_is_a_promise(name: str) -> None:
    function = function_named(name)
    assert_refused(lambda: function(FIRST.get(name, 1), ONE))


@pytest.mark.parametrize("name", sorted(NEED_ITEMS))
def test_a_function_fails_if_items_of_its_argument_are_promises(name: str) -> None:
    function = function_named(name)
    assert_refused(lambda: function([ONE, TWO]))


@pytest.mark.parametrize("name", sorted(MAPPING))
def test_a_function_fails_if_it_applies_another_to_a_promise(name: str) -> None:
    function = function_named(name)
    assert_refused(lambda: function(bool, ONE))


@pytest.mark.parametrize("name", sorted(STUCK))
def test_what_is_said_to_be_stuck_cannot_be_pickled(name: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {"sqlite3.connect": (":memory:",), "threading.Barrier": (2,)}
    made = function_named(name)(*arguments.get(name, ()))
    with pytest.raises(TypeError, match="pickle"):
        cloudpickle.dumps(made)
    if hasattr(made, "close"):
        made.close()


def test_attributes_of_promises_are_the_ones_that_they_have() -> None:
    public = {name for name in dir(DAGPromise) if not name.startswith("_")}
    assert public == OF_PROMISES


def test_results_that_are_called_plain_are_no_promises() -> None:
    names = {name.removeprefix("builtins.") for name in PLAIN_RESULTS}
    assert all(callable(getattr(builtins, name)) for name in names)


#: Expressions that fail, and their codes.
BAD = {
    "one == 1": "DAG002", "1 != one": "DAG002", "one in [1]": "DAG002", "1 in [one]": "DAG002",
    "one in range(3)": "DAG002", "f'{one}'": "DAG002", "'%s' % one": "DAG002", "'{}'.format(one)": "DAG002",
    "format(one)": "DAG002", "str(one)": "DAG002", "len(one)": "DAG002", "-one": "DAG002", "[1] + one": "DAG002",
    "one < two": "DAG002", "2 ** one": "DAG002", "1 in one": "DAG002", "', '.join([one])": "DAG005",
    "one[0]": "DAG003", "one.name": "DAG003", "one()": "DAG003", "getattr(one, 'name')": "DAG003", "[*one]": "DAG004",
    "{**one}": "DAG004", "[each for each in one]": "DAG004", "dict(one)": "DAG005", "not one": "DAG001",
    "one and two": "DAG001", "1 if one else 2": "DAG001", "bool(one)": "DAG001", "[1 for each in [1] if one]": "DAG001",
    "all([one])": "DAG005", "sorted([one, two])": "DAG005", "sum([one])": "DAG005", "print(1, one)": "DAG005",
    "next(one)": "DAG005", "max(one, 3)": "DAG005", "list(map(abs, one))": "DAG005", "[].extend(one)": "DAG005",
}  # fmt: skip
#: Expressions that work, although they come close.
GOOD = [
    "one == two", "one != two", "one in [one, two]", "one in {two}", "one in {1: 2}", "one is None", "repr(one)",
    "f'{one!r}'", "f'{[one]}'", "'%r' % one", "'{!r}'.format(one)", "str([one])", "{one: 1}[one]", "hash(one)",
    "isinstance(one, int)", "next(iter([]), one)", "max([one])", "sum([], one)", "[one] == [two]",
    "(one, 1) == (one, 1)",
    "sorted([one, two], key=lambda each: each.node_id)", "max(one, two, key=lambda each: each.node_id)",
    "min([one, two], key=lambda each: each.node_id)", "[one, two].index(two)", "one.identifier", "bool([one])",
    "len([one])", "1 and one", "[one] if [one] else two", "list(map(repr, [one]))", "dict([(one, 1)])", "[1, *[one]]",
    "getattr(one, 'name', None) if False else 1", "type(one)", "id(one)", "callable(one)", "hasattr(one, 'read')",
    "any([])", "sum([])", "sorted([one])", "print(repr(one))", "{**{'a': one}}", "(lambda each: each)(one)",
]  # fmt: skip
TASK = """from dagorama import DAGDefinition, dagorama
class Task(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> object:
        one, two = self.entrypoint(1), self.entrypoint(2)
        return {}
"""


def codes_of(expression: str) -> list[str]:
    source = TASK.replace("{}", expression).encode()
    return [finding.code for finding in check_files([made_file("task.py", source)], DEFAULT_CODES).findings]


@pytest.mark.parametrize("expression", BAD)
def test_an_expression_that_is_reported_fails(expression: str) -> None:
    assert codes_of(expression) == [BAD[expression]]
    assert_refused(lambda: eval(expression, {"one": ONE, "two": TWO}))


@pytest.mark.parametrize("expression", GOOD)
def test_an_expression_that_works_is_not_reported(expression: str) -> None:
    eval(expression, {"one": ONE, "two": TWO})
    assert codes_of(expression) == []
