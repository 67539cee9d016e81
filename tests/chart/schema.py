"""The values of the chart by their paths, from values.schema.json: `python -m tests.chart.schema` writes their table.

The table is the body of docs/reference/chart.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from tests.chart.tools import CHART, ROOT

PAGE = ROOT / "docs" / "reference" / "chart.md"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
#: Defaults of values of pools, which are in the templates, because there is no pool at first.
POOL_DEFAULTS = {
    "kind": "deployment", "replicas": 1, "concurrency": 1, "grace": 25, "idle": 60, "metrics": True,
    "image.pullPolicy": "IfNotPresent", "token.key": "token", "autoscale.min": 0,
}  # fmt: skip
POOL = "pools.NAME"


class Value(NamedTuple):
    """A value that users may set."""

    path: str
    default: str
    description: str


def values() -> Iterator[Value]:
    """All values, in the order of the schema."""
    for path, schema in _leaves(SCHEMA, ""):
        yield Value(path, _default(path), schema["description"])


def _leaves(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    inner = schema.get("properties", {})
    if "patternProperties" in schema:
        (pool,) = schema["patternProperties"].values()
        yield from _leaves(pool, POOL)
    elif inner:
        for name, each in inner.items():
            yield from _leaves(each, f"{path}.{name}" if path else name)
    else:
        yield path, schema


def _default(path: str) -> str:
    if path.startswith(POOL):
        found: Any = POOL_DEFAULTS.get(path.removeprefix(f"{POOL}."))
    else:
        found = DEFAULTS
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
    if found in (None, "", [], {}):
        return ""
    return f"`{found}`" if isinstance(found, str) else f"`{json.dumps(found)}`"


def table() -> str:
    """The table of all values."""
    rows = [f"| `{value.path}` | {value.default} | {value.description} |" for value in values()]
    return "\n".join(("| value | default | meaning |", "| --- | --- | --- |", *rows, ""))


if __name__ == "__main__":
    print(table(), end="")
