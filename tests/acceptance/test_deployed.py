"""The command lines and the probes of the deploy files, run as a container would run them, against
a real Redis.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from acceptance.conftest import wait_until
from cavendish.store import Store
from cavendish_worker.cli import cli
from cavendish_worker.devstack import embedded_redis as embedded
from cavendish_worker.devstack.ports import free_port
from conftest import Server
from deployed import DEPLOY, compose, filled, seconds

SERVICES = compose()["services"]


class Container:
    """A service of compose.yaml as a process.

    Its command, environment and probe, in a folder that should stay empty.
    """

    def __init__(
        self, name: str, folder: Path, redis_url: str, ports: dict[str, str], **settings: str
    ) -> None:
        self.service, self.folder, self._ports = SERVICES[name], folder, ports
        folder.mkdir(exist_ok=True)
        own = {
            name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
        }
        said = {
            name: self._here(value) for name, value in filled(self.service["environment"]).items()
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = (
            own | said | {"PATH": path, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        )
        self.environment |= {"CAVENDISH_REDIS_URL": redis_url, **settings}
        self._command = [settings.get(word, self._here(word)) for word in self.service["command"]]
        self.process: subprocess.Popen[bytes] | None = None

    def _here(self, word: str) -> str:
        for port, free in self._ports.items():
            word = re.sub(rf"\b{port}\b", free, word)
        return word.replace("0.0.0.0", "127.0.0.1")

    def start(self, *more: str) -> None:
        command = [*self._command, *more]
        self.process = subprocess.Popen(
            command, env=self.environment, cwd=self.folder, stdout=subprocess.DEVNULL
        )

    def well(self) -> bool:
        """What the probe says."""
        _, *words = self.service["healthcheck"]["test"]
        command = [self._here(word) for word in words]
        return (
            subprocess.run(
                command, env=self.environment, cwd=self.folder, capture_output=True, check=False
            ).returncode
            == 0
        )

    def end(self) -> int:
        """SIGTERM, and SIGKILL when the grace is over; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds(self.service))
        finally:
            self.process.kill()
            self.process.wait(5)


@contextmanager
def ended(*containers: Container) -> Iterator[None]:
    try:
        yield
    finally:
        for one in containers:
            if one.process is not None and one.process.poll() is None:
                one.process.kill()
                one.process.wait(5)


def there() -> list[str]:
    """The parts that run for real; those whose command there is."""
    names = [
        name
        for name, one in SERVICES.items()
        if one["image"].startswith("cavendish") and "profiles" not in one
    ]
    return [
        name
        for name in names
        if SERVICES[name]["command"][0] != "cavendish"
        or SERVICES[name]["command"][1] in cli.commands
    ]


@pytest.mark.timeout(300)
def test_each_part_becomes_well_ends_in_time_and_writes_nothing(
    own_server: Server, tmp_path: Path
) -> None:
    ports = {port: str(free_port()) for port in ("5555", "9808", "9809")}
    parts = {name: Container(name, tmp_path / name, own_server.url, ports) for name in there()}
    assert {"worker", "beat", "flower"} <= set(parts)
    with ended(*parts.values()):
        for part in parts.values():
            part.start()
        for name, part in parts.items():
            wait_until(part.well, 60, f"the probe of {name} says that it is well")
        assert {name: part.end() for name, part in parts.items()} == dict.fromkeys(parts, 0)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        assert not parts["worker"].well()


@pytest.mark.timeout(300)
def test_the_demo_shows_life_without_a_token(own_server: Server, tmp_path: Path) -> None:
    ports = {"20": "1", "9809": str(free_port())}  # its tasks take a second here
    demo = Container("demo", tmp_path, own_server.url, ports, CAVENDISH_DATA_DIR=str(tmp_path))
    ids = Container("demo-ids", tmp_path, own_server.url, {}, CAVENDISH_DATA_DIR=str(tmp_path))
    store = Store(own_server.url)

    def announced() -> int:
        return sum(lane.counts["delivered"] for lane in store.statistics().lanes)

    with ended(ids, demo):
        demo.start()
        wait_until(demo.well, 60, "the demo is ready")
        ids.start()
        wait_until(lambda: announced() > 0, 60, "ends are announced")
        assert demo.end() == 0
    store.close()


def test_the_settings_of_redis_are_taken_by_a_server_and_keep_what_is_promised(
    tmp_path: Path,
) -> None:
    """The server of `cavendish up` stands for the one of the image.

    Where they differ is only where it listens.
    """
    url, log = f"unix://{tmp_path}/redis.sock?db=0", tmp_path / "log"
    settings = tmp_path / "redis.conf"
    settings.write_text((DEPLOY / "redis.conf").read_text().replace("dir /data", f"dir {tmp_path}"))
    where = ["--port", "0", "--unixsocket", str(tmp_path / "redis.sock"), "--logfile", str(log)]
    process = subprocess.Popen(
        [embedded.binary(), str(settings), *where], stdout=subprocess.DEVNULL
    )
    try:
        embedded.wait_for(url, process, log)
        store = Store(url)
        redis: Any = store.connection.redis
        words = embedded.arguments(tmp_path, tmp_path / "redis.sock")[1:]
        ours = dict(zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True))
        for name in ("appendonly", "appendfsync", "save", "maxmemory-policy"):
            assert redis.config_get(name)[name] == ours[name]
        limit = SERVICES["redis"]["mem_limit"]
        assert (
            int(redis.config_get("maxmemory")["maxmemory"]) * 2
            == int(limit.removesuffix("g")) * 2**30
        )
        store.close()
    finally:
        process.terminate()
        process.wait(10)
