"""`worker-hot-reload`: a worker that restarts whenever a file in a folder changes. For development."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dagorama.cli import ready_options, worker_flags
from dagorama.cli.checks import FolderCheck
from dagorama.cli.parameters import current_folder
from dagorama.dev_address import FOLDER
from dagorama.runner import LaunchedWorkers
from dagorama.settings import WorkerOptions, no_color

if TYPE_CHECKING:
    from watchfiles import Change
    from watchfiles.main import FileChange

UNUSABLE = 2  #: exit code
LOOK_MS = 500  #: milliseconds between two checks of the worker
SETTLE_MS = 200  #: milliseconds that an editor may take to save files


@click.command()
@click.option(
    "--watch-dir", default=".", show_default=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder to watch, with its subfolders.",
)  # fmt: skip
@worker_flags
def run_hot_reload_worker(watch_dir: Path, **flags: Any) -> None:
    """Run a worker, and restart it when a file changes. Takes the flags of `worker`.

    Nodes that run at that moment return to the queue; the attempt is not counted. `dagorama check` looks at the folder
    at the start and after each change, and its findings are printed.
    """
    reload_worker(watch_dir, ready_options(flags))


def reload_worker(watch_dir: Path | str, options: WorkerOptions, pattern: str = "*") -> None:
    """Run a worker until Ctrl-C or SIGTERM, and restart it when a file below `watch_dir` changes.

    `pattern` is a glob that the name of the file must match. Findings of `dagorama check` are printed at the start and
    after each change.
    """
    if no_color():
        click.get_current_context().color = False
    try:
        import watchfiles
    except ImportError:
        click.echo("worker-hot-reload needs watchfiles: pip install 'dagorama[hot-reload]'", err=True)
        sys.exit(UNUSABLE)
    sys.path.insert(0, current_folder())
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    changes = watchfiles.watch(
        watch_dir, watch_filter=_filter(pattern), step=SETTLE_MS // 2, debounce=4 * SETTLE_MS, rust_timeout=LOOK_MS,
        yield_on_timeout=True, stop_event=stop, raise_interrupt=False,
    )  # fmt: skip
    files = "a file" if pattern == "*" else f"a file that matches {pattern}"
    told = f"The worker restarts when {files} in {watch_dir} changes: for development only."
    click.secho(told, fg="yellow", err=True)
    check = FolderCheck(watch_dir)
    check.start()
    try:
        _serve(options, changes, check.start)
    finally:
        check.stop()


def _filter(pattern: str) -> Callable[[Change, str], bool]:
    """Return a filter that leaves out the files of `dagorama dev`, whose store changes all the time."""
    import watchfiles

    class Filter(watchfiles.DefaultFilter):
        ignore_dirs = (*watchfiles.DefaultFilter.ignore_dirs, FOLDER)

        def __call__(self, change: Change, path: str) -> bool:
            return fnmatch(os.path.basename(path), pattern) and super().__call__(change, path)

    return Filter()


def _serve(options: WorkerOptions, changes: Iterable[set[FileChange]], on_change: Callable[[], None]) -> None:
    """Run workers until `changes` ends. It yields a set of changes, which is empty if no file has changed."""
    worker = LaunchedWorkers(options)
    told = False
    try:
        for changed in changes:
            if changed:
                worker.stop()
                click.secho(f"[{time.asctime()}] {_described(changed)}; restarting", fg="blue", err=True)
                on_change()
                worker, told = LaunchedWorkers(options), False
            worker.hear_all()
            if worker.over and not told:
                told = True
                ending = f"The worker ended with {worker.exit_code(0)}; the next change starts it"
                click.secho(ending, fg="red", err=True)
    finally:
        worker.stop()


def _described(changed: set[FileChange]) -> str:
    names = sorted({os.path.basename(path) for _, path in changed})
    return f"{names[0]} changed" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more changed"
