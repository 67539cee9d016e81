"""An object store as a few blocking calls, by obstore.

The rule: obstore is imported when the store is opened, never earlier: its threads do not survive a fork. Errors name
the bucket and what the store answered; no error or log holds a key or a signed URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from dagorama_broker.environment import has_plain_endpoint
from dagorama_broker.errors import SettingsError, StoreError, ValuesAway

if TYPE_CHECKING:
    from obstore.store import ObjectStore, S3Store

#: The schemes of URLs of object stores, each with its name for people and the variables with its credentials.
KINDS = {
    "s3": ("S3", "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL"),
    "gs": ("Google Cloud Storage", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": ("Azure", "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY"),
}
#: Names that one request deletes, at most.
BULK = 1_000
#: Bytes of a chunk of a value that is read; and of a part that one request writes or reads. A value is transferred in
#: parts, so that each request ends soon, and a broker that leaves need not wait for long.
CHUNK, PART = 1 << 20, 5 << 20
#: Time of a request without a large body; and of one with it.
_SHORT, _LONG = "10s", "30s"
#: Parts of a value that are written at the same time.
_AT_ONCE = 4
#: Further tries of a request, the time for which they begin, and the pauses between them.
_RETRIES, _RETRYING = 2, timedelta(seconds=10)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=100), timedelta(seconds=2)
#: The header by which Azure knows what kind of object an upload makes.
_AZURE = (("x-ms-blob-type", "BlockBlob"),)
#: Without a type, some servers wait for a form, and others refuse the upload.
_TYPE = (("Content-Type", "application/octet-stream"),)
#: The address at which a cloud's machine would find credentials, which is asked if there are no others.
_METADATA = ("169.254.169.254", "metadata.google.internal")
_AWAY = re.compile(r"status code: 5\d\d|error sending request|error decoding response body|operation timed out")


class Listed(NamedTuple):
    """An object in a list."""

    name: str
    modified: float  #: by the store's clock, seconds since 1970


class Remote:
    """A bucket and a prefix in it, below which names are relative. It is thread-safe."""

    def __init__(self, url: str) -> None:
        """`url`: `s3://bucket/prefix`, `gs://...` or `az://...`.

        Raise SettingsError if it is wrong, or if the package is not installed.
        """
        self.url = url.rstrip("/")
        self.kind, _, place = url.partition("://")
        if self.kind not in KINDS or not place.partition("/")[0] or "?" in place or "@" in place:
            raise SettingsError(
                f"--values {url} (DAGORAMA_VALUES) must be {self.kind}://BUCKET/PREFIX; credentials belong into the"
                f" variables {KINDS.get(self.kind, KINDS['s3'])[1]}"
            )
        if find_spec("obstore") is None:
            raise SettingsError("values in an object store need a package: pip install 'dagorama[objects]'")
        self._stores: tuple[ObjectStore, ObjectStore] | None = None
        self.is_away = False  #: whether the last request was not answered

    def open(self) -> None:
        """Read credentials and endpoint from the environment. Raise StoreError if they make no sense."""
        if self._stores is None:
            try:
                self._stores = self._connected(_SHORT), self._connected(_LONG)
            except Exception as error:  # obstore raises its own errors, and ValueError and TypeError for settings
                raise StoreError(f"{self.url}: {self._refusal(error)}") from None

    def _connected(self, timeout: str) -> ObjectStore:
        from obstore.store import from_url

        return from_url(
            self.url,
            client_options={"timeout": timeout, "connect_timeout": "3s", "allow_http": has_plain_endpoint()},
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": _RETRYING,
                "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2},
            },
        )

    # --- objects --------------------------------------------------------------------------------------

    def put(self, name: str, file: BinaryIO) -> None:
        """Store what a file holds. Raise ValuesAway if the store does not take it."""
        import obstore

        with self._translated():
            obstore.put(self._large, name, file, chunk_size=PART, max_concurrency=_AT_ONCE)

    def create(self, name: str, data: bytes) -> None:
        """Store a few bytes, unless there is such an object. Raise ValuesAway."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._translated():
            try:
                obstore.put(self._small, name, data, mode="create")
            except AlreadyExistsError:
                return

    def read(self, name: str) -> Iterator[bytes] | None:
        """Return an object in chunks of at most 1 MiB; None if there is none. Raise ValuesAway, also between chunks."""
        length = self.length(name)
        return None if length is None else self._chunks(name, length)

    def _chunks(self, name: str, length: int) -> Iterator[bytes]:
        import obstore

        for start in range(0, length, PART):
            with self._translated():
                part = obstore.get_range(self._large, name, start=start, end=min(start + PART, length))
            view = memoryview(part)
            for first in range(0, len(view), CHUNK):
                yield bytes(view[first : first + CHUNK])

    def length(self, name: str) -> int | None:
        """Return the bytes of an object; None if there is none. Raise ValuesAway."""
        import obstore

        with self._translated():
            try:
                return obstore.head(self._small, name)["size"]
            except FileNotFoundError:
                return None

    def delete(self, names: Sequence[str]) -> None:
        """Delete up to `BULK` objects, of which some may not exist. Raise ValuesAway."""
        import obstore

        with self._translated():
            try:
                obstore.delete(self._small, list(names))
            except FileNotFoundError:  # Azure and Google answer so if one of them does not exist
                for name in names:
                    self._delete_one(name)

    def _delete_one(self, name: str) -> None:
        import obstore

        try:
            obstore.delete(self._small, name)
        except FileNotFoundError:
            return

    def pages(self) -> Iterator[list[Listed]]:
        """Yield all objects below the prefix, up to `BULK` at a time. Raise ValuesAway."""
        import obstore

        found = iter(obstore.list(self._small, chunk_size=BULK))
        while True:
            with self._translated():
                page = next(found, None)
            if page is None:
                return
            yield [Listed(each["path"], each["last_modified"].timestamp()) for each in page]

    def sign(self, method: str, name: str, seconds: float) -> str:
        """Return a URL with which anyone may `GET` or `PUT` the object for some time. Raise StoreError."""
        import obstore

        try:
            # The schemes that are accepted are the ones of stores that can sign.
            return obstore.sign(
                cast("S3Store", self._small), "PUT" if method == "PUT" else "GET", name, timedelta(seconds=seconds)
            )
        except Exception as error:
            raise StoreError(
                f"{self.url}: these credentials cannot sign URLs ({_sentence(error)}): use a key that can, or send"
                " values through the broker with DAGORAMA_VALUES_TRANSFER=broker"
            ) from None

    @property
    def upload_headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that an upload to a signed URL must have."""
        return _TYPE + (_AZURE if self.kind == "az" else ())

    # --- errors ---------------------------------------------------------------------------------------

    def check(self, name: str) -> None:
        """Write, look at and delete an object. Raise StoreError if the store refuses that, ValuesAway if it is away."""
        import obstore

        self.open()
        try:
            obstore.put(self._small, name, b"dagorama")
            obstore.head(self._small, name)
            obstore.delete(self._small, name)
        except Exception as error:
            self.is_away = True
            if _is_away(error):
                raise ValuesAway(self._unanswered(error)) from None
            raise StoreError(f"{self.url}: {self._refusal(error)}") from None
        self.is_away = False

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (StoreError, ValuesAway):
            raise
        except Exception as error:
            self.is_away = True
            raise ValuesAway(self._unanswered(error)) from None
        self.is_away = False

    def _unanswered(self, error: Exception) -> str:
        return f"the object store of large values, {self.url}, does not do what it is asked: {_sentence(error)}"

    def _refusal(self, error: Exception) -> str:
        name, variables = KINDS[self.kind]
        if any(address in str(error) for address in _METADATA):
            return f"there are no credentials of {name} here: set {variables}"
        return f"{name} refuses to keep values there ({_sentence(error)}): check the bucket, and {variables}"

    @property
    def _small(self) -> ObjectStore:
        return self._opened()[0]

    @property
    def _large(self) -> ObjectStore:
        return self._opened()[1]

    def _opened(self) -> tuple[ObjectStore, ObjectStore]:
        if self._stores is None:
            raise StoreError(f"{self.url} is not open")
        return self._stores


def _is_away(error: Exception) -> bool:
    return bool(_AWAY.search(str(error))) and not any(address in str(error) for address in _METADATA)


def _sentence(error: Exception) -> str:
    """Return what an error says in one line, without URLs and without what may repeat a request."""
    text = str(error).partition("Debug source")[0]
    said = [found[1] for key in ("Code", "Message") if (found := re.search(f"<{key}>(.*?)</{key}>", text))]
    status = re.search(r"status code: (\d+[\w ]*)", text)
    if status or said:
        return ": ".join([*([status[1].strip()] if status else []), *said])
    line = text.strip().partition("\n")[0]
    return re.sub(r"\S+://\S+", "...", line.rpartition(" - ")[2] or line)[:300]
