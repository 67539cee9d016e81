"""Files with secrets: open to others is a mistake only where the user of the process could mend it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import pytest

from dagorama.client.channel import Token
from dagorama.errors import SettingsError
from dagorama.settings import Settings
from dagorama.values.keys import load_keys, new_key
from dagorama.values.private_files import OTHERS, is_foreign, is_mistake, is_open_to, open_file
from dagorama_broker import errors as broker_errors
from dagorama_broker.rpc import private_files as of_the_broker
from dagorama_broker.rpc.tokens import read_tokens

ROOT, ME, ANOTHER, NOBODY = 0, 1000, 1001, 65534


def test_a_file_of_my_own_that_others_may_read_is_a_mistake() -> None:
    assert is_mistake(0o040, owner=ME, user=ME)
    assert is_mistake(0o004, owner=ME, user=ROOT)
    assert is_mistake(0o004, owner=ROOT, user=ROOT)


def test_a_file_that_i_cannot_change_is_none_unless_others_may_write_it() -> None:
    for owner in (ROOT, ANOTHER):
        assert not is_mistake(0o040, owner=owner, user=ME)
        assert not is_mistake(0o044, owner=owner, user=ME)
        assert is_mistake(0o020, owner=owner, user=ME)
        assert is_mistake(0o006, owner=owner, user=ME)


def test_the_broker_has_the_same_rule() -> None:
    for allowed in (0o040, 0o004, 0o020, 0o002):
        for owner in (ROOT, ME):
            for user in (ROOT, ME):
                assert of_the_broker.is_mistake(allowed, owner, user) == is_mistake(allowed, owner, user)
                assert of_the_broker.is_foreign(owner, user) == is_foreign(owner, user)


def test_a_file_that_no_other_user_can_read_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(0o600)
    assert not is_open_to(OTHERS, str(file))
    file.chmod(0o640)
    assert is_open_to(OTHERS, str(file))


def test_a_file_is_the_users_own_or_roots() -> None:
    for owner in (ROOT, ME):
        assert not is_foreign(owner, user=ME)
    assert is_foreign(ANOTHER, user=ME)
    assert is_foreign(ME, user=ROOT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
def test_what_another_user_could_have_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(new_key())
    file.chmod(0o600)
    monkeypatch.delenv("DAGORAMA_SIGNING_KEYS", raising=False)
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS_FILE", str(file))
    settings = Settings(auth_token_file=str(file))
    assert load_keys()
    assert Token.of(settings)
    os.chown(file, NOBODY, NOBODY)
    for read in (load_keys, lambda: Token.of(settings)):
        with pytest.raises(SettingsError, match=rf"{file} belongs to another user \(nobody\).* chown root {file}"):
            read()
    with pytest.raises(broker_errors.SettingsError, match="belongs to another user"):
        read_tokens(file)


def test_a_folder_where_everybody_can_put_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    file, link = tmp_path / "open" / "secret", tmp_path / "link"
    file.write_text(new_key())
    file.chmod(0o600)
    link.symlink_to(file)
    monkeypatch.delenv("DAGORAMA_SIGNING_KEYS", raising=False)
    for mode, is_refused in ((0o777, True), (0o1777, False), (0o775, False)):
        file.parent.chmod(mode)
        for name in (file, link):
            monkeypatch.setenv("DAGORAMA_SIGNING_KEYS_FILE", str(name))
            if is_refused:
                with pytest.raises(SettingsError, match=f"may replace it: chmod o-w {file.parent}"):
                    load_keys()
            else:
                assert load_keys()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for module in (of_the_broker.open_file, open_file):
        with pytest.raises(OSError, match="not a regular file"):
            module(tmp_path / "pipe")


@pytest.mark.skipif(
    not os.path.ismount("/sys") or not os.statvfs("/sys").f_flag & os.ST_RDONLY,
    reason="there is no read-only mount here",
)
def test_what_lies_on_a_read_only_mount_is_fine() -> None:
    assert os.stat("/sys/kernel").st_mode & OTHERS
    assert not is_open_to(OTHERS, "/sys/kernel")


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of keys as Kubernetes mounts a Secret: root's, behind links, while this process is somebody else."""
    folder = Path(tempfile.mkdtemp(prefix="dagorama-test-"))  # the folders of pytest are their owner's alone
    folder.chmod(0o755)
    (folder / "..data").mkdir(0o755)
    (folder / "..data" / "key").write_text(new_key())
    (folder / "key").symlink_to("..data/key")
    os.chown(folder / "key", 0, NOBODY)
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS_FILE", str(folder / "key"))
    monkeypatch.delenv("DAGORAMA_SIGNING_KEYS", raising=False)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield folder / "..data" / "key"
    finally:
        os.seteuid(0)
        os.setegid(0)
        rmtree(folder)


def set_mode(file: Path, mode: int) -> None:
    os.seteuid(0)
    file.chmod(mode)
    os.seteuid(NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_mounted_secret_of_root_is_read_by_another_user(mounted: Path) -> None:
    for mode in (0o440, 0o444):
        set_mode(mounted, mode)
        assert len(load_keys()) == 1
    set_mode(mounted, 0o464)
    with pytest.raises(SettingsError, match="mode 464"):
        load_keys()
