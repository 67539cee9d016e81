"""The structure of all packages stays within bounds: rooms, layers, cycles of imports, sizes of files and functions.

A room is a module or a package directly below one of the packages.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from tests.support.packages import PACKAGES, ROOT

#: Rooms and layers that each package may have at most.
ROOMS = {
    "dagorama": 24,
    "dagorama_broker": 14,
    "dagorama_check": 9,
    "dagorama_dashboard": 9,
    "dagorama_monitoring": 6,
    "dagorama_testing": 13,
}
LAYERS = {
    "dagorama": 11,
    "dagorama_broker": 8,
    "dagorama_check": 5,
    "dagorama_dashboard": 8,
    "dagorama_monitoring": 3,
    "dagorama_testing": 9,
}
#: Lines that a file may have at most, and lines below which it is a short one, of which there may be only a few.
LONGEST_FILE, SHORT_FILE, SHORT_FILES = 300, 40, 5
#: Lines of functions: the longest, nine in ten, and half of them.
LONGEST_FUNCTION, P90_FUNCTION, MEDIAN_FUNCTION = 50, 15, 6


Imports = Mapping[str, set[str]]


@cache
def imports_in(package: str, for_types_too: bool) -> Imports:
    """Return what each module of a package imports directly of the same package."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=not for_types_too, cache_dir=None)
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def rooms_in(package: str) -> Imports:
    """Return what each room of a package imports of other rooms, leaving out imports for types."""
    rooms: dict[str, set[str]] = {}
    for module, imported in imports_in(package, False).items():
        if module != package:
            rooms.setdefault(room_of(module), set()).update(map(room_of, imported - {package}))
    return {room: imported - {room} for room, imported in rooms.items()}


def room_of(module: str) -> str:
    return module.split(".")[1]


def layers_in(rooms: Imports) -> int:
    """Return the length of the longest chain of imports between rooms."""
    depth: dict[str, int] = {}
    for room in TopologicalSorter(rooms).static_order():
        depth[room] = 1 + max((depth[below] for below in rooms[room]), default=0)
    return max(depth.values())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_few_rooms(package: str) -> None:
    assert len(rooms_in(package)) <= ROOMS[package], sorted(rooms_in(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_few_layers(package: str) -> None:
    assert layers_in(rooms_in(package)) <= LAYERS[package]


@pytest.mark.parametrize("for_types_too", [False, True], ids=["at run time", "for types too"])
@pytest.mark.parametrize("package", PACKAGES)
def test_modules_import_one_another_in_no_cycle(package: str, for_types_too: bool) -> None:
    try:
        TopologicalSorter(imports_in(package, for_types_too)).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def product_files() -> list[Path]:
    """Return the files that are written by hand."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return [file for file in files if not file.stem.endswith(("_pb2", "_pb2_grpc"))]


def lines_of_files() -> dict[str, int]:
    return {str(file.relative_to(ROOT)): file.read_text().count("\n") for file in product_files()}


def lines_of_functions() -> Iterator[tuple[int, str]]:
    for file in product_files():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                end = node.end_lineno or node.lineno
                yield end - node.lineno + 1, f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"


def test_no_file_is_long() -> None:
    long = {file: lines for file, lines in lines_of_files().items() if lines > LONGEST_FILE}
    assert not long


def test_few_files_are_short() -> None:
    short = {file: lines for file, lines in lines_of_files().items() if 0 < lines < SHORT_FILE}
    assert len(short) <= SHORT_FILES, short


def test_functions_are_short() -> None:
    functions = list(lines_of_functions())
    lines = [count for count, _ in functions]
    long = [where for count, where in functions if count > LONGEST_FUNCTION]
    assert not long
    assert statistics.median(lines) <= MEDIAN_FUNCTION
    assert statistics.quantiles(lines, n=10)[-1] <= P90_FUNCTION
