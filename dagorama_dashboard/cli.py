"""The command `dagorama dashboard`. Nothing of the extra is imported before it is known to be installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

import click

from dagorama.cli.base import address_options, fail, fail_with
from dagorama.cli.exit_codes import ExitCode
from dagorama.client.channel import quieten_grpc
from dagorama.errors import DagoramaError
from dagorama.settings import HIGHEST_PORT, LOG_LEVELS, Settings

#: Packages of the extra, and the command that installs them.
NEEDED = ("jinja2", "starlette", "uvicorn")
EXTRA = "pip install 'dagorama[dashboard]'"


@click.command()
@address_options
@click.option("--bind", help="Address to listen on [DAGORAMA_DASHBOARD_BIND, 127.0.0.1].")
@click.option(
    "--http-port", type=click.IntRange(0, HIGHEST_PORT),
    help="Port to listen on; 0 takes any free port [DAGORAMA_DASHBOARD_PORT, 8088].",
)  # fmt: skip
@click.option("--allowed-host", "hosts", multiple=True, help="A name by which browsers reach it. May be repeated.")
@click.option("--behind-proxy", is_flag=True, help="A proxy in front of it speaks TLS with the browsers.")
@click.option("--tls-cert", default="", help="Serve TLS with this certificate and its chain, a PEM file.")
@click.option("--tls-key", default="", help="Private key of the certificate, a PEM file.")
@click.option(
    "--new-code", is_flag=True,
    help="Offer retries with the deployed code, which the signing key of this machine signs.",
)  # fmt: skip
@click.option(
    "--log-level", type=click.Choice([level.lower() for level in LOG_LEVELS]), default="warning", show_default=True,
    help="Lowest level that is logged.",
)  # fmt: skip
def dashboard(
    host: str | None, port: int | None, bind: str | None, http_port: int | None, hosts: Sequence[str],
    behind_proxy: bool, tls_cert: str, tls_key: str, new_code: bool, log_level: str,
) -> None:  # fmt: skip
    """Serve a web interface that shows and manages the instances of a broker.

    Each person signs in with a token of the broker, if it requires tokens, and may do what the token allows. Other
    machines can only reach the pages over TLS, and only if the broker requires tokens.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        fail(f"the dashboard needs {', '.join(missing)}: {EXTRA}", ExitCode.BAD_CONFIG)
    quieten_grpc()  # before the modules below import it
    from dagorama_dashboard.server import serve
    from dagorama_dashboard.settings import dashboard_settings

    try:
        settings = dashboard_settings(
            Settings.from_env(host, port), bind, http_port, hosts, behind_proxy=behind_proxy, new_code=new_code,
            tls_cert=tls_cert, tls_key=tls_key,
        )  # fmt: skip
        serve(settings, log_level)
    except (DagoramaError, OSError) as error:
        fail_with(error, ExitCode.BAD_CONFIG)
    sys.exit(ExitCode.OK)
