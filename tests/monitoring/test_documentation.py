"""Errors say where they are documented: below a traceback, once, and not in their text; and the sections exist."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import dagorama_broker.errors
import dagorama_check.codes
from dagorama import errors
from dagorama.errors import DagoramaError, FailedAttempt, NodeFailed, PromiseMisuse, RetryLater
from dagorama_broker.errors import StoreError
from dagorama_broker.launch import BrokerNotStarted
from dagorama_monitoring.documentation import REFERENCE, with_address
from dagorama_testing import NothingHappens

ROOT = Path(__file__).parents[2]


def public_errors() -> list[type[Exception]]:
    """Return the errors that users and operators meet, of all packages."""
    stopping = [*dagorama_broker.errors.Stopped.__subclasses__(), BrokerNotStarted, NothingHappens]
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DagoramaError)]
    return [*ours, *stopping]


def made(kind: type[Exception]) -> Exception:
    return RetryLater(3, "what happened") if issubclass(kind, RetryLater) else kind("what happened")


def printed(error: BaseException) -> list[str]:
    return "".join(traceback.format_exception(error)).splitlines()


def address(kind: type[Exception]) -> str:
    return f"See docs/reference/errors.md#{kind.__name__.lower()}"


@pytest.mark.parametrize("kind", public_errors())
def test_the_traceback_of_an_error_ends_with_the_address_of_its_section(kind: type[Exception]) -> None:
    error = made(kind)
    assert printed(error)[-1] == with_address(error).splitlines()[-1] == address(kind)
    assert "errors.md" not in str(error)
    page, _, anchor = address(kind).removeprefix("See ").partition("#")
    headings = [line.removeprefix("### ") for line in (ROOT / page).read_text().splitlines() if line.startswith("### ")]
    assert anchor in map(str.lower, headings)


@pytest.mark.parametrize("kind", public_errors())
@pytest.mark.parametrize("is_read_before", [False, True])
def test_an_error_that_is_pickled_copied_and_raised_again_has_the_address_once(
    kind: type[Exception], is_read_before: bool
) -> None:
    error = made(kind)
    if is_read_before:
        printed(error)
    error = copy.copy(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error)))))
    for _ in range(2):
        try:
            raise error
        except Exception as caught:
            error = caught
    assert printed(error).count(address(kind)) == 1


def test_a_pickled_error_holds_no_address() -> None:
    assert b"errors.md" not in pickle.dumps(NodeFailed("app:Dag.work"))


def test_notes_of_a_user_follow_the_address_and_travel() -> None:
    error = PromiseMisuse("text")
    error.add_note("the third row")
    assert printed(pickle.loads(pickle.dumps(error)))[-2:] == [address(PromiseMisuse), "the third row"]
    assert printed(PromiseMisuse("text"))[-1] == address(PromiseMisuse)


def test_a_class_of_a_user_has_the_address_of_the_nearest_class_of_ours() -> None:
    class Misused(PromiseMisuse):
        def __init__(self) -> None:  # it does not call the constructor of its base class
            pass

    class Deeper(Misused):
        pass

    class NoDisk(StoreError):
        pass

    assert [printed(error)[-1] for error in (Misused(), Deeper(), NoDisk())] == [
        address(PromiseMisuse), address(PromiseMisuse), address(StoreError)
    ]  # fmt: skip


def test_errors_of_others_have_no_address() -> None:
    assert with_address(ValueError("no rows")) == "no rows"
    assert FailedAttempt("app.NodeFailed", "", "").address == ""
    assert FailedAttempt("builtins.ValueError", "", "").address == ""
    assert FailedAttempt("dagorama.errors.LINE", "", "").address == ""


def test_the_name_of_an_error_leads_to_its_section_too() -> None:
    assert FailedAttempt("dagorama.errors.QueueTimeout", "", "").address == address(errors.QueueTimeout)


def test_python_itself_prints_the_address_of_an_ordinary_mistake(tmp_path: Path) -> None:
    program = tmp_path / "mistake.py"
    program.write_text(
        "from dagorama import DAGDefinition, dagorama\n"
        "class Mistake(DAGDefinition):\n"
        "    @dagorama\n"
        "    def entrypoint(self) -> int:\n"
        "        return 1\n"
        "Mistake().entrypoint()\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert "dagorama.errors.NotInInstance: " in done.stderr
    assert done.stderr.splitlines()[-1] == address(errors.NotInInstance)


def test_checks_are_documented_in_the_same_folder() -> None:
    assert f"{REFERENCE}/checks.md" == dagorama_check.codes.PAGE
