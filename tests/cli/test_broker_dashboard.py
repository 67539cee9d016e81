"""`dagorama broker --dashboard`: the pages are a process that follows the broker and gets none of its secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dagorama_broker.cli.dashboard import Dashboard
from dagorama_broker.errors import SettingsError
from dagorama_broker.settings import Settings
from tests.support.commands import ROOT, WAIT
from tests.support.processes import has_ended, is_there

#: Stands for the dashboard: it tells its arguments and its environment, and serves.
PAGE = """
import json, os, sys, time
with open('started.tmp', 'w') as file:
    json.dump({'pid': os.getpid(), 'arguments': sys.argv[1:], 'environment': dict(os.environ)}, file)
os.rename('started.tmp', 'started')
print('dashboard: http://127.0.0.1:8088', flush=True)
print('a visitor', file=sys.stderr, flush=True)
"""
STAYS = PAGE + "time.sleep(60)"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [name for name in os.environ if name.startswith("DAGORAMA_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


async def started(folder: Path) -> dict[str, object]:
    """Return what the page has written at its start."""
    while not (folder / "started").exists():
        await asyncio.sleep(0.01)
    found: dict[str, object] = json.loads((folder / "started").read_text())
    return found


async def run(settings: Settings, folder: Path, http_port: int | None = None) -> dict[str, object]:
    """Start and stop a page; return what it has written."""
    dashboard = Dashboard(settings, http_port, ("-c", STAYS))
    dashboard.start(4000)
    found = await started(folder)
    await dashboard.stop()
    assert not is_there(int(str(found["pid"])))
    return found


async def test_it_gets_the_address_of_the_broker_and_ends_with_it(tmp_path: Path) -> None:
    found = await run(Settings(host="127.0.0.1"), tmp_path, 0)
    assert found["arguments"] == ["--host", "127.0.0.1", "--port", "4000", "--http-port", "0"]


async def test_a_broker_on_all_addresses_is_reached_on_this_machine(tmp_path: Path) -> None:
    found = await run(Settings(host="0.0.0.0", insecure=True), tmp_path)
    assert found["arguments"] == ["--host", "127.0.0.1", "--port", "4000"]


async def test_it_gets_neither_tokens_nor_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAGORAMA_AUTH_TOKEN", "DAGORAMA_SIGNING_KEYS", "DAGORAMA_TLS_CA"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("DAGORAMA_DASHBOARD_BIND", "::1")
    given = (await run(Settings(), tmp_path))["environment"]
    assert isinstance(given, dict)
    assert {name for name in given if name.startswith("DAGORAMA_")} == {"DAGORAMA_DASHBOARD_BIND"}


async def test_with_tls_it_gets_the_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_TLS_CA", "ca.pem")
    given = (await run(Settings(tls_cert="cert.pem", tls_key="key.pem"), tmp_path))["environment"]
    assert isinstance(given, dict)
    assert given["DAGORAMA_TLS_CA"] == "ca.pem"


def test_with_tls_it_is_refused_without_the_authorities() -> None:
    with pytest.raises(SettingsError, match="--dashboard needs DAGORAMA_TLS_CA"):
        Dashboard(Settings(tls_cert="cert.pem", tls_key="key.pem"), None)


def test_with_mutual_tls_it_is_refused_without_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_TLS_CA", "ca.pem")
    with pytest.raises(SettingsError, match="--dashboard needs DAGORAMA_TLS_CERT and DAGORAMA_TLS_KEY"):
        Dashboard(Settings(tls_cert="cert.pem", tls_key="key.pem", tls_client_ca="clients.pem"), None)


async def test_its_lines_are_in_the_log_of_the_broker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dagorama_broker")
    dashboard = Dashboard(Settings(), None, ("-c", STAYS))
    dashboard.start(4000)
    while len(caplog.messages) < 2:
        await asyncio.sleep(0.01)
    await dashboard.stop()
    assert sorted(caplog.messages) == ["dashboard at http://127.0.0.1:8088", "dashboard: a visitor"]


async def test_it_is_started_again_when_it_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama_broker.cli.dashboard.PAUSE", 0.0)
    dashboard = Dashboard(Settings(), None, ("-c", STAYS))
    dashboard.start(4000)
    first = await started(tmp_path)
    (tmp_path / "started").unlink()
    os.kill(int(str(first["pid"])), signal.SIGKILL)
    second = await started(tmp_path)
    await dashboard.stop()
    assert first["pid"] != second["pid"]


@pytest.mark.parametrize("code", [1, 2, 78])
async def test_it_is_given_up_if_it_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    caplog.set_level(logging.WARNING, "dagorama_broker")  # another test may have left it at INFO
    monkeypatch.setattr("dagorama_broker.cli.dashboard.PAUSE", 0.0)
    dashboard = Dashboard(Settings(), None, ("-c", f"import sys; print('why', file=sys.stderr); sys.exit({code})"))
    dashboard.start(4000)
    while "the dashboard cannot start; the broker continues without it" not in caplog.messages:
        await asyncio.sleep(0.01)
    await dashboard.stop()
    assert len(caplog.messages) == (6 if code == 1 else 1)


def test_it_ends_if_the_broker_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio\n"
        "from dagorama_broker.cli.dashboard import Dashboard\n"
        "from dagorama_broker.settings import Settings\n"
        "async def main():\n"
        f"    Dashboard(Settings(), None, ('-c', {STAYS!r})).start(4000)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    broker = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)})
    found = asyncio.run(started(tmp_path))
    broker.kill()
    broker.wait(WAIT)
    assert has_ended(int(str(found["pid"])))


# --- the command ----------------------------------------------------------------------------------------


def refused(*options: str, path: Path = ROOT) -> tuple[int, str]:
    """The exit code and the sentence of a broker that does not start."""
    command = [sys.executable, "-m", "dagorama_broker", "serve", "--store", "memory://", "--port", "0", *options]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])}
    done = subprocess.run(command, env=where, capture_output=True, text=True, timeout=WAIT)
    return done.returncode, done.stderr


def test_a_missing_extra_is_named_before_the_broker_serves(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name in ('uvicorn', 'jinja2') else found(name, *more)\n"
    )
    sentence = "dagorama-broker: --dashboard needs jinja2, uvicorn: pip install 'dagorama[dashboard]'\n"
    address = "See docs/reference/errors.md#settingserror\n"
    assert refused("--dashboard", path=tmp_path) == (78, sentence + address)


@pytest.mark.slow
def test_its_pages_answer_and_it_ends_with_the_broker() -> None:
    command = [sys.executable, "-m", "dagorama_broker", "serve", "--store", "memory://", "--port", "0"]
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--dashboard", "--dashboard-port", "0"], env=where, stderr=subprocess.PIPE, text=True
    ) as broker:
        assert broker.stderr is not None
        address = next(line.split(" at ")[1].strip() for line in broker.stderr if "dashboard at http" in line)
        assert httpx.get(address).status_code == 200
        broker.terminate()
        assert broker.wait(WAIT) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_its_port_needs_the_option() -> None:
    code, sentence = refused("--dashboard-port", "0")
    assert (code, "--dashboard-port needs --dashboard" in sentence) == (2, True)
