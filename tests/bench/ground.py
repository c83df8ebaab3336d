"""The ground of one benchmark run.

The emulated API, a real Redis, and every process that runs on them, ended at the end.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from cavendish.errors import StoreUnavailable
from cavendish.store import Store
from cavendish_worker.devstack import embedded_redis as embedded
from cavendish_worker.devstack import stack

HERE = Path(__file__).parent
#: By the name that it has in each commit that a bench may run on.
free_port: Callable[[], int] = stack.free_port  # type: ignore[attr-defined]
NOTHING: Mapping[str, str] = {}
#: What no process inherits: settings of the contestants, and proxies, which the SDK would use even
#: for the loopback interface.
_OURS_OR_PROXY = re.compile(r"(?i)CAVENDISH_|ACEDATACLOUD_|.*_PROXY$")


class Ground:
    """What the contestants of one run share.

    `emulate` are the options of the emulated API, and `settings` its environment.
    """

    def __init__(
        self,
        folder: Path,
        ends: ExitStack,
        emulate: Sequence[str],
        settings: Mapping[str, str] = NOTHING,
    ) -> None:
        self.folder, self.processes = folder, dict[str, subprocess.Popen[str]]()
        self._environment = {
            name: value for name, value in os.environ.items() if not _OURS_OR_PROXY.match(name)
        }
        self._environment["CAVENDISH_LOG_LEVEL"] = "warning"
        self._http = ends.enter_context(httpx.Client(trust_env=False, timeout=30))
        self._socket, port = folder / "redis.sock", free_port()
        ends.enter_context(self.running("redis", embedded.arguments(folder, self._socket)))
        self.wait_for(self._redis_answers)
        command = [
            sys.executable,
            "-m",
            "cavendish_worker.cli",
            "emulate",
            "--port",
            str(port),
            *emulate,
        ]
        ends.enter_context(self.running("emulator", command, settings))
        self.api = f"http://127.0.0.1:{port}"
        self.wait_for(lambda: self._http.get(f"{self.api}/emulator/tally"))

    def redis(self, database: int) -> str:
        return f"unix://{self._socket}?db={database}"

    def create(self, count: int, token: str) -> list[str]:
        """Make remote tasks of one token; returns their ids."""
        answer = self._http.post(
            f"{self.api}/emulator/tasks", params={"token": token}, json={"count": count}
        )
        ids: list[str] = answer.json()["ids"]
        return ids

    def ask(self, what: str, token: str) -> dict[str, Any]:
        """The emulated API's `tally` or `ledger` of one token."""
        said: dict[str, Any] = self._http.get(
            f"{self.api}/emulator/{what}", params={"token": token}
        ).json()
        return said

    @contextmanager
    def running(
        self,
        name: str,
        command: Sequence[str],
        more: Mapping[str, str] = NOTHING,
        *,
        stop: int = signal.SIGTERM,
    ) -> Iterator[subprocess.Popen[str]]:
        """A process in a group of its own (Ctrl-C is for us), ended by the end of its stdin, else
        by a signal, else by force.
        """
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                command,
                env=self._environment | dict(more),
                cwd=HERE,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                process_group=0,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (no threads run yet but idle ones)
            )
        self.processes[name] = process
        try:
            yield process
        finally:
            del self.processes[name]
            _end(process, stop)

    def last_words(self, name: str) -> list[str]:
        """The last lines that a process wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-20:]

    def check(self) -> None:
        """Raise if a process ended that should run."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(
                    "\n".join([f"{name} ended with {process.returncode}:", *self.last_words(name)])
                )

    def wait_for(self, ready: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until the answer is truthy; no connection means not yet. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.check()
            try:
                if ready():
                    return
            except (StoreUnavailable, httpx.TransportError):
                pass
            time.sleep(0.1)
        raise TimeoutError(f"not ready within {seconds:g} s")

    def _redis_answers(self) -> bool:
        store = Store(self.redis(0))
        try:
            return store.fleet.now() > 0
        finally:
            store.close()

    def cpu(self) -> dict[str, float]:
        """CPU seconds used so far by each process with its descendants, and by the whole `machine`.

        Empty but on Linux.
        """
        children, used = defaultdict[int, list[int]](list), dict[int, float]()
        tick = os.sysconf("SC_CLK_TCK")
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            pid = int(path.parent.name)
            children[int(fields[1])].append(pid)
            used[pid] = (int(fields[11]) + int(fields[12])) / tick
        if not used:
            return {}

        def total(pid: int) -> float:
            return used.get(pid, 0.0) + sum(total(child) for child in children[pid])

        user, nice, system, _idle, _iowait, *interrupts = map(
            int, Path("/proc/stat").read_text().split(maxsplit=9)[1:8]
        )
        machine = (user + nice + system + sum(interrupts)) / tick
        mine = {name: total(process.pid) for name, process in self.processes.items()}
        return mine | {"producers": used[os.getpid()], "machine": machine}


@contextmanager
def ground(emulate: Sequence[str], settings: Mapping[str, str] = NOTHING) -> Iterator[Ground]:
    """A ground in a temporary folder; nothing of it is left at the end."""
    with tempfile.TemporaryDirectory(prefix="cavendish-bench-") as folder, ExitStack() as ends:
        yield Ground(Path(folder), ends, emulate, settings)


def _end(process: subprocess.Popen[str], stop: int) -> None:
    assert process.stdin is not None
    steps = (
        (process.stdin.close, 2.0),
        (lambda: process.send_signal(stop), 25.0),
        (process.kill, 5.0),
    )
    for step, seconds in steps:
        try:
            step()
        except OSError:  # it does not read its stdin any more
            continue
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return


def _die_with_parent() -> None:
    """Should the benchmark itself be killed, nothing of it runs on (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
