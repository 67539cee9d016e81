"""Signing keys: their form, and the sources from which this process loads them.

The rule: no error, repr or pickle contains a secret.
"""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64decode
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes, token_urlsafe
from typing import TYPE_CHECKING, NoReturn

from dagorama.api.contract import KEY_ID_BYTES
from dagorama.errors import SettingsError
from dagorama.settings import signing_keys
from dagorama.values.private_files import OTHERS, check_trust, is_open_to, open_file

if TYPE_CHECKING:
    from hashlib import _Hash  # the type stubs of hashlib give it this name

KEY_BYTES = 32

_TEXT = re.compile(r"[A-Za-z0-9_-]{43}")  # base64 of KEY_BYTES bytes, for URLs and without padding

#: The beginning of everything that a key signs, so that a signature is valid for nothing else.
LABEL = b"dagorama envelope\0"
_ID_LABEL = b"dagorama signing key\0"
_BLOCK = 64  # bytes, of SHA-256
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))  # HMAC's, RFC 2104


class SigningKey:
    """A key of HMAC-SHA256: copies of two hashes that begin with the key make a signature in half a microsecond."""

    __slots__ = ("id", "inner", "outer")

    def __init__(self, secret: bytes) -> None:
        self.id = sha256(_ID_LABEL + secret).digest()[:KEY_ID_BYTES]  #: identifies the key and reveals nothing about it
        padded = secret.ljust(_BLOCK, b"\0")
        self.inner: _Hash = sha256(padded.translate(_INNER) + LABEL)
        self.outer: _Hash = sha256(padded.translate(_OUTER))

    def __repr__(self) -> str:
        return f"<signing key {self.id.hex()}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key cannot be pickled: each process loads its own")


def new_key() -> str:
    """Return a new key as text, in the form of DAGORAMA_SIGNING_KEYS."""
    return token_urlsafe(KEY_BYTES)


def load_keys() -> list[SigningKey]:
    """Return the keys that the environment names, or else the key of this user on this machine.

    The first key signs, all keys verify. Raises SettingsError, which says what to do.
    """
    text, file = signing_keys()
    if text:
        return _parsed(text, "DAGORAMA_SIGNING_KEYS")
    return _parsed(*_own_key()) if not file else _parsed(_read(Path(file)), file)


def where() -> str:
    """Return the source of `load_keys`, as text."""
    text, file = signing_keys()
    return "DAGORAMA_SIGNING_KEYS" if text else file or str(_own_path())


def _parsed(text: str, source: str) -> list[SigningKey]:
    found = [_key(word, number, source) for number, word in enumerate(text.replace(",", " ").split(), 1)]
    if not found:
        raise SettingsError(f"{source} holds no signing key: `dagorama keys new` prints one")
    return found


def _key(word: str, number: int, source: str) -> SigningKey:
    if not _TEXT.fullmatch(word):
        raise SettingsError(f"key {number} of {source} is not a valid signing key: `dagorama keys new` prints one")
    return SigningKey(urlsafe_b64decode(word + "="))


# --- files -----------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    """Read a file of keys; raise SettingsError if it cannot be read, or other users may use or have written it."""
    try:
        with open_file(path) as file:
            check_trust(file.fileno(), path)
            if is_open_to(OTHERS, file.fileno()):
                mode = os.fstat(file.fileno()).st_mode
                raise SettingsError(
                    f"{path} holds signing keys and others than its owner may use it (mode {mode & 0o777:o}): "
                    f"chmod 600 {path}, and create new keys if someone may have read it"
                )
            return file.read(1 << 16).decode("ascii", "replace")
    except OSError as error:
        raise SettingsError(f"the signing keys in {path} cannot be read: {error.strerror}") from None


def _own_path() -> Path:
    """Return the path of this user's key; raise SettingsError for a user without a home folder, as in a container."""
    from platformdirs import user_config_path

    try:
        folder = user_config_path("dagorama", appauthor=False)
    except RuntimeError:  # raised by pathlib's expanduser()
        folder = Path()
    # os.path.expanduser() leaves a "~" unchanged if there is no home folder.
    if not folder.is_absolute():
        raise SettingsError(
            "no signing key is set, and this user has no home folder for one: set DAGORAMA_SIGNING_KEYS to the output "
            "of `dagorama keys new`, the same for clients and workers, or HOME to a folder"
        )
    return folder / "signing.key"


def _own_key() -> tuple[str, str]:
    """Return the key of this user on this machine, and its path; create the key if there is none."""
    path = _own_path()
    try:
        if not path.exists():
            _make(path)
    except OSError as error:
        raise SettingsError(
            f"no signing key is set and none can be stored in {path} ({error.strerror}): "
            "set DAGORAMA_SIGNING_KEYS to the output of `dagorama keys new`, the same for clients and workers"
        ) from None
    return _read(path), str(path)


def _make(path: Path) -> None:
    """Create the key file at once, with its content; if two processes try, one succeeds and both use its file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{token_bytes(8).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{new_key()}\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, it fails if the file exists
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
