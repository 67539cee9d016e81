"""The SHA-256 of large bytes, computed while the caller writes them, which takes longer."""

from __future__ import annotations

from hashlib import sha256
from threading import Thread

from dagorama.values.out_of_band import Buffer

#: Bytes from which a thread computes it. For less it costs more than it saves if all cores are busy.
BESIDE = 16 << 20


class Hashing:
    """The SHA-256 of bytes that do not change meanwhile."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._digest = b""
        self._thread: Thread | None = None
        if len(data) < BESIDE:
            self._compute()
            return
        thread = Thread(target=self._compute, name="dagorama-sha256", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there may be no more threads, or the interpreter is ending
            self._compute()
        else:
            self._thread = thread

    @property
    def is_done(self) -> bool:
        """Return whether `digest` returns at once."""
        return bool(self._digest)

    def digest(self) -> bytes:
        """Return the SHA-256, as soon as it is known."""
        if self._thread is not None:
            self._thread.join()
        if not self._digest:  # the thread has raised an error, such as MemoryError
            self._compute()
        return self._digest

    def _compute(self) -> None:
        self._digest = sha256(self._data).digest()
