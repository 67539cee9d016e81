"""The forms in which findings are printed: lines for people, JSON, commands of GitHub's runners, and SARIF.

The rule: each form has place, code, sentence, fix and page of each finding. Text leaves the files that could not be
checked to standard error; the other forms have them too, because programs read only standard output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from dagorama_check.checking import Result
from dagorama_check.codes import PAGE, RULES, Finding
from dagorama_check.files import Unreadable

#: The version of the JSON document: it is raised if a key changes its meaning or disappears.
SCHEMA_VERSION = 1
#: The most that the address of an artifact need not escape.
_OF_ADDRESSES = "/:@!$&'()*+,;=~"


def as_text(result: Result) -> str:
    return "\n".join(map(line_of, result.findings))


def line_of(finding: Finding) -> str:
    """Return a finding in one line."""
    place = f"{finding.path}:{finding.place.line}:{finding.place.column}"
    return f"{place}: {finding.code} {sentence_of(finding)}"


def sentence_of(finding: Finding) -> str:
    return f"{finding.message}; {finding.fix} ({finding.page})"


def summary_of(result: Result) -> str:
    """Return how many findings there are, in a sentence."""
    count, files = len(result.findings), len({finding.path for finding in result.findings})
    checked = f"{result.files:,} {_files(result.files)} checked"
    if result.unreadable:
        checked += f", {len(result.unreadable):,} not"
    if not count:
        return f"No findings, {checked}."
    return f"{count:,} finding{'s' * (count != 1)} in {files:,} {_files(files)}, {checked}."


def _files(count: int) -> str:
    return "file" if count == 1 else "files"


# --- JSON -------------------------------------------------------------------------------------------------


def as_json(result: Result) -> str:
    document = {
        "schema_version": SCHEMA_VERSION,
        "files": result.files,
        "findings": [_record(finding) for finding in result.findings],
        "unreadable": [each._asdict() for each in result.unreadable],
    }
    return json.dumps(document, indent=2)


def _record(finding: Finding) -> dict[str, object]:
    return {
        "path": finding.path,
        **finding.place._asdict(),
        "code": finding.code,
        "message": finding.message,
        "fix": finding.fix,
        "page": finding.page,
    }


# --- GitHub -----------------------------------------------------------------------------------------------


def as_github(result: Result) -> str:
    """Return workflow commands, by which GitHub shows findings at the lines of a pull request."""
    return "\n".join([*map(_annotation, result.findings), *map(_file_annotation, result.unreadable)])


def _annotation(finding: Finding) -> str:
    place = finding.place
    properties = {
        "file": finding.path, "line": place.line, "col": place.column, "endLine": place.end_line,
        "endColumn": place.end_column, "title": finding.code,
    }  # fmt: skip
    listed = ",".join(f"{name}={_property(f'{value}')}" for name, value in properties.items())
    return f"::error {listed}::{_data(sentence_of(finding))}"


def _file_annotation(unreadable: Unreadable) -> str:
    return f"::error file={_property(unreadable.path)}::{_data(f'{unreadable.path}: {unreadable.reason}')}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# --- SARIF ------------------------------------------------------------------------------------------------


def as_sarif(result: Result) -> str:
    """Return the document that code scanning services read, in SARIF 2.1.0."""
    run = {
        "tool": {"driver": {"name": "dagorama check", "rules": list(_sarif_rules())}},
        "columnKind": "unicodeCodePoints",
        "invocations": [{
            "executionSuccessful": not result.unreadable,
            "toolExecutionNotifications": [_notification(each) for each in result.unreadable],
        }],
        "results": [_sarif_result(finding) for finding in result.findings],
    }  # fmt: skip
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


def _sarif_rules() -> Iterator[dict[str, object]]:
    for code, rule in RULES.items():
        yield {
            "id": code,
            "shortDescription": {"text": f"{rule.title[0].upper()}{rule.title[1:]}."},
            "help": {"text": f"{rule.fix[0].upper()}{rule.fix[1:]}. See {PAGE}#{code.lower()}."},
            "defaultConfiguration": {"enabled": rule.is_default, "level": "error"},
        }


def _sarif_result(finding: Finding) -> dict[str, object]:
    place = finding.place
    region = {
        "startLine": place.line, "startColumn": place.column, "endLine": place.end_line, "endColumn": place.end_column,
    }  # fmt: skip
    return {
        "ruleId": finding.code,
        "ruleIndex": list(RULES).index(finding.code),
        "level": "error",
        "message": {"text": sentence_of(finding)},
        "locations": [{"physicalLocation": {**_artifact(finding.path), "region": region}}],
    }


def _notification(unreadable: Unreadable) -> dict[str, object]:
    return {
        "level": "error",
        "message": {"text": f"{unreadable.path}: {unreadable.reason}"},
        "locations": [{"physicalLocation": _artifact(unreadable.path)}],
    }


def _artifact(path: str) -> dict[str, object]:
    where = Path(path)
    address = where.as_uri() if where.is_absolute() else quote(where.as_posix(), safe=_OF_ADDRESSES)
    return {"artifactLocation": {"uri": address}}
