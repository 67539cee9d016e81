"""What a worker runs of the names that the wire brings: decorated functions, and no more than it was told to."""

from pathlib import Path

import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.scripted_broker import Conversation, ScriptedBroker, worker_process
from tests.support.worker_grants import Wanted, call


def refusal(spoken: Conversation, wanted: Wanted) -> str:
    """Why the worker gives this node back."""
    [attempt] = spoken.grant(wanted)
    returned = spoken.returned()
    assert list(returned.attempt) == [attempt]
    assert returned.reason == pb.NOT_IMPORTABLE
    return str(returned.detail)


def test_a_function_of_another_module_is_given_back_and_its_module_not_even_imported(
    broker: ScriptedBroker, tmp_path: Path
) -> None:
    trace = tmp_path / "imported"
    (tmp_path / "tracing.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Task: pass\n")
    wanted = Wanted("work", definition="tracing:Task", hash="h", arguments=b"\x01\x00N.")
    where = f"{Path(__file__).parents[2]}:{tmp_path}"
    with worker_process(broker, "--import", "tests.support.worker_nodes", "--only-imported", PYTHONPATH=where):
        spoken = broker.greeted()
        assert refusal(spoken, wanted) == (
            "tracing:Task is in none of the modules that this worker imports (--import), and it runs no others"
            " (--only-imported)"
        )
        assert not trace.exists()
        spoken.grant(call("echo", "here"))
        assert spoken.value() == "here"
    with worker_process(broker, PYTHONPATH=where):
        assert "is not a DAGDefinition" in refusal(broker.greeted(), wanted)
        assert trace.exists()


@pytest.mark.parametrize(
    ("definition", "method"),
    [
        ("os", "system"),
        ("os:path", "join"),
        ("subprocess:Popen", "kill"),
        ("builtins:eval", "__call__"),
        ("tests.support.worker_nodes:Nodes", "__init__"),
        ("tests.support.worker_nodes:Nodes", "thread.__func__"),
        ("tests.support.worker_nodes:Nodes.echo", "original_fn"),
        ("tests.support.worker_nodes:Box", "__init__"),
        ("json:JSONDecoder", "decode"),
    ],
)  # fmt: skip
def test_what_is_not_decorated_is_refused_whatever_its_name(
    broker: ScriptedBroker, definition: str, method: str
) -> None:
    with worker_process(broker):
        spoken = broker.greeted()
        assert refusal(spoken, Wanted(method, definition=definition, hash="h", arguments=b"\x01\x00N."))
        spoken.grant(call("echo", "it lives"))
        assert spoken.value() == "it lives"
