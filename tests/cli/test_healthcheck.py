"""`dagorama healthcheck` tells a service manager by its exit code whether the broker serves."""

import socket

import pytest
from click.testing import CliRunner

from dagorama.__main__ import main
from tests.support.brokers import launch_broker


def healthcheck(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["healthcheck", *arguments])
    return done.exit_code, done.output


def test_a_serving_broker_is_0_and_an_absent_one_69() -> None:
    with launch_broker(port=0) as broker:
        assert healthcheck() == (0, "serving\n")
        assert healthcheck("--host", "localhost", "--port", f"{broker.port}") == (0, "serving\n")
    code, said = healthcheck("--port", f"{broker.port}")
    assert code == 69
    assert said.startswith(f"dagorama: no broker answers at localhost:{broker.port} ")


def test_a_token_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", "dgt_of_a_client")
    with launch_broker(port=0):
        assert healthcheck() == (0, "serving\n")


def test_a_server_that_does_not_answer_in_time_is_69() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, said = healthcheck("--host", "127.0.0.1", "--port", f"{silent.getsockname()[1]}", "--timeout", "0.1")
    assert code == 69
    assert "did not answer in time" in said or "no broker answers" in said


def test_a_wrong_setting_is_2() -> None:
    assert healthcheck("--host", "tcp://here")[0] == 78
