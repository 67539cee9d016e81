"""Says on which page an error is documented: tracebacks and messages on the command line end with the address.

The rule: it imports nothing, because all errors of the broker, and so its scheduler, stand on it.
"""

from __future__ import annotations

#: The folder of the reference, from the folder of the repository; for a published site, its URL.
REFERENCE = "docs/reference"


def documented(module: str) -> list[str]:
    """Return `__notes__` for the body of an error class: its notes (PEP 678), which Python prints below its message.

    `module` has the classes with a section of their own in the index of errors. A subclass that a user writes has the
    address of the nearest of them.
    """
    return _Address(module)  # type: ignore[return-value]  # for an instance, this descriptor returns the list


class _Address:
    """Makes the list of notes when it is first read.

    So an error costs nothing until it is printed, and an error that is pickled before holds no address.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __get__(self, error: BaseException | None, kind: type[BaseException]) -> list[str]:
        own = next(each for each in kind.__mro__ if each.__module__ == self._module)
        notes = [f"See {REFERENCE}/errors.md#{own.__name__.lower()}"]
        if error is None:
            return notes
        # Python keeps notes in this place, so `add_note` appends to the same list.
        kept: list[str] = error.__dict__.setdefault("__notes__", notes)
        return kept


def with_address(error: BaseException, text: str | None = None) -> str:
    """Return a text about an error, by default its own; below it the address of its documentation, if it is ours."""
    return "\n".join([str(error) if text is None else text, *getattr(type(error), "__notes__", ())])
