"""Real code gets no findings, and no module, however odd, breaks the checker."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from dagorama_check.checking import Result, check_files, check_paths, check_source
from dagorama_check.codes import RULES
from dagorama_check.files import Exclusion, made_file
from tests.check.running import HERE

ROOT = Path(__file__).parents[2]
OURS = (
    "benchmarks", "dagorama", "dagorama_check", "dagorama_dashboard", "dagorama_monitoring", "dagorama_testing",
    "samples",
)  # fmt: skip
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
#: Files of the standard library that are looked at; the largest are left out, to save time.
FILES, LARGEST = 300, 8_000
#: Without it a module makes no promises, and its functions are not looked at.
IMPORT = b"\nimport dagorama\n"


def shown(result: Result) -> list[str]:
    return [f"{each.path}:{each.line} {each.code}" for each in result.findings] + [
        str(each) for each in result.unreadable
    ]


@pytest.mark.parametrize("folder", OURS)
def test_our_code_gets_no_finding(folder: str) -> None:
    assert shown(check_paths([str(ROOT / folder)], select=["DAG"])) == []


@pytest.mark.slow
def test_our_tests_and_the_broker_get_no_finding() -> None:
    planted = Exclusion(("tests/check/planted",), ROOT)
    others = [str(ROOT / name) for name in ("dagorama_broker", "tests")]
    assert shown(check_paths(others, select=["DAG"], exclude=[planted])) == []


def standard_files() -> Iterator[Path]:
    """Yield files that are spread over the standard library and its tests; the tests have the oddest code."""
    found = sorted(STANDARD_LIBRARY.rglob("*.py"))
    odd = ("data", "badsyntax", "bad_coding", "lib2to3", "site-packages")
    good = [file for file in found if not any(part in str(file) for part in odd) and file.stat().st_size < LARGEST]
    yield from good[:: max(1, len(good) // FILES)]


@pytest.mark.parametrize("part", range(2))
def test_the_standard_library_gets_no_finding(part: int) -> None:
    files = [made_file(str(file), file.read_bytes() + IMPORT) for file in list(standard_files())[part::2]]
    assert len(files) > FILES // 4
    assert shown(check_files(files, RULES.keys())) == []


# --- odd code

ODD = [
    "", "\\\n", "x = " + "(" * 150 + "1" + ")" * 150, "x = " + "-" * 900 + "1", "x = " + "[" * 90 + "]" * 90,
    "x = 1" + " + 1" * 900, "if x:\n  pass\n" + "elif x:\n  pass\n" * 300, "class A(A): pass\nA().b()",
    "from . import x\nfrom .... import y\nfrom .a import *\n", "def f(): f()\nf()",
    "def f(): return g()\ndef g(): return f()\n",
    "f = lambda: f()\nf()", "def f(*a, **k): f(*a, *a, **k)\n", "class A:\n  global B\n  class B(A): pass\n",
    "x: int\nx += 1\ndel x\ndel x.y, x[0]\n", "a, *b = *c, = d", "for x[0], y.z in w: break\nelse: pass",
    "async def f():\n  async with a as (b, c): pass\n  async for x in y: continue\n  return [z async for z in w]",
    "try: pass\nexcept* TypeError: raise\nfinally: pass", "with a as b, c as d[0], e as f.g: pass",
    "match x:\n  case {'a': [1, *_], **r} | A(b=c) as d if e: pass\n  case None: pass\n  case -1 | 1j: pass",
    "x = yield\n", "print(f'{x!r:>{y}} {f\"{z}\"}')", "def f(a, /, b=1, *, c=2, **d): return locals()",
    "'%(a)s %d %%' % x\n'{0.a[b]} {:{}} {'.format(1, 2)\n'{'.format(1)", "x = y = z = [*x, *y]", "del (a, [b, c])",
    "@a.b(c)[d]\nclass E(*f, metaclass=g, **h): __slots__ = i", "super()\nsuper().x()\nsuper(A, B).c\n",
    "nonlocal_ = 1\ndef f():\n  x = 1\n  def g():\n    nonlocal x\n    x = 2\n  return g()\nf()", "while 1: pass\nx()",
]  # fmt: skip


def looked_at(source: str) -> Result:
    return check_files([made_file("odd.py", IMPORT + source.encode())], RULES.keys())


@pytest.mark.parametrize("source", ODD, ids=lambda source: ascii(source[:20]))
def test_odd_code_is_looked_at(source: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            ast.parse(source)
        except SyntaxError:
            assert len(looked_at(source).unreadable) == 1
        else:
            assert shown(looked_at(source)) == []


@pytest.mark.parametrize(
    "source", [b"x = '\xff'\n", b"# coding: nothing\n", b"x\0y", b"\xef\xbb\xbf# coding: latin-1\n"]
)
def test_a_file_that_is_no_text_is_unreadable(source: bytes) -> None:
    (unreadable,) = check_files([made_file("odd.py", source)], RULES.keys()).unreadable
    assert unreadable.reason.startswith("this is not valid Python: ")


def test_code_that_is_nested_too_deeply_is_unreadable_or_silent() -> None:
    sources = ["x = " + "(" * 5_000 + ")" * 5_000, "x = " + "-" * 100_000 + "1", "x" + ".y" * 50_000]
    for source in sources:
        assert not looked_at(source).findings


class Mutation(ast.NodeTransformer):
    """Exchanges expressions of a module with one another, and drops and swaps statements."""

    def __init__(self, random: Random, others: ast.Module) -> None:
        self._random = random
        self._expressions = [node for node in ast.walk(others) if isinstance(node, ast.expr)]

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and self._random.random() < 0.2:
            body[:] = self._random.sample(body, self._random.randint(1, len(body)))
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.expr) and self._random.random() < 0.1:
                setattr(node, name, self._random.choice(self._expressions))
        return node


def mutated(text: str, seed: str) -> Iterator[tuple[ast.Module, str]]:
    """Yield a mutation of a module, with its text, if it is valid Python."""
    tree = Mutation(Random(seed), ast.parse(text)).visit(ast.parse(text))
    source = ast.unparse(ast.fix_missing_locations(tree))
    with suppress(SyntaxError):
        yield ast.parse(source), source


@pytest.mark.parametrize("seed", range(3))
def test_mutated_modules_break_nothing(seed: int) -> None:
    valid = 0
    for file in sorted((HERE / "planted").glob("*.py")):
        for tree, source in mutated(file.read_text(), f"{seed} {file.name}"):
            valid += 1
            assert all(finding.code in RULES for finding in check_source(tree, "mutated.py", source))
    assert valid >= 5
