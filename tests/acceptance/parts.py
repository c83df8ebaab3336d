"""The parts of a stack one by one, as an operator runs them: a Redis, a pretend API, and any number
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
from pathlib import Path
from typing import Any

import httpx
from celery import Celery
from endpoint_index import SECRET, Served

from acceptance.conftest import SERVICE, wait_until
from cavendish import Client
from cavendish.local_paths import broker_url
from cavendish.model import TrackedTask
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.devstack.emulator.api import Config, Emulator
from cavendish_worker.devstack.emulator.receiver import Receiver

#: Seconds by which a settle may seem to come before the finish that it tells of.
BLUR = 0.1
#: Python runs this before anything else: `time.time()` and `datetime.now()` are SHIFT seconds
#: ahead.
_SHIFTED = """
import datetime, os, time
shift, real, real_ns, plain = float(os.environ.get("SHIFT", 0)), time.time, time.time_ns, datetime.datetime
class Kind(type):
    def __instancecheck__(cls, one): return isinstance(one, plain)
class Shifted(plain, metaclass=Kind):
    @classmethod
    def now(cls, tz=None): return plain.fromtimestamp(time.time(), tz)
    @classmethod
    def utcnow(cls): return plain.utcfromtimestamp(time.time())
time.time, time.time_ns, datetime.datetime = lambda: real() + shift, lambda: real_ns() + int(shift * 1e9), Shifted
"""


class Parts:
    """Processes around one Redis; all of them end with `close`."""

    def __init__(self, redis_url: str, served: Served, config: Config, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cavendish-test-"))
        (self.folder / "sitecustomize.py").write_text(_SHIFTED)
        self.log = (self.folder / "log").open("w")
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
        self._processes: list[subprocess.Popen[bytes]] = []
        self.store = Store(redis_url)
        self.producer = Celery(
            "a-producer",
            broker=broker_url(Settings.load({"CAVENDISH_REDIS_URL": redis_url})),
            set_as_current=False,
        )
        self.client = Client(settings=Settings.load({"CAVENDISH_REDIS_URL": redis_url}))

    def celery(self, role: str, *, shift: float = 0.0, queues: str = "") -> subprocess.Popen[bytes]:
        """Start a worker (of some queues only) or a beat; returns when its heart beats."""
        process = self.begin(role, shift=shift, queues=queues)
        wait_until(lambda: self._lives(process, role), 30, f"the {role} lives")
        return process

    def begin(self, role: str, *, shift: float = 0.0, queues: str = "") -> subprocess.Popen[bytes]:
        """Start a worker or a beat, whatever becomes of it."""
        options = ["-P", "threads", "-n", f"w{len(self._processes)}@%h"] if role == "worker" else []
        options += ["-Q", queues] if queues else []
        command = [
            sys.executable,
            "-m",
            "celery",
            "-q",
            "-A",
            "cavendish_worker.tasks",
            role,
            *options,
        ]
        environment = self.environment | {"SHIFT": str(shift)}
        process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)
        self._processes.append(process)
        return process

    def _lives(self, process: subprocess.Popen[bytes], role: str) -> bool:
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

    def end(self, process: subprocess.Popen[bytes]) -> float:
        """SIGTERM; returns the seconds that the process took to end."""
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, self.lines()
        return time.monotonic() - began

    def tally(self) -> dict[str, Any]:
        """What the pretend API was asked."""
        return self.emulator.accounts["emulated"].tallied(time.time())

    def announced(self) -> dict[str, Any]:
        """What came to the receiver."""
        said: dict[str, Any] = httpx.get(f"{self.receiver}/ledger", trust_env=False).json()
        return said

    def finished(self) -> dict[str, float]:
        """When each id finishes at the pretend API."""
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
