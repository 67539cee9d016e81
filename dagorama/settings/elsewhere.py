"""The settings of this process, as the environment of workers that other programs start, here or on other machines."""

from __future__ import annotations

from dataclasses import fields
from os import environ

from dagorama.settings import Settings

#: Variables that a worker reads besides those of `Settings`.
_OF_WORKERS = (
    "DAGORAMA_SIGNING_KEYS",
    "DAGORAMA_SIGNING_KEYS_FILE",
    "DAGORAMA_BROKER_WAIT",
    "DAGORAMA_WARN_AFTER",
    "DAGORAMA_SHARED_FILES",
    "DAGORAMA_LOGS",
    "DAGORAMA_LOGS_LEVEL",
    "DAGORAMA_TRACES",
)


def worker_environment(host: str | None = None, port: int | None = None) -> dict[str, str]:
    """Return the variables by which workers find the broker, are admitted by it, and hold the signing keys.

    The address is complete, also if it is a default or that of `dagorama dev`. Secrets are among the values, if they
    are set in variables. Files that variables name must be at the same place where the workers run. `host` and `port`
    replace the address. Raises SettingsError.
    """
    settings = Settings.from_env(host, port)
    names = (*(f"DAGORAMA_{each.name.upper()}" for each in fields(Settings)), *_OF_WORKERS)
    found = {name: value for name in names if (value := environ.get(name, "").strip())}
    return {**found, "DAGORAMA_HOST": settings.host, "DAGORAMA_PORT": f"{settings.port}"}
