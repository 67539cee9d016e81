"""The layers of the house hold: who may import whom, and what stays out of a process until it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import brokers, workers

ROOT = Path(__file__).parents[1]
PACKAGES = ("dagorama", "dagorama_broker", "dagorama_dashboard", "dagorama_monitoring", "dagorama_testing")
HEART = ("errors", "model", "scheduler")
UNPICKLERS = {"pickle", "cloudpickle", "marshal", "shelve"}


def scheduler_files() -> list[Path]:
    """`scheduler` may be a module or a package."""
    broker = ROOT / "dagorama_broker"
    return [file for name in HEART for file in [*broker.glob(f"{name}.py"), *(broker / name).rglob("*.py")]]


def imports_of(file: Path) -> set[str]:
    """Top-level names of everything that `file` imports, wherever in it."""
    names: set[str] = set()
    for statement in ast.walk(ast.parse(file.read_text())):
        if isinstance(statement, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            names.add(statement.module.partition(".")[0])
    return names


def loaded_by(statement: str, *modules: str) -> set[str]:
    """Which of `modules` a fresh interpreter has loaded after `statement`."""
    report = f"{statement}\nimport sys\nprint(*[name for name in {modules!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], check=True, capture_output=True, text=True, cwd=ROOT)
    return set(done.stdout.split())


def test_every_import_goes_downwards() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("file", scheduler_files(), ids=lambda file: file.stem)
def test_the_scheduler_imports_the_standard_library_only(file: Path) -> None:
    others = {"errors": {"dagorama_monitoring"}, "signal_types": {"dagorama"}}.get(file.stem, set())
    assert imports_of(file) <= sys.stdlib_module_names | {"dagorama_broker"} | others


def test_the_forms_of_texts_that_it_reads_import_the_standard_library_only() -> None:
    assert imports_of(ROOT / "dagorama" / "api" / "text_forms.py") <= sys.stdlib_module_names


def test_what_errors_say_about_their_documentation_imports_nothing() -> None:
    assert imports_of(ROOT / "dagorama_monitoring" / "documentation.py") == {"__future__"}
    assert imports_of(ROOT / "dagorama_monitoring" / "__init__.py") == set()


def reaches_into_the_scheduler(file: Path) -> bool:
    """Whether an expression reads one of the scheduler's own parts."""
    parts = {"graph", "claims", "eager_attempts", "staged"}
    return any(
        isinstance(node, ast.Attribute) and node.attr in parts
        and isinstance(node.value, ast.Name | ast.Attribute)
        and (node.value.id if isinstance(node.value, ast.Name) else node.value.attr).strip("_") == "scheduler"
        for node in ast.walk(ast.parse(file.read_text()))
    )  # fmt: skip


def test_the_broker_uses_verbs_of_the_scheduler_and_none_of_its_parts() -> None:
    broker = ROOT / "dagorama_broker"
    others = [file for file in broker.rglob("*.py") if not file.is_relative_to(broker / "scheduler")]
    assert [file.name for file in others if reaches_into_the_scheduler(file)] == []
    # Imports for types alone are not seen by import-linter.
    assert [file.name for file in others if "from dagorama_broker.scheduler." in file.read_text()] == []


def test_importing_dagorama_loads_nothing_heavy() -> None:
    assert not loaded_by("import dagorama", "grpc", "google.protobuf", "cloudpickle", "multiprocessing", "asyncio")


def test_the_scheduler_loads_without_an_event_loop_or_a_database() -> None:
    assert not loaded_by("import dagorama_broker.scheduler", "asyncio", "grpc", "google.protobuf", "sqlite3")


def test_the_broker_never_asks_for_pickle() -> None:
    """protobuf itself loads the module, so what is looked at is our source, and what only unpickling would load."""
    asking = [file.name for file in (ROOT / "dagorama_broker").rglob("*.py") if imports_of(file) & UNPICKLERS]
    assert not asking
    assert not loaded_by("import dagorama_broker.server", "cloudpickle", "dagorama.values.codec")


def test_what_runs_nodes_loads_no_grpc_and_no_cloudpickle() -> None:
    assert not loaded_by("import dagorama.worker.child.executor", "grpc", "cloudpickle")


def test_no_process_from_which_others_are_forked_loads_obstore() -> None:
    """Its threads do not survive a fork, and a call in the child would never return."""
    modules = {*brokers.IMPORTS, *workers.IMPORTS, "dagorama_broker.store.objects.large_objects", "dagorama.runner"}
    modules |= {"dagorama_broker.store.postgres.store", "dagorama.worker.supervisor.object_transfers"}
    assert not loaded_by("\n".join(f"import {module}" for module in sorted(modules)), "obstore")
    users = [file for folder in PACKAGES for file in (ROOT / folder).rglob("*.py") if "obstore" in imports_of(file)]
    assert [file.name for file in users] == ["remote.py"]
