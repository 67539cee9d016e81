"""One host or several: what may be named, and how an error says which name is wrong."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dagorama.errors import SettingsError
from dagorama.settings import Settings
from dagorama.settings.listing import described_settings


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a.example,b.example", ("a.example", "b.example")),
        (" a.example , b.example\n", ("a.example", "b.example")),
        ("[::1],10.0.0.1", ("::1", "10.0.0.1")),
        ("a.example,b.example,a.example", ("a.example", "b.example")),
        ("a.example", ("a.example",)),
    ],
)
def test_several_hosts_are_kept_in_their_order(
    monkeypatch: pytest.MonkeyPatch, text: str, hosts: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", text)
    assert Settings.from_env().hosts == hosts
    assert Settings.from_env(host=text).hosts == hosts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.example,b.example:50051", "host 2 of {} is 'b.example:50051': it must be .* its own setting: 'b.example'"),
        ("http://a,b", "host 1 of {} is 'http://a': it must be .* without a scheme"),
        ("a.example,", "host 2 of {} is '': it must be the name or the address of a host"),
        (",", "host 1 of {} is '': it must be"),
    ],
)
def test_the_wrong_one_of_several_hosts_is_named(monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", text)
    with pytest.raises(SettingsError, match=said.format("DAGORAMA_HOST")):
        Settings.from_env()
    with pytest.raises(SettingsError, match=said.format("--host")):
        Settings.from_env(host=text)


def test_several_hosts_with_tls_need_the_name_in_their_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "a.example,b.example")
    monkeypatch.setenv("DAGORAMA_TLS_CA", "ca.pem")
    said = "the broker may be at several hosts (a.example,b.example): set DAGORAMA_TLS_NAME to the name"
    with pytest.raises(SettingsError, match=re.escape(said)):
        Settings.from_env()
    monkeypatch.setenv("DAGORAMA_TLS_NAME", "broker.example")
    assert Settings.from_env().tls_name == "broker.example"
    monkeypatch.delenv("DAGORAMA_TLS_NAME")
    assert Settings.from_env(host="a.example").hosts == ("a.example",)


def test_the_settings_that_are_shown_have_the_hosts_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "a.example, b.example")
    assert ("DAGORAMA_HOST", "a.example,b.example", "environment") in described_settings()


def test_nothing_that_looks_up_names_is_loaded_to_read_the_settings() -> None:
    code = (
        "import sys, dagorama; from dagorama.settings import Settings; Settings.from_env('a.example,b.example');"
        " print({'socket', 'ipaddress'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
