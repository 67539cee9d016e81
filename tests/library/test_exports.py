"""The public names: the imports that type checkers read, and the table that Python reads, are the same list."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import dagorama


def names_for_type_checkers() -> dict[str, str]:
    """Return the module of each name that is imported under TYPE_CHECKING, all of them exported by an alias."""
    tree = ast.parse(Path(dagorama.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    found: dict[str, str] = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            assert alias.asname == alias.name
            found[alias.name] = str(statement.module)
    return found


def test_type_checkers_and_python_know_the_same_names_from_the_same_modules() -> None:
    assert names_for_type_checkers() == dagorama._HOMES


def test_all_names_are_listed_once_in_order() -> None:
    assert dagorama.__all__ == sorted(set(dagorama.__all__))
    assert set(dagorama.__all__) <= set(dir(dagorama))


@pytest.mark.parametrize("name", dagorama.__all__)
def test_a_public_name_is_what_its_module_defines(name: str) -> None:
    found = getattr(dagorama, name)
    assert found is getattr(import_module(dagorama._HOMES[name]), name)
    assert found.__doc__


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dagorama' has no attribute 'nothing'"):
        dagorama.nothing  # noqa: B018  # asking for it is what is tested
