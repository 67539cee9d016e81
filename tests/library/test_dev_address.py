"""A client finds the broker that `dagorama dev` runs for its folder, and no other, and nothing if that has ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama.cli.dev.data import AddressFile, Unusable
from dagorama.dev_address import FOLDER, dev_port
from dagorama.settings import Settings, _read

VARIABLES = ("DAGORAMA_HOST", "DAGORAMA_PORT", "DAGORAMA_TLS_CA")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of this process, which has not looked for a broker yet."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    dev_port.cache_clear()
    _read.cache_clear()


@pytest.fixture
def address(folder: Path) -> Iterator[AddressFile]:
    made = AddressFile(folder)
    made.write(4711)
    yield made
    made.close()


def found() -> tuple[str, int]:
    settings = Settings.from_env()
    return settings.host, settings.port


def test_it_is_found_from_the_folder_and_from_below(
    address: AddressFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found() == ("127.0.0.1", 4711)
    forget()
    (below := folder / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(below)
    assert found() == ("127.0.0.1", 4711)


def test_without_one_the_default_counts(folder: Path) -> None:
    assert found() == ("localhost", 50051)


def test_the_file_of_a_process_that_has_died_does_not_count(folder: Path) -> None:
    (folder / FOLDER).mkdir()
    (folder / FOLDER / "address").write_text("127.0.0.1:4711 pid 1\n")
    assert found() == ("localhost", 50051)


def test_a_broker_that_does_not_serve_yet_is_not_found(address: AddressFile) -> None:
    address.clear()
    assert found() == ("localhost", 50051)


def test_a_file_into_which_others_can_write_does_not_count(address: AddressFile) -> None:
    address.path.chmod(0o620)
    assert found() == ("localhost", 50051)


@pytest.mark.parametrize("text", ["", "evil.example:4711", "127.0.0.1:port", "127.0.0.1:471123"])
def test_only_a_port_of_this_machine_is_read(address: AddressFile, text: str) -> None:
    address.path.write_text(text)
    assert found() == ("localhost", 50051)


@pytest.mark.parametrize(("variable", "value"), [("DAGORAMA_HOST", "elsewhere"), ("DAGORAMA_PORT", "4000")])
def test_a_variable_comes_first(
    address: AddressFile, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert 4711 not in found()
    assert value in map(str, found())


def test_authorities_name_another_broker(address: AddressFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_TLS_CA", "ca.pem")
    assert found() == ("localhost", 50051)


def test_an_option_comes_first(address: AddressFile) -> None:
    assert Settings.from_env(port=4000).port == 4000
    assert Settings.from_env(port=4000).host == "localhost"


def test_a_program_stays_with_the_broker_that_it_has_found(address: AddressFile, folder: Path) -> None:
    assert found() == ("127.0.0.1", 4711)
    address.write(4712)
    assert found() == ("127.0.0.1", 4711)


def test_a_folder_that_was_deleted_has_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gone := folder / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert found() == ("localhost", 50051)
    monkeypatch.chdir(folder)


def test_one_process_at_a_time_serves_a_folder(address: AddressFile, folder: Path) -> None:
    with pytest.raises(Unusable, match=rf"is already running for {folder} with its broker at 127.0.0.1:4711 \(pid "):
        AddressFile(folder)


def test_looking_for_it_does_not_keep_the_next_one_from_starting(folder: Path) -> None:
    AddressFile(folder).close()
    code = "from dagorama.dev_address import dev_port; print(dev_port())"
    lookers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    made = AddressFile(folder)
    made.write(4711)
    assert all(looker.communicate()[0].strip() in ("4711", "None") for looker in lookers)
    made.close()
