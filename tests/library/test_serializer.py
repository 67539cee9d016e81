"""Names of functions: they lead back to a decorated method, in this process or another, or to a clear error."""

import functools
import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dagorama.calls.functions import from_wrapper
from dagorama.code_signature import calculate_function_hash
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance, instance_within
from dagorama.errors import DefinitionNotRegistered, FunctionNotFound
from dagorama.graph import shipping
from dagorama.graph.scope import AttemptScope
from dagorama.graph.shipping import Header, Parcel, Shipment
from dagorama.serializer import find, function_to_name, name_to_function, register_definition
from dagorama.user_code.class_code import ClassCode

MINE = __name__


def plain_function() -> None: ...


class Sample(DAGDefinition):
    class Nested(DAGDefinition):
        @dagorama().syncfn
        def entrypoint(self) -> str:
            return "nested"

    @dagorama().syncfn
    def entrypoint(self, number: int = 0) -> int:
        return number

    def undecorated(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    alias = dagorama().syncfn(lambda self: "by another name")


class Child(Sample):
    @dagorama().syncfn
    def entrypoint(self, number: int = 0) -> int:
        return super().entrypoint(number) + 1  # dagorama: ignore[DAG002]  # it never runs


class Grandchild(Child): ...


class NeedsMuch(DAGDefinition):
    def __init__(self, number: int) -> None:
        self.number = number

    @dagorama().syncfn
    def entrypoint(self) -> int:
        return self.number


class NeedsEnvironment(DAGDefinition):
    def __init__(self) -> None:
        raise KeyError("MODEL_PATH")

    @dagorama().syncfn
    def entrypoint(self) -> None: ...


class NotADefinition:
    @dagorama().syncfn
    def entrypoint(self) -> None: ...


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for store in ("_versions", "_loaded", "_registered_in", "failures", "registered"):
        monkeypatch.setattr(shipping, store, {})


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (plain_function, "plain_function"),
        (Sample, "Sample"),
        (Sample(), "Sample"),
        (DAGInstance(UUID(int=1), Child()), "Child"),
        (Sample.Nested, "Sample.Nested"),
        (Sample.entrypoint, "Sample.entrypoint"),
        (Sample.entrypoint.original_fn, "Sample.entrypoint"),
        (Sample.undecorated, "Sample.undecorated"),
        (Sample.of_class, "Sample.of_class"),
        (Grandchild.entrypoint, "Child.entrypoint"),
        (Grandchild().entrypoint, "Grandchild.entrypoint"),
        (DAGInstance(UUID(int=1), Grandchild()).entrypoint, "Grandchild.entrypoint"),
        (DAGInstance(UUID(int=1), Grandchild()).undecorated, "Sample.undecorated"),
    ],
)
def test_everything_has_its_name(thing: object, name: str) -> None:
    assert function_to_name(thing) == f"{MINE}:{name}"


@pytest.mark.parametrize(
    ("cls", "called"),
    [
        (Sample, Sample),
        (Child, Child),
        (Child, Sample),
        (Grandchild, Child),
        (Grandchild, Sample),
        (Sample.Nested, Sample.Nested),
    ],
)
def test_a_name_leads_back_to_the_same_function_and_class(cls: Any, called: Any) -> None:
    attempt = AttemptScope(b"i" * 16)
    called.entrypoint(instance_within(b"i" * 16, cls(), attempt))
    name = attempt.runs[0]._specs[0].name
    found = find(name)
    assert type(found.definition) is cls
    assert found.wrapper is called.__dict__["entrypoint"]
    assert found.decorated.function is found.wrapper.original_fn


def test_a_method_may_have_another_name_than_its_function() -> None:
    attempt = AttemptScope(b"i" * 16)
    instance: Any = instance_within(b"i" * 16, Sample(), attempt)
    promise = instance.alias()
    assert promise.function_name == f"{MINE}:Sample.alias"
    assert find(promise.function_name).wrapper is Sample.__dict__["alias"]


def test_what_no_worker_could_find_is_refused_at_the_call() -> None:
    instance: Any = instance_within(b"i" * 16, Sample(), AttemptScope(b"i" * 16))
    decorate: Any = dagorama().syncfn
    detached = decorate(lambda self: None)
    instance.attached = functools.partial(detached, instance)
    with pytest.raises(FunctionNotFound, match="is not a method of"):
        instance.attached()


def test_a_bound_function_runs_as_the_originals_did() -> None:
    bound: Any = name_to_function(f"{MINE}:Sample.entrypoint", str(UUID(int=3)))
    assert bound(5, greedy_execution=True) == 5
    assert bound.original_fn is Sample.entrypoint.original_fn
    assert bound.__self__.instance_id == UUID(int=3)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("nonsense", "does not name a method"),
        ("os:system", "does not name a method"),
        ("os.path:join", "does not name a method"),
        ("os:path.join", "os:path is not a DAGDefinition"),
        (f"{MINE}:plain_function.__call__", "is not a DAGDefinition"),
        (f"{MINE}:NotADefinition.entrypoint", "is not a DAGDefinition"),
        (f"{MINE}:Sample.undecorated", "has no @dagorama method 'undecorated' here"),
        (f"{MINE}:Sample.of_class", "has no @dagorama method"),
        (f"{MINE}:Sample.__init__", "has no @dagorama method"),
        (f"{MINE}:Sample.missing", "another version of the code"),
        (f"{MINE}:Sample.entrypoint@{MINE}:Other", f"from {MINE}:Other"),
        (f"{MINE}:Missing.entrypoint", "is not in the module"),
        ("no_such_module:Task.run", "importing no_such_module raised ModuleNotFoundError"),
        ("no.such.module:Task.run", "PYTHONPATH"),
        (":.", "cannot be found"),
        ("__main__:Missing.run", "the script that made the node: workers that this process launches get it"),
        ("json:function.<locals>.Task.run", "made inside a function: workers that this process launches get it"),
    ],
)
def test_any_other_name_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(FunctionNotFound, match=complaint):
        find(name)


@pytest.mark.parametrize("statement", ["raise ZeroDivisionError", "raise SystemExit(3)", "syntax error"])
def test_a_module_that_cannot_be_imported_is_an_error_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    (tmp_path / "breaks_on_import.py").write_text(statement)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FunctionNotFound, match="importing breaks_on_import raised"):
        find("breaks_on_import:Task.run")


def test_a_definition_that_needs_arguments_has_to_be_registered() -> None:
    with pytest.raises(DefinitionNotRegistered, match=r"register_definition\(NeedsMuch\(...\)\).*worker --import"):
        _ = find(f"{MINE}:NeedsMuch.entrypoint").definition
    definition = NeedsMuch(4)
    register_definition(definition)
    assert find(f"{MINE}:NeedsMuch.entrypoint").definition is definition


def test_what_its_constructor_raised_is_in_the_message() -> None:
    with pytest.raises(DefinitionNotRegistered, match="KeyError: 'MODEL_PATH'"):
        _ = find(f"{MINE}:NeedsEnvironment.entrypoint").definition


def test_a_definition_is_made_once() -> None:
    assert find(f"{MINE}:Sample.entrypoint").definition is find(f"{MINE}:Sample.entrypoint").definition


# --- names and hashes


def test_the_hash_is_of_the_function_and_follows_its_name() -> None:
    function: Any = Sample.entrypoint.original_fn
    decorated = find(f"{MINE}:Sample.entrypoint").decorated
    before = decorated.spec(Sample)
    assert decorated.hash == calculate_function_hash(function)
    name = function.__name__
    function.__name__ = "another"
    try:
        changed = decorated.spec(Sample)
        assert decorated.hash == calculate_function_hash(function)
        assert changed.hash != before.hash
        assert changed.name == before.name
    finally:
        function.__name__ = name
    assert decorated.spec(Sample).hash == before.hash


def test_one_function_has_a_name_for_each_definition() -> None:
    decorated = find(f"{MINE}:Child.entrypoint").decorated
    assert [decorated.spec(cls).name for cls in (Child, Grandchild, Child)] == [
        f"{MINE}:Child.entrypoint",
        f"{MINE}:Grandchild.entrypoint",
        f"{MINE}:Child.entrypoint",
    ]


# --- local definitions


def local_definition(base: int = 0) -> type[DAGDefinition]:
    class Local(DAGDefinition):
        @dagorama().syncfn
        def entrypoint(self, number: int = 0) -> int:
            return number + base

    return Local


def test_a_local_definition_is_found_in_its_own_process() -> None:
    cls = local_definition(5)
    name = function_to_name(cls)
    assert name == f"{MINE}:local_definition.<locals>.Local"
    assert cls in shipping.definitions
    assert find(f"{name}.entrypoint").decorated.function(None, 2) == 7


def test_the_class_with_the_hash_is_found_among_those_of_one_name() -> None:
    earlier, latest = local_definition(1), local_definition(2)
    for cls in (earlier, latest):
        hash = from_wrapper(vars(cls)["entrypoint"]).spec(cls).hash
        assert find(f"{function_to_name(cls)}.entrypoint", hash).cls is cls


def test_a_call_says_once_who_can_run_a_local_definition(caplog: pytest.LogCaptureFixture) -> None:
    class Announced(DAGDefinition):
        def entrypoint(self) -> None:
            raise ZeroDivisionError

    with caplog.at_level("INFO", "Dagorama"), pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGORAMA_LOG_LEVEL", "INFO")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                Announced()()
    (record,) = caplog.records
    assert "Announced cannot be imported by other processes" in record.getMessage()


def test_local_definitions_are_not_kept_alive() -> None:
    name = function_to_name(local_definition())
    cls = local_definition()
    attempt = AttemptScope(b"i" * 16)
    instance: Any = instance_within(b"i" * 16, cls(), attempt)
    instance.entrypoint(1)
    del cls, attempt, instance
    gc.collect()
    assert name not in map(function_to_name, shipping.definitions)


def test_without_anything_to_send_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "definitions", set())
    assert shipping.pack().parcels == []


def test_what_cannot_be_packed_does_not_spoil_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "definitions", set())
    broken = NeedsMuch(threading.Lock())  # type: ignore[arg-type]
    register_definition(broken)
    register_definition(Sample())
    packed = shipping.pack()._replace(has_main=False)
    shipping.registered.clear()
    shipping.receive(packed)
    assert isinstance(find(f"{MINE}:Sample.entrypoint").definition, Sample)
    assert shipping.registered
    assert "lock" in shipping.failures[f"{MINE}:NeedsMuch"]


def test_what_cannot_be_unpacked_says_so() -> None:
    header = Header("away:Task", ClassCode({"run": "0"}, "run=0"))
    shipping.receive(Shipment(None, False, [Parcel([header], [], b"cnowhere\nTask\n.")], {}))
    with pytest.raises(FunctionNotFound, match="was sent here but cannot be read"):
        find("away:Task.run")


SCRIPT = """
import sys
from dagorama import DAGDefinition, dagorama, register_definition
from dagorama.serializer import find
from dagorama.graph.shipping import pack

SHARED = []

class Base(DAGDefinition):
    def __init__(self, factor=1):
        self.factor = factor

    @dagorama(queue_name="q").syncfn
    def entrypoint(self, number: int = 2, *, twice: bool = True) -> int:
        SHARED.append(number)
        return helper(number) * self.factor

class Task(Base):
    @dagorama().syncfn
    def entrypoint(self, number: int = 2, *, twice: bool = True) -> int:
        return super().entrypoint(number)

    @dagorama().asyncfn
    async def later(self) -> list:
        return SHARED

def helper(number):
    return number + 100

def make():
    class Local(Task):
        ...
    return Local

Local = make()
register_definition(Base(10))
names = [
    "__main__:Base.entrypoint", "__main__:Task.entrypoint", "__main__:Task.entrypoint@__main__:Base",
    "__main__:make.<locals>.Local.later",
]
hashes = [find(name).decorated.hash for name in names]
sys.stdout.buffer.write(__import__("pickle").dumps((names, hashes, pack())))
"""

CHILD = """
import pickle, sys
from dagorama.serializer import find
from dagorama.graph.shipping import receive
names, hashes, packed = pickle.load(sys.stdin.buffer)
receive(packed)
assert "cloudpickle" not in sys.modules
found = [find(name) for name in names]
assert [each.decorated.hash for each in found] == hashes
base, task, of_super, local = found
assert base.decorated.function(base.definition, 1) == 1010, "registered, with factor 10"
assert of_super.decorated.function(task.definition, 2) == 102
assert type(base.definition) in type(task.definition).__mro__
assert of_super.definition is task.definition
assert task.decorated.spec(type(task.definition)).name == "__main__:Task.entrypoint"
assert base.decorated.options.queue_name == "q"
assert base.decorated.function.__defaults__ == (2,)
try:
    local.decorated.function(local.definition).send(None)
except StopIteration as ended:
    assert ended.value == [1, 2], "globals that the definitions share stay shared"
from dagorama.definition import instance_within
from dagorama.graph.scope import AttemptScope
attempt = AttemptScope(b"i" * 16)
task.decorated.function(instance_within(b"i" * 16, task.definition, attempt), 5)
assert attempt.runs[0]._specs[0].name == names[2]
print("fine")
"""


@pytest.mark.parametrize("from_file", [True, False])
def test_what_lives_in_main_reaches_a_child_with_its_hash(tmp_path: Path, from_file: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)] if from_file else [sys.executable, "-c", SCRIPT]
    packed = subprocess.run(command, check=True, capture_output=True).stdout
    child = subprocess.run([sys.executable, "-c", CHILD], input=packed, capture_output=True, check=False)
    assert child.stdout == b"fine\n", child.stderr.decode()
