"""The file of tokens: what `dagorama tokens new` writes is what the broker reads, and a mistake in it is named."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dagorama.api.contract import Role
from dagorama.cli.credentials import new_token, record_of, tokens
from dagorama_broker.errors import SettingsError
from dagorama_broker.rpc.tokens import Token, matching, read_tokens

DIGEST = "0" * 64


def new(*arguments: str) -> Result:
    return CliRunner().invoke(tokens, ["new", *arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


# --- made and read ------------------------------------------------------------------------------------


def test_a_token_is_printed_once_and_the_file_gets_its_digest(file: Path) -> None:
    printed = new("--role", "client", "--file", str(file))
    token = printed.stdout.strip()
    assert printed.exit_code == 0
    assert len(printed.stdout.splitlines()) == 1
    assert token not in file.read_text()
    (record,) = read_tokens(file)
    assert (record.role, record.digest) == (Role.CLIENT, sha256(token.encode()).digest())
    assert record.name.startswith("client-")
    assert (record.queues, record.tolerations, record.expires) == (None, None, None)


def test_a_file_that_is_made_is_its_owners_alone_and_the_next_record_goes_behind(file: Path) -> None:
    for name in ("one", "two"):
        assert new("--role", "worker", "--name", name, "--file", str(file)).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert [token.name for token in read_tokens(file)] == ["one", "two"]


def test_without_a_file_the_record_is_printed_behind_the_token(file: Path) -> None:
    token, _, record = new("--role", "admin", "--name", "me").stdout.partition("\n\n")
    file.write_text(record)
    assert matching(read_tokens(file), token.encode()) == Token("me", Role.ADMIN, sha256(token.encode()).digest())


def test_what_a_workers_token_is_limited_to_is_written_down(file: Path) -> None:
    flags = ["--toleration", "GPU", "--toleration", 'a "b" \x7f', "--queue", "images", "--expires"]
    assert new("--role", "worker", *flags, "2030-01-31T12:00:00+02:00", "--file", str(file)).exit_code == 0
    assert new("--role", "worker", "--no-toleration", "--file", str(file)).exit_code == 0
    limited, plain = read_tokens(file)
    assert limited.tolerations == frozenset({"GPU", 'a "b" \x7f'})
    assert limited.queues == frozenset({"images"})
    assert limited.expires == datetime(2030, 1, 31, 10, tzinfo=UTC).timestamp()
    assert plain.tolerations == frozenset()


def test_a_reader_may_be_allowed_to_read_logs(file: Path) -> None:
    assert new("--role", "reader", "--logs", "--file", str(file)).exit_code == 0
    assert new("--role", "reader", "--file", str(file)).exit_code == 0
    assert [token.logs for token in read_tokens(file)] == [True, False]


@pytest.mark.parametrize(("text", "seconds"), [("12h", 12 * 3600), ("90d", 90 * 86400)])
def test_a_token_may_expire_after_some_time(file: Path, text: str, seconds: int) -> None:
    before = datetime.now(UTC).timestamp()
    new("--role", "reader", "--expires", text, "--file", str(file))
    expires = read_tokens(file)[0].expires
    assert expires is not None
    assert before + seconds - 1 <= expires <= datetime.now(UTC).timestamp() + seconds


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--role"),
        (["--role", "king"], "king"),
        (["--role", "reader", "--queue", "q"], "queues and tolerations apply to the role worker, not to reader"),
        (["--role", "client", "--logs"], "--logs is for the roles reader and signaller"),
        (["--role", "worker", "--toleration", "a", "--no-toleration"], "contradict each other"),
        (["--role", "reader", "--expires", "soon"], "--expires soon: must look like 12h, 90d or 2030"),
    ],
)
def test_a_mistake_is_one_sentence_and_makes_no_token(arguments: list[str], said: str) -> None:
    made = new(*arguments)
    assert made.exit_code == 2
    assert said in made.output
    assert "dgt_" not in made.output


def test_a_file_that_cannot_be_written_is_named_and_no_token_shown(tmp_path: Path) -> None:
    made = new("--role", "reader", "--file", str(tmp_path / "no" / "such"))
    assert made.exit_code == 1
    assert f"{tmp_path}/no/such: No such file" in made.output
    assert "dgt_" not in made.output


def test_no_two_tokens_are_alike() -> None:
    made = [new_token() for _ in range(100)]
    assert len(set(made)) == 100
    assert all(token.startswith("dgt_") and len(token) == 47 for token in made)


# --- files with mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[token]", "is not TOML"),
        ("[token]\nname='a'", "must contain only"),
        ("tokens = []", "must contain only"),
        ("token = [1]", "token 1 of .* is not a table"),
        (f"[[token]]\nrole='admin'\nsha256='{DIGEST}'", "token 1 of .* must have a name"),
        (
            f"[[token]]\nname='a'\nrole='king'\nsha256='{DIGEST}'",
            "roles: client, worker, reader, signaller, admin",
        ),
        ("[[token]]\nname='a'\nrole='admin'\nsha256='dgt_the-token-itself'", "must have the SHA-256"),
        (f"[[token]]\nname='a'\nrole='admin'\nsha256='{DIGEST}'\nqueue='q'", "unknown fields: queue"),
        (f"[[token]]\nname='a'\nrole='reader'\nsha256='{DIGEST}'\nqueues=['q']", "only a worker may have queues"),
        (f"[[token]]\nname='a'\nrole='worker'\nsha256='{DIGEST}'\nqueues=[]", "allows no queue"),
        (f"[[token]]\nname='a'\nrole='worker'\nsha256='{DIGEST}'\ntolerations='GPU'", "`tolerations` must be a list"),
        (f"[[token]]\nname='a'\nrole='worker'\nsha256='{DIGEST}'\nexpires='2030-01-01'", "`expires` must be a date"),
        (f"[[token]]\nname='a'\nrole='worker'\nsha256='{DIGEST}'\nexpires=2030-01-01", "`expires` must be a date"),
        (f"[[token]]\nname='a'\nrole='client'\nsha256='{DIGEST}'\nlogs=true", "only a reader or signaller needs it"),
        (f"[[token]]\nname='a'\nrole='reader'\nsha256='{DIGEST}'\nlogs='yes'", "`logs` is true or false"),
        (f"[[token]]\nname='a'\nrole='worker'\nsha256='{DIGEST}'\n" * 2, "two tokens with the same name"),
    ],
)
def test_a_mistake_in_the_file_is_named(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=said) as error:
        read_tokens(file)
    assert str(file) in str(error.value)
    assert "the-token-itself" not in str(error.value)


def test_one_token_under_two_names_is_a_mistake(file: Path) -> None:
    token = new_token()
    file.write_text(record_of(token, "admin", name="a") + record_of(token, "reader", name="b"))
    with pytest.raises(SettingsError, match="two tokens with the same sha256"):
        read_tokens(file)


def test_a_file_that_others_may_write_is_refused(file: Path) -> None:
    file.write_text(record_of(new_token(), "admin"))
    for mode in (0o646, 0o664, 0o620):
        file.chmod(mode)
        with pytest.raises(SettingsError, match="users other than its owner can write to it: chmod go-w"):
            read_tokens(file)
    file.chmod(0o644)
    assert len(read_tokens(file)) == 1


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(SettingsError, match=f"the tokens in {file} cannot be read: No such file"):
        read_tokens(file)


def test_an_empty_file_admits_no_caller(file: Path) -> None:
    file.write_text("")
    assert read_tokens(file) == []
    assert matching([], b"") is None
