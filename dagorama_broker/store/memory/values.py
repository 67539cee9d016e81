"""The methods of a store in memory about large values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from dagorama_broker.errors import StoreError
from dagorama_broker.model.objects import NewObject, ObjectRow
from dagorama_broker.store.memory.tables import Tables


class ValueMethods:
    """The methods of `Store` about large values, which are files."""

    tables: Tables
    objects = None

    def put_large(self, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        return self.tables.large.put(chunks)

    def get_large(self, sha256: bytes) -> Iterator[bytes] | None:
        return self.tables.large.get(sha256)

    def share_large(self) -> tuple[str, str]:
        return self.tables.large.share()

    def keep_large(self, sha256: bytes, length: int, unfinished: str = "") -> bool:
        return self.tables.large.keep(sha256, length, unfinished)

    def object_of(self, sha256: bytes) -> ObjectRow | None:
        return None

    def name_objects(self, new: Sequence[NewObject]) -> list[ObjectRow]:
        raise StoreError("large values of a store in memory are files, and not objects")

    def find_unnamed_large(self) -> None:
        """Do nothing: no earlier broker can have left any."""

    def collect_large(self, grace: float, most: int, is_wanted: Callable[[bytes], bool]) -> bool:
        return self.tables.large.collect(grace, most, is_wanted)

    def delete_collected(self, grace: float) -> None:
        self.tables.large.empty(grace)
