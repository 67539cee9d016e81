"""Aliases of `type` statements, which Python has from 3.12 on, travel with the code of a script."""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.library.test_code_signature import interpreter

ROOT = Path(__file__).parents[2]
SEND = """
import sys
from pathlib import Path
from dagorama.values.by_value import dumps

type Number = int | float
type Json = dict[str, Json] | list[Json] | str
type Names = list[Groups]
type Groups = dict[str, Names]
type Pair[T] = tuple[T, T]
type Nested[T] = list[Nested[T]]

Path(sys.argv[1]).write_bytes(dumps([Number, Json, Json, Names, Pair]))
try:
    dumps(Nested)
except TypeError as error:
    print(error)
"""
RECEIVE = """
import pickle, sys
from pathlib import Path

number, json, again, names, pair = pickle.loads(Path(sys.argv[1]).read_bytes())
print(number, number.__value__, number.__module__)
print(json.__value__, json is again)
print(names.__value__, names.__value__.__args__[0].__value__)
print(pair.__value__, pair[int], pair.__type_params__)
"""


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_types_that_are_named_by_statements_travel_by_value(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}

    def said(code: str) -> str:
        script, kept = tmp_path / "script.py", tmp_path / "kept"
        script.write_text(code)
        done = subprocess.run([python, script, kept], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said(SEND) == "cannot pickle the type Nested, which has parameters and names itself\n"
    assert said(RECEIVE).splitlines() == [
        "Number int | float __main__",
        "dict[str, Json] | list[Json] | str True",
        "list[Groups] dict[str, Names]",
        "tuple[~T, ~T] Pair[int] (~T,)",
    ]
