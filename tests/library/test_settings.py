"""Settings come from four variables, and a bad one is named."""

import dataclasses
import re

import pytest

from dagorama.errors import SettingsError
from dagorama.settings import Settings, broker_wait, warn_after

ACCESS = {
    f"DAGORAMA_{name.upper()}": name
    for name in ("auth_token", "auth_token_file", "tls_ca", "tls_cert", "tls_key", "tls_name")
}
VARIABLES = ("DAGORAMA_HOST", "DAGORAMA_PORT", "DAGORAMA_LOG_LEVEL", "DAGORAMA_GRACE", *ACCESS)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_variables_the_defaults_hold() -> None:
    assert Settings.from_env() == Settings("localhost", 50051, "WARNING", 25.0)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    assert Settings.from_env() == Settings()


def test_the_variables_are_read_again_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    Settings.from_env()
    monkeypatch.setenv("DAGORAMA_HOST", "broker.internal")
    monkeypatch.setenv("DAGORAMA_PORT", "6000")
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", "debug")
    monkeypatch.setenv("DAGORAMA_GRACE", "1.5")
    assert Settings.from_env() == Settings("broker.internal", 6000, "DEBUG", 1.5)


@pytest.mark.parametrize("port", ["0", "-1", "65536", "http", "50051.0", "5 0"])
def test_a_port_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", port)
    with pytest.raises(SettingsError, match=f"DAGORAMA_PORT is '{port}'.*65535"):
        Settings.from_env()


@pytest.mark.parametrize("grace", ["-1", "long", "inf", "nan", "1,5"])
def test_a_grace_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, grace: str) -> None:
    monkeypatch.setenv("DAGORAMA_GRACE", grace)
    with pytest.raises(SettingsError, match=f"DAGORAMA_GRACE is '{grace}'.*seconds"):
        Settings.from_env()


@pytest.mark.parametrize("seconds", ["-1", "soon", "nan"])
def test_a_time_to_warn_after_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("DAGORAMA_WARN_AFTER", seconds)
    with pytest.raises(SettingsError, match=f"DAGORAMA_WARN_AFTER is '{seconds}'.*seconds"):
        warn_after()


def test_a_wait_warns_after_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGORAMA_WARN_AFTER", raising=False)
    assert warn_after() == 5.0
    for text, seconds in (("", 5.0), ("0.5", 0.5), ("inf", float("inf"))):
        monkeypatch.setenv("DAGORAMA_WARN_AFTER", text)
        assert warn_after() == seconds


def test_an_unknown_log_level_is_refused_with_those_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", "LOUD")
    with pytest.raises(SettingsError, match=r"DAGORAMA_LOG_LEVEL is 'LOUD'.*DEBUG, INFO, WARNING, ERROR, CRITICAL"):
        Settings.from_env()


def test_what_is_presented_to_the_broker_is_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in set(ACCESS) - {"DAGORAMA_AUTH_TOKEN_FILE"}:
        monkeypatch.setenv(variable, variable.lower())
    found = Settings.from_env()
    assert {getattr(found, name) for name in ACCESS.values()} == {*map(str.lower, ACCESS), ""} - {
        "dagorama_auth_token_file"
    }


@pytest.mark.parametrize(
    ("set_ones", "said"),
    [
        (("AUTH_TOKEN", "AUTH_TOKEN_FILE"), "are both set: unset one"),
        (("TLS_CA", "TLS_CERT"), "DAGORAMA_TLS_CERT and DAGORAMA_TLS_KEY go together"),
        (("TLS_CA", "TLS_KEY"), "DAGORAMA_TLS_CERT and DAGORAMA_TLS_KEY go together"),
        (("TLS_CERT", "TLS_KEY"), "DAGORAMA_TLS_CERT is set and DAGORAMA_TLS_CA is not"),
        (("TLS_NAME",), "DAGORAMA_TLS_NAME is set and DAGORAMA_TLS_CA is not"),
    ],
)
def test_what_does_not_go_together_is_named(
    monkeypatch: pytest.MonkeyPatch, set_ones: tuple[str, ...], said: str
) -> None:
    for name in set_ones:
        monkeypatch.setenv(f"DAGORAMA_{name}", "marked")
    with pytest.raises(SettingsError, match=said) as error:
        Settings.from_env()
    assert "marked" not in str(error.value)


def test_blanks_around_a_value_do_not_count_and_blanks_alone_are_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in zip(VARIABLES, ["broker", "6000", "debug", "1.5", "token"], strict=False):
        monkeypatch.setenv(name, f" {text}\n")
    assert Settings.from_env() == Settings("broker", 6000, "DEBUG", 1.5, "token")
    for name in VARIABLES:
        monkeypatch.setenv(name, " ")
    assert Settings.from_env() == Settings()


@pytest.mark.parametrize(
    ("text", "host"),
    [("broker.internal", "broker.internal"), ("my_broker", "my_broker"), ("10.0.0.1", "10.0.0.1"),
     ("::1", "::1"), ("[::1]", "::1"), ("fe80::1%eth0", "fe80::1%eth0")],
)  # fmt: skip
def test_a_host_is_a_name_or_an_address(monkeypatch: pytest.MonkeyPatch, text: str, host: str) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", text)
    assert Settings.from_env().host == host


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("http://broker", "without a scheme"),
        ("tcp://10.0.0.1:50051", "without a scheme"),
        ("broker:50051", "the port has its own setting: 'broker' here, and 50051"),
        ("[::1]:50051", "the port has its own setting: '::1' here, and 50051"),
        ("my broker", ""), ("broker/path", ""), ("user@broker", ""), (":50051", ""), ("[broker]", ""), ("\udcff", ""),
    ],
)  # fmt: skip
def test_a_host_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str, remedy: str) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", text)
    said = f"DAGORAMA_HOST is {text!r}: it must be the name or the address of a host"
    with pytest.raises(SettingsError, match=f"^{re.escape(said)}.*{re.escape(remedy)}"):
        Settings.from_env()
    with pytest.raises(SettingsError, match=r"^--host is "):
        Settings.from_env(host=text)


def test_an_option_comes_before_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "no host")
    monkeypatch.setenv("DAGORAMA_PORT", "no port")
    assert Settings.from_env("broker", 7) == Settings("broker", 7)


def test_only_the_port_of_the_variable_that_kubernetes_sets_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "tcp://10.96.0.7:6000")
    assert Settings.from_env() == Settings(port=6000)
    monkeypatch.setenv("DAGORAMA_PORT", "tcp://[fd00::7]:6000")
    assert Settings.from_env() == Settings(port=6000)
    monkeypatch.setenv("DAGORAMA_PORT", "udp://10.96.0.7:53")
    assert Settings.from_env() == Settings()


def test_a_number_of_any_length_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "1" * 5000)
    with pytest.raises(SettingsError, match="DAGORAMA_PORT is"):
        Settings.from_env()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]  # that is what is tested


def test_a_time_to_wait_for_a_lost_broker_is_twenty_seconds_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DAGORAMA_BROKER_WAIT", raising=False)
    assert broker_wait() == 20.0
    monkeypatch.setenv("DAGORAMA_BROKER_WAIT", " 120 ")
    assert broker_wait() == 120.0
    monkeypatch.setenv("DAGORAMA_BROKER_WAIT", "soon")
    with pytest.raises(SettingsError, match=r"DAGORAMA_BROKER_WAIT is 'soon'.*seconds"):
        broker_wait()
