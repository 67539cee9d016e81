"""Certificates for tests: an authority of the test's own, and what it signs, as files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import trustme


class Authority:
    """An authority; `pair` makes a certificate of it and its key."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._made = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._made.cert_pem.write_to_path(self.file)

    def pair(self, *names: str, begins: datetime | None = None, ends: datetime | None = None) -> tuple[str, str]:
        """The files of a certificate for these names and of its key."""
        made = self._made.issue_cert(*names, not_before=begins, not_after=ends)
        cert, key = (self._folder / f"{self.file.stem}-{names[0]}.{kind}" for kind in ("pem", "key"))
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.touch(0o600)
        made.private_key_pem.write_to_path(key)
        return str(cert), str(key)
