"""A resource is typed as what its function yields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

from dagorama import resource


class Model:
    def classify(self, picture: bytes) -> int:
        return len(picture)


@resource
def model() -> Iterator[Model]:
    yield Model()


assert_type(model(), Model)
assert_type(model().classify(b""), int)
