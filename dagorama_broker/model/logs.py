"""Parts of what attempts have printed and logged, as they arrive and as they are kept, and questions about them."""

from __future__ import annotations

from typing import NamedTuple


class LogOwner(NamedTuple):
    """The node that a log belongs to."""

    instance: bytes
    node: bytes
    function: str


class LogPart(NamedTuple):
    """A part of the log of an attempt. `records` is never read here."""

    owner: LogOwner
    attempt: int  #: by which claims are told apart
    number: int  #: of the attempt, for people: 1 for the first one
    sequence: int  #: counts up within the attempt
    is_head: bool  #: it is kept; of other parts only the latest are
    left_out: int  #: bytes of text before this part that were dropped
    first: int  #: microseconds since 1970: of its first record
    last: int  #: and of its last one
    size: int  #: bytes of text
    records: bytes

    @property
    def lost(self) -> LogPart:
        """Return the part without its text: it only says how much is missing."""
        return self._replace(is_head=False, left_out=self.left_out + self.size, size=0, records=b"")


class LogQuery(NamedTuple):
    """Which parts to read; an empty field or 0 means all."""

    instance: bytes
    node: bytes = b""
    number: int = 0
    function: str = ""
    since: int = 0  #: microseconds since 1970


class KeptPart(NamedTuple):
    """A part as it is read."""

    id: int  #: rises from part to part
    node: bytes
    function: str
    number: int
    left_out: int
    records: bytes
