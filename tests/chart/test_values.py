"""Every value of the chart is described, and does something."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from tests.chart.rendered import NAMES, NEEDS_HELM, VALUES, template
from tests.chart.schema import DEFAULTS, PAGE, POOL, SCHEMA, table, values

Tree = dict[str, Any]
#: Helm passes it on to charts within others.
NOT_OURS = {"global"}
PATHS = [value.path for value in values() if value.path not in NOT_OURS]


def test_the_page_has_the_table_that_the_schema_makes() -> None:
    assert table() in PAGE.read_text(), "write it again: python -m tests.chart.schema"


def test_every_default_is_in_the_schema() -> None:
    def unknown(tree: Tree, schema: Tree, path: str) -> list[str]:
        found = []
        for name, value in tree.items():
            inner = schema["properties"].get(name)
            if inner is None:
                found.append(f"{path}{name}")
            elif isinstance(value, dict) and "properties" in inner:
                found += unknown(value, inner, f"{path}{name}.")
        return found

    assert unknown(DEFAULTS, SCHEMA, "") == []


def test_no_object_of_the_schema_takes_unknown_keys() -> None:
    def open_objects(schema: Tree) -> list[str]:
        found = [] if "properties" not in schema or schema["additionalProperties"] is False else [str(schema)]
        inner = (*schema.get("properties", {}).values(), *schema.get("patternProperties", {}).values())
        return found + [each for part in inner for each in open_objects(part)]

    assert open_objects(SCHEMA) == []


@NEEDS_HELM
def test_leaving_a_value_out_changes_what_is_rendered(tmp_path: Path) -> None:
    """An option that does nothing would be a lie."""
    files = {name: yaml.safe_load((VALUES / f"{name}.yaml").read_text()) for name in NAMES}
    whole = {name: output(tree, tmp_path) for name, tree in files.items()}

    def does_something(path: str) -> bool:
        for name, tree in files.items():
            for less in without(tree, path):
                if output(less, tmp_path) != whole[name]:
                    return True
        return False

    assert [path for path in PATHS if not does_something(path)] == []


def output(tree: Tree, folder: Path) -> str:
    """The output of helm with these values, which may be a refusal."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(tree))
    done = template("--values", str(file))
    return done.stdout + done.stderr


def without(tree: Tree, path: str) -> list[Tree]:
    """The values without one of them: once for each pool that has it, and not at all if it is not set."""
    names = path.split(".")
    pools = tree.get("pools", {})
    paths = [["pools", pool, *names[2:]] for pool in pools] if path.startswith(POOL) else [names]
    found = []
    for each in paths:
        less = copy.deepcopy(tree)
        inner: Any = less
        for name in each[:-1]:
            inner = inner.get(name, {})
        if inner.pop(each[-1], None) is not None:
            found.append(less)
    return found


def test_each_value_is_set_in_one_of_the_files() -> None:
    files = [yaml.safe_load((VALUES / f"{name}.yaml").read_text()) for name in NAMES]
    assert [path for path in PATHS if not any(without(tree, path) for tree in files)] == []
