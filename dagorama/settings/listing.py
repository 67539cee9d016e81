"""All settings of clients and workers together: for people who look at them, and for workers that other programs start.

The rule: a setting is here or a field of `Settings`, so that `dagorama config show` and workers of pools miss none.
"""

from __future__ import annotations

from dataclasses import fields
from os import environ

from dagorama.dev_address import dev_port
from dagorama.settings import (
    Settings,
    broker_wait,
    captured_log_level,
    captures_logs,
    local_socket,
    names_a_broker,
    shared_files,
    signing_keys,
    traces,
    warn_after,
)
from dagorama.settings.values import values_patience, values_transfer

#: Stands for the value of a secret.
SECRET_IS_SET = "(set)"
_FIELDS = {f"DAGORAMA_{each.name.upper()}": each.name for each in fields(Settings)}
_SIGNING = ("DAGORAMA_SIGNING_KEYS", "DAGORAMA_SIGNING_KEYS_FILE")
#: The other variables, and what reads them.
_OTHERS = {
    "DAGORAMA_LOGS": captures_logs, "DAGORAMA_LOGS_LEVEL": captured_log_level, "DAGORAMA_TRACES": traces,
    "DAGORAMA_WARN_AFTER": warn_after, "DAGORAMA_BROKER_WAIT": broker_wait, "DAGORAMA_SHARED_FILES": shared_files,
    "DAGORAMA_LOCAL_SOCKET": local_socket, "DAGORAMA_VALUES_TRANSFER": values_transfer,
    "DAGORAMA_VALUES_PATIENCE": values_patience,
}  # fmt: skip


def described_settings(host: str | None = None, port: int | None = None) -> list[tuple[str, object, str]]:
    """Return the variable, the value (None: there is none) and the origin of each setting, without secrets.

    The origin is "flag" for `host` and `port`, "environment", "file", "dev" for the address of `dagorama dev`, or
    "default". Raises SettingsError.
    """
    read, given = Settings.from_env(host, port), {"DAGORAMA_HOST": host, "DAGORAMA_PORT": port}
    is_dev = not (host or port or names_a_broker()) and dev_port() is not None
    dev = dict.fromkeys(given, "dev") if is_dev else {}
    rows = [
        (variable, getattr(read, name), "flag" if given.get(variable) else dev.get(variable, _origin(variable)))
        for variable, name in _FIELDS.items()
        if variable != "DAGORAMA_AUTH_TOKEN"
    ]
    keys, file = signing_keys()
    return [
        *((variable, None if value == "" else value, origin) for variable, value, origin in rows),
        _secret("DAGORAMA_AUTH_TOKEN", read.auth_token, read.auth_token_file),
        _secret(_SIGNING[0], keys, file) if keys or file else (_SIGNING[0], "(a key of this user)", "default"),
        (_SIGNING[1], file or None, _origin(_SIGNING[1])),
        *((variable, reader(), _origin(variable)) for variable, reader in _OTHERS.items()),
    ]


def _origin(variable: str) -> str:
    return "environment" if environ.get(variable, "").strip() else "default"


def _secret(variable: str, value: str, file: str) -> tuple[str, object, str]:
    origin = "file" if file else "environment" if value else "default"
    return variable, SECRET_IS_SET if value or file else None, origin


def worker_environment(host: str | None = None, port: int | None = None) -> dict[str, str]:
    """Return the variables by which workers find the broker, are admitted by it, and hold the signing keys.

    The address is complete, also if it is a default or the address of `dagorama dev`. Secrets that are set in variables
    are among the values. Files that variables name must be at the same place on the machines of the workers. `host` and
    `port` replace the address. Variables that workers do not read are left out: an address of a database, for example,
    is none of a worker's business. Raises SettingsError.
    """
    settings = Settings.from_env(host, port)
    # A blank variable means its default, there as here.
    names = (*_FIELDS, *_SIGNING, *_OTHERS)
    found = {name: value for name in names if (value := environ.get(name, "").strip())}
    return {**found, "DAGORAMA_HOST": settings.host, "DAGORAMA_PORT": f"{settings.port}"}
