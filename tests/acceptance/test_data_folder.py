"""The data folder of `cavendish up`: private, at any path, also on a full disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest

from acceptance.conftest import SERVICE, Stack, wait_until
from cavendish import Client
from cavendish.errors import StoreUnavailable
from cavendish.settings import Settings

#: The size of the small disk.
DISK = "24m"


def modes(folder: Path) -> dict[str, int]:
    """Each path below a folder, itself included, with its permission bits."""
    return {str(path): stat.S_IMODE(path.lstat().st_mode) for path in (folder, *folder.rglob("*"))}


def known(stack: Stack, ids: list[str]) -> bool:
    """True if the store of this stack has all these ids."""
    settings = Settings.load({"CAVENDISH_REDIS_URL": str(stack.facts["store"])})
    with contextlib.suppress(StoreUnavailable), Client(settings=settings) as client:
        return set(client.get_many(ids, service=SERVICE)) == set(ids)
    return False


@pytest.mark.timeout(120)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "made by an older version"])
def test_nobody_else_on_the_machine_reads_what_up_writes_whatever_the_umask(
    start: Callable[..., Stack], tmp_path: Path, existing: bool
) -> None:
    data = tmp_path / "data"
    if existing:
        (data / "redis").mkdir(parents=True, mode=0o755)
        (data / "emulator-port").write_text("0")
    before = os.umask(0)
    try:
        stack = start("--no-flower", fresh=True, CAVENDISH_DATA_DIR=str(data))
    finally:
        os.umask(before)
    ids = stack.create(3)
    stack.cavendish("submit", "--service", SERVICE, *ids)
    wait_until(
        lambda: any((data / "redis" / "appendonlydir").iterdir()),
        10,
        "the append-only file is there",
    )
    assert {path: oct(mode) for path, mode in modes(data).items() if mode & 0o077} == {}
    assert modes(data)[str(data)] == 0o700


@pytest.mark.timeout(120)
def test_a_folder_with_files_of_somebody_else_keeps_its_mode(
    start: Callable[..., Stack], tmp_path: Path
) -> None:
    (tmp_path / "README").write_text("of a project")
    tmp_path.chmod(0o755)
    start("--no-flower", fresh=True, CAVENDISH_DATA_DIR=str(tmp_path))
    found = modes(tmp_path)
    assert found.pop(str(tmp_path)) == 0o755
    assert found.pop(str(tmp_path / "README")) & 0o444 == 0o444
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "name",
    ["50%20 off #1? 'a\" ü;+&=", "two\nlines\x1b[31m", "x#" * 60],
    ids=["within", "lines", "too long for a socket"],
)
def test_any_folder_will_do_whatever_its_path_is_made_of(
    start: Callable[..., Stack], tmp_path: Path, name: str
) -> None:
    stack = start("--no-flower", CAVENDISH_DATA_DIR=str(tmp_path / name))
    ids = stack.create(3)
    done = stack.cavendish(
        "submit", "--service", SERVICE, "--webhook", f"{stack.facts['receiver']}", *ids
    )
    assert done.returncode == 0, done.stderr
    wait_until(
        lambda: set(stack.ledger()["states"]) == set(ids),
        60,
        "worker and beat find the socket, too",
    )
    assert "Traceback" not in stack.lines()
    assert known(stack, ids)


@pytest.mark.timeout(120)
def test_any_working_directory_will_do(
    start: Callable[..., Stack], short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder `.cavendish` in it is found by each command that is run there, and by doctor."""
    here = short / "a #1? %20 ü\n'\""
    here.mkdir()
    monkeypatch.chdir(here)
    stack = start(
        "--no-flower", fresh=True, CAVENDISH_DATA_DIR=".cavendish", CAVENDISH_LOG_FORMAT="console"
    )
    ids, environment = stack.create(2), dict(stack.environment)
    del environment["CAVENDISH_DATA_DIR"]  # which is its default

    def cavendish(*words: str) -> str:
        command = [sys.executable, "-m", "cavendish_worker.cli", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        return done.stdout

    assert cavendish("submit", "--service", SERVICE, *ids) == "2 new\n"
    assert known(stack, ids)
    wait_until(
        lambda: "ok    worker: 1 alive" in cavendish("doctor", "--offline"), 60, "a worker lives"
    )
    where = quote(str(here))
    assert f"ok    broker: answers at redis+socket://{where}/" in cavendish("doctor", "--offline")
    assert all(line[:2].isdigit() for line in stack.lines().splitlines())  # a time: none is broken


@pytest.mark.timeout(60)
def test_a_path_that_is_too_long_for_any_socket_is_one_sentence(tmp_path: Path) -> None:
    """The data folder is too deep, and so is the folder for temporary files."""
    deep = tmp_path / ("t" * 110)
    deep.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
    }
    environment |= {"CAVENDISH_DATA_DIR": str(tmp_path / ("x" * 120)), "TMPDIR": str(deep)}
    up = [
        sys.executable,
        "-m",
        "cavendish_worker.cli",
        "up",
        "--emulate",
        "--no-flower",
        "--no-http",
    ]
    done = subprocess.run(
        up, env=environment, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("The path of the unix socket has ")
    assert "may have 107 at most: set a shorter CAVENDISH_DATA_DIR or TMPDIR" in last
    assert "Traceback" not in done.stderr


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for that of a socket, wherever the tests run."""
    with TemporaryDirectory(prefix="cav", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.timeout(60)
def test_a_temporary_folder_that_somebody_else_could_write_to_is_refused(short: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
    }
    environment |= {"CAVENDISH_DATA_DIR": str(short / ("x" * 120)), "TMPDIR": str(short)}
    ask = "from pathlib import Path; import os;"
    ask += "from cavendish.environment.local_paths import socket_path;"
    ask += "print(socket_path(Path(os.environ['CAVENDISH_DATA_DIR'])).parent)"
    command = [sys.executable]
    said = subprocess.run(
        [*command, "-c", ask], env=environment, capture_output=True, text=True, check=True
    )
    there = Path(said.stdout.strip())
    there.mkdir()
    there.chmod(0o777)
    up = [*command, "-m", "cavendish_worker.cli", "up", "--emulate", "--no-flower", "--no-http"]
    done = subprocess.run(
        up, env=environment, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 1
    assert "is not private to this user" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# --- a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={DISK}", "none", str(place)], check=False
    )
    if not done or done.returncode:
        pytest.skip("this user may not mount a file system of its own")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes up all that is left."""
    hog = disk / "hog"
    with hog.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    return hog


@pytest.mark.timeout(180)
def test_a_disk_that_fills_up_is_waited_out_and_nothing_that_was_acknowledged_is_lost(
    start: Callable[..., Stack], disk: Path
) -> None:
    stack = start("--no-flower", fresh=True, CAVENDISH_DATA_DIR=str(disk / "data"))
    ids = stack.create(5)
    assert stack.cavendish("submit", "--service", SERVICE, *ids).returncode == 0
    hog = fill(disk)
    os.kill(stack.pids()["beat"], signal.SIGKILL)  # its new process id is to be written down
    wait_until(lambda: "stack.waits" in stack.lines(), 30, "it says so")
    assert stack.process.poll() is None
    hog.unlink()
    wait_until(lambda: Path(f"/proc/{stack.pids()['beat']}").exists(), 30, "the facts are written")
    wait_until(lambda: known(stack, ids), 60, "all are still there")
    more = stack.create(5)
    wait_until(
        lambda: stack.cavendish("submit", "--service", SERVICE, *more).returncode == 0,
        60,
        "it takes new ones",
    )
    lines = [line for line in stack.lines().splitlines() if "stack.waits" in line]
    assert len(lines) == 1
    assert "is full; work goes on when there is room" in lines[0]
    assert "Errno 28" not in stack.lines()


@pytest.mark.timeout(180)
def test_up_on_a_full_disk_says_so_once_and_comes_up_when_there_is_room(
    disk: Path, tmp_path: Path
) -> None:
    hog, log = fill(disk), tmp_path / "log"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
    }
    environment |= {"CAVENDISH_DATA_DIR": str(disk / "data"), "CAVENDISH_LOG_FORMAT": "json"}
    command = [
        sys.executable,
        "-m",
        "cavendish_worker.cli",
        "up",
        "--emulate",
        "--no-flower",
        "--no-http",
    ]
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        wait_until(lambda: "stack.waits" in log.read_text(), 30, "it says so")
        assert process.poll() is None
        hog.unlink()
        wait_until(lambda: "stack.up" in log.read_text(), 60, "it comes up")
    finally:
        process.terminate()
        assert process.wait(40) == 0
    assert log.read_text().count("stack.waits") == 1
    assert "Traceback" not in log.read_text()
