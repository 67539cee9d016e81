"""The broker's settings: options before variables before defaults, each checked, each error naming what is wrong."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dagorama_broker.environment import setting_of
from dagorama_broker.errors import SettingsError
from dagorama_broker.settings import Endpoint, Settings, is_loopback
from dagorama_broker.store import open_store


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [*VARIABLES, "DAGORAMA_HOST"]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


#: variable -> (setting, text, what it means)
VARIABLES = {
    "DAGORAMA_BIND": ("host", "127.0.0.2", "127.0.0.2"),
    "DAGORAMA_PORT": ("port", "0", 0),
    "DAGORAMA_STORE": ("store", "sqlite:///x.db", "sqlite:///x.db"),
    "DAGORAMA_VALUES": ("values", "file:///values", "file:///values"),
    "DAGORAMA_VALUES_TRANSFER": ("values_transfer", "BROKER", "broker"),
    "DAGORAMA_STORE_PATIENCE": ("store_patience", "7", 7.0),
    "DAGORAMA_LEADER_LEASE": ("leader_lease", "1.5", 1.5),
    "DAGORAMA_LOG_LEVEL": ("log_level", "debug", "DEBUG"),
    "DAGORAMA_LOG_FORMAT": ("log_format", "JSON", "json"),
    "DAGORAMA_INSECURE": ("insecure", "1", True),
    "DAGORAMA_LEASE": ("lease", "12.5", 12.5),
    "DAGORAMA_HEARTBEAT": ("heartbeat", "0.25", 0.25),
    "DAGORAMA_LEGACY_LEASE": ("legacy_lease", "3", 3.0),
    "DAGORAMA_CANCEL_GRACE": ("cancel_grace", "0.5", 0.5),
    "DAGORAMA_RECONNECT_WAIT": ("reconnect_wait", "0", 0.0),
    "DAGORAMA_LARGE_VALUE_THRESHOLD": ("large_value_threshold", "1024", 1024),
    "DAGORAMA_SHARED_FILES": ("shared_files", "0", False),
    "DAGORAMA_LOCAL_SOCKET": ("local_socket", "0", False),
    "DAGORAMA_MAX_NODES": ("max_nodes", "10", 10),
    "DAGORAMA_MAX_SUBMISSION": ("max_submission", "4096", 4096),
    "DAGORAMA_MAX_VALUE": ("max_value", "8192", 8192),
    "DAGORAMA_RETENTION": ("retention", "0", 0.0),
    "DAGORAMA_GRANT_AHEAD": ("grant_ahead", "0", False),
    "DAGORAMA_RETENTION_FAILED": ("retention_failed", "Never", math.inf),
    "DAGORAMA_LARGE_GRACE": ("large_grace", "0.5", 0.5),
    "DAGORAMA_LOGS_MAX": ("logs_max", "1048576", 1 << 20),
    "DAGORAMA_TOKENS_FILE": ("tokens", "tokens.toml", "tokens.toml"),
    "DAGORAMA_BROKER_TLS_CERT": ("tls_cert", "broker.pem", "broker.pem"),
    "DAGORAMA_BROKER_TLS_KEY": ("tls_key", "broker.key", "broker.key"),
    "DAGORAMA_BROKER_TLS_CLIENT_CA": ("tls_client_ca", "ca.pem", "ca.pem"),
    "DAGORAMA_HEALTH_PORT": ("health_port", "0", 0),
    "DAGORAMA_METRICS_PORT": ("metrics_port", "9464", 9464),
    "DAGORAMA_HEALTH_HOST": ("health_host", "::1", "::1"),
    "DAGORAMA_MAX_MESSAGE": ("max_message", f"{8 << 20}", 8 << 20),
    "DAGORAMA_MAX_SOURCES": ("max_sources", "5", 5),
    "DAGORAMA_MAX_TRACEBACK": ("max_traceback", "500", 500),
    "DAGORAMA_MAX_STREAMS": ("max_streams", "50", 50),
    "DAGORAMA_MAX_CONNECTIONS": ("max_connections", "60", 60),
    "DAGORAMA_MAX_MEMORY": ("max_memory", "123456789", 123456789),
    "DAGORAMA_CACHE_BYTES": ("cache_bytes", "4096", 4096),
    "DAGORAMA_HANDSHAKE_TIMEOUT": ("handshake_timeout", "1.5", 1.5),
}


def test_every_setting_has_its_variable() -> None:
    assert {setting for setting, _, _ in VARIABLES.values()} == {field.name for field in fields(Settings)}


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_sets_its_setting_and_is_declared_with_it(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    setting, text, value = VARIABLES[variable]
    for other in VARIABLES:  # a certificate and its key come together
        if other.startswith("DAGORAMA_BROKER_TLS_"):
            monkeypatch.setenv(other, VARIABLES[other][1])
    monkeypatch.setenv(variable, f" {text} ")
    assert getattr(Settings.from_env(), setting) == value
    (declared,) = [field for field in fields(Settings) if field.name == setting]
    assert setting_of(declared).variable == variable


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    without = Settings.from_env()
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    assert Settings.from_env() == without


def test_an_option_comes_before_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, (_, text, _) in VARIABLES.items():
        monkeypatch.setenv(variable, text)
    options: dict[str, Any] = {
        "host": "127.0.0.3",
        "port": 1,
        "store": "memory://",
        "log_level": "ERROR",
        "log_format": "text",
    }
    settings = Settings.from_env(**options, insecure=False)
    assert {name: getattr(settings, name) for name in options} == options
    assert not settings.insecure


def test_the_default_store_is_a_file_in_the_users_state_folder(tmp_path: Path) -> None:
    assert Settings.from_env().store == f"sqlite:///{tmp_path}/dagorama/broker.sqlite3"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DAGORAMA_PORT", "65536"),
        ("DAGORAMA_PORT", "-1"),
        ("DAGORAMA_PORT", "http"),
        ("DAGORAMA_PORT", "1" * 5000),
        ("DAGORAMA_MAX_NODES", "1" * 5000),
        ("DAGORAMA_MAX_STREAMS", "4294971392"),
        ("DAGORAMA_MAX_MESSAGE", "4294971392"),
        ("DAGORAMA_MAX_CONNECTIONS", "4294971392"),
        ("DAGORAMA_HANDSHAKE_TIMEOUT", "4294971392"),
        ("DAGORAMA_HANDSHAKE_TIMEOUT", "0.0001"),
        ("DAGORAMA_BIND", "http://0.0.0.0"),
        ("DAGORAMA_BIND", "0.0.0.0:50051"),
        ("DAGORAMA_LOG_LEVEL", "loud"),
        ("DAGORAMA_LOG_FORMAT", "xml"),
        ("DAGORAMA_INSECURE", "maybe"),
        ("DAGORAMA_LEASE", "0"),
        ("DAGORAMA_LEASE", "nan"),
        ("DAGORAMA_LEASE", "inf"),
        ("DAGORAMA_HEARTBEAT", "soon"),
        ("DAGORAMA_RECONNECT_WAIT", "-1"),
        ("DAGORAMA_MAX_NODES", "0"),
        ("DAGORAMA_MAX_VALUE", "1.5"),
        ("DAGORAMA_MAX_VALUE", "1 GiB"),
        ("DAGORAMA_RETENTION", "7 days"),
        ("DAGORAMA_RETENTION_FAILED", "-1"),
        ("DAGORAMA_LARGE_GRACE", "0"),
        ("DAGORAMA_LEADER_LEASE", "0.5"),
        ("DAGORAMA_LEADER_LEASE", "86401"),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_variable_and_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=f"^{variable} is '{text}': it must be "):
        Settings.from_env()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1"])
def test_an_address_of_this_machine_alone_needs_nothing_more(host: str) -> None:
    assert is_loopback(host)
    assert Settings.from_env(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "broker.example", "localhost.example"])
def test_any_other_address_is_refused_without_insecure(host: str) -> None:
    with pytest.raises(SettingsError, match=r"without tokens and TLS: .*or pass --insecure"):
        Settings.from_env(host=host)
    insecure = Settings.from_env(host=host, insecure=True)
    assert (insecure.host, insecure.lacks) == (host, "tokens and TLS")


TLS: dict[str, Any] = {"tls_cert": "broker.pem", "tls_key": "broker.key"}


def test_tokens_and_tls_are_what_another_address_needs() -> None:
    secure = Settings.from_env(host="0.0.0.0", tokens="tokens.toml", **TLS)
    assert (secure.insecure, secure.lacks) == (False, "")
    with pytest.raises(SettingsError, match="without TLS: pass"):
        Settings.from_env(host="0.0.0.0", tokens="tokens.toml")
    with pytest.raises(SettingsError, match="without tokens: pass"):
        Settings.from_env(host="0.0.0.0", **TLS)


def test_this_machine_alone_may_have_them_too() -> None:
    assert Settings.from_env(tokens="tokens.toml").lacks == ""
    assert Settings.from_env(**TLS).tls_cert == "broker.pem"


def test_a_message_of_a_client_of_ours_is_always_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_MAX_MESSAGE", f"{(4 << 20) - 1}")
    with pytest.raises(SettingsError, match="DAGORAMA_MAX_MESSAGE must be at least 4194304"):
        Settings.from_env()


def test_every_setting_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text()
    assert not [variable for variable in VARIABLES if f"| `{variable}` |" not in page]


def test_heartbeats_come_more_often_than_a_lease_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_LEASE", "10")
    with pytest.raises(SettingsError, match="DAGORAMA_HEARTBEAT must be below DAGORAMA_LEASE"):
        Settings.from_env()


def test_a_small_value_fits_into_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_LARGE_VALUE_THRESHOLD", f"{2 << 20}")
    assert Settings.from_env().large_value_threshold == 2 << 20
    monkeypatch.setenv("DAGORAMA_LARGE_VALUE_THRESHOLD", f"{(2 << 20) + 1}")
    with pytest.raises(SettingsError, match="DAGORAMA_LARGE_VALUE_THRESHOLD must be at most 2097152"):
        Settings.from_env()


def way(**options: Any) -> tuple[str, int]:
    found = Endpoint.from_env(**options)
    return found.host, found.port


def test_a_broker_is_looked_for_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert way() == ("127.0.0.1", 50051)
    monkeypatch.setenv("DAGORAMA_HOST", "far.example")
    monkeypatch.setenv("DAGORAMA_PORT", "7")
    assert way() == ("far.example", 7)
    assert way(host="near.example", port=8) == ("near.example", 8)
    monkeypatch.setenv("DAGORAMA_HOST", "far.example:7")
    with pytest.raises(SettingsError, match=r"DAGORAMA_HOST is 'far.example:7': .* without a scheme or a port"):
        way()
    with pytest.raises(SettingsError, match="--host is 'http://near': "):
        way(host="http://near")
    assert way(host="[::1]") == ("::1", 7)


def test_an_option_that_is_no_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="there are no settings prot"):
        Settings.from_env(prot=1)


def test_the_variable_that_kubernetes_sets_is_not_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("tcp://10.96.0.7:6000", "udp://10.96.0.7:53"):
        monkeypatch.setenv("DAGORAMA_PORT", text)
        assert Settings.from_env().port == 50051
        assert Settings.from_env(port=7).port == 7
        assert way() == ("127.0.0.1", 50051)


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(SettingsError, match=r"no home folder .* set DAGORAMA_STORE \(--store\)"):
        Settings.from_env()
    with pytest.raises(SettingsError, match=r"sqlite:///~/broker\.sqlite3: this user has no home folder"):
        open_store("sqlite:///~/broker.sqlite3")
    assert Settings.from_env(store="memory://").store == "memory://"


def test_a_store_in_the_home_folder_may_be_named_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert repr(open_store("sqlite:///~/broker.sqlite3")) == f"sqlite:///{tmp_path}/broker.sqlite3"


def test_several_hosts_of_clients_are_none_for_the_health_of_one_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "a.example,b.example")
    with pytest.raises(SettingsError, match=r"must be one host.* name it with --host, or use `dagorama healthcheck`"):
        Endpoint.from_env()
    assert Endpoint.from_env(host="b.example").host == "b.example"
