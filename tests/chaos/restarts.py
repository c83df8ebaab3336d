"""Redis goes away and comes back under a busy worker, and the broker loses everything that it
holds.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import redis

from chaos.reckoning import Reckoning, table
from chaos.world import HERE, Producer, World, die_with_parent, world

Say = Callable[[str], None]
#: Calls to the API that say that work goes on; one or two may have been under way.
AT_WORK = 3
#: Seconds after which nobody waits for a worker any more.
GIVEN_UP = 30.0


@dataclass(frozen=True)
class Plan:
    """`times`.

    How often; `python`: the interpreter of the worker, so that another Celery can be tried.
    """

    seed: int
    times: int
    rate: float = 20.0
    python: str = sys.executable
    bar: float = 5.0
    drain: float = 60.0
    quick: bool = False

    @property
    def pause(self) -> float:
        """How much of the time between two blows is taken."""
        return 0.4 if self.quick else 1.0


def restarts(plan: Plan, say: Say) -> bool:
    """Kill Redis so many times.

    True if the worker never ended and was back at work in time, and nothing was lost.
    """
    say(
        f"Redis restarts under a busy worker: seed {plan.seed}, {plan.times} times, {version(plan.python)}\n"
    )
    chance, back, ends = random.Random(plan.seed), list[float](), 0
    with world(plan.seed, quick=plan.quick, faults=0.0) as around, ExitStack() as workers:
        worker = workers.enter_context(running(around, plan.python))
        around.zygote.fork("beat", ["beat"])
        producer = Producer(around, plan.rate)
        at_work(around, 0, GIVEN_UP)
        for _ in range(plan.times):
            time.sleep(chance.uniform(0.3, 1.2) * plan.pause)
            around.redis.kill()
            time.sleep(chance.choice((0.0, 0.1, 0.5, 1.5)) * plan.pause)
            around.redis.start()
            back.append(at_work(around, around.ask("many")["calls"], GIVEN_UP, worker))
            if worker.poll() is not None:
                ends += 1
                worker = workers.enter_context(running(around, plan.python))
        producer.stop()
        took = around.drain(plan.drain, lambda: frozenset(around.accepted))
        reckoning = Reckoning(around.reckon(frozenset(around.accepted)), frozenset(around.excused))
    back.sort()
    rows = [("restarts", str(len(back)), ""), ("exits of the worker", str(ends), "0")]
    rows += [("back at work: median", f"{back[len(back) // 2]:.2f} s", "")]
    rows += [("back at work: p99", f"{back[int(0.99 * (len(back) - 1))]:.2f} s", "")]
    rows += [("back at work: longest", f"{back[-1]:.2f} s", f"{plan.bar:g} s")]
    rows += [("all announced after the end", f"{took:.0f} s", ""), *reckoning.rows()]
    say(table(rows, ("what", "measured", "bar")) + "\n")
    return reckoning.kept and not ends and back[-1] <= plan.bar


def broker_losses(plan: Plan, say: Say) -> bool:
    """Delete everything in the broker's database so many times.

    True if nothing was lost, and work went on within a lease.
    """
    lease = 15.0
    say(f"The broker loses everything: seed {plan.seed}, {plan.times} times\n")
    chance, back, gone = random.Random(plan.seed), list[float](), 0
    with world(plan.seed, quick=plan.quick) as around:
        broker = redis.Redis(unix_socket_path=str(around.redis.socket), db=1)
        for name in ("w1", "w2"):
            around.zygote.worker(name)
        around.zygote.fork("beat", ["beat"])
        producer = Producer(around, plan.rate)
        at_work(around, 0, GIVEN_UP)
        for _ in range(plan.times):
            time.sleep(chance.uniform(1.0, 4.0) * plan.pause)
            gone += sum(
                int(broker.llen(name))
                for name in broker.scan_iter("cavendish.*")
                if broker.type(name) == b"list"
            )
            gone += int(broker.hlen("unacked"))
            broker.flushdb()
            back.append(at_work(around, around.ask("many")["calls"], GIVEN_UP))
        producer.stop()
        took = around.drain(plan.drain, lambda: frozenset(around.accepted))
        reckoning = Reckoning(around.reckon(frozenset(around.accepted)), frozenset(around.excused))
        broker.close()
    rows = [
        ("FLUSHDB of the broker", str(len(back)), ""),
        ("messages that were lost", str(gone), ""),
    ]
    rows += [
        ("back at work: longest", f"{max(back):.2f} s", f"{lease:g} s"),
        ("all announced after the end", f"{took:.0f} s", ""),
    ]
    say(table([*rows, *reckoning.rows()], ("what", "measured", "bar")) + "\n")
    return reckoning.kept and max(back) <= lease


def at_work(
    around: World, calls: int, at_most: float, by: subprocess.Popen[bytes] | None = None
) -> float:
    """Seconds until the API was asked a few times more, or until nobody is there to ask."""
    began = time.monotonic()
    while (
        time.monotonic() < began + at_most
        and not (by and by.poll() is not None)
        and around.ask("many")["calls"] < calls + AT_WORK
    ):
        time.sleep(0.02)
    return time.monotonic() - began


@contextmanager
def running(around: World, python: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as an operator starts it, by any interpreter; killed at the end."""
    words = [
        "-m",
        "celery",
        "-q",
        "-A",
        "cavendish_worker.tasks",
        "worker",
        "-P",
        "threads",
        "-n",
        "busy@%h",
    ]
    with (around.folder / "worker.log").open("a") as log:
        process = subprocess.Popen(
            [python, *words], env=around.environment, stdout=log, stderr=log, cwd=HERE.parents[1], process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def version(python: str) -> str:
    """Which Celery an interpreter has."""
    asked = "import celery, kombu, redis; print(*(f'{one.__name__} {one.__version__}' for one in (celery, kombu, redis)))"
    return subprocess.run(
        [python, "-c", asked], capture_output=True, text=True, check=True
    ).stdout.strip()
