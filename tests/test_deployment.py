"""deploy/compose.yaml without containers: its first-start job, and its services as processes on this machine."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import Any

import click
import httpx
import pytest
import yaml

from dagorama.__main__ import main
from dagorama.cli import worker
from dagorama_broker.cli import serve
from tests.support.commands import WAIT
from tests.support.worker_command import await_that

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
IMAGES = {"dagorama-broker": ROOT / "Dockerfile.broker", "dagorama-worker": ROOT / "Dockerfile.worker"}
NEEDS_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
LASTING = [name for name in SERVICES if name != "first-start"]
SECRETS = ("authority", "trust", "broker", "dashboard", "worker", "client")


def entry_point(service: dict[str, Any]) -> list[str]:
    """The command line of a service: of compose.yaml, or else of its image."""
    (found,) = re.findall(r"^ENTRYPOINT (.*)$", IMAGES[service["image"]].read_text(), re.MULTILINE)
    of_image: list[str] = yaml.safe_load(found)
    return [*service.get("entrypoint", of_image), *service.get("command", [])]


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """The sources of the mounts of a service by their targets."""
    return {target: source for source, target, *_ in (mount.split(":") for mount in service["volumes"])}


# --- the file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_cannot_write_to_its_image_or_gain_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_ports_are_published_on_this_machine_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(re.fullmatch(r"\$\{[A-Z_]+:-127\.0\.0\.1:\d+\}:\d+", port) for port in published)


def test_every_volume_is_declared_and_used() -> None:
    used = {source for service in SERVICES.values() for source in mounts(service).values() if "/" not in source}
    assert used == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", LASTING)
def test_a_service_only_reads_its_secrets(name: str) -> None:
    writable = [mount for mount in SERVICES[name]["volumes"] if not mount.endswith(":ro")]
    assert writable == (["store:/var/lib/dagorama"] if name == "broker" else [])


def test_the_authority_and_the_keys_are_where_they_are_needed_only() -> None:
    readers = {
        source: sorted(name for name, service in SERVICES.items() if source in mounts(service).values())
        for source in COMPOSE["volumes"]
    }
    assert readers["authority"] == ["first-start"]
    assert readers["broker-secrets"] == ["broker", "first-start"]
    assert readers["dashboard-secrets"] == ["dashboard", "first-start"]
    assert readers["worker-secrets"] == ["first-start", "worker"]
    assert readers["client-secrets"] == ["client", "first-start"]
    assert readers["store"] == ["broker"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_mount_point_of_a_volume_is_a_folder_of_the_user_of_the_image(name: str) -> None:
    """Otherwise a new volume belongs to root, and the service cannot write to it, or read its secrets."""
    (made,) = re.findall(r"install --directory --owner=dagorama (.*?)\nCOPY", dockerfile(name), re.DOTALL)
    assert {target for target, source in mounts(SERVICES[name]).items() if "/" not in source} <= set(made.split())


def dockerfile(name: str) -> str:
    return IMAGES[SERVICES[name]["image"]].read_text()


def test_every_variable_is_a_setting() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    given = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert {name for name in given if f"| `{name}` |" not in page} == set()


@pytest.mark.parametrize("name", LASTING)
def test_every_option_is_one_of_the_command(name: str) -> None:
    program, *arguments = entry_point(SERVICES[name])
    command: click.Command = worker if program == "worker" else main
    if program == "dagorama-broker":
        command, arguments = serve, arguments[1:]
    if program == "dagorama":
        found = main.get_command(click.Context(main), arguments[0])
        assert found is not None, arguments
        command, arguments = found, arguments[1:]
    command.make_context(program, arguments, resilient_parsing=False).close()


# --- its commands, as processes -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the volumes of secrets, after the first start."""
    folder = tmp_path_factory.mktemp("secrets")
    for name in SECRETS:
        (folder / name).mkdir(mode=0o700)
    first_start(folder)
    return folder


def first_start(folder: Path) -> str:
    """Run the first-start job; return what it prints on stdout."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["sh", str(DEPLOY / "first-start.sh"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@NEEDS_OPENSSL
def test_the_first_start_makes_every_file_that_a_service_names_and_only_its_owner_can_read_them(secrets: Path) -> None:
    values = [value for service in SERVICES.values() for value in service.get("environment", {}).values()]
    words = [word.rpartition("=")[2] for service in SERVICES.values() for word in entry_point(service)]
    named = {text for text in [*values, *words] if text.startswith("/secrets/")}
    assert len(named) >= 9
    assert {text for text in named if not (secrets / text.removeprefix("/secrets/")).is_file()} == set()
    assert {file for file in secrets.rglob("*") if file.is_file() and file.stat().st_mode & 0o77} == set()


@NEEDS_OPENSSL
def test_a_service_has_mounted_the_files_that_it_names(secrets: Path) -> None:
    for name, service in SERVICES.items():
        words = [word.rpartition("=")[2] for word in entry_point(service)]
        given = [*service.get("environment", {}).values(), *words]
        folders = {str(Path(text).parent) for text in given if text.startswith("/secrets/")}
        assert folders <= mounts(service).keys(), name


@NEEDS_OPENSSL
def test_another_start_changes_nothing(secrets: Path) -> None:
    before = content(secrets)
    assert first_start(secrets) == ""
    assert content(secrets) == before


@NEEDS_OPENSSL
def test_a_start_that_was_interrupted_is_completed_by_the_next_one(secrets: Path, tmp_path: Path) -> None:
    whole = set(content(secrets))
    shutil.copytree(secrets, tmp_path / "cut")
    for gone in ("broker/broker.pem", "broker/created", "client/token"):
        (tmp_path / "cut" / gone).unlink()
    first_start(tmp_path / "cut")
    assert set(content(tmp_path / "cut")) == whole
    assert (tmp_path / "cut" / "broker" / "tokens.toml").read_text().count("[[token]]") == 3


@NEEDS_OPENSSL
def test_a_certificate_that_expires_soon_is_renewed(secrets: Path, tmp_path: Path) -> None:
    shutil.copytree(secrets, tmp_path / "old")
    cert, key = (tmp_path / "old" / "broker" / name for name in ("broker.pem", "broker.key"))
    made = ["openssl", "req", "-x509", "-key", str(key), "-days", "29", "-subj", "/CN=broker", "-out", str(cert)]
    subprocess.run(made, check=True, capture_output=True)
    before = content(tmp_path / "old")
    assert first_start(tmp_path / "old") == f"created the certificate {cert}\n"
    after = content(tmp_path / "old")
    assert {name for name in after if after[name] != before[name]} == {"broker/broker.pem", "broker/broker.key"}


class Machine:
    """This machine, with a port for the broker and folders for its volumes."""

    def __init__(self, secrets: Path, folder: Path) -> None:
        self._secrets = secrets
        self._folder = folder
        with create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]

    def here(self, text: str) -> str:
        """A path of a container, or the name of the broker, on this machine."""
        for there, ours in (("/secrets", self._secrets), ("/var/lib/dagorama", self._folder)):
            text = text.replace(there, str(ours))
        return "localhost" if text == "broker" else text

    def environment(self, name: str) -> dict[str, str]:
        (defaults,) = re.findall(r"^ENV (.*?[^\\])$", dockerfile(name), re.MULTILINE | re.DOTALL)
        of_image = dict(re.findall(r"(DAGORAMA_\w+)=(\S+)", defaults))
        given = {**of_image, **SERVICES[name].get("environment", {})}
        kept = {variable: value for variable, value in os.environ.items() if not variable.startswith("DAGORAMA_")}
        ours = {"DAGORAMA_PORT": f"{self._port}", "DAGORAMA_BIND": "127.0.0.1", "PYTHONPATH": str(ROOT)}
        return {**kept, **{variable: self.here(value) for variable, value in given.items()}, **ours}

    def command(self, name: str, *arguments: str) -> list[str]:
        service = {**SERVICES[name], "command": arguments} if arguments else SERVICES[name]
        program, *given = entry_point(service)
        given = [self.here(text) for text in given]
        if "--health-port" in given:
            given[given.index("--health-port") + 1] = "0"
        given = ["--http-port=0" if text.startswith("--http-port=") else text for text in given]
        return [str(Path(sys.executable).parent / program), *given]

    def start(self, name: str) -> subprocess.Popen[str]:
        command, environment = self.command(name), self.environment(name)
        return subprocess.Popen(
            command, env=environment, cwd=DEPLOY / "app", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command as `docker compose run client` does."""
        command, environment = self.command("client", *arguments), self.environment("client")
        return subprocess.run(
            command, env=environment, cwd=DEPLOY / "app", capture_output=True, text=True, timeout=WAIT
        )  # fmt: skip


@contextmanager
def started(machine: Machine, name: str) -> Iterator[subprocess.Popen[str]]:
    with machine.start(name) as process:
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(WAIT) == 0


@pytest.fixture
def machine(secrets: Path, tmp_path: Path) -> Iterator[Machine]:
    """Broker and workers as processes."""
    machine = Machine(secrets, tmp_path)
    with started(machine, "broker"), started(machine, "worker"):
        await_that(lambda: machine.run("healthcheck").returncode == 0)
        yield machine


@NEEDS_OPENSSL
@pytest.mark.slow
def test_a_graph_runs_with_tokens_and_tls(machine: Machine, secrets: Path) -> None:
    done = machine.run("run", "flow:Shapes", "8")
    assert (done.returncode, done.stdout) == (0, "140\n"), done.stderr
    environment = {**machine.environment("client"), "DAGORAMA_AUTH_TOKEN_FILE": f"{secrets}/worker/token"}
    refused = subprocess.run(machine.command("client", "list"), env=environment, capture_output=True, text=True)
    assert refused.returncode == 77


@NEEDS_OPENSSL
@pytest.mark.slow
def test_the_page_asks_a_browser_of_this_machine_for_a_token(machine: Machine, secrets: Path) -> None:
    trusted = ssl.create_default_context(cafile=f"{secrets}/trust/ca.pem")
    with started(machine, "dashboard") as page, httpx.Client(verify=trusted) as browser:
        assert page.stdout is not None
        port = page.stdout.readline().strip().rpartition(":")[2]
        asked = browser.get(f"https://localhost:{port}/", follow_redirects=True)
    assert (asked.status_code, asked.url.path) == (200, "/login")
