"""Classes that other processes cannot import, and code that changes: the right code runs, or it is said why not."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.brokers import launch_broker

BEGIN = """
import dataclasses, enum, sys, threading
from dagorama import DAGDefinition, dagorama, launch_workers, resolve
from dagorama.errors import NodeFailed
from dagorama_broker.launch import launch_broker
"""


@pytest.fixture(autouse=True)
def broker() -> Iterator[None]:
    """The broker that scripts find, unless they launch one."""
    with launch_broker(port=0):
        yield


def script(folder: Path, text: str, *arguments: str, name: str = "script.py") -> subprocess.CompletedProcess[str]:
    (folder / name).write_text(BEGIN + dedent(text))
    command = [sys.executable, str(folder / name), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_what_a_script_defines_comes_back_as_its_own(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import collections, typing

        class Mode(enum.Enum):
            FAST = 1
            SLOW = 2

        class Right(enum.Flag):
            READ = enum.auto()
            WRITE = enum.auto()

        @dataclasses.dataclass(slots=True, frozen=True)
        class Point:
            x: int
            y: int = 2

        class Slotted:
            __slots__ = ("a", "__b")
            def __init__(self, a, b):
                self.a, self.__b = a, b
            def __eq__(self, other):
                return type(other) is Slotted and (self.a, self.__b) == (other.a, other.__b)

        class Named(typing.NamedTuple):
            one: int

        Pair = collections.namedtuple("Pair", "left right")

        class Missing:
            def __reduce__(self):
                return "MISSING"

        class Parent:
            def child(self):
                return Child(self)

        class Child(Parent):
            def __init__(self, parent):
                self.parent = parent

        class OutOfStock(Exception):
            def __init__(self, what, left):
                super().__init__(what, left)
                self.left = left

        MISSING, PLAIN, STATELESS = Missing(), object(), Parent()

        class Task(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self, mode, right, point, slotted, named, pair, missing, plain, stateless):
                assert mode is Mode.FAST and right == Right.READ | Right.WRITE and point == Point(1)
                assert missing is MISSING and plain is PLAIN and stateless is STATELESS
                assert type(slotted) is Slotted and type(named) is Named and type(pair) is Pair
                return mode, right, dataclasses.replace(point, y=3), slotted, named, pair, missing, plain, stateless

            @dagorama().syncfn
            def family(self):
                return Parent().child()

            @dagorama().syncfn
            def fails(self):
                raise OutOfStock("apples", 3)

        if __name__ == "__main__":
            with launch_workers(1):
                plain = Mode.FAST, Right.READ | Right.WRITE, Point(1), Slotted(1, 2), Named(1), Pair(1, 2)
                sent = (*plain, MISSING, PLAIN, STATELESS)
                instance, promise = Task()(*sent)
                came = resolve(instance, promise, timeout=20)
                assert came[0] is Mode.FAST and came[1] == sent[1] and came[2] == Point(1, 3) and came[3:6] == sent[3:6]
                assert all(one is other for one, other in zip(came[6:], sent[6:])), came
                child = resolve(instance, instance.family(), timeout=20)
                assert type(child) is Child and type(child.parent) is Parent
                try:
                    resolve(instance, instance.fails(), timeout=20)
                except NodeFailed as error:
                    assert type(error.__cause__) is OutOfStock and error.__cause__.left == 3
                print("fine")
        """,
    )
    assert done.stdout == "fine\n", done.stderr


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        print("begins")
        SETTINGS = {}

        def factor():
            return SETTINGS["factor"]

        class Task(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self):
                return factor() * 2

        SETTINGS["factor"] = 21
        with launch_workers(1):
            print(resolve(*Task()(), timeout=20))
        """,
    )
    assert done.stdout == "begins\n42\n", done.stderr


def test_functions_of_a_script_are_found_by_name_in_its_nodes(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import multiprocessing, pickle

        def square(x):
            return x * x

        class Task(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self, function):
                assert function is square and pickle.loads(pickle.dumps(square)) is square
                assert sys.modules["__main__"].square is square
                with multiprocessing.get_context("fork").Pool(2) as pool:
                    return pool.map(square, [1, 2, 3])

        if __name__ == "__main__":
            with launch_workers(1):
                print(resolve(*Task()(square), timeout=20))
        """,
    )
    assert done.stdout == "[1, 4, 9]\n", done.stderr


def test_a_script_run_again_with_other_classes_refuses_the_old_values(tmp_path: Path) -> None:
    text = """
        class Mode(enum.Enum):
            {members}

        class Task(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self, mode):
                return mode

        if __name__ == "__main__":
            with launch_broker(port=0, store="sqlite:///store.sqlite3"):
                if sys.argv[1:]:
                    try:
                        print(resolve(*Task.attach(sys.argv[1]), timeout=20))
                    except Exception as error:
                        print(type(error).__name__, error)
                else:
                    with launch_workers(1):
                        instance, promise = Task()(Mode.FAST)
                        assert resolve(instance, promise, timeout=20) is Mode.FAST
                        print(instance.instance_id)
        """
    first = script(tmp_path, text.format(members="FAST = 1"))
    identifier = first.stdout.strip()
    assert script(tmp_path, text.format(members="FAST = 1"), identifier).stdout == "Mode.FAST\n"
    changed = script(tmp_path, text.format(members="FAST = 2"), identifier)
    assert "__main__:Mode has other code here" in changed.stdout, changed.stderr


@pytest.mark.parametrize("first", ["call", "workers"])
def test_what_cannot_travel_is_refused_by_its_name(tmp_path: Path, first: str) -> None:
    """The instance is made before the workers start, or after."""
    done = script(
        tmp_path,
        """
        guard = threading.Lock()

        class Task(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self):
                with guard:
                    return 5

        if __name__ == "__main__":
            if sys.argv[1] == "call":
                Task()()
            with launch_workers(1):
                Task()()
        """,
        first,
    )
    assert done.returncode == 1
    last, address = done.stderr.strip().splitlines()[-2:]
    assert address.startswith("See docs/reference/errors.md#")
    assert "__main__:Task cannot be sent to the workers" in last
    assert "'guard', a lock that Task.entrypoint uses, cannot be pickled" in last


def test_an_attribute_of_the_class_that_cannot_travel_is_named(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        class Task(DAGDefinition):
            guard = threading.Lock()

            @dagorama().syncfn
            def entrypoint(self):
                return 5

        with launch_workers(1):
            Task()()
        """,
    )
    assert "'guard', a lock of Task, cannot be pickled" in done.stderr


def test_functions_and_properties_with_a_cache_travel(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import functools

        @functools.cache
        def fibonacci(number):
            return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

        class Shape:
            def __init__(self, width):
                self.width = width
            @functools.cached_property
            def area(self):
                return self.width * self.width

        class Task(DAGDefinition):
            @functools.cached_property
            def factor(self):
                return 2

            @functools.lru_cache(maxsize=3)
            def plus(self, number):
                return number + 1

            @dagorama().syncfn
            def entrypoint(self):
                return self.product(fibonacci, Shape(3))

            @dagorama().syncfn
            def product(self, function, shape):
                size = self.__class__.plus.cache_parameters()["maxsize"]
                return function(60), fibonacci(10), shape.area, self.factor, self.plus(1), size

        if __name__ == "__main__":
            with launch_workers(1):
                print(resolve(*Task()(), timeout=20))
        """,
    )
    assert done.stdout == "(1548008755920, 55, 9, 2, 2, 3)\n", done.stderr


def test_functions_with_overloads_travel(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import functools

        class Point:
            pass

        @functools.singledispatch
        def text(found):
            "Return the text of an object."
            return "?"

        @text.register
        def _(found: list):
            return "[" + ", ".join(map(text, found)) + "]"

        @text.register(int)
        @text.register(float)
        def _(found):
            return f"number {found}"

        @text.register
        def _(found: Point):
            return "point"

        text.calls = 7

        class Task(DAGDefinition):
            @functools.singledispatchmethod
            def size(self, found):
                return 0

            @size.register
            def _(self, found: str):
                return len(found)

            @dagorama().syncfn
            def entrypoint(self):
                return self.product([1, [2.0, None], Point()], text)

            @dagorama().syncfn
            def product(self, found, function):
                assert text.__name__ == "text" and text.__doc__.startswith("Return") and text.calls == 7
                return text(found), function(3), self.size("abc"), self.size(3)

        if __name__ == "__main__":
            with launch_workers(1):
                print(resolve(*Task()(), timeout=20))
        """,
    )
    assert done.stdout == "('[number 1, [number 2.0, ?], point]', 'number 3', 3, 0)\n", done.stderr


def test_types_that_pickle_as_names_travel(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import functools
        from typing import Callable, NewType, ParamSpec, TypeVar, TypeVarTuple

        P, R, Rest, UserId = ParamSpec("P"), TypeVar("R"), TypeVarTuple("Rest"), NewType("UserId", int)

        def counted(function: Callable[P, R]) -> Callable[P, R]:
            @functools.wraps(function)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
                return function(*args, **kwargs)
            return wrapper

        @counted
        def added(one: int, *rest: *Rest) -> int:
            return one + len(rest)

        class Task(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self, user: UserId) -> UserId:
                return self.next_of(user, UserId)

            @dagorama().syncfn
            def next_of(self, user: UserId, kind: object) -> UserId:
                assert kind is UserId or kind.__supertype__ is int
                return kind(added(user, 1, 1))

        if __name__ == "__main__":
            with launch_workers(1):
                print(resolve(*Task()(UserId(3)), timeout=20))
        """,
    )
    assert done.stdout == "5\n", done.stderr


def test_factories_make_classes_that_are_told_apart(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        def make(number, rows):
            class Task(DAGDefinition):
                @dagorama().syncfn
                def entrypoint(self):
                    return self.add(number)
                @dagorama().syncfn
                def add(self, x):
                    return x + sum(rows)
            return Task

        if __name__ == "__main__":
            early = make(1, [10])
            made = [early()()]
            with launch_workers(1):
                made += [make(number, rows)()() for number, rows in ((2, [10]), (2, [20]), (1, [10]))]
                print([resolve(*each, timeout=20) for each in made])
        """,
    )
    assert done.stdout == "[11, 12, 22, 11]\n", done.stderr


def test_factories_make_classes_with_other_methods_and_types(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        def make(kind, name):
            class Task(DAGDefinition, codec="json"):
                @dagorama().syncfn
                def entrypoint(self) -> kind:
                    return getattr(self, "second", self.first)()
                @dagorama().syncfn
                def first(self) -> kind:
                    return 1
                if name == "second":
                    @dagorama().syncfn
                    def second(self) -> kind:
                        return 2
            return Task

        if __name__ == "__main__":
            classes = [make(int, "first"), make(int, "second"), make(float, "first")]
            with launch_workers(1):
                print([resolve(*cls()(), timeout=20) for cls in classes])
        """,
    )
    assert done.stdout == "[1, 2, 1.0]\n", done.stderr


def test_classes_that_a_function_of_a_module_makes_run_in_launched_and_in_other_workers(tmp_path: Path) -> None:
    (tmp_path / "factory.py").write_text(
        BEGIN
        + dedent("""
        def make(number):
            class Task(DAGDefinition):
                @dagorama().syncfn
                def entrypoint(self):
                    return self.same(number), type(self).__qualname__
                @dagorama().syncfn
                def same(self, x):
                    return x
            return Task

        Five = make(5)

        class Main(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self):
                return Five()()[1]
        """)
    )
    done = script(
        tmp_path,
        """
        import os, subprocess
        from factory import Five, Main

        if __name__ == "__main__":
            command = [sys.executable, "-m", "dagorama.worker"]
            other = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            found = [resolve(*cls()(), timeout=20) for cls in (Five, Main)]
            other.terminate()
            other.wait()
            with launch_workers(1):
                found += [resolve(*cls()(), timeout=20) for cls in (Five, Main)]
            print(found == [(5, "make.<locals>.Task")] * 4)
        """,
    )
    assert done.stdout == "True\n", done.stderr


def test_a_registered_definition_that_cannot_travel_has_to_be_like_the_callers(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        from dagorama import register_definition

        class Pooled(DAGDefinition):
            def __init__(self, pool, size=1):
                self.pool, self.size = pool, size

            def __reduce__(self):  # in the worker there is a pool of its own
                return make, (self.size,)

            @dagorama().syncfn
            def entrypoint(self, x):
                with self.pool:
                    return x + self.size

        def make(size):
            import threading
            return Pooled(threading.Lock(), size)

        if __name__ == "__main__":
            register_definition(make(100))
            with launch_workers(1):
                print(resolve(*make(100)(1), timeout=20))
                try:
                    resolve(*make(3)(1), timeout=20)
                except NodeFailed as error:
                    print(error.type, error.attempts)
                    print(error.message)
        """,
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["101", "dagorama.errors.DefinitionDiffers 1"], done.stderr
    assert "registered here with size=100, and the caller has size=3" in lines[2]


def test_a_class_made_by_a_running_node_is_refused_at_its_call(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        class Task(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self):
                class Inner(DAGDefinition):
                    @dagorama().syncfn
                    def entrypoint(self):
                        return 1
                return Inner()()[1]

        if __name__ == "__main__":
            with launch_workers(1):
                try:
                    resolve(*Task()(), timeout=20)
                except NodeFailed as error:
                    print(error.type, "was made by a running node" in error.message)
        """,
    )
    assert done.stdout == "dagorama.errors.FunctionNotFound True\n", done.stderr


def test_values_of_a_script_run_by_python_m_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    (tmp_path / "app" / "job.py").write_text(
        BEGIN
        + dedent("""
        class Mode(enum.Enum):
            FAST = 1

        class Job(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self, mode):
                return mode, mode is Mode.FAST

        if __name__ == "__main__":
            with launch_workers(1):
                mode, was = resolve(*Job()(Mode.FAST), timeout=20)
                print(mode is Mode.FAST, was)
        """)
    )
    command = [sys.executable, "-m", "app.job"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True True\n", done.stderr


def test_a_file_run_by_runpy_is_sent_like_a_script(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        BEGIN
        + dedent("""
        @dataclasses.dataclass
        class Point:
            x: int

        class Job(DAGDefinition):
            @dagorama().syncfn
            def entrypoint(self, point):
                assert point == Point(1)
                return Point(2)

        def main():
            with launch_workers(1):
                assert resolve(*Job()(Point(1)), timeout=20) == Point(2)
                print("fine")

        main()
        """)
    )
    command = [sys.executable, "-c", "import runpy; runpy.run_path('job.py')"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "fine\n", done.stderr


# --- code that changes while a worker runs ------------------------------------------------------------------

CHANGING = """
from dagorama import DAGDefinition, dagorama

FACTOR = 1

def scaled(x):
    return x * FACTOR

class Squares(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, n):
        return self.total([self.square(i) for i in range(n)])

    @dagorama().syncfn
    def square(self, i):
        return scaled(i * i)

    @dagorama().syncfn
    def total(self, parts):
        return sum(parts)
"""
SPAWN = """
from changing import Squares
from dagorama import resolve
try:
    print(resolve(*Squares()(10), timeout=2))
except TimeoutError as error:
    print("TimeoutError", error)
"""


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        ("scaled(i * i)", "scaled(i * i * 100)", "28500"),
        ("x * FACTOR", "x * FACTOR * 10", "2850"),
        ("FACTOR = 1", "FACTOR = 2", "570"),
    ],
    ids=["a child method", "a helper", "a constant"],
)
def test_a_worker_of_before_an_edit_does_not_answer_with_the_old_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, answer: str
) -> None:
    module = tmp_path / "changing.py"
    module.write_text(CHANGING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def spawned() -> str:
        command = [sys.executable, "-c", SPAWN]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()

    with command_worker():
        assert spawned() == "285"
        module.write_text(CHANGING.replace(old, new))
        said = spawned()
        assert said.startswith("TimeoutError")
        assert "changing:Squares.square cannot run" in said
        assert "other code" in said
    with command_worker():
        assert spawned() == answer


@contextmanager
def command_worker() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "dagorama.worker"], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
