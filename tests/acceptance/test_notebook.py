"""A notebook: workers first, classes after, classes changed; each cell gets the answer of its code."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

SAMPLE = Path(__file__).parents[2] / "samples" / "notebook.ipynb"

START = """
    import enum, dataclasses, threading
    from dagorama import DAGDefinition, dagorama, launch_workers, resolve
    from dagorama_broker.launch import launch_broker
    broker = launch_broker(port=0)
    workers = launch_workers(1)
    broker.__enter__()
    [worker] = workers.__enter__()
    pid = worker.pid
    """

SQUARES = """
    class Squares(DAGDefinition):
        @dagorama().syncfn
        def entrypoint(self, n):
            return self.total([self.square(i) for i in range(n)])

        @dagorama().syncfn
        def square(self, i):
            return i * i{factor}

        @dagorama().syncfn
        def total(self, parts):
            return sum(parts)

    old, held = globals().get("held"), Squares
    resolve(*Squares()(10), timeout=20)
    """

CELLS = [
    (START, None),
    (SQUARES.format(factor=""), "285"),
    (SQUARES.format(factor=" * 100"), "28500"),
    ("resolve(*old()(10), timeout=20)", "285"),
    (SQUARES.format(factor=" * 100"), "28500"),
    ("""
    FACTOR = 2
    TABLE = {"rows": [1, 2, object]}

    def scaled(x):
        return x * FACTOR + len(TABLE["rows"])

    class Scaling(DAGDefinition):
        @dagorama().syncfn
        def entrypoint(self, x):
            return scaled(x)

    resolve(*Scaling()(10), timeout=20)
    """, "23"),
    ("FACTOR = 3\nresolve(*Scaling()(10), timeout=20)", "33"),
    ("TABLE = {'rows': [object]}\nresolve(*Scaling()(10), timeout=20)", "31"),
    ("def scaled(x):\n    return -x\nresolve(*Scaling()(10), timeout=20)", "-10"),
    ("""
    class Mode(enum.Enum):
        FAST = 1

    @dataclasses.dataclass(slots=True)
    class Job:
        number: int

    class Typed(DAGDefinition):
        @dagorama().syncfn
        def entrypoint(self, mode, job):
            assert mode is Mode.FAST and job == Job(1)
            return mode, Job(job.number + 1)

    mode, job = resolve(*Typed()(Mode.FAST, Job(1)), timeout=20)
    (mode is Mode.FAST, job == Job(2))
    """, "(True, True)"),
    ("""
    @dataclasses.dataclass
    class Job:
        number: int
        name: str = "new"

    _, job = resolve(*Typed()(Mode.FAST, Job(1)), timeout=20)
    job == Job(2)
    """, "True"),
    ("""
    guard = threading.Lock()

    class Guarded(DAGDefinition):
        @dagorama().syncfn
        def entrypoint(self):
            with guard:
                return 1

    try:
        Guarded()()
        said = "nothing"
    except TypeError as error:
        said = str(error)
    ("'guard'" in said, "cannot be pickled" in said)
    """, "(True, True)"),
    ("workers.__exit__(None, None, None)\nbroker.__exit__(None, None, None)\nworker.pid == pid", "True"),
]  # fmt: skip

EDIT = """
    import os, pathlib
    file = pathlib.Path("adding.py")
    file.write_text({text})
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime + {later}))  # as if it was edited later
    """

MODULE = """
from dagorama import DAGDefinition, dagorama


def first(x):
    return x + 1


class Adding(DAGDefinition):
    @dagorama
    def entrypoint(self, x):
        return self.second(first(x))

    @dagorama
    def second(self, x):
        return x + 1
"""

ANSWER = "with launch_workers(1):\n    answer = resolve(*Adding()(0), timeout=20)\nanswer"

#: A module that changes: `%autoreload` follows the edit of a decorated method, and a reload follows every edit.
CELLS_OF_A_MODULE = [
    (START, None),
    ("workers.__exit__(None, None, None)\nimport importlib", None),
    (f"text = {MODULE!r}", None),
    (EDIT.format(text="text", later=0), None),
    ("%load_ext autoreload\n%autoreload 2\nimport adding\nfrom adding import Adding", None),
    (ANSWER, "2"),
    (EDIT.format(text="text[:-2] + '100'", later=10), None),
    (ANSWER, "101"),
    (EDIT.format(text="text.replace('x + 1', 'x + 1000')", later=20), None),
    ("importlib.reload(adding)\nfrom adding import Adding\n" + ANSWER, "2000"),
    ("broker.__exit__(None, None, None)\nbroker = None", None),
]


def results(notebook: Any) -> list[str | None]:
    """Return what each code cell of a notebook shows as its result."""
    return [
        next((output["data"]["text/plain"] for output in cell.outputs if output.output_type == "execute_result"), None)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_cell_gets_the_answer_of_the_code_as_it_is_then() -> None:
    v4: Any = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_code_cell(dedent(source)) for source, _ in CELLS])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert results(notebook) == [expected for _, expected in CELLS]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_run_the_code_of_a_module_that_the_notebook_has_reloaded(tmp_path: Path) -> None:
    v4: Any = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_code_cell(dedent(source)) for source, _ in CELLS_OF_A_MODULE])
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources=place).execute()
    assert results(notebook) == [expected for _, expected in CELLS_OF_A_MODULE]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_sample_shows_what_its_cells_give() -> None:
    read: Any = nbformat.read  # it has no types
    notebook = read(SAMPLE, as_version=4)
    shown = results(notebook)
    assert shown[-1] == "[False, False]"
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert results(notebook) == shown
