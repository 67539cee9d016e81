"""Hashes of a whole class: what counts, what does not, and that other processes work out the same."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib import import_module, invalidate_caches
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dagorama.code_signature import calculate_function_hash
from dagorama.graph import shipping
from dagorama.user_code.class_code import code_of, object_hash, read_text, renew
from tests.library.test_code_signature import PYTHONS, ROOT, interpreter
from tests.user_code.reached import LOCAL, MADE, REACHED

SOURCE = '''
import os
from dataclasses import dataclass
from enum import Enum

from dagorama import DAGDefinition, dagorama

LIMIT = 3
TABLE = {"a": [1, 2]}
COMPUTED = os.getpid()
UNUSED = 1


class Mode(Enum):
    FAST = 1


@dataclass
class Row:
    size: int = 1

    def doubled(self):
        return self.size * 2


def helper(x):
    return deeper(x) + LIMIT


def deeper(x):
    return x


def unused():
    return 1


class Base(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self):
        return self.plain(helper(1))

    def plain(self, x):
        return x

    @property
    def size(self):
        return 1


class Task(Base):
    factor = 2

    @dagorama().syncfn
    def entrypoint(self):
        return super().entrypoint()

    @dagorama().syncfn
    def other(self):
        return Row().doubled(), TABLE, COMPUTED, Mode.FAST

    @dagorama().syncfn
    def alone(self):
        """Names nothing."""
        return 1
'''

COUNT = count()
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    monkeypatch.syspath_prepend(tmp_path)
    loaded: list[str] = []

    def load(source: str) -> ModuleType:
        """The source as a module of its own."""
        name = f"coded{next(COUNT)}"
        (tmp_path / f"{name}.py").write_text(source)
        invalidate_caches()
        loaded.append(name)
        return import_module(name)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)
    for cls in [cls for cls in shipping.definitions if cls.__module__ in loaded]:
        shipping.definitions.discard(cls)  # later tests would send it to the workers that they launch


def hashes(module: ModuleType) -> dict[str, str]:
    found = code_of(module.Task).hashes
    return {key.partition("@")[0] + "@" * ("@" in key): hash for key, hash in found.items()}


def test_each_decorated_method_has_a_hash_that_of_the_base_too(load: Load) -> None:
    module = load(SOURCE)
    assert hashes(module).keys() == {"alone", "entrypoint", "entrypoint@", "other"}
    assert read_text(code_of(module.Task).text) == code_of(module.Task).hashes


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("return deeper(x) + LIMIT", "return deeper(x) - LIMIT", {"entrypoint@"}),
        ("def deeper(x):\n    return x", "def deeper(x):\n    return -x", {"entrypoint@"}),
        ("LIMIT = 3", "LIMIT = 4", {"entrypoint@"}),
        ("return self.size * 2", "return self.size * 3", {"other"}),
        ("size: int = 1", "size: int = 2", {"other"}),
        ("FAST = 1", "FAST = 2", {"other"}),
        ('{"a": [1, 2]}', '{"a": [1, 3]}', {"other"}),
        ("os.getpid()", "os.getppid()", {"other"}),
        ("return 1\n\n\nclass Task", "return 2\n\n\nclass Task", {"alone", "entrypoint", "entrypoint@", "other"}),
        ("factor = 2", "factor = 3", {"alone", "entrypoint", "entrypoint@", "other"}),
        ("def plain(self, x):", "def plain(self, x, y=1):", {"alone", "entrypoint", "entrypoint@", "other"}),
        ('"""Names nothing."""\n        return 1', "return 2", {"alone"}),
    ],
)
def test_a_change_changes_the_hashes_of_what_it_may_affect(load: Load, old: str, new: str, changed: set[str]) -> None:
    assert SOURCE.count(old) == 1
    before, after = hashes(load(SOURCE)), hashes(load(SOURCE.replace(old, new)))
    assert {key for key in before if before[key] != after[key]} == changed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("UNUSED = 1", "UNUSED = 2"),
        ("def unused():\n    return 1", "def unused():\n    return 2"),
        ("LIMIT = 3", "\n\n# a comment\nLIMIT  =  3"),
        ("def helper(x):", 'def helper(x: int) -> "int":\n    """Documented."""'),
        ("import os\n", "import os\nimport sys\n"),
    ],
)
def test_what_it_does_not_reach_and_how_it_is_written_does_not_count(load: Load, old: str, new: str) -> None:
    assert hashes(load(SOURCE)) == hashes(load(SOURCE.replace(old, new, 1)))


@pytest.mark.parametrize(("source", "number"), [*((REACHED, number) for number in range(10, 26)), (MADE, 10)])
def test_everything_that_a_class_reaches_in_its_module_counts(load: Load, source: str, number: int) -> None:
    assert source.count(str(number)) == 1
    assert hashes(load(source)) != hashes(load(source.replace(str(number), "99")))


WRAPPING = """
def wrapping(f):
    def wrapper(*args):
        return f(*args)
    return wrapper

class Wrapped:
    def __init__(self, f):
        self.f = f
    def __call__(self, *args):
        return self.f(*args)
"""


def test_functions_that_decorators_of_another_module_have_replaced_count(load: Load) -> None:
    source = f"""
from dagorama import DAGDefinition, dagorama
from {load(WRAPPING).__name__} import Wrapped, wrapping


@wrapping
def helper():
    return 10


@Wrapped
def other():
    return 11


class Task(DAGDefinition):
    @dagorama().syncfn
    @wrapping
    def entrypoint(self):
        return 12 + self.plain() + helper() + other()

    @wrapping
    def plain(self):
        return 13
"""
    before = hashes(load(source))
    assert before == hashes(load(source))
    assert all(before != hashes(load(source.replace(str(number), "99"))) for number in range(10, 14))


def test_the_code_of_values_that_travel_counts(load: Load) -> None:
    assert hashes(load(LOCAL)) != hashes(load(LOCAL.replace("[value]", "[value, value]")))


def test_a_name_that_a_plain_base_of_the_module_does_not_have_does_not_count(load: Load) -> None:
    assert hashes(load(REACHED)) == hashes(
        load(REACHED.replace("class Meta(type):", "UNUSED = 1\n\n\nclass Meta(type):"))
    )


def test_a_method_of_a_class_that_names_nothing_hashes_as_its_function() -> None:
    from tests.support.carrying import Carrying

    hash = code_of(Carrying).hashes["repeat"]
    assert hash == calculate_function_hash(Carrying.repeat)


def test_what_is_replaced_in_a_class_that_travels_by_value_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("typed_in")
    monkeypatch.setitem(sys.modules, "typed_in", module)
    exec(SOURCE, vars(module))
    before = renew(module.Task)
    assert renew(module.Task) is before
    exec("def helper(x): return x", vars(module))
    changed = renew(module.Task)
    assert changed.text != before.text
    module.LIMIT = 4
    assert renew(module.Task) is changed, "it is not named any more"
    module.Task.factor = 3
    assert renew(module.Task).text != changed.text


def test_functions_that_name_one_another_come_to_an_end(load: Load) -> None:
    module = load(SOURCE.replace("def deeper(x):\n    return x", "def deeper(x):\n    return helper(x) if x else Task"))
    assert hashes(module)


def test_a_value_class_has_a_hash_of_what_it_does(load: Load) -> None:
    one, same = load(SOURCE), load(SOURCE.replace("UNUSED = 1", "UNUSED = 3"))
    other = load(SOURCE.replace("return self.size * 2", "return self.size"))
    assert object_hash(one.Row) == object_hash(same.Row) != object_hash(other.Row)


@pytest.mark.parametrize("version", PYTHONS)
def test_every_process_and_version_works_out_the_same(tmp_path: Path, version: str) -> None:
    """Seeds of hashes and process IDs differ from process to process."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    code = "from dagorama.user_code.class_code import code_of"
    for name, source in (("coded", SOURCE), ("reached", REACHED), ("made", MADE), ("local", LOCAL)):
        (tmp_path / f"{name}.py").write_text(source)
        code += f"; import {name}; print(code_of({name}.Task).text)"
    path = os.pathsep.join([str(tmp_path), str(ROOT), sysconfig.get_path("purelib")])
    environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
    here = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    there = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert there.stdout == here.stdout, there.stderr
