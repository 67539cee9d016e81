"""Defines the record of a cached value: which node has the value of a cache key."""

from __future__ import annotations

from typing import NamedTuple

#: Bytes of a cache key, and the most of a proof.
KEY_BYTES, LONGEST_PROOF = 32, 128


class CachedRow(NamedTuple):
    """A node has the value of a cache key. The row is deleted with the node's instance."""

    key: bytes  #: 32 bytes, opaque
    function: str  #: name of the function that the node runs
    function_id: int
    instance: int
    instance_id: bytes
    node: int
    node_id: bytes
    completed: float  #: seconds since 1970
    expires: float  #: seconds since 1970; 0: never
    has_refs: bool  #: whether the value names other nodes
    proof: bytes  #: that the node has the value; opaque
