"""The points at which a process may be made to die: before and after each step of the road, and in the middle of a call.

Nothing of this is in the product. A process of the zygote wraps the methods that are the steps, in its own memory only.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: The steps: where each is looked up when it is called. `module:Class.method` or `module:function`.
STEPS = {
    "message received": "kombu.transport.redis:QoS.append",
    "message acknowledged": "kombu.transport.redis:QoS.ack",
    "submit written": "scheduler.store.tasks:Tasks.add",
    "heartbeat": "scheduler.store.fleet:Fleet.beat",
    "tick taken": "scheduler.store.fleet:Fleet.take_tick",
    "candidates read": "scheduler.store.tasks:Tasks.candidates",
    "pace changed": "scheduler.store.learned:Learned.change_pace",
    "batch claimed": "scheduler.store.tasks:Tasks.claim",
    "batch sent": "worker.tasks:send_retrieve",
    "condition changed": "scheduler.store.learned:Learned.change_condition",
    "batch loaded": "scheduler.store.tasks:Tasks.load",
    "batch asked": "worker.upstream:Upstream.retrieve_batch",
    "one asked": "worker.upstream:Upstream.retrieve",
    "call tallied": "scheduler.store.tasks:Tasks.tally",
    "ids released": "scheduler.store.tasks:Tasks.release",
    "record set aside": "scheduler.store.tasks:Tasks.set_aside",
    "batch settled": "scheduler.store.tasks:Tasks.settle",
    "law changed": "scheduler.store.learned:Learned.change_law",
    "overdue taken": "scheduler.store.tasks:Tasks.overdue",
    "courier called": "worker.tasks:send_deliver",
    "debts sorted": "scheduler.store.debts:Debts.sort",
    "endpoint postponed": "scheduler.store.debts:Debts.postpone",
    "debts claimed": "scheduler.store.debts:Debts.claim_delivery",
    "debts loaded": "scheduler.store.debts:Debts.load",
    "webhook sent": "worker.webhooks.post:_exchange",
    "debts paid": "scheduler.store.debts:Debts.paid",
    "debts put off": "scheduler.store.debts:Debts.later",
    "debts buried": "scheduler.store.debts:Debts.bury",
    "circuit changed": "scheduler.store.learned:Learned.change_circuit",
    "endpoint disabled": "scheduler.store.endpoints:Endpoints.disable",
    "notice owed": "scheduler.store.debts:Debts.notify",
    "debts owed again": "scheduler.store.debts:Debts.reowe",
}
BEAT_STEPS = {"beat: message sent": "worker.timetable:Timetable.apply_entry", "beat: heartbeat": STEPS["heartbeat"]}
#: Calls of others that last: there is a point in the middle of them too.
LASTING = ("batch asked", "one asked", "webhook sent")
#: Seconds after its begin that are the middle of such a call.
MIDDLE = 0.004
#: Steps that are rare: a life that is to end there is given more time.
RARE = ("set aside", "disabled", "notice", "buried", "put off", "again", "postponed", "one asked", "circuit", "submit", "overdue")


def names(steps: dict[str, str]) -> list[str]:
    """Every point of these steps."""
    sides = [(step, side) for step in steps for side in ("before", "after", *(["amid"] if step in LASTING else []))]
    return [f"{step}, {side}" for step, side in sides]


WORKER_POINTS, BEAT_POINTS = names(STEPS), names(BEAT_STEPS)


@dataclass
class Aim:
    """Where this life ends: at so many passes of a point. `report` is the file in which it is noted."""

    point: str
    passes: int
    report: str

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def passing(self, point: str) -> None:
        """Die here if this is the place."""
        if point != self.point:
            return
        with self._lock:
            self.passes -= 1
            if self.passes == 0:
                self.die()

    def die(self) -> None:
        """Note it outside of everything that dies, and be gone without a further instruction."""
        note = os.open(self.report, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(note, f"{self.point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def install(aim: Aim) -> None:
    """Wrap the one step that this life is to end at, in this process and those that it forks."""
    step = aim.point.rpartition(", ")[0]
    where = (STEPS | BEAT_STEPS)[step]
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    setattr(owner, name, _waiting(real, step, aim) if inspect.iscoroutinefunction(real) else _plain(real, step, aim))


def _plain(real: Callable[..., Any], step: str, aim: Aim) -> Callable[..., Any]:
    @functools.wraps(real)
    def wrapped(*args: Any, **options: Any) -> Any:
        aim.passing(f"{step}, before")
        answer = real(*args, **options)
        aim.passing(f"{step}, after")
        return answer

    return wrapped


def _waiting(real: Callable[..., Any], step: str, aim: Aim) -> Callable[..., Any]:
    @functools.wraps(real)
    async def wrapped(*args: Any, **options: Any) -> Any:
        aim.passing(f"{step}, before")
        asyncio.get_running_loop().call_later(MIDDLE, aim.passing, f"{step}, amid")
        answer = await real(*args, **options)
        aim.passing(f"{step}, after")
        return answer

    return wrapped
