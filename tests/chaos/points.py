"""The points at which a process may be made to die: before and after each step of the road, and in
the middle of a call.

Nothing of this is in the product. A process of the zygote wraps the methods that are the steps, in
its own memory only.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: The steps: where each is looked up when it is called. `module:Class.method` or `module:function`.
STEPS = {
    "message received": "cavendish_worker.celeryapp.in_hand:InHand.append",
    "message acknowledged": "cavendish_worker.celeryapp.in_hand:InHand.ack",
    "group joined": "cavendish.store.groups:Groups.join",
    "submit written": "cavendish.store.new_tasks:NewTasks.add",
    "heartbeat": "cavendish.store.fleet:Fleet.beat",
    "tick taken": "cavendish.store.fleet:Fleet.take_tick",
    "candidates read": "cavendish.store.tracked_tasks:Tasks.waiting",
    "rate limit changed": "cavendish.store.shared_state:SharedState.change_rate_limit",
    "batch claimed": "cavendish.store.tracked_tasks:Tasks.claim_all",
    "batches sent": "cavendish_worker.tasks:send_retrieves",
    "condition changed": "cavendish.store.shared_state:SharedState.change_service_health",
    "batch loaded": "cavendish.store.tracked_tasks:Tasks.load",
    "batch asked": "cavendish_worker.polling.upstream:Upstream.retrieve_batch",
    "one asked": "cavendish_worker.polling.upstream:Upstream.retrieve",
    "call tallied": "cavendish.store.tracked_tasks:Tasks.tally",
    "ids released": "cavendish.store.tracked_tasks:Tasks.release",
    "record quarantined": "cavendish.store.tracked_tasks:Tasks.quarantine",
    "batch settled": "cavendish.store.tracked_tasks:Tasks.settle",
    "duration model changed": "cavendish.store.shared_state:SharedState.change_durations",
    "overdue taken": "cavendish.store.deadlines:Deadlines.overdue",
    "delivery worker called": "cavendish_worker.tasks:send_deliver",
    "deliveries sorted": "cavendish.store.deliveries:Deliveries.sort",
    "endpoint postponed": "cavendish.store.deliveries:Deliveries.postpone",
    "deliveries claimed": "cavendish.store.deliveries:Deliveries.claim_delivery",
    "deliveries loaded": "cavendish.store.delivery_reader:DeliveryReader.load_with_tasks",
    "webhook sent": "cavendish_worker.http.transport:PooledTransport.exchange",
    "deliveries delivered": "cavendish.store.deliveries:Deliveries.delivered",
    "ends counted": "cavendish.store.groups:Groups.end",
    "ends told": "cavendish.store.deliveries:Deliveries.told",
    "deliveries put off": "cavendish.store.deliveries:Deliveries.later",
    "deliveries skipped": "cavendish.store.deliveries:Deliveries.skip",
    "deliveries buried": "cavendish.store.deliveries:Deliveries.bury",
    "circuit changed": "cavendish.store.shared_state:SharedState.change_circuit",
    "endpoint disabled": "cavendish.store.endpoint_registry:Endpoints.disable",
    "notice pending": "cavendish.store.deliveries:Deliveries.notify",
    "keys checked": "cavendish.store.key_index:KeyIndex.reconcile",
    "deliveries pending again": "cavendish.store.reconciliation:Reconciliation.reconcile",
}
BEAT_STEPS = {
    "beat: message sent": "cavendish_worker.celeryapp.beat:BeatScheduler.apply_entry",
    "beat: heartbeat": STEPS["heartbeat"],
}
#: The round trips of whoever cancels ids, forgets them, or gives them another deadline.
OPERATOR_STEPS = {
    "undo: ids found": "cavendish.store.search:Search._matching",
    "undo: ids seized": "cavendish.store.tracked_tasks:Tasks.seize",
    "undo: ids read": "cavendish.store.tracked_tasks:Tasks.load",
    "undo: ids ended": "cavendish.store.tracked_tasks:Tasks.settle",
    "undo: ends counted": "cavendish.store.groups:Groups.end",
    "undo: events erased": "cavendish.store.erasure:Erasure._erase_events",
    "undo: deadlines erased": "cavendish.store.erasure:Erasure._erase_deadlines",
    "undo: places found": "cavendish.store.journal:Journal.places",
    "undo: records erased": "cavendish.store.erasure:Erasure._erase_records",
    "undo: usage corrected": "cavendish.store.producer_usage:ProducerUsage.restarted",
    "undo: common parts erased": "cavendish.store.erasure:Erasure.erase_common_parts",
    "undo: groups kept": "cavendish.store.groups:Groups.keep",
    "undo: looks noted": "cavendish.store.due_index:DueIndex.note",
    "undo: deadline set": "cavendish.store.tracked_tasks:Tasks.set_deadline",
}
#: Calls of others that last: there is a point in the middle of them too.
LASTING = ("batch asked", "one asked", "webhook sent")
#: Seconds after its begin that are the middle of such a call.
MIDDLE = 0.004
#: Steps that are rare: a life that is to end there is given more time.
RARE = (
    "quarantined",
    "disabled",
    "notice",
    "buried",
    "put off",
    "restart",
    "postponed",
    "one asked",
    "circuit",
    "submit",
    "joined",
    "overdue",
    "undo",
)


def names(steps: dict[str, str]) -> list[str]:
    """Every point of these steps."""
    sides = [
        (step, side)
        for step in steps
        for side in ("before", "after", *(["amid"] if step in LASTING else []))
    ]
    return [f"{step}, {side}" for step, side in sides]


WORKER_POINTS, BEAT_POINTS = names(STEPS), names(BEAT_STEPS)
OPERATOR_POINTS = names(OPERATOR_STEPS)
EVERY_POINT = (*WORKER_POINTS, *BEAT_POINTS, *OPERATOR_POINTS)


@dataclass
class Aim:
    """Where this life ends.

    At so many passes of a point. `report` is the file in which it is noted.
    """

    point: str
    passes: int
    report: str
    name: str = ""

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
        os.write(note, f"{time.monotonic()!r}\t{self.name}\t{self.point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def install(aim: Aim) -> None:
    """Wrap the one step that this life is to end at, in this process and those that it forks."""
    step = aim.point.rpartition(", ")[0]
    where = (STEPS | BEAT_STEPS | OPERATOR_STEPS)[step]
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    setattr(
        owner,
        name,
        _waiting(real, step, aim) if inspect.iscoroutinefunction(real) else _plain(real, step, aim),
    )


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
