"""The committed api is what the committed proto files generate, and what both sides repeat of it is the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api import contract
from dagorama.models.state import State
from dagorama_broker.model import domain

ROOT = Path(__file__).parents[1]
API = Path("dagorama", "api")


def generated_files(root: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in (root / API).iterdir() if "_pb2" in file.name}


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("api")
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([ROOT / "build_protobuf.sh", out], check=True, env=environment, cwd=out)
    return generated_files(out)


def test_the_generated_files_are_those_of_the_proto_files(regenerated: dict[str, str]) -> None:
    committed = generated_files(ROOT)
    names = committed.keys() | regenerated.keys()
    stale = sorted(name for name in names if committed.get(name) != regenerated.get(name))
    assert not stale, f"{', '.join(stale)}: not what proto/ generates; run make proto"


def test_every_proto_file_gives_messages_a_service_and_their_types(regenerated: dict[str, str]) -> None:
    names = [file.stem for file in (ROOT / "proto" / API).glob("*.proto")]
    expected = {f"{name}_pb2{kind}" for name in names for kind in (".py", ".pyi", "_grpc.py", "_grpc.pyi")}
    assert set(regenerated) == expected


def test_imports_between_generated_files_need_no_patching(regenerated: dict[str, str]) -> None:
    assert "from dagorama.api import broker_pb2 as" in regenerated["broker_pb2_grpc.py"]


def test_clients_and_the_scheduler_number_states_as_the_protocol_does() -> None:
    numbers = dict(pb.NodeState.items())
    assert {state.name: state.value for state in State} == numbers
    assert {state.name: state.value for state in domain.State} == numbers


def test_the_scheduler_which_imports_nothing_of_the_api_names_a_cancellation_as_clients_do() -> None:
    assert domain.CANCELLATION == contract.CANCELLED
