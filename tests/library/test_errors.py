"""The tree of errors: what is caught by what, what they say, and that they travel."""

import copy
import math
import pickle
from typing import Any
from uuid import uuid4

import pytest

from dagorama import errors
from dagorama.errors import (
    BrokerUnavailable,
    DagoramaError,
    FailedAttempt,
    NodeCancelled,
    NodeFailed,
    PromiseAttribute,
    RetryLater,
)

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
    made = RetryLater(3, "what happened") if issubclass(kind, RetryLater) else kind("what happened")
    error = pickle.loads(pickle.dumps(made))
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
        ("NotInNode", RuntimeError),
        ("SettingsError", ValueError),
    ],
)
def test_our_errors_are_caught_as_the_usual_builtin_ones(name: str, builtin: type[Exception]) -> None:
    assert issubclass(vars(errors)[name], builtin)


def test_a_misused_attribute_is_both_a_misuse_and_an_attribute_error() -> None:
    assert issubclass(PromiseAttribute, errors.PromiseMisuse)


def test_a_failed_node_shows_function_attempts_reason_and_remote_traceback() -> None:
    failed = NodeFailed("app:Dag.work", 3, "builtins.ValueError", "no rows", TRACEBACK)
    headline, _, remote = str(failed).partition("\n")
    assert headline == "app:Dag.work failed after 3 attempts: ValueError: no rows"
    assert TRACEBACK.rstrip() in remote


def test_a_failed_node_says_which_node_of_which_instance_it_is_in_the_same_sentence() -> None:
    instance, node = uuid4(), uuid4()
    for kind, outcome in ((NodeFailed, "failed after 1 attempt"), (NodeCancelled, "was cancelled after 1 attempt")):
        failed = kind("app:Dag.work", 1, "app.Broken", "no rows", node_id=node, instance_id=instance)
        assert str(failed) == f"app:Dag.work {outcome}: app.Broken: no rows (instance {instance}, node {node})"
        again = pickle.loads(pickle.dumps(failed))
        assert (again.instance_id, again.node_id, again.identifier) == (instance, node, node)
        assert str(again) == str(failed)
    assert str(NodeFailed("app:Dag.work", node_id=node)) == f"app:Dag.work failed after 1 attempt (node {node})"


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


def test_a_root_cause_upstream_is_named_with_the_node_that_has_no_value_for_it() -> None:
    failed = NodeFailed("app:Dag.one", 3, "builtins.ValueError", "no rows", TRACEBACK, dependent="app:Dag.total")
    headline = str(failed).partition("\n")[0]
    assert headline == "app:Dag.total has no value: app:Dag.one failed after 3 attempts: ValueError: no rows"


def test_earlier_runs_are_told_in_a_line_each_and_kept_whole() -> None:
    earlier = (FailedAttempt("app.Busy", "first\nline", TRACEBACK), FailedAttempt("app.Busy", "x" * 999, TRACEBACK))
    node_id = uuid4()
    failed = NodeFailed("app:Dag.work", 3, "app.Gone", "no rows", TRACEBACK, earlier=earlier, node_id=node_id)
    again = pickle.loads(pickle.dumps(failed))
    assert (again.earlier, again.node_id) == (earlier, node_id)
    lines = str(again).splitlines()
    assert lines[2:4] == ["before that:", "app.Busy: first ..."]
    assert len(lines[4]) < 220
    assert lines[-1] == "ValueError: no rows"


def test_a_node_that_never_ran_counts_no_attempts() -> None:
    assert str(NodeFailed("app:Dag.work", 0, "app.Late", "too long")) == "app:Dag.work failed: app.Late: too long"
    assert str(NodeCancelled("app:Dag.work", 0)) == "app:Dag.work was cancelled"


def test_to_be_run_later_says_when() -> None:
    again = pickle.loads(pickle.dumps(RetryLater(2.5)))
    assert (again.retry_after, str(again)) == (2.5, "run again after 2.5 seconds")
    assert str(RetryLater(2, "quota")) == "quota"
    assert [pickle.loads(pickle.dumps(RetryLater(2, pause_key=pause))).pause_key for pause in (True, False)] == [
        True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, 2**31, "1", None, True])
def test_seconds_that_are_none_are_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="retry_after is"):
        RetryLater(seconds)


def test_a_broker_error_carries_the_status() -> None:
    error = pickle.loads(pickle.dumps(BrokerUnavailable("nobody listens on port 1", "UNAVAILABLE")))
    assert (error.status, str(error)) == ("UNAVAILABLE", "nobody listens on port 1")
