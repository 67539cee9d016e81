"""The rules: what each code means and how to repair it; and findings, which are reported under a code."""

from __future__ import annotations

from typing import NamedTuple

#: The page that explains the codes, from the folder of the repository.
PAGE = "docs/reference/checks.md"


class Rule(NamedTuple):
    """A kind of mistake."""

    title: str
    fix: str  #: an imperative sentence
    is_default: bool = True


_RETURN_OR_PASS = "pass it to a decorated method, and do it there"
RULES = {
    "DAG001": Rule("a promise is used as a condition", "pass it to a decorated method, and decide there"),
    "DAG002": Rule("arithmetic, comparison or text of a promise", _RETURN_OR_PASS),
    "DAG003": Rule("attribute, item or call of a promise", "pass it to a decorated method, and take it out there"),
    "DAG004": Rule(
        "a promise is iterated or unpacked",
        "pass it to a decorated method, and iterate there; or let its creator return a list of promises",
    ),
    "DAG005": Rule("a promise is passed to a function that needs its value", _RETURN_OR_PASS),
    "DAG006": Rule(
        "a call of an async method is not awaited, or a promise is",
        "await a call of an async method once, and a call of a sync method never",
    ),
    "DAG007": Rule(
        "a node waits for nodes that it creates",
        "return the promise, or pass it to a decorated method, which gets its value",
    ),
    "DAG008": Rule(
        "an attribute of `self` is set in a node for other nodes",
        "return the value, and pass it to the nodes that need it",
    ),
    "DAG009": Rule(
        "an argument cannot leave its process", "make it in the method that uses it, and pass plain data", False
    ),
    "DAG010": Rule(
        "a decorated method is called without an instance",
        "call the definition, `instance, promise = Task()(...)`, and decorated methods on `self` or the instance",
    ),
}
DEFAULT_CODES = frozenset(code for code, rule in RULES.items() if rule.is_default)


class Place(NamedTuple):
    """A part of a file. Lines and columns count from 1, columns count characters; the end column is exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


class Finding(NamedTuple):
    """A mistake in a file."""

    path: str
    place: Place
    code: str
    message: str  #: what happens, without a full stop

    @property
    def line(self) -> int:
        return self.place.line

    @property
    def fix(self) -> str:
        return RULES[self.code].fix

    @property
    def page(self) -> str:
        """The section of the documents that explains the rule."""
        return f"{PAGE}#{self.code.lower()}"
