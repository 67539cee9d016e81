"""The wheel, the images and the committed files contain what users need, and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.certificates import Authority

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BROKER, WORKER = "Dockerfile.broker", "Dockerfile.worker"
IMAGES = pytest.mark.parametrize("image", [BROKER, WORKER])
PACKAGES = (
    "dagorama",
    "dagorama_broker",
    "dagorama_check",
    "dagorama_dashboard",
    "dagorama_monitoring",
    "dagorama_testing",
)
GRAPH = """
from typing import assert_type
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve

class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        return 1

assert_type(resolve(*Task()()), int | None)
"""


def instructions(image: str = BROKER) -> list[tuple[str, str]]:
    """A Dockerfile as pairs of instruction and arguments, continued lines joined."""
    lines = [line for line in (ROOT / image).read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def arguments_of(instruction: str, image: str = BROKER) -> list[str]:
    return [arguments for name, arguments in instructions(image) if name == instruction]


def copied_from_the_tree(image: str = BROKER) -> list[str]:
    copies = [copy.split() for copy in arguments_of("COPY", image) if not copy.startswith("--from")]
    return [source for *sources, _ in copies for source in sources]


def environment_of_the_image() -> dict[str, str]:
    settings = [setting for line in arguments_of("ENV") for setting in line.split()]
    return dict(setting.split("=", 1) for setting in settings)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of what the image copies and nothing else, built outside of the tree."""
    folder = tmp_path_factory.mktemp("source")
    for name in copied_from_the_tree():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run(build, check=True, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def shipped(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(install, check=True)
    return folder


@pytest.fixture
def environment(installed: Path) -> dict[str, str]:
    """An environment in which the installed wheel is found before the tree."""
    return {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}


def committed_text() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True, cwd=ROOT)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            yield name, (ROOT / name).read_text(errors="replace")


# --- the wheel ----------------------------------------------------------------------------------------


def test_the_wheel_holds_every_module_of_all_packages(shipped: set[str]) -> None:
    modules = {str(file.relative_to(ROOT)) for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    assert modules <= shipped


def test_the_wheel_is_typed(shipped: set[str]) -> None:
    assert {"dagorama/api/broker_pb2.pyi", *(f"{package}/py.typed" for package in PACKAGES)} <= shipped


def test_the_wheel_holds_neither_tests_nor_samples(shipped: set[str]) -> None:
    tops = {name.partition("/")[0] for name in shipped}
    assert tops == {*PACKAGES, f"dagorama-{PROJECT['version']}.dist-info"}


@pytest.mark.slow
def test_the_wheel_installs_its_programs(wheel: Path) -> None:
    entry_points = ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        entry_points.read_string(archive.read(f"dagorama-{PROJECT['version']}.dist-info/entry_points.txt").decode())
    assert dict(entry_points["console_scripts"]) == {
        "dagorama": "dagorama.__main__:main",
        "worker": "dagorama.cli:worker",
        "worker-hot-reload": "dagorama.hot_reload:run_hot_reload_worker",
        "dagorama-broker": "dagorama_broker.cli:main",
    }
    assert dict(entry_points["dagorama.commands"]) == {
        "backup": "dagorama_broker.cli:backup",
        "restore": "dagorama_broker.cli:restore",
        "broker": "dagorama_broker.cli:serve",
        "check": "dagorama_check.cli:check",
        "dashboard": "dagorama_dashboard.cli:dashboard",
    }
    assert dict(entry_points["flake8.extension"]) == {"dag": "dagorama_check.flake8:Checker"}
    assert dict(entry_points["dagorama.settings"]) == {
        "broker": "dagorama_broker.settings:described_settings",
        "dashboard": "dagorama_dashboard.settings:described_settings",
    }


@pytest.mark.slow
@pytest.mark.parametrize("program", sorted(PROJECT["scripts"]))
def test_an_installed_program_says_how_it_is_used(program: str, installed: Path, environment: dict[str, str]) -> None:
    command = [str(installed / "bin" / program), "--help"]
    asked = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=installed)
    assert asked.returncode == 0, asked.stderr
    assert "Usage:" in asked.stdout


@pytest.mark.slow
def test_the_installed_package_is_not_the_tree(installed: Path, environment: dict[str, str]) -> None:
    where = "import dagorama, dagorama_broker; print(dagorama.__file__, dagorama_broker.__file__)"
    done = subprocess.run([sys.executable, "-c", where], check=True, capture_output=True, text=True, env=environment)
    assert all(Path(file).is_relative_to(installed) for file in done.stdout.split())


# --- an editable install ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment into which the tree is installed as `pip install --editable` does it."""
    folder = tmp_path_factory.mktemp("editable")
    venv.create(folder / "venv", symlinks=True)
    build = f"from hatchling.build import build_editable; build_editable({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(next(folder.glob("venv/lib/python3*/site-packages")))
    return folder / "venv"


@pytest.mark.slow
def test_an_editable_install_is_a_plain_path(editable: Path) -> None:
    (found,) = editable.glob("lib/python3*/site-packages/*.pth")
    assert [Path(line) for line in found.read_text().split()] == [ROOT]


@pytest.mark.slow
def test_mypy_in_another_folder_knows_the_types_of_an_editable_install(editable: Path, tmp_path: Path) -> None:
    (tmp_path / "graph.py").write_text(GRAPH)
    python = str(editable / "bin" / "python")
    check = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "graph.py"]
    done = subprocess.run(check, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


# --- the images ----------------------------------------------------------------------------------------


@IMAGES
def test_an_image_is_built_in_two_stages_from_a_slim_pinned_base(image: str) -> None:
    bases = [line.split()[0] for line in arguments_of("FROM", image)]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+(\.\d+)?-slim-\w+", base) for base in bases)


@IMAGES
def test_an_image_copies_only_what_exists_and_is_let_through(image: str) -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in copied_from_the_tree(image):
        assert (ROOT / name).exists()
        assert any(fnmatch(name, pattern) for pattern in let_through), name


@pytest.mark.parametrize(("image", "program"), [(BROKER, "dagorama-broker"), (WORKER, "worker")])
def test_an_image_starts_its_program_itself_so_that_signals_reach_it(image: str, program: str) -> None:
    (command,) = arguments_of("ENTRYPOINT", image)
    assert json.loads(command)[0] == program


@pytest.mark.parametrize(("image", "program"), [(BROKER, "dagorama"), (WORKER, "python")])
def test_an_image_checks_its_health_without_a_shell(image: str, program: str) -> None:
    (check,) = arguments_of("HEALTHCHECK", image)
    assert json.loads(check.partition("CMD ")[2])[0] == program


@IMAGES
def test_an_image_runs_as_a_user_with_a_fixed_number_who_is_not_root(image: str) -> None:
    (user,) = arguments_of("USER", image)
    assert any(
        f"useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin {user}" in run
        for run in arguments_of("RUN", image)
    )
    order = [name for name, _ in instructions(image)]
    assert order.index("USER") < order.index("ENTRYPOINT")


@IMAGES
def test_an_image_has_the_labels_of_the_open_container_initiative(image: str) -> None:
    (labels,) = arguments_of("LABEL", image)
    named = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels))
    assert named == {"title", "description", "version", "revision"}


@pytest.mark.parametrize("base", ["", "localhost/base"])
def test_both_images_are_built_with_the_version_of_the_package(tmp_path: Path, base: str) -> None:
    buildah = tmp_path / "buildah"
    buildah.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    buildah.chmod(0o755)
    make(f"BASE={base}", path=f"{tmp_path}:{os.environ['PATH']}")
    builds = (tmp_path / "said").read_text().splitlines()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for build, (image, name) in zip(builds, ((BROKER, "broker"), (WORKER, "worker")), strict=True):
        assert f"--file {image} --tag dagorama-{name}:{version} --build-arg VERSION={version} " in build
        replaced = {line.split()[0] for line in arguments_of("FROM", image)}
        assert re.findall(r"--build-context (\S+)=container-image://localhost/base", build) == [
            *(replaced if base else [])
        ]


def test_without_buildah_no_image_is_built_and_a_sentence_says_so(tmp_path: Path) -> None:
    for tool in ("sh", "sed", "git"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    assert make(path=str(tmp_path)) == "buildah is not installed: no image is built\n"


def make(*arguments: str, path: str) -> str:
    tool = shutil.which("make")
    assert tool is not None
    done = subprocess.run(
        [tool, "--no-print-directory", "image", *arguments],
        cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
def test_the_health_check_of_the_worker_image_finds_a_worker(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    here = {**environment, "HOME": str(tmp_path), "DAGORAMA_PORT": "1"}
    (check,), (entry,) = arguments_of("HEALTHCHECK", WORKER), arguments_of("ENTRYPOINT", WORKER)
    program, option, port = json.loads(entry)
    with subprocess.Popen(
        [str(installed / "bin" / program), option, "0"], stderr=subprocess.PIPE, text=True, env=here
    ) as worker:
        assert worker.stderr is not None
        try:
            served = next(found for line in worker.stderr if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
            _, *asking = json.loads(check.partition("CMD ")[2].replace(f":{port}/", f":{served[1]}/"))
            asked = subprocess.run([sys.executable, *asking], env=here)
        finally:
            worker.terminate()
    assert asked.returncode == 0


def test_the_image_keeps_its_store_on_a_volume() -> None:
    (volume,) = arguments_of("VOLUME")
    assert environment_of_the_image()["DAGORAMA_STORE"] == f"sqlite:///{volume}/broker.sqlite3"
    (made,) = [run for run in arguments_of("RUN") if volume in run]
    assert f"--owner={arguments_of('USER')[0]}" in made


@pytest.fixture
def image_environment(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """What the image sets, with a store of the test's own."""
    image = {name: value for name, value in environment_of_the_image().items() if name.startswith("DAGORAMA_")}
    return {**environment, **image, "DAGORAMA_STORE": f"sqlite:///{tmp_path}/broker.sqlite3"}


@pytest.mark.slow
def test_the_image_does_not_serve_without_tokens_and_tls_unless_insecure_is_set(
    installed: Path, image_environment: dict[str, str], tmp_path: Path
) -> None:
    command = [str(installed / "bin" / "dagorama-broker"), "serve"]
    tokens = tmp_path / "tokens.toml"
    tokens.touch(0o600)
    for given, lacked in ({}, "tokens and TLS"), ({"DAGORAMA_TOKENS_FILE": str(tokens)}, "TLS"):
        here = {**image_environment, **given}
        refused = subprocess.run(command, capture_output=True, text=True, env=here, timeout=30)
        assert refused.returncode == 78
        assert f"refusing to listen on 0.0.0.0 without {lacked}: " in refused.stderr
        assert "or pass --insecure (DAGORAMA_INSECURE=1)" in refused.stderr


@pytest.mark.slow
def test_the_image_serves_with_tokens_and_tls_and_its_health_check_finds_it(
    installed: Path, image_environment: dict[str, str], tmp_path: Path
) -> None:
    authority, tokens = Authority(tmp_path), tmp_path / "tokens.toml"
    cert, key = authority.pair("broker.test")
    tokens.touch(0o600)
    here = {
        **image_environment, "DAGORAMA_TOKENS_FILE": str(tokens), "DAGORAMA_BROKER_TLS_CERT": cert,
        "DAGORAMA_BROKER_TLS_KEY": key, "DAGORAMA_TLS_CA": str(authority.file), "DAGORAMA_TLS_NAME": "broker.test",
    }  # fmt: skip
    assert healthy_while_serving(installed, here) == (0, "serving\n")
    insecure = {**image_environment, "DAGORAMA_INSECURE": "1"}
    assert healthy_while_serving(installed, insecure) == (0, "serving\n")


@pytest.mark.slow
def test_what_the_image_runs_serves_is_healthy_and_ends_on_sigterm(
    installed: Path, image_environment: dict[str, str]
) -> None:
    here = {**image_environment, "DAGORAMA_BIND": "127.0.0.1"}
    assert healthy_while_serving(installed, here) == (0, "serving\n")


def healthy_while_serving(installed: Path, here: dict[str, str]) -> tuple[int, str]:
    """What the image's health check says of the broker that it starts, which then ends on SIGTERM."""
    program = str(installed / "bin" / "dagorama-broker")
    serve = [program, "serve", "--port", "0"]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, env=here) as broker:
        assert broker.stderr is not None
        try:
            said = (json.loads(line)["message"] for line in broker.stderr)
            port = next(found for message in said if (found := re.match(r"serving on [\d.]+:(\d+)", message)))
            check = [str(installed / "bin" / "dagorama"), "healthcheck", "--port", port[1]]
            healthy = subprocess.run(check, capture_output=True, text=True, env=here)
        finally:
            broker.terminate()
        assert broker.wait(timeout=30) == 0
    return healthy.returncode, healthy.stdout


# --- the committed files ------------------------------------------------------------------------------


def test_the_changelog_names_this_version() -> None:
    headings = re.findall(r"^## \[?([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == PROJECT["version"]


def test_continuous_integration_runs_every_python_that_the_package_names() -> None:
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    matrix = re.findall(r"python: \[(.*)\]", workflow)
    assert matrix == [", ".join(f'"{version}"' for version in named)]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this tree is not a clone")
def test_no_committed_file_contains_a_path_of_a_personal_machine() -> None:
    somebodys = re.compile(r"(?<![\w.~-])/(?:root|work|home/\w+|Users/\w+)/")
    assert [name for name, text in committed_text() if somebodys.search(text)] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this tree is not a clone")
def test_no_committed_file_names_a_package_index() -> None:
    index = re.compile(r"python[h]osted|pypi\.\w+/|index[-]url", re.IGNORECASE)
    assert [name for name, text in committed_text() if index.search(text)] == []
