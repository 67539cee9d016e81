"""Object stores that `make test-objects` installs: Azurite, as Azure, and s3rver, as S3."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = Path(__file__).parents[2] / "build" / "objects" / "node_modules" / ".bin"
#: The account of every Azurite, which is in its documentation.
_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_SECONDS = 30.0


def is_installed(program: str) -> bool:
    return (PROGRAMS / program).exists()


@contextmanager
def running_azurite(folder: Path) -> Iterator[dict[str, str]]:
    """Run Azurite with the container `values`; yield the variables of a broker that uses it."""
    port = _free_port()
    flags = ["--blobPort", f"{port}", "--location", f"{folder}", "--silent", "--skipApiVersionCheck"]
    with _running("azurite-blob", port, *flags):
        _make_container(port)
        yield {
            "AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1",
            "AZURE_STORAGE_ACCOUNT_KEY": _AZURITE_KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/devstoreaccount1",
        }


@contextmanager
def running_s3rver(folder: Path) -> Iterator[dict[str, str]]:
    """Run s3rver with the bucket `values`; yield the variables of a broker that uses it."""
    port = _free_port()
    flags = ["--port", f"{port}", "--address", "127.0.0.1", "--directory", f"{folder}", "--silent"]
    with _running("s3rver", port, *flags, "--configure-bucket", "values"):
        yield {
            "AWS_ACCESS_KEY_ID": "S3RVER",
            "AWS_SECRET_ACCESS_KEY": "S3RVER",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }


def _make_container(port: int) -> None:
    """Make the container by a request with the signature that the API wants; obstore makes none."""
    import base64
    import hmac
    from email.utils import formatdate
    from hashlib import sha256
    from http.client import HTTPConnection

    date = formatdate(usegmt=True)
    resource = "/devstoreaccount1/devstoreaccount1/values\nrestype:container"
    text = f"PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-08-06\n{resource}"
    signature = base64.b64encode(hmac.digest(base64.b64decode(_AZURITE_KEY), text.encode(), sha256)).decode()
    connection = HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    headers = {
        "x-ms-date": date,
        "x-ms-version": "2021-08-06",
        "Authorization": f"SharedKey devstoreaccount1:{signature}",
        "Content-Length": "0",
    }
    connection.request("PUT", "/devstoreaccount1/values?restype=container", headers=headers)
    assert connection.getresponse().status == 201
    connection.close()


@contextmanager
def _running(program: str, port: int, *flags: str) -> Iterator[None]:
    process = subprocess.Popen(
        [f"{PROGRAMS / program}", *flags], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _await(port, process)
        yield
    finally:
        process.terminate()
        process.wait(_SECONDS)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
