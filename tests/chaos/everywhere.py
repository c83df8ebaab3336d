"""Kill everywhere.

Workers, beats, Flower and Redis, at every named point and at random moments, while ids keep coming.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cavendish_worker.devstack.stack import free_port
from chaos.mischief import Mischief
from chaos.points import BEAT_POINTS, RARE, WORKER_POINTS
from chaos.reckoning import Reckoning, table
from chaos.world import SOON, Producer, World, world

#: Seconds after which the broker gives away again what a dead worker was given: the lease and 15
#: more.
VISIBILITY = float(SOON["LEASE"]) + 15
#: Errors which say that Redis is away, or that a child of a pool was killed.
AWAY = (
    "WorkerLostError",
    "ConnectionError",
    "BookUnavailable",
    "OperationalError",
    "BrokenPipe",
    "ConnectionRe",
    "TimeoutError",
)
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

    It lasts `lasts` seconds, and goes on until there were `kills` and one at every point, if that
    is asked for, but not beyond `at_most`.
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


@dataclass
class Executioner:
    """Keeps lives going, and ends them."""

    world: World
    plan: Plan
    random_kills: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.plan.seed)
        self._aims = {f"aimed{number}": WORKER_POINTS for number in range(self.plan.slots)} | {
            "beat": BEAT_POINTS
        }
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
            self.random_kills["Redis"] += 1
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
        how: dict[str, Any] = {"lasts": 5.0 if rare else 2.5, "aim": point, "passes": passes}
        if name == "beat":
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
            kind = "Flower" if name == "flower" else "beat" if name == "beat" else "worker"
            self.random_kills[kind] += 1

    def total(self) -> int:
        """All kills so far."""
        return self.random_kills.total() + len(self.world.zygote.kills())

    def satisfied(self) -> bool:
        """True once there were as many kills, and at as many points, as the plan asks for."""
        everywhere = {*self.world.zygote.kills()} >= {*WORKER_POINTS, *BEAT_POINTS}
        return self.total() >= self.plan.kills and (everywhere or not self.plan.every_point)


def run(plan: Plan, say: Say) -> bool:
    """One run.

    Prints its tables. True if the promise was kept, and there were as many kills as the plan asks
    for.
    """
    say(
        f"Kill everywhere: seed {plan.seed}, {plan.lasts:g} s, pool {plan.pool}, appendfsync {plan.fsync}\n"
    )
    with world(plan.seed, fsync=plan.fsync, quick=plan.quick) as around:
        executioner, producer, mischief = (
            Executioner(around, plan),
            Producer(around, plan.rate),
            Mischief(around, door=plan.door),
        )
        began = time.monotonic()
        while (lasted := time.monotonic() - began) < plan.lasts or (
            lasted < plan.at_most and not executioner.satisfied()
        ):
            executioner.go()
            time.sleep(0.02)
        mischief.stop()
        points, kills = Counter(around.zygote.kills()), executioner.total()
        for name in list(around.zygote.lives):
            around.zygote.kill(name)
        for name, pool in (("w1", plan.pool), ("w2", "threads")):
            around.zygote.worker(name, pool=pool)
        around.zygote.fork("b1", ["beat"])
        producer.stop()
        took = around.drain(plan.drain, lambda: frozenset(around.accepted))
        reckoning = Reckoning(around.reckon(frozenset(around.accepted)), frozenset(around.excused))
        if (
            plan.door
        ):  # a message that was given to a dead worker comes again after its visibility timeout
            around.drain(VISIBILITY + 20, lambda: frozenset(mischief.posted))
        door = Reckoning(around.reckon(frozenset(mischief.posted)))
        log = around.zygote.log.read_text(errors="replace")
    say(table(reckoning.rows(), ("what", "ids", "bar")))
    say(f"\nThe last was settled and announced {took:.0f} s after the last kill.")
    say("In the logs: " + ", ".join(f"{log.count(event)} {event}" for event in TELLING))
    if plan.door:
        say(
            f"Submitted by a Celery message: {len(mischief.posted)} ids, {len(door.unsettled)} of them lost; bar 0."
        )
    ended = log.count("Unrecoverable error")
    say(f"Workers that ended by themselves: {ended}; bar 0.")
    say(f"\n{kills:,} kills, {kills / lasted:.1f} each second:\n")
    rows = [
        (ANY + ": " + kind, str(number))
        for kind, number in sorted(executioner.random_kills.items())
    ]
    rows += [(point, str(points[point])) for point in (*WORKER_POINTS, *BEAT_POINTS)]
    say(table(rows, ("where", "kills")))
    missed = [point for point in (*WORKER_POINTS, *BEAT_POINTS) if not points[point]]
    say(f"\nPoints at which nothing died: {', '.join(missed) or 'none'}")
    broken = unexpected(log)
    say(f"Errors that nobody expects in the logs: {broken or 'none'}\n")
    for heading in ("unsettled", "unannounced", "early", "two_ids", "wrong"):
        if found := [*getattr(reckoning, heading), *getattr(door, heading)]:
            say(f"{heading}: {', '.join(found[:5])}")
    kept = reckoning.kept and (door.kept or not mischief.posted) and not ended
    return kept and kills >= plan.kills and not (plan.every_point and missed)


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
