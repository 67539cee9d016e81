"""Comments that silence findings: which codes, on which lines, and with which mistakes."""

from __future__ import annotations

import pytest

from dagorama_check.checking import check_files
from dagorama_check.codes import RULES
from dagorama_check.files import made_file

LINE = "        return self.measure(1) + 1"
TASK = f"""from dagorama import DAGDefinition, dagorama
class Task(DAGDefinition):
    @dagorama
    def measure(self, number: int) -> int:
{LINE}
"""


def is_silenced(text: str) -> bool:
    return not check_files([made_file("task.py", text.encode())], RULES.keys()).findings


@pytest.mark.parametrize(
    "comment",
    [
        "# dagorama: ignore", "# dagorama: ignore[DAG002]", "#dagorama:ignore[ dag002 ]",
        "# dagorama: ignore[DAG001,DAG002]", "# dagorama: ignore[DAG002]: a reason", "# dagorama: ignore because",
        "# noqa", "#NOQA", "# noqa: DAG002", "# noqa:E501,DAG002", "# noqa: E501 DAG002", "# noqa: because",
        "# x # noqa",
    ],
)  # fmt: skip
def test_a_comment_silences_its_line(comment: str) -> None:
    assert is_silenced(TASK.replace(LINE, f"{LINE}  {comment}"))


@pytest.mark.parametrize(
    "comment",
    [
        "# dagorama: ignore[DAG001]", "# dagorama: ignore[]", "# dagorama: ignore[DAG002", "# dagorama: ignored",
        "# noqa: DAG001", "# noqa: E501", "# noqax", "# type: ignore", "# dagorama ignore",
    ],
)  # fmt: skip
def test_another_comment_silences_nothing(comment: str) -> None:
    assert not is_silenced(TASK.replace(LINE, f"{LINE}  {comment}"))


def test_a_text_that_looks_like_a_comment_silences_nothing() -> None:
    assert not is_silenced(TASK.replace("+ 1", "+ '# noqa'"))


def test_a_comment_in_another_line_silences_nothing() -> None:
    assert not is_silenced(TASK.replace(LINE, f"        # noqa\n{LINE}\n        # dagorama: ignore"))


def test_each_line_of_an_expression_may_have_the_comment() -> None:
    lines = ["        return (", "            self.measure(1)", "            + 1", "        )"]
    for index in (1, 2):
        marked = [f"{line}  # noqa" if number == index else line for number, line in enumerate(lines)]
        assert is_silenced(TASK.replace(LINE, "\n".join(marked)))
