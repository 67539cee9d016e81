"""The command `dagorama check`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from dagorama_check.checking import Result, check_files, chosen_codes
from dagorama_check.files import File, collect, made_file
from dagorama_check.reports import as_github, as_json, as_sarif, as_text, summary_of
from dagorama_check.settings import BadSettings, CheckSettings, read_settings

#: Exit codes.
CLEAN, FOUND, UNCHECKED = 0, 1, 2
STDIN = "-"
FORMS: dict[str, Callable[[Result], str]] = {
    "text": as_text, "json": as_json, "github": as_github, "sarif": as_sarif,
}  # fmt: skip


def _codes(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the codes of an option that is repeated, or has several codes separated by commas."""
    return tuple(code for text in given for part in text.split(",") if (code := part.strip()))


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(exists=True, allow_dash=True))
@click.option("--select", multiple=True, callback=_codes, metavar="CODES", help="Report only these codes.")
@click.option("--ignore", multiple=True, callback=_codes, metavar="CODES", help="Do not report these codes.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out files and folders that match.")
@click.option("-o", "--output", type=click.Choice([*FORMS]), default="text", show_default=True, help="Output format.")
@click.option("--stdin-name", help="Path to report for code that PATH - reads from stdin.  [default: <stdin>]")
@click.option("-q", "--quiet", is_flag=True, help="Print only the findings, without a summary.")
def check(
    paths: tuple[str, ...], select: tuple[str, ...], ignore: tuple[str, ...], exclude: tuple[str, ...], output: str,
    stdin_name: str | None, quiet: bool,
) -> None:  # fmt: skip
    """Find misuses of promises in files and folders, without running their code. The default is the current folder.

    CODES are codes such as DAG001, or their prefixes, separated by commas. DAG009 is reported only if it is selected.
    Comments silence findings of a line: # dagorama: ignore[DAG001] or # noqa: DAG001.

    The table [tool.dagorama.check] in pyproject.toml may set select, ignore and exclude.

    Exit codes: 0 no findings, 1 findings, 2 usage error, or a file that cannot be checked.
    """
    settings, codes = _settings(select, ignore, exclude)
    if stdin_name is not None and STDIN not in paths:
        raise click.UsageError("--stdin-name names what is read from stdin: pass - as a PATH too")
    files, unreadable = collect([path for path in paths or (".",) if path != STDIN], settings.exclude)
    if STDIN in paths:
        files = _with_stdin(files, stdin_name if stdin_name is not None else "<stdin>")
    result = check_files(files, codes, unreadable)
    _print(result, output, quiet)
    sys.exit(UNCHECKED if result.unreadable else FOUND if result.findings else CLEAN)


def _settings(
    select: tuple[str, ...], ignore: tuple[str, ...], exclude: tuple[str, ...]
) -> tuple[CheckSettings, frozenset[str]]:
    """Return the settings and the codes to report; end the program if one is not valid."""
    try:
        settings = read_settings(Path.cwd()).with_options(select, ignore, exclude)
        return settings, chosen_codes(settings.select, settings.ignore)
    except (BadSettings, ValueError) as error:
        raise click.UsageError(f"{error}") from None
    except FileNotFoundError:
        raise click.UsageError("the current folder was deleted") from None


def _with_stdin(files: list[File], name: str) -> list[File]:
    """Return the files with stdin, which stands for the file with its name."""
    read = made_file(name, sys.stdin.buffer.read())
    return [*(file for file in files if Path(file.path).absolute() != Path(name).absolute()), read]


def _print(result: Result, output: str, quiet: bool) -> None:
    if text := FORMS[output](result):
        click.echo(text)
    for each in result.unreadable:
        click.echo(f"{each.path}: {each.reason}", err=True)
    if not quiet and output == "text":
        click.echo(summary_of(result), err=True)
