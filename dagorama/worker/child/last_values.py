"""The large bytes that the last node of this process returned or was given, for the next one.

A chain of nodes hands large values on, and they usually run in the same child: the next node need not read, compare and
copy what is still in memory. Only `bytes` objects are kept, which cannot be changed.

The rule: nothing is kept while a node runs, except what it was given. So a node has no less memory than without this.
"""

from __future__ import annotations

from dagorama.client.large_values import LargeValues
from dagorama.values.out_of_band import Buffer, Verified

#: The most bytes that are kept between two nodes; a larger value is read again.
MOST_BYTES = 256 << 20


class LastValues:
    """A store of large values that remembers a few of them. Nodes that overlap only make it remember less."""

    def __init__(self, stored: LargeValues) -> None:
        self._stored = stored
        self.kept: dict[bytes, bytes] = {}  #: values by their SHA-256
        self._given: dict[bytes, bytes] = {}  # to the node that reads its arguments

    def put(self, data: Buffer) -> bytes:
        """Store a value of a running node; return its SHA-256."""
        return self._stored.put(data)

    def put_result(self, data: Buffer) -> bytes:
        """Store a part of the value that a node has returned; return its SHA-256."""
        digest = self._stored.put(data)
        if type(data) is bytes:
            self._keep(digest, data)
        return digest

    def get(self, digest: bytes) -> Buffer | Verified:
        """Return the value with this SHA-256."""
        kept = self.kept.get(digest)
        if kept is None:
            return self._stored.get(digest)
        self._given[digest] = kept
        return Verified(kept)

    def settle(self) -> None:
        """Forget what the node that has read its arguments was not given, before it runs."""
        self.kept, self._given = self._given, {}

    def forget(self) -> None:
        """Forget everything."""
        self.kept, self._given = {}, {}

    def _keep(self, digest: bytes, data: bytes) -> None:
        self.kept[digest] = data
        while sum(map(len, self.kept.values())) > MOST_BYTES:
            del self.kept[next(iter(self.kept))]
