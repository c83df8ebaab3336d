"""What the webhook bench measures on time and CPU.

Throughput beside plain httpx, settle to wire, isolation, idle cost.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import httpx
from webhook_road import BATCH, LANE, Road, between, others

from cavendish.task_names import DELIVER, RECONCILE

#: Deliveries of a throughput run, and share of them at either end that is left out.
DELIVERIES, LEFT_OUT = 20_000, 0.1
#: Settings left to their defaults, where the bars do not say how many calls are in flight.
DEFAULTS = {"webhook_calls": "", "webhook_calls_per_endpoint": ""}
#: In the isolation run: endpoints, seconds of load, seconds that the hanging one lets calls wait.
ENDPOINTS, WELL_FOR, ILL_FOR, HANGS = 5, 30.0, 42.0, 20_000
#: Webhooks to a good receiver in each turn, how often, and where the costly one listens.
GOOD, TURNS, COSTLY = 100, 5, "127.0.0.3"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `met` is None where there is no bar."""

    measure: str
    bar: str
    measured: str
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """The steady middle of a run.

    Deliveries per second, CPU milliseconds of each by process, most calls open at a time.
    """

    rate: float
    each: dict[str, float]
    most: int
    others: float  # share of the machine that was used by neither of ours

    @property
    def beside(self) -> str:
        """What else was at work."""
        return (
            f"CPU ms each: worker {self.each['worker']:.2f}, Redis {self.each['redis']:.2f}, "
            f"receiver {self.each['receiver']:.2f}, bench {self.each['producers']:.2f}; "
            f"others used {self.others:.0%} of the machine"
        )


def p99(values: Iterable[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(values, n=100)[98]


class Measures:
    """Each method measures one thing with a worker of its own, and returns its rows."""

    def __init__(self, road: Road) -> None:
        self.road = road
        self.notes: list[str] = []

    # --- throughput

    @cached_property
    def speed(self) -> Speed:
        """With a receiver that answers after 100 ms."""
        return self._run("/steady/100")

    def _run(self, path: str) -> Speed:
        with self.road.worker():
            endings = self.road.prepare(DELIVERIES, path)
            self.road.settle(endings)
            self.road.kick()
            samples = self.road.drained(DELIVERIES, seconds=90)
            self.road.written(DELIVERIES)
            heard = self.road.arrivals()
        if heard.repeats or set(heard.at) != {ending.name for ending in endings}:
            raise RuntimeError(
                f"{path}: {len(heard.at)} of {DELIVERIES} announced, {heard.repeats} twice"
            )
        moments = sorted(heard.at.values())
        first, last = moments[int(DELIVERIES * LEFT_OUT)], moments[int(DELIVERIES * (1 - LEFT_OUT))]
        count, used = DELIVERIES * (1 - 2 * LEFT_OUT), between(samples, first, last)
        each = {name: seconds / count * 1e3 for name, seconds in used.items()}
        return Speed(count / (last - first), each, heard.most, others(used, last - first))

    def throughput(self) -> list[Row]:
        speed = self.speed
        self.notes.append(f"100 ms receiver: {speed.beside}")
        rate, each = asyncio.run(_plain_httpx(f"{self.road.receiver}/plain/100", at_once=100))
        slower, dearer = asyncio.run(_plain_httpx(f"{self.road.receiver}/queued/100", at_once=600))
        return [
            Row(
                "throughput, 100 ms receiver, 100 in flight: deliveries/s",
                ">= 800",
                f"{speed.rate:,.0f}",
                speed.rate >= 800,
            ),
            Row(
                "  worker CPU each, ms",
                "<= 1.2",
                f"{speed.each['worker']:.2f}",
                speed.each["worker"] <= 1.2,
            ),
            Row(
                "  most calls in flight, seen by the receiver",
                "100",
                f"{speed.most}",
                speed.most == 100,
            ),
            Row(
                "  peer: plain httpx.AsyncClient, 100 callers",
                "",
                f"{rate:,.0f}/s, {each:.2f} ms CPU each",
            ),
            Row(
                "  peer: the same, 600 callers at its pool of 100",
                "",
                f"{slower:,.0f}/s, {dearer:.2f} ms CPU each",
            ),
            Row(
                "  ratios of deliveries/s to these peers",
                "",
                f"{speed.rate / rate:.1f}, {speed.rate / slower:.1f}",
            ),
            Row(
                "  ratios of CPU each",
                "",
                f"{speed.each['worker'] / each:.2f}, {speed.each['worker'] / dearer:.2f}",
            ),
        ]

    def zero(self) -> list[Row]:
        speed = self._run("/zero/0")
        self.notes.append(f"zero-latency receiver: {speed.beside}")
        return [
            Row(
                "throughput, zero-latency receiver: deliveries/s",
                ">= 1,100",
                f"{speed.rate:,.0f}",
                speed.rate >= 1100,
            ),
            Row("  worker CPU each, ms", "", f"{speed.each['worker']:.2f}"),
        ]

    # --- settle to wire

    def latency(self) -> list[Row]:
        half = self.speed.rate / 2
        with self.road.worker():
            self._warm("/idle/100")
            calm, said = self.road.prepare(150, "/idle/100"), dict[str, float]()
            for ending in calm:
                said |= self.road.load([ending], rate=1.0)
                time.sleep(random.uniform(0.15, 0.25))
            idle = self._delays(said)
            busy = self.road.prepare(int(half * 20), "/busy/100")
            delays = self._delays(self.road.load(busy, half))
        self.notes.append(f"half load: others used {self.road.others:.0%} of the machine")
        late = p99(delays)
        return [
            Row(
                "settle -> wire, idle: p99, ms",
                "<= 200",
                f"{p99(idle) * 1e3:.0f}",
                p99(idle) <= 0.2,
            ),
            Row(
                "  median, worst, ms",
                "",
                f"{statistics.median(idle) * 1e3:.0f}, {max(idle) * 1e3:.0f}",
            ),
            Row(
                f"settle -> wire, half load ({half:.0f}/s): p99, ms",
                "<= 1,000",
                f"{late * 1e3:.0f}",
                late <= 1.0,
            ),
            Row(
                "  median, worst, ms",
                "",
                f"{statistics.median(delays) * 1e3:.0f}, {max(delays) * 1e3:.0f}",
            ),
        ]

    def _warm(self, *paths: str) -> None:
        """Connections are made and allowances have grown, as after the first minute of a worker."""
        endings = [ending for path in paths for ending in self.road.prepare(150, path)]
        self.road.load(endings, 300.0)
        self.road.written(len(endings))
        time.sleep(1)

    def _delays(self, said: dict[str, float], seconds: float = 20.0) -> list[float]:
        """Seconds from each settle to its arrival.

        What has not come after some more seconds counts as infinite.
        """
        until = time.monotonic() + seconds
        heard = self.road.arrivals()
        while not said.keys() <= heard.at.keys() and time.monotonic() < until:
            time.sleep(0.5)
            heard = self.road.arrivals()
        return [heard.at.get(name, float("inf")) - moment for name, moment in said.items()]

    # --- isolation

    def isolation(self) -> list[Row]:
        """Five endpoints at half load, default settings.

        All well; one that was well and hangs; one that hangs from the first.
        """
        rate = self.speed.rate / 2
        with self.road.worker(**DEFAULTS):
            well = self._five("well", rate, WELL_FOR)
            self.road.ask(f"hang?/well0/100={HANGS}")
            turned = self._five("well", rate, ILL_FOR, warm=False)
        with self.road.worker(**DEFAULTS):
            self.road.ask(f"hang?/ill0/100={HANGS}")
            ill = self._five("ill", rate, ILL_FOR)
        base, halves = p99(well), (p99(well[: len(well) // 2]), p99(well[len(well) // 2 :]))
        self.notes.append(
            f"isolation: the others' p99 in the first and second half of the healthy run "
            f"{_ms(halves)} ms"
        )
        rows = [
            Row(
                f"isolation: 5 endpoints, {rate:.0f}/s, all well: p99 of 4, ms",
                "",
                f"{base * 1e3:.0f}",
            )
        ]
        for what, delays in (
            ("one hangs from its first call", ill),
            ("one hangs that was well", turned),
        ):
            rise = p99(delays) / base - 1
            measured = f"{p99(delays) * 1e3:.0f} ({rise:+.0%})"
            rows.append(Row(f"  {what}: p99 of the other 4, ms", "<= +10 %", measured, rise <= 0.1))
        return rows

    def _five(self, name: str, rate: float, seconds: float, *, warm: bool = True) -> list[float]:
        """Equal traffic to five endpoints.

        Returns the delays of all but the first, in the order of their settles.
        """
        paths = [f"/{name}{number}/100" for number in range(ENDPOINTS)]
        if warm:
            self._warm(*paths[1:])
        each = int(rate * seconds / ENDPOINTS / BATCH) * BATCH
        columns = [self.road.prepare(each, path) for path in paths]
        mixed = [ending for row in zip(*columns, strict=True) for ending in row]
        said = self.road.load(mixed, rate)
        self.notes.append(f"isolation, {name}: others used {self.road.others:.0%} of the machine")
        return self._delays(
            {ending.name: said[ending.name] for ending in mixed if ending.path != paths[0]}, 5.0
        )

    # --- neighbours of a costly receiver

    def neighbours(self) -> list[Row]:
        """Webhooks to a good receiver, alone and beside a load for one whose answers cost much.

        In turns, in one worker. The costly receiver is a process of its own.
        """
        p95, charged = defaultdict[str, list[float]](list), 0
        good = self.road.receiver
        with self.road.receiving(COSTLY) as costly, self.road.worker(**DEFAULTS):
            self.road.receiver = good
            self._warm("/good/0")
            for turn in range(TURNS):
                for beside in ("alone", "beside it"):
                    ours = self.road.prepare(GOOD, "/good/0")
                    mixed = list(ours)
                    if beside != "alone":
                        bad = self.road.prepare(2 * GOOD, f"/bomb/chunks/{turn}", costly)
                        threes = zip(ours, bad[::2], bad[1::2], strict=True)
                        mixed = [one for three in threes for one in three]
                    said = self.road.load(mixed, GOOD / 2, batch=3)
                    delays = self._delays({ending.name: said[ending.name] for ending in ours})
                    p95[beside].append(statistics.quantiles(delays, n=20)[18])
                    tried = self.road.store.deliveries.load(LANE, [one.delivery for one in ours])
                    charged += sum(delivery.attempts > 1 for delivery in tried)
        ratios = sorted(b / a for a, b in zip(p95["alone"], p95["beside it"], strict=True))
        ratio = statistics.median(ratios)
        shown = {name: _ms([statistics.median(values)]) for name, values in p95.items()}
        return [
            Row(
                f"{GOOD} webhooks beside {2 * GOOD} to a receiver of 65,000 chunks: p95, times",
                "<= 1.2",
                f"{ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {TURNS} pairs)",
                ratio <= 1.2,
            ),
            Row("  p95 in ms, alone and beside it", "", " and ".join(shown.values())),
            Row("  attempts charged to the good receiver", "0", f"{charged}", charged == 0),
        ]

    # --- idle cost

    def idle(self) -> list[Row]:
        """Commands that Redis runs for a worker with nothing to do.

        The store is database 0, Celery's messages database 1.
        """
        with self.road.worker():
            self._warm("/idle/0")
            silent = self._commands(16.0)
            called = self._commands(30.0, DELIVER, every=15.0)
            reconciled = self._commands(10.0, RECONCILE, every=10.0)
        (heart, celery), (store, messages) = silent, called
        deliver, reconcile = store - heart, (reconciled[0] - heart) / 3
        extra = messages - celery + (reconciled[1] - celery) / 3
        self.notes.append(
            f"idle, commands/s: Celery's transport {celery:.2f}, heartbeat {heart:.2f}; beat adds: "
            f"deliver {deliver:.2f}, reconcile run (a store of 150 delivered ids) {reconcile:.2f}, "
            f"their messages at the broker {extra:.2f}"
        )
        delivering = deliver + reconcile
        return [
            Row(
                "idle cost: Redis commands/s of a worker that beat calls",
                "",
                f"{heart + celery + delivering + extra:.2f}",
            ),
            Row(
                "  of them the delivering side's in the store",
                "<= 1 (goal)",
                f"{delivering:.2f}",
                delivering <= 1,
            ),
            Row("  and the messages of its Celery tasks at the broker", "", f"{extra:.2f}"),
        ]

    def _commands(self, seconds: float, task: str = "", every: float = 0.0) -> tuple[float, float]:
        """Commands per second in the store and at the broker, while a task is called as beat does.

        Scripts count as one each.
        """
        counted, redis = Counter[int](), self.road.store.connection.redis
        stop = threading.Event()

        def beat() -> None:
            for _ in range(int(seconds / every) if task else 0):
                self.road.kick(task)
                stop.wait(every)
            stop.wait(0.0 if task else seconds)
            redis.echo("the end")

        with redis.monitor() as monitor:  # type: ignore[no-untyped-call]
            beater = threading.Thread(target=beat)
            beater.start()
            while "the end" not in (said := monitor.next_command())["command"]:
                counted[said["db"]] += said["client_type"] != "lua"
            beater.join()
        return counted[0] / seconds, counted[1] / seconds


def _ms(values: Sequence[float]) -> str:
    return ", ".join(f"{value * 1e3:.0f}" for value in values)


async def _plain_httpx(url: str, *, at_once: int, seconds: float = 8.0) -> tuple[float, float]:
    """Deliveries per second, and CPU milliseconds of each, of httpx with its pool.

    100 in flight, the rest queues in it.
    """
    done, body, began = (
        0,
        b'{"type":"task.succeeded","data":"' + b"x" * 1400 + b'"}',
        time.monotonic(),
    )

    async def caller(client: httpx.AsyncClient) -> None:
        nonlocal done
        while time.monotonic() < began + seconds:
            (
                await client.post(url, content=body, headers={"content-type": "application/json"})
            ).raise_for_status()
            done += 1

    async with httpx.AsyncClient(timeout=None, trust_env=False) as client:  # noqa: S113 (as patient as it can be)
        callers = [asyncio.create_task(caller(client)) for _ in range(at_once)]
        await asyncio.sleep(seconds * LEFT_OUT)
        first, used, count = time.monotonic(), time.process_time(), done
        await asyncio.sleep(seconds * (1 - 2 * LEFT_OUT))
        last, cpu, count = time.monotonic() - first, time.process_time() - used, done - count
        for one in callers:
            one.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    return count / last, cpu / count * 1e3
