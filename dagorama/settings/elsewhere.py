"""The settings of this process, as the environment of workers that other programs start, here or on other machines."""

from __future__ import annotations

from dataclasses import fields
from os import environ

from dagorama.settings import OTHERS, SIGNING, Settings


def worker_environment(host: str | None = None, port: int | None = None) -> dict[str, str]:
    """Return the variables by which workers find the broker, are admitted by it, and hold the signing keys.

    The address is complete, also if it is a default or the address of `dagorama dev`. Secrets that are set in variables
    are among the values. Files that variables name must be at the same place on the machines of the workers. `host` and
    `port` replace the address. Raises SettingsError.
    """
    settings = Settings.from_env(host, port)
    # A blank variable means its default, there as here.
    found = {name: value for name in _names() if (value := environ.get(name, "").strip())}
    return {**found, "DAGORAMA_HOST": settings.host, "DAGORAMA_PORT": f"{settings.port}"}


def _names() -> tuple[str, ...]:
    """Return all variables that a worker reads; an address of a database, for example, is none of its business."""
    return (*(f"DAGORAMA_{each.name.upper()}" for each in fields(Settings)), *SIGNING, *OTHERS)
