"""A payload that leaves a file behind if it is unpickled; and envelopes that were changed on their way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagorama.values.codec import Encoded, encode


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)

    @property
    def envelope(self) -> bytes:
        """Return an unsigned envelope."""
        return self.encoded.envelope

    @property
    def encoded(self) -> Encoded:
        return encode(self)

    @property
    def went_off(self) -> bool:
        return self.file.exists()


def changed(envelope: bytes) -> Iterator[bytes]:
    """Each byte of it changed, in one bit and in all of them."""
    for place, byte in enumerate(envelope):
        for other in (byte ^ 1, byte ^ 0x80, byte ^ 0xFF):
            yield envelope[:place] + bytes([other]) + envelope[place + 1 :]


def cut_short(envelope: bytes) -> Iterator[bytes]:
    for length in range(len(envelope)):
        yield envelope[:length]
