"""Kill everywhere: workers, beats, operators, Flower and Redis, at every named point and at random
moments, while ids keep coming.

In the same run the network is partitioned: between each process and Redis, the API and the
receiver.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cavendish_worker.devstack.ports import free_port
from chaos.mischief import Mischief
from chaos.operators import NAMES, Orders
from chaos.partitioner import Partitioner
from chaos.points import BEAT_POINTS, EVERY_POINT, OPERATOR_POINTS, RARE, WORKER_POINTS
from chaos.reckoning import Reckoning, table
from chaos.world import PRODUCER, SOON, Producer, World, kind_of, world

#: Seconds after which the broker gives away again what a dead worker was given: the lease and 15
#: more.
VISIBILITY = float(SOON["LEASE"]) + 15
#: Errors which say that Redis is away (and again, and again), or that a child of a pool was killed.
AWAY = (
    "WorkerLostError",
    "ConnectionError",
    "StoreUnavailable",
    "OperationalError",
    "BrokenPipe",
    "ConnectionRe",
    "TimeoutError",
)
AWAY += ("RestartFreqExceeded",)
#: Events that explain why something took its time.
TELLING = (
    "webhook.restored",
    "webhook.retry_later",
    "no answer within",
    "endpoint.open",
    "service.failed",
    "id.refused",
)
ANY = "at a random moment"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How a run goes, all of it from one seed. Seconds; `slots`: workers that are aimed at a point
    each.

    It lasts `lasts` seconds, and goes on until there were `kills` and one at every point, and
    `partitions`, if that is asked for, but not beyond `at_most`. A partition begins each
    `partition_every` seconds (0: none). `keep`: the file of the history; what the processes logged
    is kept beside it.
    """

    seed: int
    lasts: float
    at_most: float = 0.0
    drain: float = 90.0
    rate: float = 16.0
    slots: int = (
        4  # of the pool that is named; one more worker has threads and dies at random moments only
    )
    pool: str = "threads"
    fsync: str = "always"
    flower: bool = True
    redis_every: float = 5.0
    all_every: float = 15.0
    kills: int = 0
    every_point: bool = False
    door: bool = True
    quick: bool = False
    partitions: int = 0
    partition_every: float = 0.0
    keep: Path | None = None


@dataclass
class Executioner:
    """Keeps lives going, and ends them."""

    world: World
    plan: Plan
    orders: Orders
    random_kills: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.plan.seed)
        self._aims = {f"aimed{number}": WORKER_POINTS for number in range(self.plan.slots)} | {
            "beat": BEAT_POINTS
        }
        self._aims |= dict.fromkeys(NAMES, OPERATOR_POINTS)
        self._flower = free_port()
        now = time.monotonic()
        self._redis_at, self._all_at = now + self.plan.redis_every, now + self.plan.all_every

    def go(self) -> None:
        """One moment: start what is dead, kill whose time has come."""
        zygote, now = self.world.zygote, time.monotonic()
        done = Counter(zygote.kills())
        for life in list(zygote.lives.values()):
            if now >= life.until:
                self._kill(life.name)
        for name, points in self._aims.items():
            if name not in zygote.lives:
                self._fork(name, points, done)
        if "steady" not in zygote.lives:
            zygote.worker("steady", lasts=self._chance.uniform(3, 12))
        if self.plan.flower and "flower" not in zygote.lives:
            words = ["flower", "--address=127.0.0.1", f"--port={self._flower}", "--logging=error"]
            zygote.fork("flower", words, lasts=self._chance.uniform(2, 20))
        if now >= self._redis_at:
            self._redis_at = now + self._chance.uniform(0.3, 1.7) * self.plan.redis_every
            self.world.redis.kill()
            self._count("Redis", "Redis")
            time.sleep(self._chance.choice((0, 0, 0, 0.5)))
            self.world.redis.start()
        if now >= self._all_at:
            self._all_at = now + self._chance.uniform(0.5, 1.5) * self.plan.all_every
            for name in list(zygote.lives):
                self._kill(name)

    def _fork(self, name: str, points: list[str], done: Counter[str]) -> None:
        under_way = Counter(life.aim for life in self.world.zygote.lives.values())
        fewest = min(done[point] + under_way[point] for point in points)
        wanted = [point for point in points if done[point] + under_way[point] == fewest]
        if name != "beat" and self._chance.random() < 0.5:  # where others died soon
            wanted = self._chance.choices(points, [done[point] + 1 for point in points])
        point = self._chance.choice(wanted)
        rare = any(word in point for word in RARE)
        passes = 1 if rare else self._chance.choice((1, 1, 1, 2))
        usual = 3.0 if self.plan.partition_every else 2.5  # a partition holds up its start
        how: dict[str, Any] = {"lasts": 5.0 if rare else usual, "aim": point, "passes": passes}
        if name in NAMES:
            self.world.zygote.fork(name, self.orders.words(name), **how)
        elif name == "beat":
            how |= {
                "lasts": 8.0,
                "passes": self._chance.randint(1, 60)
                if "sent" in point
                else self._chance.choice((1, 2)),
            }
            self.world.zygote.fork(name, ["beat"], **how)
        else:
            self.world.zygote.worker(name, pool=self.plan.pool, **how)

    def _kill(self, name: str) -> None:
        if self.world.zygote.kill(name):
            self._count(kind_of(name), name)

    def _count(self, kind: str, life: str) -> None:
        self.random_kills[kind] += 1
        self.world.history.note("kill", name=kind, life=life, where=ANY)

    def total(self) -> int:
        """All kills so far."""
        return self.random_kills.total() + len(self.world.zygote.kills())

    def satisfied(self) -> bool:
        """True once there were as many kills, and at as many points, as the plan asks for."""
        everywhere = {*self.world.zygote.kills()} >= {*EVERY_POINT}
        return self.total() >= self.plan.kills and (everywhere or not self.plan.every_point)


def run(plan: Plan, say: Say) -> bool:
    """One run.

    Prints its tables. True if the promise was kept, and there were as many kills as the plan asks
    for.
    """
    say(
        f"Kill everywhere: seed {plan.seed}, {plan.lasts:g} s, pool {plan.pool}, appendfsync "
        f"{plan.fsync}\n"
    )
    with world(
        plan.seed, fsync=plan.fsync, quick=plan.quick, split=bool(plan.partition_every)
    ) as around:
        orders = Orders(around, plan.seed)
        executioner, producer, mischief = (
            Executioner(around, plan, orders),
            Producer(around, plan.rate),
            Mischief(around, door=plan.door),
        )
        splits = partitioner(around, plan)
        began = time.monotonic()
        while (lasted := time.monotonic() - began) < plan.lasts or (
            lasted < plan.at_most and not enough(executioner, splits)
        ):
            executioner.go()
            orders.go()
            if splits:
                splits.go()
            time.sleep(0.02)
        if splits:
            splits.heal()
        mischief.stop()
        kills = executioner.total()
        for name in list(around.zygote.lives):
            around.zygote.kill(name)
        for name, pool in (("w1", plan.pool), ("w2", "threads")):
            around.zygote.worker(name, pool=pool)
        around.zygote.fork("b1", ["beat"])
        producer.stop()
        for name in NAMES:
            around.zygote.fork(name, orders.words(name))
        orders.wait(plan.drain)
        took = around.drain(plan.drain, lambda: frozenset(around.accepted))
        if (
            plan.door
        ):  # a message that was given to a dead worker comes again after its visibility timeout
            around.drain(VISIBILITY + 20, lambda: frozenset(around.posted))
        reckoning = Reckoning(around.told(plan.keep))
        points, log = Counter(around.zygote.kills()), around.zygote.log.read_text(errors="replace")
    keep_log(plan, log)
    say(table(reckoning.rows(), ("what", "number", "bar")))
    say(f"\nThe last was settled and announced {took:.0f} s after the last kill.")
    say("In the logs: " + ", ".join(f"{log.count(event)} {event}" for event in TELLING))
    ended = log.count("Unrecoverable error")
    say(f"Workers that ended by themselves: {ended}; bar 0.")
    partitions = splits.total if splits else 0
    say(
        f"\n{kills:,} kills and {partitions:,} partitions, {(kills + partitions) / lasted:.1f} "
        f"each second:\n"
    )
    say(table([*reckoning.happened(), *rows_of(points)], ("what was done", "times")))
    missed = [point for point in EVERY_POINT if not points[point]]
    say(f"\nPoints at which nothing died: {', '.join(missed) or 'none'}")
    say(f"Errors that nobody expects in the logs: {unexpected(log) or 'none'}\n")
    for proof in reckoning.proofs():
        say(proof)
    done = (
        kills >= plan.kills and partitions >= plan.partitions and not (plan.every_point and missed)
    )
    return reckoning.kept and done and not ended


def keep_log(plan: Plan, log: str) -> None:
    if plan.keep:
        plan.keep.with_suffix(".log").write_text(log)


def partitioner(around: World, plan: Plan) -> Partitioner | None:
    """Whoever partitions the network of this world, if the plan asks for it."""
    if around.network is None:
        return None
    lives = around.zygote.lives
    return Partitioner(
        around.network,
        around.history,
        plan.seed,
        plan.partition_every,
        lambda: [PRODUCER, *map(str, list(lives))],
    )


def enough(executioner: Executioner, splits: Partitioner | None) -> bool:
    """True once there were as many kills and partitions as the plan asks for."""
    return executioner.satisfied() and (
        splits is None or splits.total >= executioner.plan.partitions
    )


def rows_of(points: Counter[str]) -> list[tuple[str, str]]:
    """How many of the kills were at each point."""
    return [(f"kill at: {point}", str(points[point])) for point in EVERY_POINT]


def unexpected(log: str) -> dict[str, int]:
    """The ends of the tracebacks in a log that do not say that something was away or killed, and
    how often each came.
    """
    found: Counter[str] = Counter()
    for line in log.splitlines():
        if line.startswith("{") and line.endswith("}") and "Traceback" in line:
            row = json.loads(line)
            end = str(row.get("exception", ""))[-400:]
            if not any(word in row["event"] + end for word in AWAY):
                found[end] += 1
    return dict(found)
