"""The hash of a function's code: what changes it, what does not, and that it is the same everywhere."""

import functools
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dagorama.code_signature import calculate_function_hash, keep_source
from tests.support import signature_cases

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
_numbers = itertools.count()


def loaded(folder: Path, source: str) -> Any:
    """A fresh module of that source, in a file of its own."""
    file = folder / f"written_{next(_numbers)}.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hash_of(tmp_path: Path) -> Callable[[str], str]:
    """The hash of the function `work` in a module of that source."""
    return lambda source: calculate_function_hash(loaded(tmp_path, source).work)


BASE = '''\
LIMIT = 3
def work(self, n, limit=5, *names, mode="fast", **more):
    """Does it."""
    def inner(x):
        return x + 1
    total = sum(inner(i) for i in range(n))
    return [total, f"{total:>5}", limit, names, mode, more]
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("limit=5", "limit=6"),
        ("limit=5", "limit"),
        ('mode="fast"', 'mode="slow"'),
        ("sum(", "max("),
        ("x + 1", "x + 2"),
        ("x + 1", "x - 1"),
        ("{total:>5}", "{total:>6}"),
        ("{total:>5}", "{limit:>5}"),
        ("self, n", "self, m"),
        ("*names", "*others"),
        ("def work", "async def work"),
        ("def inner(x)", "def inner(x, y=1)"),
        ("    def inner", "    @staticmethod\n    def inner"),
        ("[total, f", "(total, f"),
        ("return [", "yield ["),
    ],
)
def test_a_change_of_what_runs_changes_the_hash(hash_of: Callable[[str], str], old: str, new: str) -> None:
    changed = BASE.replace(old, new)
    if new.startswith("("):
        changed = changed.replace("more]", "more)")
    assert changed != BASE
    assert hash_of(changed) != hash_of(BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3\n", "LIMIT = 3\n\n\n# further down\n"),
        ('"""Does it."""', '"""Does it otherwise."""'),
        ('    """Does it."""\n', ""),
        ("n, limit=5", "n: int, limit: 'float' = 5"),
        ("**more):", "**more) -> list[object]:"),
        ("    total = sum", "    total: int = sum"),
        ("    def inner", "    # why\n\n    def inner"),
        ("sum(inner", "sum( inner"),
        ('"fast"', "'fast'"),
        ("def work", "@(lambda function: function)\ndef work"),
        ("LIMIT = 3", "LIMIT = 4"),
    ],
)
def test_what_does_not_run_is_ignored(hash_of: Callable[[str], str], old: str, new: str) -> None:
    changed = BASE.replace(old, new)
    assert changed != BASE
    assert hash_of(changed) == hash_of(BASE)


def test_a_default_that_is_a_constant_counts_with_its_value(hash_of: Callable[[str], str]) -> None:
    source = "LIMIT = {}\ndef work(n=LIMIT, *, also=(LIMIT, 2)):\n    return n\n"
    assert hash_of(source.format(3)) != hash_of(source.format(4))


def test_a_default_made_in_a_closure_counts_with_its_value() -> None:
    def make(default: object) -> Callable[..., object]:
        def work(value: object = default) -> object:
            return value

        return work

    hashes = [calculate_function_hash(make(default)) for default in (1, 2, 1.0, "1", True, None, (1, "a"), b"1")]
    assert len(set(hashes)) == len(hashes)
    assert calculate_function_hash(make(1)) == hashes[0]


@pytest.mark.parametrize("default", ["os.cpu_count()", "os.sep", "__file__", "HERE", "object()"])
def test_a_default_that_may_differ_from_machine_to_machine_counts_with_its_text_alone(
    tmp_path: Path, default: str
) -> None:
    source = f"import os\nHERE = os.path.dirname(__file__)\ndef work(n={default}):\n    return n\n"
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    before = loaded(here, source).work
    after = loaded(there, source.replace("import os", "import os as o, types\nos = types.SimpleNamespace(**vars(o))"))
    after.os.sep, after.os.cpu_count = "?", lambda: 1000
    after.work.__defaults__ = eval(f"({default},)", vars(after))
    assert calculate_function_hash(after.work) == calculate_function_hash(before)


def test_functions_of_one_body_and_name_hash_alike_and_a_new_name_counts_at_once() -> None:
    def fn1() -> None:
        print("Testing")

    def fn2() -> None:
        print("Testing")

    def fn3() -> None:
        print("Different")

    first = calculate_function_hash(fn1)
    assert first != calculate_function_hash(fn2)
    fn2.__name__ = fn3.__name__ = "fn1"
    assert calculate_function_hash(fn2) == first
    assert calculate_function_hash(fn3) != first
    fn1.__name__ = "another"
    assert calculate_function_hash(fn1) != first


def test_the_place_of_a_function_in_its_file_does_not_count(hash_of: Callable[[str], str]) -> None:
    body = "def work(self):\n    return '''a\nb'''\n"
    indented = (
        "\n" * 9 + "if True:\n    class A:\n        def work(self):\n            return '''a\nb'''\nwork = A.work\n"
    )
    assert hash_of(body) == hash_of(indented)


def test_a_decorated_method_hashes_as_what_it_wraps() -> None:
    def work(self: object) -> int:
        return 1

    @functools.wraps(work)
    def wrapper(*args: object) -> int:
        return work(*args)

    wrapper.original_fn = work  # type: ignore[attr-defined]  # as dagorama's decorator does
    assert calculate_function_hash(wrapper) == calculate_function_hash(work)


def test_what_a_users_decorator_wraps_counts_as_well(hash_of: Callable[[str], str]) -> None:
    source = (
        "import functools\n"
        "def timed(function):\n"
        "    @functools.wraps(function)\n"
        "    def wrapper(*args):\n"
        "        return function(*args)\n"
        "    return wrapper\n"
        "@timed\n"
        "def work(self):\n"
        "    return 1\n"
    )
    hashes = {hash_of(source), hash_of(source.replace("return 1", "return 2")), hash_of(source.replace("*args", "*a"))}
    assert len(hashes) == 3


def test_methods_partials_and_cached_functions_hash_as_their_functions() -> None:
    class Task:
        def work(self) -> int:
            return 1

        @staticmethod
        def stat() -> int:
            return 2

    expected = calculate_function_hash(Task.work)
    assert calculate_function_hash(Task().work) == expected
    assert calculate_function_hash(functools.partial(Task.work, Task())) == expected
    assert calculate_function_hash(functools.lru_cache(Task.work)) == expected
    assert calculate_function_hash(Task.__dict__["stat"]) == calculate_function_hash(Task.stat)


@pytest.mark.parametrize("fn", [len, str.upper, object(), int], ids=["function", "method", "object", "class"])
def test_what_is_not_written_in_python_is_refused(fn: Any) -> None:
    with pytest.raises(TypeError, match="not written in Python"):
        calculate_function_hash(fn)


def test_lambdas_of_one_line_are_told_apart(hash_of: Callable[[str], str]) -> None:
    first = hash_of("work, other = (lambda x: x + 1), (lambda x: x + 2)\n")
    assert first != hash_of("other, work = (lambda x: x + 1), (lambda x: x + 2)\n")
    assert first == hash_of("\nwork = lambda x:x+1\n")
    assert hash_of("work = (lambda: lambda x: x + 1)()\n") == first


def test_installed_packages_count_when_asked_for() -> None:
    def work() -> None: ...

    strict = calculate_function_hash(work, include_package_versions=True)
    assert strict != calculate_function_hash(work)
    assert strict == calculate_function_hash(work, include_package_versions=True)


# --- without source ----------------------------------------------------------------------------------------------


def executed(source: str) -> Any:
    names: dict[str, Any] = {}
    exec(source, names)
    return names["work"]


def test_without_source_the_bytecode_counts_and_the_version_shows() -> None:
    source = "def work(n, a=1, *, b=2):\n    return [lambda: n + 1, {'x', 'y'}, a, b]\n"
    digest = calculate_function_hash(executed(source))
    assert digest.startswith(f"py{sys.version_info.major}.{sys.version_info.minor}-")
    assert digest == calculate_function_hash(executed("\n\n" + source))
    for old, new in [
        ("n + 1", "n + 2"),
        ("a=1", "a=3"),
        ("b=2", "b=3"),
        ("'y'", "'z'"),
        ("def work", "async def work"),
    ]:
        assert calculate_function_hash(executed(source.replace(old, new))) != digest


def test_a_file_that_is_gone_or_holds_something_else_is_not_taken_for_the_source(tmp_path: Path) -> None:
    source = "def work(n):\n    return n\n"
    for instead in ("", "def other(n):\n    return n\n", "def work(n, m):\n    return n\n", "def work(n:\n"):
        module = loaded(tmp_path, source)
        Path(module.__file__).write_text(instead)
        assert calculate_function_hash(module.work).startswith("py3.")


def test_source_kept_at_definition_outlives_a_change_of_the_file(tmp_path: Path) -> None:
    source = "def work(n):\n    return n + {}\n"
    expected = calculate_function_hash(loaded(tmp_path, source.format(1)).work)
    module = loaded(tmp_path, source.format(1))
    keep_source(module.work)
    Path(module.__file__).write_text(source.format(2))
    assert calculate_function_hash(module.work) == expected


def test_a_reloaded_module_has_the_hash_of_its_new_source(tmp_path: Path) -> None:
    source = "def work(n):\n    return n + {}\n"
    module = loaded(tmp_path, source.format(1))
    keep_source(module.work)
    before = calculate_function_hash(module.work)
    Path(module.__file__).write_text(source.format(1000))
    module.__spec__.loader.exec_module(module)
    keep_source(module.work)
    assert calculate_function_hash(module.work) != before


def test_a_notebook_cell_has_source(monkeypatch: pytest.MonkeyPatch, hash_of: Callable[[str], str]) -> None:
    import linecache

    cell, name = "def work(n):\n    return n\n", "<ipython-input-1-abc>"
    monkeypatch.setitem(linecache.cache, name, (len(cell), None, cell.splitlines(keepends=True), name))
    names: dict[str, Any] = {}
    exec(compile(cell, name, "exec"), names)
    assert calculate_function_hash(names["work"]) == hash_of(cell)


# --- everywhere the same -----------------------------------------------------------------------------------------


def case_hashes() -> dict[str, str]:
    functions = {
        name: value
        for name, value in vars(signature_cases).items()
        if isinstance(value, types.FunctionType) and value.__module__ == signature_cases.__name__
    }
    return {name: calculate_function_hash(function) for name, function in functions.items()}


REPORT = """
import types, signature_cases
from dagorama.code_signature import calculate_function_hash
for name, value in vars(signature_cases).items():
    if isinstance(value, types.FunctionType) and value.__module__ == "signature_cases":
        print(name, calculate_function_hash(value))
"""


def interpreter(version: str) -> str | None:
    """A Python of that version on the path, or one that pyenv has installed."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(versions.glob(f"{version}.*/bin/python"))
    return str(installed[-1]) if installed else shutil.which(f"python{version}")


@pytest.mark.parametrize("version", PYTHONS)
def test_every_supported_python_gives_the_same_hashes(version: str) -> None:
    python = interpreter(version)
    runs = python and subprocess.run([python, "-c", "pass"], capture_output=True).returncode == 0
    if not python or not runs:
        pytest.skip(f"Python {version} is not installed here")
    path = os.pathsep.join(map(str, (ROOT, Path(signature_cases.__file__).parent)))
    environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
    printed = subprocess.check_output([python, "-c", REPORT], env=environment, text=True, cwd=ROOT)
    assert dict(line.split() for line in printed.splitlines()) == case_hashes()


def test_no_two_of_many_functions_share_a_hash() -> None:
    hashes = case_hashes()
    assert len(hashes) >= 9
    assert len(set(hashes.values())) == len(hashes)
    assert not [digest for digest in hashes.values() if digest.startswith("py")]


def test_a_class_of_main_shipped_by_value_has_the_same_hash_in_the_child(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import subprocess, sys\n"
        "from dagorama.values.by_value import dumps\n"
        "from dagorama.code_signature import calculate_function_hash\n"
        "class Task:\n"
        "    def work(self, n, limit=3):\n"
        "        return sum(range(n)), limit\n"
        "print(calculate_function_hash(Task.work), flush=True)\n"
        "child = 'import sys, pickle; from dagorama.code_signature import calculate_function_hash as h; "
        "print(h(pickle.load(sys.stdin.buffer).work))'\n"
        "subprocess.run([sys.executable, '-c', child], input=dumps(Task), check=True)\n"
    )
    here, there = subprocess.check_output([sys.executable, str(script)], text=True, cwd=tmp_path).split()
    assert here == there
    assert not here.startswith("py")
