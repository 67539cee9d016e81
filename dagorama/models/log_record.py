"""Records of what nodes print, log and report."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

#: The values of `LogRecord.stream`, by their numbers on the wire; and the one of a mark for what is missing.
STREAMS = ("stdout", "stderr", "logging", "death")
LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A line that a node has printed, a record of the module logging, or a mark for bytes that were left out."""

    node_id: UUID
    function: str  #: "package.module:Class.method"
    attempt: int  #: 1 for the first attempt
    time: float  #: seconds since 1970, of the worker's clock; 0 for a mark
    stream: str  #: "stdout", "stderr", "logging", "death" (written when the process died), or "left out" for a mark
    data: bytes = b""  #: as it was written, without the newline at its end
    cut: int = 0  #: bytes that were cut off the end of `data`
    level: int = 0  #: of the module logging: the number of its level
    logger: str = ""  #: of the module logging: the name of the logger
    left_out: int = 0  #: of a mark: bytes of the same attempt that were dropped here

    @property
    def text(self) -> str:
        """The text for people, with a note of what was cut off or left out; bytes that are not UTF-8 as `\\xff`."""
        if self.left_out:
            return f"... {self.left_out:,} bytes left out ..."
        text = self.data.decode("utf-8", "backslashreplace")
        return f"{text} ... {self.cut:,} bytes cut off" if self.cut else text


@dataclass(frozen=True, slots=True)
class NodeReport:
    """The progress of a running node, as it has called `report`."""

    node_id: UUID
    function: str  #: "package.module:Class.method"
    message: str
    fraction: float | None  #: from 0 to 1
    time: float  #: seconds since 1970, of the worker's clock
