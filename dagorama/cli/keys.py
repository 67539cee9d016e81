"""The `dagorama keys` commands: make a signing key, and say which ones this process would use."""

import click

from dagorama.errors import SettingsError


@click.group()
def keys() -> None:
    """Signing keys, under which spawners and workers know each other's values."""


@keys.command()
def new() -> None:
    """Print a fresh key, for DAGORAMA_SIGNING_KEYS or a file that DAGORAMA_SIGNING_KEYS_FILE names."""
    from dagorama.values.keys import new_key

    click.echo(new_key())


@keys.command("list")
def list_keys() -> None:
    """Print the ids of the keys held here, that which signs first, and where they are from; never the keys."""
    from dagorama.values.keys import where
    from dagorama.values.signing import keyring

    try:
        ids = keyring().ids
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    for number, id in enumerate(ids):
        click.echo(f"{id.hex()}  {'checks' if number else 'signs and checks'}")
    click.echo(f"from {where()}", err=True)
