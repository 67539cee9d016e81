"""The parts of `dagorama dev`: what TARGET names, the folder of the data, and children that are kept running."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from fcntl import LOCK_EX, flock
from pathlib import Path

import click
import pytest

from dagorama.cli.dev.console import Console
from dagorama.cli.dev.data import Unusable, make_folder, prepare_store
from dagorama.cli.dev.keeper import Keeper
from dagorama.cli.dev.roles import Broker, CannotStart, Dashboard, Plan
from dagorama.cli.dev.target import Target, find_target

# --- the target -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file, a package in a package, and a folder of scripts."""
    for name in ("flow.py", "shop/__init__.py", "shop/orders/__init__.py", "shop/orders/app.py", "jobs/night.py"):
        (file := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise RuntimeError('nothing is imported to find it')")
    (tmp_path / "not-a-name.py").touch()
    (tmp_path / "data.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "below", "module"),
    [
        (None, ".", ""),
        ("jobs", "jobs", ""),
        ("flow.py", ".", "flow"),
        ("./flow.py", ".", "flow"),
        ("flow", ".", "flow"),
        ("jobs/night.py", "jobs", "night"),
        ("shop/orders/app.py", ".", "shop.orders.app"),
        ("shop.orders.app", ".", "shop.orders.app"),
        ("shop", ".", "shop"),
        ("shop/orders", ".", "shop.orders"),
        ("json", ".", "json"),
    ],
)
def test_a_target_is_imported_from_the_folder_of_its_outermost_package(
    folder: Path, text: str | None, below: str, module: str
) -> None:
    found = find_target(text)
    assert (found.folder, found.module) == ((folder / below).resolve(), module)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("missing.py", "there is no file missing.py"),
        ("jobs/missing", "there is no file jobs/missing"),
        ("missing", "there is no module missing in "),
        ("shop.missing", "there is no module shop.missing in "),
        ("flow.more", "there is no module flow.more in "),
        ("flow:Shapes", "'flow:Shapes' names a class, and a file or a module is expected: write flow"),
        ("two words", "'two words' is neither a file nor the name of a module"),
        ("data.txt", "data.txt is not a Python file: its name must end with .py"),
        ("not-a-name.py", "not-a-name.py cannot be imported: 'not-a-name' is not a name of a module"),
    ],
)
def test_a_target_that_names_nothing_is_refused_with_a_sentence(folder: Path, text: str, sentence: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        find_target(text)
    assert refused.value.message.startswith(sentence)


def test_a_folder_that_was_deleted_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gone := folder / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(click.UsageError, match="the current folder was deleted"):
        find_target(None)
    monkeypatch.chdir(folder)


# --- the data -------------------------------------------------------------------------------------------


def test_version_control_ignores_folders_that_are_made_and_no_others(tmp_path: Path) -> None:
    (mine := tmp_path / "mine").mkdir()
    for name in ("mine", ".dagorama", "new/deep"):
        make_folder(tmp_path / name)
    assert not (mine / ".gitignore").exists()
    assert (tmp_path / ".dagorama" / ".gitignore").read_text() == "*\n"
    assert (tmp_path / "new" / "deep" / ".gitignore").read_text() == "*\n"


def test_a_folder_that_cannot_be_made_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match="cannot be used for the data: Not a directory"):
        make_folder(tmp_path / "file" / ".dagorama")


def test_a_fresh_store_has_lost_all_its_files_and_no_others(tmp_path: Path) -> None:
    store = tmp_path / "broker.sqlite3"
    for name in ("broker.sqlite3", "broker.sqlite3-wal", "broker.sqlite3.values/ab/cd", "mine.sqlite3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    prepare_store(store, fresh=False)
    assert store.exists()
    prepare_store(store, fresh=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["broker.sqlite3.lock", "mine.sqlite3"]


def test_the_store_of_a_running_broker_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama.cli.dev.data._ATTEMPTS_OF_ENDING", 2)
    store = tmp_path / "broker.sqlite3"
    store.touch()
    with open(f"{store}.lock", "w") as held:
        flock(held, LOCK_EX)
        with pytest.raises(Unusable, match="is in use by another broker: stop that one, or choose another --store"):
            prepare_store(store, fresh=True)
    assert store.exists()


# --- children -------------------------------------------------------------------------------------------

#: Stands for the dashboard: it appends its process ID to a file, and does what the rest of the program says.
PAGE = "import os, sys, time\nopen('started', 'a').write(f'{os.getpid()} ')\n"
SERVES = PAGE + "print('dashboard: http://127.0.0.1:1', flush=True)\nprint('a visitor', flush=True)\n"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Keeper, Dashboard]]:
    """Return a function that makes a keeper of a program."""
    monkeypatch.setattr("dagorama.cli.dev.keeper._PAUSES", (0.0, 0.0))

    def made(program: str) -> tuple[Keeper, Dashboard]:
        role = Dashboard(Broker(), ("-c", program))
        return Keeper(role, Plan(Target(tmp_path), tmp_path, 1, 0, 0), Console()), role

    return made


def started(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "started").read_text().split()]


async def test_a_child_serves_when_it_says_so_and_is_stopped(
    page: Callable[[str], tuple[Keeper, Dashboard]], capfd: pytest.CaptureFixture[str]
) -> None:
    keeper, role = page(SERVES + "time.sleep(60)")
    await keeper.start()
    assert role.address == "http://127.0.0.1:1"
    keeping = asyncio.ensure_future(keeper.keep())
    await keeper.stop(10)
    await keeping


async def test_a_child_that_has_served_is_started_again(
    page: Callable[[str], tuple[Keeper, Dashboard]], tmp_path: Path
) -> None:
    keeper, _ = page(SERVES + "time.sleep(60)")
    await keeper.start()
    keeping = asyncio.ensure_future(keeper.keep())
    os.kill(started(tmp_path)[0], signal.SIGKILL)
    while len(started(tmp_path)) < 2:
        await asyncio.sleep(0.01)
    await keeper.stop(10)
    await keeping
    assert len(started(tmp_path)) == 2


async def test_the_page_comes_back_at_its_address(
    page: Callable[[str], tuple[Keeper, Dashboard]], tmp_path: Path
) -> None:
    asked = "open('asked', 'a').write(sys.argv[sys.argv.index('--http-port') + 1] + ' ')\n"
    keeper, _ = page(PAGE + asked + SERVES + "time.sleep(60)")
    for _ in range(2):
        await keeper.start()
        await keeper.stop(10)
    assert (tmp_path / "asked").read_text() == "0 1 "


async def test_a_child_that_ends_before_it_serves_cannot_start(
    page: Callable[[str], tuple[Keeper, Dashboard]],
) -> None:
    keeper, _ = page("import sys; sys.exit('no port is free')")
    with pytest.raises(CannotStart, match="the dashboard ended with exit code 1"):
        await keeper.start()


async def test_a_child_that_always_ends_at_once_is_given_up(
    page: Callable[[str], tuple[Keeper, Dashboard]], tmp_path: Path
) -> None:
    keeper, _ = page(SERVES + "sys.exit(5)")
    await keeper.start()
    with pytest.raises(CannotStart, match="the dashboard ended with exit code 5"):
        await keeper.keep()
    assert len(started(tmp_path)) == 7


async def test_a_child_with_a_wrong_setting_is_not_started_again(
    page: Callable[[str], tuple[Keeper, Dashboard]], tmp_path: Path
) -> None:
    keeper, _ = page(SERVES + "sys.exit(78)")
    await keeper.start()
    with pytest.raises(CannotStart):
        await keeper.keep()
    assert len(started(tmp_path)) == 1


async def test_a_child_that_does_not_listen_is_killed(page: Callable[[str], tuple[Keeper, Dashboard]]) -> None:
    ignores = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    keeper, _ = page(ignores + SERVES + "time.sleep(60)")
    await keeper.start()
    await asyncio.wait_for(keeper.stop(0.1), 30)
