"""Every sample runs as it is, in a process of its own, and says what its page promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pools.slurm_cluster import slurm_or_skip
from tests.pools.stories import on_engines

SAMPLES = Path(__file__).parents[2] / "samples"


def output_of(sample: str, *arguments: str) -> str:
    command = [sys.executable, str(SAMPLES / f"{sample}.py"), *arguments]
    # Else print() writes a line in pieces, and lines of several processes are mixed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_four_workers_give_the_response_of_plain_python() -> None:
    output = output_of("test2")
    assert re.fullmatch(r"Response: Counter\(\{0: 2, 1: 2\}\) in [\d.]+s\n", output), output


def test_the_two_differ_in_decorators_base_class_and_launching_only() -> None:
    plain, chained = ((SAMPLES / name).read_text() for name in ("test1.py", "test2.py"))
    body = chained[chained.index("class MyTask") : chained.index("def main")]
    bare = body.replace("    @dagorama().syncfn\n", "").replace("(DAGDefinition)", "")
    assert bare == plain[plain.index("class MyTask") : plain.index("def main")]


def test_one_node() -> None:
    assert output_of("one_node") == "Hello, dagorama!\n"


def test_a_failure_reaches_the_caller_with_the_root_cause_and_the_traceback_from_over_there() -> None:
    shown = output_of("failure")
    assert "Report.price failed after 2 attempts: ValueError: could not convert string to float: 'free'" in shown
    assert "return int(amount) * float(unit_price)" in shown
    assert "attempts: 2" in shown


def test_the_sample_of_a_bad_item_resolves_the_rest() -> None:
    output_of("outcomes")  # it asserts what it shows


def test_a_run_time_value_decides_how_the_graph_grows() -> None:
    assert output_of("branching").splitlines() == [
        "From 0 to 1: 0.6667 in 28 pieces",
        "From 4 to 5: 2.1202 in 1 piece",
    ]


def test_a_tainted_function_waits_for_the_toleration() -> None:
    before, after = output_of("gpu_taint").split("A worker that tolerates GPU:")
    assert "plain worker: load cat" in before
    assert "answer so far: None" in before
    assert "GPU worker: infer" not in before
    assert "GPU worker: infer dog" in after
    assert "answer: ['a picture of a cat', 'a picture of a dog']" in after


def test_retries_end_in_a_value_or_in_the_failure() -> None:
    output = output_of("retries")
    assert "Download: 18 characters, after two failures" in output
    assert "ConnectionError: refused in run 2" in output


def test_a_broker_for_other_machines_serves_who_is_known_and_tells_strangers_why_not() -> None:
    shown = output_of("secure").splitlines()
    assert shown[:2] == ["a worker runs: True", "This is for you alone, Ada."]
    refusals = dict(line.split(": ", 1) for line in shown[2:])
    assert refusals["without TLS"].startswith("UNAVAILABLE, ")
    assert refusals["without a certificate"].startswith("UNAVAILABLE, ")
    assert refusals["without a token"].startswith("UNAUTHENTICATED, this broker requires a token")
    assert refusals["with another token"].startswith("UNAUTHENTICATED, unknown token")
    assert refusals["a reader submits"].startswith("PERMISSION_DENIED, the token 'reader-")


def test_async_functions_overlap_on_one_worker() -> None:
    assert output_of("async_dag").startswith("60 pages, 7770 bytes in ")


def test_another_process_resolves_what_one_that_has_ended_spawned() -> None:
    assert output_of("reattach").splitlines()[-1] == "Another process resolved it: 30"


def test_an_order_waits_for_a_person_and_takes_its_default_after_the_timeout() -> None:
    assert output_of("approval").splitlines() == [
        "table: not shipped, no decision was made",
        "chair: shipped for 196.00, approved by Ada",
    ]


def test_counting_the_standard_library_gives_what_a_plain_loop_gives() -> None:
    output = output_of("wordcount", "--packages", "2")
    assert output.splitlines()[-1] == "same as the plain loop"
    assert re.search(r"^ 20  \w+ +[\d,]+$", output, re.MULTILINE)
    assert re.search(r"^[\d,]+ files \(\d+ that do not tokenize\), [\d,]+ nodes$", output, re.MULTILINE)


def test_a_crawler_visits_every_page_once_and_no_site_more_than_ten_times_at_once() -> None:
    found, *sites = output_of("crawler").splitlines()
    assert found == "122 pages, 2 dead links"
    for number, site in enumerate(sites, 1):  # 61 pages, the dead one, and a second visit of the busy one
        shown = re.fullmatch(rf"site {number}: 63 requests, at most (\d+) at once", site)
        assert shown is not None, site
        assert 1 < int(shown[1]) <= 10


def test_pictures_are_labelled_by_processes_that_load_one_model_each(tmp_path: Path) -> None:
    output = output_of("pictures", "--pictures", "9", "--sheet", str(tmp_path / "sheet.pgm"))
    assert re.search(r"^ +circle +cross +stripes +$", output, re.MULTILINE)
    assert "9 pictures: 3 circle, 3 cross, 3 stripes\n" in output
    assert re.search(r"^[12] of 2 processes loaded a model$", output, re.MULTILINE)
    assert (tmp_path / "sheet.pgm").read_bytes().startswith(b"P5 12 108 255\n")


def test_a_report_is_delivered_without_the_bad_file_and_completed_when_it_is_repaired() -> None:
    first, second = output_of("report").split("\nberlin.csv is repaired:\n")
    assert first.endswith("total            755.75\nwithout berlin: could not convert string to float: 'seventy'\n")
    assert second.endswith("total           1135.75\n")


def test_a_service_accepts_reports_and_streams() -> None:
    assert output_of("service").splitlines() == [
        "PUT 202 /jobs/order-42",
        "PUT 202 /jobs/order-42",
        "other arguments: 409",
        "no number: 400",
        "another ID: 404",
        "stream: the instance has ended",
        "GET COMPLETED 2470",
    ]


@on_engines
def test_a_pool_on_dask_grows_and_shrinks_a_cluster() -> None:
    pytest.importorskip("distributed")
    work, end = output_of("pool_dask").splitlines()
    assert re.fullmatch(r"12 seconds of work on [23] workers took \d+ seconds", work)
    assert end == "the cluster is empty again"


@on_engines
def test_a_pool_on_ray_runs_nodes_on_a_gpu() -> None:
    pytest.importorskip("ray")
    assert output_of("pool_ray").splitlines() == [
        "a picture of a cat, by GPU 0",
        "a picture of a dog, by GPU 0",
    ]


@on_engines
def test_a_pool_on_slurm_runs_jobs(tmp_path: Path) -> None:
    with slurm_or_skip(tmp_path):
        assert output_of("pool_slurm", "--output=/dev/null") == "the sum of ten squares is 285\n"


def test_nightly_work_that_fails_sends_a_mail() -> None:
    lines = output_of("nightly").splitlines()
    mails = [line for line in lines if not line.startswith("Looking up the price in ")]
    assert mails
    assert all(
        re.match(r"Mail: The nightly count of \d\d:\d\d:\d\d has failed: invalid literal", line) for line in mails
    )


#: It is plain Python, which the sample of the same class on dagorama is compared with.
PLAIN = "test1"


@pytest.mark.parametrize("sample", sorted(file.stem for file in SAMPLES.glob("*.py")))
def test_every_sample_says_what_it_shows_and_how_to_run_it(sample: str) -> None:
    source = (SAMPLES / f"{sample}.py").read_text()
    assert source.startswith('"""')
    assert f"Run: python samples/{sample}.py" in source.split('"""')[1]
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert sample == PLAIN or f'output_of("{sample}"' in tests, "no test runs it"
