"""Large values as objects: `sha256[:2]/sha256/RANDOM` below a prefix. Rows of the store say which object is a value.

The rule: an object is never written twice, because each upload gets a new name, and a name becomes a value at most
once, at the broker that gave it out. So a delete that comes late, even from a broker that was replaced, can only hit an
object that no row will ever name.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256 as sha256_of

from dagorama_broker.errors import StoreError, ValuesAway
from dagorama_broker.model.objects import ObjectRow, Placing, object_name, value_in
from dagorama_broker.store.graces import Graces
from dagorama_broker.store.objects.remote import BULK, Remote
from dagorama_broker.store.objects.uploads import Offers, spooled

log = logging.getLogger("dagorama_broker")

#: Seconds for which the URLs of uploads and of downloads are valid.
PUT_SECONDS, GET_SECONDS = 3600.0, 600.0
#: Seconds between two comparisons of all objects with the rows, and from the start to the first one.
SWEEP_EVERY, FIRST_SWEEP = 86_400.0, 600.0
#: Age in seconds from which an object without a row is deleted: an upload may take `PUT_SECONDS`.
LEFT_BEHIND = 86_400.0
#: Seconds between two looks whether the store answers.
LOOK_EVERY = 30.0
#: The object that says to which store of records the prefix belongs, and one that does not exist.
_OWNER, _NOTHING = "owner", "none"
#: The beginning of the names of objects with which a start finds out whether it may write.
_CHECK = "check-"

#: Returns which of these objects rows name; called in any thread.
Named = Callable[[list[str]], set[str]]


class LargeObjects:
    """The large values of a store in a bucket. Methods may be called in any thread, unless they say otherwise."""

    def __init__(self, url: str, is_signed: bool = True, is_owned: bool = True) -> None:
        """`is_signed`: whether clients get URLs; otherwise all bytes go through the broker. Raise SettingsError.

        `is_owned`: whether the prefix belongs to this store alone, which may then delete objects.
        """
        self.remote = Remote(url)
        self.is_signed = is_signed
        self._is_owned = is_owned
        self._graces = Graces()
        self._going: dict[str, ObjectRow] = {}  # collected, by object; their rows are about to be deleted
        self._gone: list[ObjectRow] = []  # of these, the ones whose rows must still be deleted
        self._trash: list[str] = []  # objects without a row
        self._offers = Offers()
        self._damaged: set[str] = set()  # objects that have other bytes than their names say
        self._owner = b""
        self._next_sweep = time.monotonic() + FIRST_SWEEP
        self._next_look = 0.0
        self._thread: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Find out whether the bucket can be used. Raise StoreError if it refuses; warn if it does not answer."""
        try:
            self.remote.check(f"{_CHECK}{os.urandom(8).hex()}")
        except ValuesAway as error:
            log.error("%s; nodes with large values wait until it answers", error)
        if self.is_signed:
            self.remote.sign("GET", _NOTHING, GET_SECONDS)
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="objects")

    def claim(self, secret: bytes) -> None:
        """Note that the prefix belongs to the store of records with this secret. Raise StoreError if to another one."""
        if not self._is_owned:
            return
        self._owner = sha256_of(b"dagorama values of " + secret).hexdigest().encode()
        try:
            self._check_owner()
        except ValuesAway:
            return  # reported at `open`; each sweep looks again

    def _check_owner(self) -> None:
        if self.remote.length(_OWNER) is None:
            self.remote.create(_OWNER, self._owner)
        if b"".join(self.remote.read(_OWNER) or ()) != self._owner:
            raise StoreError(
                f"{self.remote.url} has the large values of another store, which would delete the values of this one:"
                " choose another prefix"
            )

    def close(self) -> None:
        """Stop deleting objects; the next sweep finds the rest."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False, cancel_futures=True)

    # --- giving ---------------------------------------------------------------------------------------

    def offer(self, sha256: bytes, length: int) -> Placing:
        """Return the place to which a client may upload a value, under a new name."""
        name = object_name(sha256, os.urandom(8))
        placing = Placing(self.remote.sign("PUT", name, PUT_SECONDS), self.remote.upload_headers, name)
        # The request may end some time after the URL is no longer valid for another one.
        self._offers.add(name, sha256, length, 2 * PUT_SECONDS)
        return placing

    def accept(self, sha256: bytes, length: int, name: str) -> ObjectRow | None:
        """Return the row of an object that a client has uploaded; None if it was not offered here, or is not whole.

        An object is accepted once. Raise ValuesAway; then it may be accepted later.
        """
        if not self._offers.has(name, sha256, length):
            return None
        found = self.remote.length(name)
        if not self._offers.redeem(name):
            return None
        if found != length:
            self._trash.append(name)
            return None
        return ObjectRow(sha256, length, name, time.time())

    def upload(self, chunks: Iterable[bytes]) -> ObjectRow:
        """Store a value that came through the broker, by way of a temporary file; return its row.

        An exception of `chunks` is passed on, and nothing is stored then. Raise ValuesAway.
        """
        with spooled(chunks) as found:
            name = object_name(found.sha256, os.urandom(8))
            self.remote.put(name, found.file)
            return ObjectRow(found.sha256, found.length, name, time.time())

    def discard(self, name: str) -> None:
        """Delete an object that no row names: another client gave the same value at the same time."""
        self._trash.append(name)

    # --- getting --------------------------------------------------------------------------------------

    def is_there(self, row: ObjectRow) -> bool:
        """Return whether the object of a row exists, as far as is known whole; True if the store does not answer."""
        try:
            return row.object not in self._damaged and self.remote.length(row.object) == row.length
        except ValuesAway:
            return True

    def is_damaged(self, row: ObjectRow) -> bool:
        """Compare an object with its name, and remember whether it has other bytes. Raise ValuesAway."""
        if row.object not in self._damaged:
            try:
                for _ in self.read(row) or ():
                    pass
            except StoreError as error:
                log.error("%s", error)
        return row.object in self._damaged

    def is_going(self, row: ObjectRow) -> bool:
        """Return whether a value is being removed, so that it counts as missing."""
        return row.object in self._going

    def place(self, row: ObjectRow) -> Placing:
        """Return the place from which a client may read a value."""
        return Placing(self.remote.sign("GET", row.object, GET_SECONDS), (), row.object)

    def read(self, row: ObjectRow) -> Iterator[bytes] | None:
        """Return a value in chunks; None if its object is missing. One with other bytes never yields its end."""
        chunks = self.remote.read(row.object)
        return None if chunks is None else self._checked(chunks, row)

    def _checked(self, chunks: Iterator[bytes], row: ObjectRow) -> Iterator[bytes]:
        seen, last = sha256_of(), b""
        for following in chunks:
            if last:
                yield last
            last = following
            seen.update(last)
        if seen.digest() != row.sha256:
            self._damaged.add(row.object)
            raise StoreError(f"the object {row.object} does not hold the value whose SHA-256 is in its name")
        yield last

    # --- collecting -----------------------------------------------------------------------------------

    def restart_grace(self, row: ObjectRow) -> bool:
        """Begin the grace period of a value again; return False if it is being removed already."""
        with self._graces.lock:
            if row.object in self._going:
                return False
            self._graces.restart(row.sha256)
            return True

    def unnamed(self, values: Iterable[bytes]) -> None:
        """Treat these values as unreferenced from now on; `collect` asks whether they are."""
        with self._graces.lock:
            self._graces.begin(values)

    def collect(
        self,
        grace: float,
        most: int,
        is_wanted: Callable[[bytes], bool],
        is_named: Callable[[bytes], bool],
        find: Callable[[bytes], ObjectRow | None],
    ) -> bool:
        """Remove up to `most` values, see `Graces.collect`: they count as missing at once.

        The rows that `take_gone` returns must be deleted next, and only then the objects.
        """

        def drop(sha256: bytes) -> None:
            if (row := find(sha256)) is not None and row.object not in self._going:
                self._going[row.object] = row
                self._gone.append(row)

        with self._graces.lock:
            return self._graces.collect(grace, most, is_wanted, is_named, drop)

    def take_gone(self) -> list[ObjectRow]:
        """Return collected values whose rows must be deleted."""
        with self._graces.lock:
            return list(self._gone)

    def rows_deleted(self, rows: list[ObjectRow]) -> None:
        """Delete the objects of these rows, which are deleted durably, some time later."""
        with self._graces.lock:
            del self._gone[: len(rows)]
            for row in rows:
                self._going.pop(row.object, None)
        self._trash += [row.object for row in rows]

    def tidy(self, named: Named) -> None:
        """Delete what is no value, and look whether the store answers: in a thread of its own, and not too often."""
        now, thread = time.monotonic(), self._thread
        if thread is None:
            return
        if self._trash:
            thread.submit(self._reported, self._empty_trash)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_EVERY
            thread.submit(self._reported, self.sweep, named)
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            thread.submit(self._reported, self.remote.length, _NOTHING)

    def _reported(self, work: Callable[..., object], *arguments: object) -> None:
        try:
            work(*arguments)
        except (StoreError, ValuesAway) as error:
            log.warning("%s; trying again later", error)

    def _empty_trash(self) -> None:
        while names := self._trash[:BULK]:
            self.remote.delete(names)
            del self._trash[: len(names)]

    def sweep(self, named: Named) -> int:
        """Delete objects below the prefix that no row names and that are older than a day; return how many.

        Objects whose names are not like ours stay: someone else may use the bucket, too.
        """
        self._check_owner()
        swept = 0
        for page in self.remote.pages():
            before = time.time() - LEFT_BEHIND
            old = [each.name for each in page if each.modified < before and _is_ours(each.name)]
            left = sorted(set(old) - named(old)) if old else []
            if left:
                self.remote.delete(left)
            swept += len(left)
        if swept:
            log.info("%s: deleted %d objects that are no values", self.remote.url, swept)
        return swept


def _is_ours(name: str) -> bool:
    """Return whether an object is a value, or was made by a start, by its name."""
    return value_in(name) is not None or re.fullmatch(f"{_CHECK}[0-9a-f]{{16}}", name) is not None
