"""`dagorama config show`: what each process started here would be set to, and where that comes from."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dagorama.settings import Settings
from dagorama.values.keys import new_key
from dagorama_broker.environment import setting_of
from dagorama_broker.settings import Settings as BrokerSettings
from tests.support.commands import ROOT, data, printed, refusal


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("DAGORAMA_")]:
        monkeypatch.delenv(variable)


def shown(*arguments: object) -> dict[tuple[str, str], tuple[Any, str]]:
    """Value and origin by process and setting."""
    return {
        (each["process"], each["setting"]): (each["value"], each["origin"])
        for each in data("config", "show", *arguments)
    }  # fmt: skip


def test_every_setting_is_shown_with_its_default() -> None:
    found = shown()
    clients = {setting for process, setting in found if process == "client and worker"}
    assert {f"DAGORAMA_{field.name.upper()}" for field in fields(Settings)} <= clients
    documented = (ROOT / "docs" / "reference" / "settings.md").read_text()
    _, _, page = documented.partition("\n## Clients and workers\n")
    assert clients == set(re.findall(r"^\| `(DAGORAMA_\w+)` \|", page.partition("\n## ")[0], re.MULTILINE))
    brokers = {setting for process, setting in found if process == "broker"}
    assert brokers == {setting_of(field).variable for field in fields(BrokerSettings)}
    assert {origin for _, origin in found.values()} == {"default"}
    assert found["broker", "DAGORAMA_PORT"] == (50051, "default")
    assert {setting for _, setting in found if f"`{setting}`" not in documented} == set()


def test_an_origin_is_the_flag_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-of-a-file")
    token.chmod(0o600)
    monkeypatch.setenv("DAGORAMA_AUTH_TOKEN_FILE", str(token))
    monkeypatch.setenv("DAGORAMA_RETENTION", "never")
    monkeypatch.setenv("DAGORAMA_HOST", "elsewhere")
    found = shown("--port", 4000)
    assert found["client and worker", "DAGORAMA_PORT"] == (4000, "flag")
    assert found["client and worker", "DAGORAMA_HOST"] == ("elsewhere", "environment")
    assert found["client and worker", "DAGORAMA_AUTH_TOKEN"] == ("(set)", "file")
    assert found["client and worker", "DAGORAMA_AUTH_TOKEN_FILE"] == (str(token), "environment")
    assert found["broker", "DAGORAMA_RETENTION"] == ("never", "environment")


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", key)
    monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", "dgr_secret")
    for form in ("table", "json", "jsonl", "name"):
        text = printed("config", "show", "--origin", "-o", form)
        assert key not in text
        assert "dgr_secret" not in text
    assert shown()["client and worker", "DAGORAMA_SIGNING_KEYS"] == ("(set)", "environment")


def test_the_table_has_the_origin_if_it_is_asked_for() -> None:
    assert printed("config", "show").splitlines()[0].split() == ["setting", "value", "process"]
    assert printed("config", "show", "--origin").splitlines()[0].split() == ["setting", "value", "origin", "process"]


def test_an_invalid_setting_of_the_broker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_LEASE", "long")
    code, said = refusal("config", "show")
    assert (code, "DAGORAMA_LEASE is 'long'" in said) == (78, True)


@pytest.mark.parametrize(
    ("url", "shown_url"),
    [
        ("postgresql://ada:s3cret@db/jobs?schema=a", "postgresql://ada@db/jobs?schema=a"),
        ("postgresql://db/jobs?user=ada&password=s3cret", "postgresql://db/jobs?user=ada"),
        ("sqlite:////var/lib/store.sqlite3", "sqlite:////var/lib/store.sqlite3"),
    ],
)
def test_a_password_in_the_url_of_a_store_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str, shown_url: str
) -> None:
    monkeypatch.setenv("DAGORAMA_STORE", url)
    assert shown()["broker", "DAGORAMA_STORE"] == (shown_url, "environment")
