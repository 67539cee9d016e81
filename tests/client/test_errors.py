"""The tree of errors: what is caught by what, what they say, and that they travel."""

import copy
import pickle

import pytest

from dagorama import errors
from dagorama.errors import BrokerUnavailable, DagoramaError, NodeCancelled, NodeFailed, PromiseAttribute

TRACEBACK = 'Traceback (most recent call last):\n  File "app.py", line 3, in work\nValueError: no rows\n'


def every_error() -> list[type[DagoramaError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DagoramaError)]


def test_the_tree_drawn_in_the_module_names_every_error_under_its_parent() -> None:
    parents: list[str] = []
    drawn: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        branch, _, rest = line.rpartition("── ")
        name = rest.split()[0] if rest else ""
        if name in vars(errors):
            depth = len(branch) // 4 if branch else 0
            parents[depth:] = [name]
            drawn[name] = parents[depth - 1] if depth else ""
    assert set(drawn) == {kind.__name__ for kind in every_error()}
    assert all(issubclass(vars(errors)[name], vars(errors)[parent]) for name, parent in drawn.items() if parent)


@pytest.mark.parametrize("kind", every_error())
def test_an_error_survives_pickling(kind: type[DagoramaError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what happened")))
    assert type(error) is kind
    assert "what happened" in str(error)


@pytest.mark.parametrize("kind", every_error())
def test_an_error_is_explained_by_its_docstring(kind: type[DagoramaError]) -> None:
    assert (kind.__doc__ or "").split("\n")[0].endswith(".")


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("PromiseMisuse", TypeError),
        ("PromiseAttribute", AttributeError),
        ("NotPicklable", TypeError),
        ("FunctionNotFound", ValueError),
        ("WrongInstance", ValueError),
        ("NotInInstance", ValueError),
        ("SettingsError", ValueError),
    ],
)
def test_who_catches_the_usual_builtin_catches_ours(name: str, builtin: type[Exception]) -> None:
    assert issubclass(vars(errors)[name], builtin)


def test_a_misused_attribute_is_both_a_misuse_and_an_attribute_error() -> None:
    assert issubclass(PromiseAttribute, errors.PromiseMisuse)


def test_a_failed_node_shows_function_attempts_reason_and_remote_traceback() -> None:
    failed = NodeFailed("app:Dag.work", 3, "builtins.ValueError", "no rows", TRACEBACK)
    headline, _, remote = str(failed).partition("\n")
    assert headline == "app:Dag.work failed after 3 attempts: ValueError: no rows"
    assert TRACEBACK.rstrip() in remote


def test_a_failed_node_keeps_its_facts_when_pickled_or_copied() -> None:
    failed = NodeFailed("app:Dag.work", 1, "app.Broken", "no rows", TRACEBACK)
    for again in (pickle.loads(pickle.dumps(failed)), copy.copy(failed)):
        facts = again.function, again.attempts, again.type, again.message, again.traceback
        assert facts == ("app:Dag.work", 1, "app.Broken", "no rows", TRACEBACK)
        assert str(again) == str(failed)


def test_a_failed_node_without_details_still_reads_as_a_sentence() -> None:
    assert str(NodeFailed("app:Dag.work")) == "app:Dag.work failed after 1 attempt"


def test_a_cancelled_node_says_so_and_is_caught_as_failed() -> None:
    with pytest.raises(NodeFailed, match="was cancelled after 2 attempts"):
        raise NodeCancelled("app:Dag.work", 2)


def test_a_broker_error_carries_the_status() -> None:
    error = pickle.loads(pickle.dumps(BrokerUnavailable("nobody listens on port 1", "UNAVAILABLE")))
    assert (error.status, str(error)) == ("UNAVAILABLE", "nobody listens on port 1")
