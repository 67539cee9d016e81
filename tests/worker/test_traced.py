"""Spans of a client and of a real worker, as an exporter gets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: Each fixture runs a whole program.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAM = "tests.support.traced_program"
SECONDS = 100


@dataclass
class Run:
    """One run of the program: what it printed, and the spans that were exported, in the order of their ends."""

    said: dict[str, Any]
    spans: list[dict[str, Any]]
    errors: str  #: what it and its worker wrote to stderr

    def of(self, instance: str, kind: str = "CONSUMER") -> list[dict[str, Any]]:
        found = [span for span in self.spans if span["kind"] == f"SpanKind.{kind}"]
        return [span for span in found if span["attributes"].get("dagorama.instance.id") == self.said[instance]]

    def one(self, instance: str, function: str) -> dict[str, Any]:
        (found,) = [
            span for span in self.of(instance) if span["attributes"]["dagorama.function.name"].endswith(f".{function}")
        ]
        return found


def run(folder: Path, **environment: str) -> Run:
    file = folder / "spans.jsonl"
    file.touch()
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS,
        env={**os.environ, "TRACES_FILE": str(file), "SETUP": "tests.support.traced_setup", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Run(json.loads(done.stdout), [json.loads(line) for line in file.read_text().splitlines()], done.stderr)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("traced"), DAGORAMA_TRACES="1")


def id_of(span: dict[str, Any]) -> str:
    return str(span["context"]["span_id"])


def test_a_submission_is_a_producer_span_with_the_conventions_of_messaging(traced: Run) -> None:
    [sent] = traced.of("joining", "PRODUCER")
    queue = f"{PROGRAM}:Joining.entrypoint"
    assert sent["name"] == f"send {queue}"
    attributes = sent["attributes"]
    assert attributes["server.address"] == "127.0.0.1"
    assert isinstance(attributes.pop("server.port"), int)
    assert attributes.items() >= {
        "messaging.system": "dagorama", "messaging.operation.name": "send", "messaging.operation.type": "send",
        "messaging.destination.name": queue, "messaging.batch.message_count": 1, "dagorama.function.name": queue,
    }.items()  # fmt: skip


def test_each_attempt_is_a_consumer_span_below_the_one_that_created_its_node(traced: Run) -> None:
    [sent] = traced.of("joining", "PRODUCER")
    entry = traced.one("joining", "entrypoint")
    assert entry["parent_id"] == id_of(sent)
    others = [span for span in traced.of("joining") if span is not entry]
    assert sorted(span["name"] for span in others) == [*["process parts"] * 3, f"process {PROGRAM}:Joining.join"]
    assert {span["parent_id"] for span in others} == {id_of(entry)}
    assert {span["context"]["trace_id"] for span in others} == {sent["context"]["trace_id"]}


def test_an_attempt_has_the_attributes_of_its_node(traced: Run) -> None:
    attributes = traced.one("joining", "join")["attributes"]
    assert attributes["messaging.operation.type"] == "process"
    assert attributes["dagorama.function.name"] == f"{PROGRAM}:Joining.join"
    assert len(attributes["dagorama.function.hash"]) == 32
    assert (attributes["dagorama.attempt"], attributes["dagorama.taint"]) == (1, "GPU")
    assert len(attributes["messaging.message.id"]) == 36
    assert "dagorama.taint" not in traced.one("joining", "entrypoint")["attributes"]


def test_a_join_links_to_the_attempts_whose_values_it_uses(traced: Run) -> None:
    parts = {id_of(span) for span in traced.of("joining") if span["name"] == "process parts"}
    assert {id_of(link) for link in traced.one("joining", "join")["links"]} == parts


def test_a_node_that_runs_after_its_source_in_one_process_links_to_it(traced: Run) -> None:
    [link] = traced.one("chained", "second")["links"]
    assert id_of(link) == id_of(traced.one("chained", "first"))


def test_log_records_of_a_traced_node_name_its_span(traced: Run) -> None:
    join = traced.one("joining", "join")["context"]
    assert traced.said["logged"] == {"trace": join["trace_id"][2:], "span": join["span_id"][2:]}


def test_a_failed_attempt_has_an_error_and_the_next_one_is_its_sibling(traced: Run) -> None:
    failed, done = traced.of("flaky")
    assert failed["parent_id"] == done["parent_id"]
    assert [span["attributes"]["dagorama.attempt"] for span in (failed, done)] == [1, 2]
    assert failed["status"] == {"status_code": "ERROR", "description": "not yet"}
    assert failed["attributes"]["error.type"] == "ValueError"
    assert [event["name"] for event in failed["events"]] == ["exception"]
    assert done["status"]["status_code"] == "UNSET"


def test_instances_of_one_batch_share_a_producer_span(traced: Run) -> None:
    chained, failing = traced.one("chained", "entrypoint"), traced.one("failing", "entrypoint")
    assert chained["parent_id"] == failing["parent_id"]
    [sent] = [span for span in traced.spans if id_of(span) == chained["parent_id"]]
    assert sent["attributes"]["messaging.batch.message_count"] == 2


def test_an_exception_without_a_text_is_recorded_by_its_type(traced: Run) -> None:
    failed = traced.one("failing", "entrypoint")
    assert failed["attributes"]["error.type"] == f"{PROGRAM}.Speechless"
    assert failed["status"] == {"status_code": "ERROR", "description": "<its str() failed>"}
    assert [event["name"] for event in failed["events"]] == ["exception"]


def test_the_sampler_of_the_environment_decides_for_the_whole_instance(tmp_path: Path) -> None:
    found = run(tmp_path, DAGORAMA_TRACES="1", OTEL_TRACES_SAMPLER="always_off")
    assert found.spans == []
    assert found.said["logged"] == {"trace": "", "span": ""}


@pytest.mark.parametrize(("moment", "processes"), [("start", 1), ("end", 2)])
def test_an_sdk_that_fails_costs_spans_and_no_work(tmp_path: Path, moment: str, processes: int) -> None:
    found = run(tmp_path, DAGORAMA_TRACES="1", SETUP="tests.support.failing_traces_setup", FAILS_AT=moment)
    assert "joining" in found.said  # all instances have ended as they do without an SDK
    assert found.errors.count("OpenTelemetry failed in this process: RuntimeError: no collector") == processes


def test_without_the_provider_that_the_environment_names_there_is_a_warning_and_no_tracer() -> None:
    code = "from dagorama.graph import tracing; print(tracing.tracer())"
    named = {**os.environ, "OTEL_PYTHON_TRACER_PROVIDER": "not_installed"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=named, check=True)
    assert done.stdout == "None\n"
    assert "spans are lost, because OpenTelemetry failed in this process: StopIteration" in done.stderr


IMPORTS = """
import sys, dagorama, dagorama.graph.submission, dagorama.worker.child.main, dagorama.worker.in_process.worker
print("opentelemetry" in sys.modules)
"""


def test_without_the_setting_nothing_of_opentelemetry_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"
