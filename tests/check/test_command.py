"""The command `dagorama check`: forms of output, exit codes, settings, and which files it reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dagorama.__main__ import main
from dagorama_check.codes import RULES
from tests.support.commands import invoke

BAD = """from dagorama import DAGDefinition, dagorama

class Shapes(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> int:
        if self.measure(number):
            return 1
        return 0

    @dagorama
    def measure(self, number: int) -> int:
        return number
"""
GOOD = BAD.replace("if self.measure(number)", "if number")
LINE, COLUMN = 6, 12


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str = BAD) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def places(*arguments: object) -> list[str]:
    """The places and codes in the text that the command prints."""
    lines = invoke("check", *arguments).stdout.splitlines()
    return [" ".join(line.split(" ")[:2]) for line in lines]


# --- output and exit codes


def test_a_finding_is_one_line_with_place_code_sentence_fix_and_page() -> None:
    write("app.py")
    result = invoke("check", "app.py")
    assert result.stdout == (
        "app.py:6:12: DAG001 the condition of `if` needs a value, and gets a promise of `Shapes.measure`, made in line"
        " 6: it raises PromiseMisuse; pass it to a decorated method, and decide there"
        " (docs/reference/checks.md#dag001)\n"
    )
    assert result.stderr == "1 finding in 1 file, 1 file checked.\n"
    assert result.exit_code == 1


def test_without_findings_it_exits_with_zero() -> None:
    write("app.py", GOOD)
    result = invoke("check")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No findings, 1 file checked.\n")
    assert invoke("check", "--quiet").stderr == ""


def test_json_has_all_of_a_finding() -> None:
    write("app.py")
    document: Any = json.loads(invoke("check", "-o", "json").stdout)
    (finding,) = document.pop("findings")
    assert document == {"schema_version": 1, "files": 1, "unreadable": []}
    assert finding["message"].startswith("the condition of `if`")
    assert {name: finding[name] for name in ("path", "line", "column", "end_line", "end_column", "code", "page")} == {
        "path": "app.py", "line": 6, "column": 12, "end_line": 6, "end_column": 32, "code": "DAG001",
        "page": "docs/reference/checks.md#dag001",
    }  # fmt: skip
    assert finding["fix"] == RULES["DAG001"].fix


def test_github_gets_an_annotation_in_which_special_characters_are_escaped() -> None:
    write("100%,a:b/app.py")
    text = invoke("check", "-o", "github").stdout
    start = (
        "::error file=100%25%2Ca%3Ab/app.py,line=6,col=12,endLine=6,endColumn=32,title=DAG001::the condition of `if`"
    )
    assert text.startswith(start)


def test_sarif_has_rules_results_and_addresses() -> None:
    write("my code/app.py")
    (run,) = json.loads(invoke("check", "-o", "sarif").stdout)["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == list(RULES)
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert (result["ruleId"], result["ruleIndex"]) == ("DAG001", 0)
    assert place["artifactLocation"] == {"uri": "my%20code/app.py"}
    assert place["region"] == {"startLine": 6, "startColumn": 12, "endLine": 6, "endColumn": 32}
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]


@pytest.mark.parametrize("output", ["text", "json", "github", "sarif"])
def test_a_file_that_is_not_python_is_named_and_the_others_are_checked(output: str) -> None:
    write("app.py")
    write("notes.txt", "one two three")
    result = invoke("check", "notes.txt", "app.py", "-o", output)
    assert result.exit_code == 2
    assert "notes.txt: this is not valid Python: line 1: invalid syntax\n" in result.stderr
    assert "DAG001" in result.stdout
    assert ("notes.txt" in result.stdout) == (output != "text")


def test_a_file_in_a_folder_that_cannot_be_parsed_is_named() -> None:
    write("old.py", "import dagorama\nprint 'old'\n")
    result = invoke("check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("old.py: this is not valid Python: line 2: Missing parentheses")
    assert result.stderr.endswith("No findings, 0 files checked, 1 not.\n")


def test_a_link_that_leads_nowhere_is_named() -> None:
    write("app.py", GOOD)
    os.symlink("missing.py", "link.py")
    result = invoke("check")
    assert result.exit_code == 2
    assert result.stderr.startswith("link.py: it cannot be read: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.py"], "Path 'missing.py' does not exist"),
        (["--select", "E501"], "there is no code 'E501': the codes are DAG001 to DAG010"),
        (["--ignore", "DAG011"], "there is no code 'DAG011'"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(arguments: list[str], said: str) -> None:
    result = invoke("check", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


# --- codes and settings

LOCK = BAD.replace("self.measure(number)", "self.measure(Lock())").replace("\n", "; from threading import Lock\n", 1)


def test_codes_are_selected_and_ignored() -> None:
    write("app.py", LOCK)
    both = [f"app.py:{LINE}:{COLUMN}: DAG001", f"app.py:{LINE}:{COLUMN}: DAG009"]
    assert places() == both[:1]
    assert places("--select", "DAG") == both
    assert places("--select", "DAG009,DAG002") == both[1:]
    assert places("--select", "dag001", "--select", "DAG009") == both
    assert places("--select", "DAG00", "--ignore", "DAG001") == both[1:]


def test_pyproject_selects_ignores_and_excludes() -> None:
    write("app.py", LOCK)
    write("old/app.py")
    write("pyproject.toml", '[tool.dagorama.check]\nselect = ["DAG"]\nignore = ["DAG001"]\nexclude = ["old"]\n')
    assert places() == [f"app.py:{LINE}:{COLUMN}: DAG009"]
    assert places("--select", "DAG001") == [f"app.py:{LINE}:{COLUMN}: DAG001"]
    assert places("--ignore", "DAG009") == []


def test_pyproject_is_found_above_and_its_paths_begin_in_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    write("part/old/app.py")
    write("part/new/app.py")
    write("pyproject.toml", '[tool.dagorama.check]\nexclude = ["part/old"]\n')
    write("part/pyproject.toml", "[project]\n")
    monkeypatch.chdir("part")
    assert places() == [f"new/app.py:{LINE}:{COLUMN}: DAG001"]
    assert places("old/app.py") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.dagorama.check]\nselct = []\n", "has no key 'selct': its keys are exclude, ignore, select"),
        ("[tool.dagorama.check]\nselect = 'DAG'\n", "tool.dagorama.check.select is not a list of texts"),
        ("[tool.dagorama]\ncheck = 1\n", "tool.dagorama.check is not a table"),
        ("[tool\n", "cannot be read"),
        ("[tool.dagorama.check]\nignore = ['X1']\n", "there is no code 'X1'"),
    ],
)
def test_wrong_settings_are_a_usage_error_that_names_them(text: str, said: str) -> None:
    write("pyproject.toml", text)
    result = invoke("check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


# --- files


def test_hidden_folders_environments_and_products_are_skipped() -> None:
    skipped = [".hidden", "env", "venv", "node_modules", "build", "dist", "site-packages", "__pycache__"]
    for name in [*skipped, "src/deep"]:
        write(f"{name}/app.py")
    write("env/pyvenv.cfg", "")
    assert places() == [f"src/deep/app.py:{LINE}:{COLUMN}: DAG001"]
    assert places("build") == [f"build/app.py:{LINE}:{COLUMN}: DAG001"]


@pytest.mark.parametrize(
    "imported",
    [
        "from shop.base import Shapes", "from .base import Shapes", "from . import base", "from shop import base",
        "from shop import (\n    base,\n    other,\n)", "from shop import \\\n    base", "import os; import shop.base",
        "if True:\n    from .base import Shapes", "import shop.base as base",
    ],
)  # fmt: skip
def test_a_file_that_imports_a_definition_is_checked_though_it_does_not_name_dagorama(imported: str) -> None:
    write("shop/__init__.py", "")
    write("shop/base.py", GOOD)
    name = next((name for name in ("shop.base", "base", "Shapes") if imported.endswith((f"import {name}",))), "base")
    found = {"Shapes": "Shapes", "shop.base": "shop.base.Shapes"}.get(name, "base.Shapes")
    write(
        "shop/more.py", f"{imported}\n\nclass More({found}):\n    def use(self):\n        return self.measure(1) + 1\n"
    )
    assert [place.split(":")[0] for place in places()] == [os.path.join("shop", "more.py")]


def test_a_definition_of_a_package_itself_is_found_by_a_relative_import() -> None:
    write("shop/__init__.py", GOOD)
    write(
        "shop/more.py",
        "from . import Shapes\n\nclass More(Shapes):\n    def use(self):\n        return 1 + self.measure(1)\n",
    )
    assert [place.split(":")[0] for place in places()] == [os.path.join("shop", "more.py")]


def test_files_that_cannot_be_about_it_are_not_parsed() -> None:
    write("report.py", GOOD)
    write("other.py", "import reports\nprint 'a report that is not imported'\n")
    assert invoke("check").exit_code == 0


def test_excluded_names_and_paths_are_left_out_even_if_they_are_named() -> None:
    for name in ("one/app.py", "one/test_app.py", "two/app.py"):
        write(name)
    assert places("--exclude", "test_*", "--exclude", "two/app.py") == [f"one/app.py:{LINE}:{COLUMN}: DAG001"]
    assert places("--exclude", "one", "one/app.py") == []


def test_a_file_that_is_named_twice_is_checked_once() -> None:
    write("app.py")
    assert places("app.py", "./app.py", ".") == [f"app.py:{LINE}:{COLUMN}: DAG001"]


def test_stdin_is_checked_under_its_name_and_stands_for_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write("app.py", GOOD)
    write("base.py", BAD.replace("if self.measure(number)", "if number"))
    child = "from base import Shapes\nclass Child(Shapes):\n    def helper(self):\n        return not self.measure(1)\n"
    result = _with_stdin(monkeypatch, child, "check", "-", "--stdin-name", "app.py", ".")
    assert result == ["app.py:4:16: DAG001"]
    assert _with_stdin(monkeypatch, BAD, "check", "-") == [f"<stdin>:{LINE}:{COLUMN}: DAG001"]


def test_a_name_for_stdin_that_is_not_read_is_refused() -> None:
    result = CliRunner().invoke(main, ["check", "--stdin-name", "app.py"])
    assert (result.exit_code, "pass - as a PATH too" in result.stderr) == (2, True)


def _with_stdin(monkeypatch: pytest.MonkeyPatch, text: str, *arguments: str) -> list[str]:
    result = CliRunner().invoke(main, arguments, input=text)
    return [" ".join(line.split(" ")[:2]) for line in result.stdout.splitlines()]


def test_columns_count_characters_and_not_bytes() -> None:
    write("app.py", BAD.replace("if self.measure(number)", "if 'über' and self.measure(number) and 1"))
    assert places() == ["app.py:6:23: DAG001"]
    text = "# coding: latin-1\n" + BAD.replace("if self.measure(number)", "if 'über' and self.measure(number) and 1")
    Path("app.py").write_bytes(text.encode("latin-1"))
    assert places() == ["app.py:7:23: DAG001"]


def test_the_checker_imports_neither_the_code_nor_the_library() -> None:
    write("app.py", BAD + "raise SystemExit('it runs')\n")
    ask = (
        "import sys; from dagorama_check.checking import check_paths; print(len(check_paths(['app.py']).findings));"
        " print([name for name in ('dagorama', 'grpc', 'click', 'app') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment)
    assert ran.stdout == "1\n[]\n", ran.stderr
