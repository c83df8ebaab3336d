"""The road of the webhook bench.

A real Redis, a receiver, one real Celery worker process at a time, and ids that end.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from ground import HERE, Ground

from cavendish.endpoints.signing import new_secret
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.delivery_reader import Delivery
from cavendish.store.keys import FLEET, delivery_of
from cavendish.submission import SubmitOptions
from cavendish.task_names import DELIVER
from cavendish_worker.celeryapp.app import build
from cavendish_worker.devstack.ports import free_port
from cavendish_worker.webhooks.payload import webhook_id

LANE = Lane("default", "nano-banana")
TOKEN, KEPT, EVENTS = "bench", 86400.0, 10_000
#: Ids that end in one settle while a load is going on: half a batch of the retrieve.
BATCH = 20
_WORKER = [
    "-q",
    "-A",
    "cavendish_worker",
    "worker",
    "-P",
    "threads",
    "--without-gossip",
    "--without-mingle",
]


@dataclass(frozen=True, slots=True)
class Ending:
    """An id about to end.

    What is settled, and the webhook-id under which that is announced to `path`.
    """

    outcome: Outcome
    name: str
    path: str

    @property
    def delivery(self) -> str:
        return delivery_of(self.outcome.task.webhooks[0], self.outcome.task.id)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Which webhook came when first (time.monotonic()), how often one came again, and the most
    calls open at a time.
    """

    at: dict[str, float]
    repeats: int
    most: int


Sample = tuple[float, dict[str, float]]


class Road:
    """Used by one thread. `receiver` listens on 127.0.0.1."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.store = Store(ground.redis(0))
        self._http = httpx.Client(trust_env=False, timeout=30)
        self._told = {
            "CAVENDISH_REDIS_URL": ground.redis(0),
            "CAVENDISH_BROKER_URL": ground.redis(1),
            "CAVENDISH_WEBHOOK_SECRET": new_secret(),
            "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
            "CAVENDISH_WEBHOOK_CALLS": "100",
            "CAVENDISH_WEBHOOK_CALLS_PER_ENDPOINT": "100",
            "CAVENDISH_LOG_LEVEL": "warning",
        }
        self._app = build(Settings.load(self._told))
        self._number = 0
        self.others = 0.0  # share of the machine that others used during the last load
        self.receiver = ""

    @contextmanager
    def receiving(self, host: str = "127.0.0.1") -> Iterator[str]:
        """Run a receiver."""
        port = free_port()
        before, self.receiver = self.receiver, f"http://{host}:{port}"
        with self.ground.running(
            "receiver" if not before else host,
            [sys.executable, str(HERE / "webhook_receiver.py"), str(port), host],
        ):
            self.ground.wait_for(lambda: self.ask("count"))
            yield self.receiver
        self.receiver = before

    @contextmanager
    def worker(self, watched: Sequence[str] = (), **settings: str) -> Iterator[int]:
        """One worker process on an empty store.

        Yields its process id. `watched` are the arguments of webhook_watched.py.
        """
        self.store.connection.redis.flushall()
        self.ask("reset")
        more = self._told | {f"CAVENDISH_{name.upper()}": value for name, value in settings.items()}
        how = [str(HERE / "webhook_watched.py"), *watched] if watched else ["-m", "celery"]
        command = [sys.executable, *how, *_WORKER]
        # Killed at the end: an orderly shutdown would wait for the calls that hang.
        with self.ground.running("worker", command, more, stop=signal.SIGKILL) as process:
            self.ground.wait_for(lambda: self.store.connection.redis.hlen(FLEET))
            yield process.pid

    def ask(self, what: str) -> Any:
        """The receiver's answer to a question of control."""
        return self._http.get(f"{self.receiver}/control/{what}").json()

    def arrivals(self) -> Arrivals:
        rows, at = self.ask("arrivals"), dict[str, float]()
        for name, _, moment in rows:
            at.setdefault(name, moment)
        return Arrivals(at, len(rows) - len(at), self.ask("count")["most"])

    # --- ids

    def prepare(self, count: int, path: str, url: str = "") -> list[Ending]:
        """Submit and claim ids as producers and the dispatch do; they end when they are settled."""
        webhook, prepared = (url or self.receiver) + path, list[Ending]()
        options = SubmitOptions(
            LANE.service,
            LANE.account,
            (webhook,),
            KEPT,
            '{"order":7,"user":"u-4711"}',
            "",
            "",
            restart=False,
        )
        for _ in range(0, count, 1000):
            now, number = self.store.fleet.now(), self._number
            self._number += min(count - len(prepared), 1000)
            ids = [f"1c4dd0f1-7a0e-4000-8000-{each:012d}" for each in range(number, self._number)]
            self.store.tasks.add(ids, options, now - 60, now - 10)
            self.store.tasks.claim(
                LANE, now + KEPT, TOKEN, self.store.tasks.candidates(LANE, now, 1000)
            )
            for task in self.store.tasks.load(LANE, ids).tasks.values():
                outcome = Outcome(
                    task,
                    State.SUCCEEDED,
                    finished_at=now - 1,
                    model="nano-banana",
                    record=_record(task.id),
                )
                prepared.append(
                    Ending(outcome, webhook_id(replace(task, state=State.SUCCEEDED)), path)
                )
        return prepared

    def settle(self, endings: Sequence[Ending]) -> None:
        """Write ends as the retrieve does; from now on they are pending."""
        for start in range(0, len(endings), 500):
            some = [(ending.outcome, 0.0) for ending in endings[start : start + 500]]
            settled = self.store.tasks.settle(
                LANE, TOKEN, self.store.fleet.now(), some, KEPT, EVENTS
            )
            if not all(each.ended for each in settled):
                raise RuntimeError("an id did not end")

    def kick(self, task: str = DELIVER) -> None:
        """Say that something is pending, as worker/cavendish_worker/tasks.py does."""
        self._app.send_task(task, queue=task, expires=75.0)

    def load(self, endings: Sequence[Ending], rate: float, batch: int = BATCH) -> dict[str, float]:
        """End ids at a rate, whatever becomes of them, a batch at a time.

        Returns when each was about to be settled.
        """
        before, said, began = self.ground.cpu(), dict[str, float](), time.monotonic()
        for start in range(0, len(endings), batch):
            time.sleep(max(began + start / rate - time.monotonic(), 0))
            some, moment = endings[start : start + batch], time.monotonic()
            self.settle(some)
            self.kick()
            said |= {ending.name: moment for ending in some}
        after = self.ground.cpu()
        self.others = others(
            {name: after[name] - before[name] for name in before}, time.monotonic() - began
        )
        return said

    def drained(self, count: int, seconds: float) -> list[Sample]:
        """Wait until so many POSTs came.

        Returns the CPU seconds of each process as they went by.
        """
        samples, until = list[Sample](), time.monotonic() + seconds
        while time.monotonic() < until:
            samples.append((time.monotonic(), self.ground.cpu()))
            if self.ask("count")["count"] >= count:
                return samples
            self.ground.check()
            time.sleep(0.25)
        raise TimeoutError(f"{self.ask('count')['count']} of {count} came within {seconds:g} s")

    def written(self, count: int, seconds: float = 20.0) -> None:
        """Wait until so many deliveries are written down as delivered, and nothing is pending."""
        until, done = time.monotonic() + seconds, False
        while not done and time.monotonic() < until:
            done = sum(self.store.statistics([LANE]).pending_by_endpoint.values()) == 0
            time.sleep(0.0 if done else 0.1)
        delivered = self.store.statistics([LANE]).lanes[0].counts["delivered"]
        if not done or delivered != count:
            raise RuntimeError(f"{delivered} of {count} were written down as delivered")

    def log_of(self, ending: Ending, seconds: float = 20.0) -> dict[str, Any]:
        """The first entry of the delivery log of an webhook, as soon as there is one."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            attempted: Delivery = self.store.deliveries.load(LANE, [ending.delivery])[0]
            if attempted.log:
                entry: dict[str, Any] = json.loads(attempted.log.splitlines()[0])
                return entry
            time.sleep(0.02)
        raise TimeoutError(f"{ending.path} was not tried within {seconds:g} s")

    def close(self) -> None:
        self._http.close()
        self._app.close()
        self.store.close()


def between(samples: Sequence[Sample], first: float, last: float) -> dict[str, float]:
    """CPU seconds that each process used from one moment to another, by linear interpolation
    between samples.
    """
    return {name: _at(samples, name, last) - _at(samples, name, first) for name in samples[0][1]}


def others(used: dict[str, float], seconds: float) -> float:
    """Share of the machine that none of our processes used."""
    ours = sum(spent for name, spent in used.items() if name != "machine")
    return max(used["machine"] - ours, 0) / seconds / (os.cpu_count() or 1)


def _at(samples: Sequence[Sample], name: str, moment: float) -> float:
    for (early, low), (late, high) in itertools.pairwise(samples):
        if moment <= late:
            return low[name] + (high[name] - low[name]) * max(moment - early, 0) / (late - early)
    return samples[-1][1][name]


def memory(pid: int, name: str) -> int:
    """KiB of one line of /proc/PID/status, such as VmHWM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def forget_peak(pid: int) -> None:
    """Let VmHWM begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _record(task_id: str) -> dict[str, Any]:
    """What the API says of a finished task: about 1 KiB."""
    prompt = (
        "a ripe banana on a wooden table at dusk, 水彩, soft light from the left, shallow "
        "depth "
        "of field, 35 mm, grain"
    )
    images = [
        {
            "prompt": prompt,
            "image_url": f"https://platform.cdn.acedata.cloud/nanobanana/{task_id}-{number}.png",
        }
        for number in (1, 2)
    ]
    return {
        "_id": task_id.replace("-", "")[:24],
        "id": task_id,
        "type": "images",
        "application_id": "9dec7b2a-1cad-41ff-8536-d4ddaf2525d4",
        "credential_id": "68253cc8-b4be-4c1b-8d4a-3d3ae4a7d2b1",
        "trace_id": "5f3fc4a3-76d7-4e7d-a5a5-2a0f4a2b9a10",
        "created_at": 1795387789.123,
        "started_at": 1795387789.183,
        "finished_at": 1795387800.456,
        "elapsed": 11.333,
        "request": {"action": "generate", "prompt": prompt, "model": "nano-banana", "count": 2},
        "response": {"success": True, "task_id": task_id, "data": images},
    }
