"""The wheel, and the client that a producer installs from it beside its own Celery."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from cavendish.model import Lane
from cavendish.store import Store
from conftest import Server
from ending import blocked, settle
from servers import eventually

ROOT = Path(__file__).parents[2]

#: The ten lines of a producer, with a check of what each of them is given.
PRODUCER = """
import asyncio
import sys
from collections.abc import Mapping
from typing import Literal, assert_type

from cavendish import AsyncClient, Client, Event, Settings, State, TrackedTask
from cavendish import StoreUnavailable, SubmissionError

async def later() -> None:
    async with AsyncClient(sys.argv[1]) as other:
        assert_type((await other.submit(["w"], service="veo"))[0].state, State | None)
        done = await other.wait(["w"], service="veo", timeout=60)
        assert_type(done, dict[str, TrackedTask])
        print(done["w"].state)
        async for event in other.events(after="0", follow=False):
            assert_type(event, Event)

with Client(sys.argv[1], settings=Settings(deadline=600.0)) as client:
    answers = client.submit(["a", "b", ""], service="veo", metadata={"order": 7, "tags": ["x"]})
    assert_type(answers[0].outcome, Literal["new", "known", "refused"])
    assert_type(answers[0].state, State | None)
    task = client.get("a", service="veo")
    if task is not None:
        assert_type(task, TrackedTask)
        assert_type(task.record, Mapping[str, object] | None)
        assert_type(task.metadata, Mapping[str, object] | None)
        assert_type(task.to_json(), dict[str, object])
    try:
        done = client.wait(["a", "b"], service="veo", timeout=0.1)
    except (TimeoutError, StoreUnavailable, SubmissionError) as error:
        print(type(error).__name__, str(error))
    else:
        assert_type(done, dict[str, TrackedTask])
    for event in client.events(after="0", follow=False):
        assert_type(event, Event)
        assert_type(event.to_json(), dict[str, object])
    print([answer.outcome for answer in answers])
    asyncio.run(later())
"""


def run(*command: str | Path, **options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=280, **options
    )  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run(
        sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=str(ROOT)
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def client(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the client and redis-py 5.2."""
    folder = tmp_path_factory.mktemp("producer")
    venv.create(folder)
    python = folder / "bin" / "python"
    install(python, str(wheel), "redis==5.2.1")
    return python


def install(python: Path, *wanted: str) -> None:
    done = run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *wanted)
    if re.search("No matching distribution|Temporary failure|Max retries|timed out", done.stderr):
        pytest.skip(f"the package index cannot be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_both_packages_typed_and_with_their_scripts_and_nothing_else(
    wheel: Path,
) -> None:
    names = ZipFile(wheel).namelist()
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"cavendish", "cavendish_worker", info}
    assert {"cavendish/py.typed", "cavendish_worker/py.typed"} <= set(names)
    scripts = {path.name for path in ROOT.glob("scheduler/cavendish/store/scripts/*.lua")}
    assert scripts
    assert {f"cavendish/store/scripts/{script}" for script in scripts} <= set(names)


def test_the_client_needs_at_most_five_distributions(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        lines = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
    needed = [one.name for one in map(Requirement, lines) if "extra" not in str(one.marker)]
    assert len(needed) <= 5
    assert {"celery", "httpx"}.isdisjoint(needed)


@pytest.mark.timeout(300)
def test_the_client_is_small_and_its_command_says_what_to_install(client: Path) -> None:
    packages = next((client.parents[1] / "lib").glob("python*/site-packages"))
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) / 2**20
    sys.stdout.write(f"The client and what it needs: {size:.1f} MiB.\n")
    assert size <= 15
    done = run(client.parent / "cavendish", "--help")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("pip install 'cavendish[worker]'\n")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.timeout(300)
def test_a_producer_runs_beside_celery_5_4_and_redis_py_5_2(
    client: Path, store: Store, server: Server, tmp_path: Path
) -> None:
    install(client, "celery==5.4.0", "redis==5.2.1")
    script = tmp_path / "producer.py"
    script.write_text(
        f"import celery, redis{PRODUCER}print(celery.__version__, redis.__version__)\n"
    )
    command = [str(client), str(script), server.url]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: store.tasks.get("default", "veo", ["w"]), "it is submitted", 60)
        blocked(store)
        settle(store, Lane("default", "veo"), "w")
        said, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint
    wait, outcomes, state, versions = said.splitlines()
    assert state == "succeeded"
    assert wait == "WaitTimeout 2 of the tracked tasks had not ended after 0.1 s."
    assert json.loads(outcomes.replace("'", '"')) == ["new", "new", "refused"]
    assert versions == "5.4.0 5.2.1"


@pytest.mark.timeout(300)
def test_mypy_finds_no_any_in_what_a_producer_gets_and_finds_its_mistakes(
    client: Path, tmp_path: Path
) -> None:
    script = tmp_path / "producer.py"
    mypy = (
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--disallow-any-expr",
        "--cache-dir",
        tmp_path,
    )
    mypy += ("--config-file", "", "--python-executable", client, script)
    script.write_text(PRODUCER)
    done = run(*mypy, cwd=str(tmp_path))
    assert done.stdout.startswith("Success"), done.stdout
    script.write_text(PRODUCER + '    answers[0].outcome == "nwe"\n')
    assert "comparison-overlap" in run(*mypy, cwd=str(tmp_path)).stdout
