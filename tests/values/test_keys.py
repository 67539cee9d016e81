"""Where a process finds its signing keys: the environment, a file, or the one of its user on this machine."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagorama.__main__ import main
from dagorama.cli.credentials import keys as command
from dagorama.errors import SettingsError
from dagorama.values.keys import SigningKey, load_keys, new_key
from dagorama.values.signing import keyring


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No key is set; returns where the user's own is to be."""
    monkeypatch.delenv("DAGORAMA_SIGNING_KEYS", raising=False)
    monkeypatch.delenv("DAGORAMA_SIGNING_KEYS_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("dagorama.values.signing._current", None)
    from platformdirs import user_config_path

    return user_config_path("dagorama", appauthor=False) / "signing.key"


def ids() -> list[str]:
    return [key.id.hex() for key in load_keys()]


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


# --- what is set --------------------------------------------------------------------------------------------


def test_keys_are_taken_from_the_environment_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = new_key(), new_key()
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", one)
    (alone,) = ids()
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", f"{other}, {one}")
    assert ids()[1] == alone
    assert keyring().signs_under.hex() == ids()[0] != alone


def test_keys_are_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = written(tmp_path / "keys", f"{new_key()}\n{new_key()},{new_key()}\n")
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS_FILE", str(file))
    assert len(set(ids())) == 3


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(SettingsError, match=r"no home folder for one: set DAGORAMA_SIGNING_KEYS"):
        load_keys()
    listed = CliRunner().invoke(main, ["keys", "list"])
    assert (listed.exit_code, "set DAGORAMA_SIGNING_KEYS" in listed.output) == (78, True)


def test_keys_from_the_environment_and_a_file_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", new_key())
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS_FILE", "/somewhere")
    with pytest.raises(SettingsError, match="unset one"):
        keyring()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o610])
def test_a_file_that_others_can_use_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int) -> None:
    text = new_key()
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS_FILE", str(written(tmp_path / "keys", text, mode)))
    with pytest.raises(SettingsError, match=f"mode {mode:o}.*chmod 600") as refusal:
        load_keys()
    assert text not in str(refusal.value)


def test_a_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="none cannot be read: No such file"):
        load_keys()


@pytest.mark.parametrize("bad", ["secret", "x" * 44, "x" * 42 + "!", "?" * 43, "k" * 41, "é" * 43, "\udcff" * 43])
def test_what_is_no_key_is_refused_by_its_place_and_not_repeated(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", f"{new_key()},{bad}")
    with pytest.raises(SettingsError, match="key 2 of DAGORAMA_SIGNING_KEYS") as refusal:
        load_keys()
    assert bad not in str(refusal.value)
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_commas_and_nothing_else_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", " , ")
    with pytest.raises(SettingsError, match="dagorama keys new"):
        load_keys()


def test_the_id_of_a_key_is_always_the_same_and_tells_nothing_of_it() -> None:
    assert SigningKey(b"s" * 32).id == SigningKey(b"s" * 32).id != SigningKey(b"t" * 32).id
    assert len(SigningKey(b"s" * 32).id) == 8


# --- where nothing is set ------------------------------------------------------------------------------------


def test_a_key_of_the_users_own_is_made_once_and_kept_from_others(nothing_set: Path) -> None:
    first = ids()
    assert stat.S_IMODE(nothing_set.stat().st_mode) == 0o600
    assert ids() == first
    assert [path.name for path in nothing_set.parent.iterdir()] == ["signing.key"]


def test_a_key_file_that_others_can_read_is_refused(nothing_set: Path) -> None:
    load_keys()
    nothing_set.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        load_keys()


def test_processes_that_make_it_at_once_get_the_same(nothing_set: Path) -> None:
    program = "from dagorama.values.keys import load_keys; import sys; sys.stdin.read(1); print(load_keys()[0])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        for _ in range(6)
    ]
    told = {process.communicate("x", timeout=60)[0] for process in processes}
    assert len(told) == 1
    assert "signing key" in told.pop()
    assert len(list(nothing_set.parent.iterdir())) == 1


def test_threads_that_make_it_at_once_get_the_same() -> None:
    with ThreadPoolExecutor(16) as threads:
        assert len({tuple(found) for found in threads.map(lambda _: ids(), range(64))}) == 1


def test_the_variable_to_set_is_named_if_no_key_can_be_kept(nothing_set: Path) -> None:
    nothing_set.parent.parent.mkdir(parents=True)
    nothing_set.parent.write_text("a file, where the folder is to be")
    with pytest.raises(SettingsError, match="set DAGORAMA_SIGNING_KEYS to the output of `dagorama keys new`"):
        load_keys()


def test_a_file_of_the_users_own_that_holds_nothing_is_said(nothing_set: Path) -> None:
    load_keys()
    nothing_set.write_text("")
    with pytest.raises(SettingsError, match="holds no signing key"):
        load_keys()


def test_a_keyring_is_read_once_as_long_as_the_environment_says_the_same(
    monkeypatch: pytest.MonkeyPatch, nothing_set: Path
) -> None:
    own = keyring()
    assert keyring() is own
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", new_key())
    assert keyring().ids != own.ids
    monkeypatch.delenv("DAGORAMA_SIGNING_KEYS")
    assert keyring().ids == own.ids


# --- commands ------------------------------------------------------------------------------------------------


def test_keys_new_prints_a_key_that_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (CliRunner().invoke(command, ["new"]).output.strip() for _ in range(2))
    assert one != other
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", f"{one},{other}")
    assert len(ids()) == 2


def test_keys_list_tells_ids_and_never_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = new_key(), new_key()
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", f"{one},{other}")
    told = CliRunner().invoke(command, ["list"])
    first, second = ids()
    assert [line.split("  ") for line in told.stdout.splitlines()] == [
        [first, "signs and verifies"],
        [second, "verifies"],
    ]
    assert "from DAGORAMA_SIGNING_KEYS" in told.stderr
    assert one not in told.output
    assert other not in told.output


def test_keys_list_ends_with_the_sentence_where_there_is_something_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", "secret")
    told = CliRunner().invoke(main, ["keys", "list"])
    assert told.exit_code == 78
    assert "key 1 of DAGORAMA_SIGNING_KEYS" in told.output
    assert "secret" not in told.output
