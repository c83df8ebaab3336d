"""The parts of a stack one by one, as an operator runs them: Redis, emulated API, and any number
of beats and workers.

Each part can be given a wall clock of its own; the steady clock stays as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from celery import Celery

import forked
from acceptance.conftest import SERVICE, wait_until
from cavendish import Client
from cavendish.environment.local_paths import broker_url
from cavendish.model import TrackedTask
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.devstack.emulator.receiver import Receiver
from cavendish_worker.devstack.emulator.tasks_api import Emulator, EmulatorConfig
from delivering import SECRET, Served

#: Seconds by which a settle may seem to come before the finish that it tells of.
BLUR = 0.1
#: Python runs this before anything else: `time.time()` and `datetime.now()` are SHIFT seconds
#: ahead.
_SHIFTED = """
import datetime, os, time
shift = float(os.environ.get("SHIFT", 0))
real, real_ns, plain = time.time, time.time_ns, datetime.datetime
class Kind(type):
    def __instancecheck__(cls, one): return isinstance(one, plain)
class Shifted(plain, metaclass=Kind):
    @classmethod
    def now(cls, tz=None): return plain.fromtimestamp(time.time(), tz)
    @classmethod
    def utcnow(cls): return plain.utcfromtimestamp(time.time())
time.time, time.time_ns = lambda: real() + shift, lambda: real_ns() + int(shift * 1e9)
datetime.datetime = Shifted
"""


Process = subprocess.Popen[bytes] | forked.Process


class Parts:
    """Processes around one Redis; all of them end with `close`."""

    def __init__(
        self, redis_url: str, served: Served, config: EmulatorConfig, **settings: str
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cavendish-test-"))
        (self.folder / "sitecustomize.py").write_text(_SHIFTED)
        self.log = (self.folder / "log").open("a")
        self.emulator, self._receiver = Emulator(config), Receiver(SECRET)
        self.receiver = f"{served(self._receiver.handle)}/receiver"
        ours = {
            "REDIS_URL": redis_url,
            "API_URL": served(self.emulator.handle),
            "API_TOKEN": "emulated",
        }
        ours |= {
            "WEBHOOK_ALLOW": "127.0.0.0/8",
            "WEBHOOK_SECRET": SECRET,
            "LOG_FORMAT": "json",
            **settings,
        }
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
        }
        self.environment |= {f"CAVENDISH_{name}": value for name, value in ours.items()}
        self.environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(self.folder), os.environ.get("PYTHONPATH")])
        )
        self._processes: list[Process] = []
        self.store = Store(redis_url)
        self.producer = Celery(
            "a-producer",
            broker=broker_url(Settings.load({"CAVENDISH_REDIS_URL": redis_url})),
            set_as_current=False,
        )
        self.client = Client(settings=Settings.load({"CAVENDISH_REDIS_URL": redis_url}))

    def start_rate(self, rate: float) -> None:
        """Let the fleet start with so many calls per second; else it takes 20 s to climb to 16."""
        self.store.shared_state.change_rate_limit(
            "default", lambda known: (replace(known, rate=rate), None)
        )

    def celery(self, role: str, *, shift: float = 0.0, queues: str = "") -> Process:
        """Start a worker (of some queues only) or a beat; returns when its heart beats."""
        process = self.begin(role, shift=shift, queues=queues)
        self.live(role, process)
        return process

    def live(self, role: str, *processes: Process) -> None:
        """Wait until the hearts of workers or beats beat."""
        for process in processes:
            wait_until(lambda one=process: self._lives(one, role), 60, f"the {role} lives")

    def begin(self, role: str, *, shift: float = 0.0, queues: str = "") -> Process:
        """Start a worker or a beat, whatever becomes of it."""
        options = ["-P", "threads", "-n", f"w{len(self._processes)}@%h"] if role == "worker" else []
        options += ["-Q", queues] if queues else []
        words = ["-q", "-A", "cavendish_worker", role, *options]
        environment = self.environment | {"SHIFT": str(shift)}
        if shift:  # the clock is set before anything is imported
            command = [sys.executable, "-m", "celery", *words]
            process: Process = subprocess.Popen(
                command, env=environment, stdout=self.log, stderr=self.log
            )
        else:
            process = forked.shared().start("celery", words, environment, self.folder / "log")
        self._processes.append(process)
        return process

    def _lives(self, process: Process, role: str) -> bool:
        assert process.poll() is None, self.lines()
        return any(name.endswith(f":{process.pid}") for name in self.fleet(role))

    def fleet(self, role: str) -> list[str]:
        """The names of those that live."""
        now = self.store.fleet.now()
        return [
            member.name
            for member in self.store.fleet.members(now)
            if member.role == role and member.alive(now)
        ]

    def end(self, process: Process) -> None:
        """SIGTERM; returns when the process has ended well."""
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, self.lines()

    def tally(self) -> dict[str, Any]:
        """What the emulated API was asked."""
        return self.emulator.accounts["emulated"].tallied(time.time())

    def announced(self) -> dict[str, Any]:
        """What came to the receiver."""
        said: dict[str, Any] = httpx.get(f"{self.receiver}/ledger", trust_env=False).json()
        return said

    def finished(self) -> dict[str, float]:
        """When each id finishes at the emulated API."""
        return {job.id: job.finished_at for job in self.emulator.accounts["emulated"].jobs.values()}

    def tasks(self, ids: list[str]) -> dict[str, TrackedTask]:
        return self.client.get_many(ids, service=SERVICE, with_record=False)

    def settled(self, ids: list[str]) -> bool:
        return all(task.state.terminal for task in self.tasks(ids).values())

    def delays(self, ids: list[str]) -> list[float]:
        """Seconds from the finish at the API to the settle in the store, in order.

        A process reads Redis' clock over a socket, so on a busy machine its own may be some
        milliseconds behind.
        """
        finished, tasks = self.finished(), self.tasks(ids)
        return sorted((tasks[task_id].settled_at or 0.0) - finished[task_id] for task_id in ids)

    def lines(self) -> str:
        """What the parts logged."""
        return (self.folder / "log").read_text(errors="replace")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of our own log that tell of an event."""
        rows = [json.loads(line) for line in self.lines().splitlines() if line.startswith("{")]
        return [row for row in rows if row.get("event") == event]

    def close(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.wait(10)
        self.client.close()
        self.producer.close()
        self.store.close()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
