"""The world of one run.

A Redis that is killed, what outlives it, a zygote for all that dies, and producers that do not
wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from cavendish import Client, Filter, State
from cavendish.endpoints.signing import new_secret
from cavendish.errors import StoreUnavailable
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.task_names import DELIVER, QUEUES
from cavendish_worker.devstack import embedded_redis as embedded
from chaos.history import History, Line, merge, offset
from chaos.partitions import Network
from chaos.recorded import ENDPOINT, Grouped, Recorded, Watcher

HERE = Path(__file__).parent
SERVICE = "nano-banana"
#: Short enough that recovery fits the time of a run.
SOON = {
    "LEASE": "15",
    "CALL_TIMEOUT": "5",
    "WEBHOOK_TIMEOUT": "2",
    "CONCURRENCY": "8",
    "BATCH_SIZE": "6",
    "TICK": "0.1",
    "LAST_POLL": "5",
    "ABSENT_GRACE": "1",
    "ABSENT_POLLS": "2",
    "ABSENT_OVER": "1",
    "LOG_LEVEL": "warning",
    "LOG_FORMAT": "json",
}
#: How the emulated API behaves unless a run says otherwise.
API = {
    "rate": 60.0,
    "burst": 5.0,
    "faults": 0.05,
    "median": 3.0,
    "sigma": 0.5,
    "failing": 0.08,
    "latency": 0.03,
}
#: Shorter still, for the tests that everybody runs.
SOONER = {"LEASE": "10", "CALL_TIMEOUT": "2", "CONNECT_TIMEOUT": "2"}
#: Calls per second that the fleet believes in from the start, so that there is something to kill at
#: once.
FIRST_RATE = 20.0
#: The name of this process, in which the producers are, to the network.
PRODUCER = "producer"
#: Seconds of the deadline of the ids that may expire.
SHORT_DEADLINE = 4.0
#: Submits whose ids are one group.
TICKS = 2
#: What the ids of the API look like.
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Redis:
    """An embedded server with a way to write to its disk, that is killed and started again.

    `through`: words before its own.
    """

    def __init__(self, folder: Path, fsync: str = "always", through: Sequence[str] = ()) -> None:
        self.folder, self.socket = folder / "store", folder / "store.sock"
        self.url, self.broker = (
            f"unix://{self.socket}?db=0",
            f"redis+socket://{self.socket}?virtual_host=1",
        )
        words = embedded.arguments(self.folder, self.socket)
        words[words.index("--appendfsync") + 1] = fsync
        self._words = [*through, *words]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it answers."""
        self.process = subprocess.Popen(
            self._words,
            env=embedded.environment(),
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
        embedded.wait_for(self.url, self.process, self.folder / "redis" / "server.log")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@dataclass(slots=True)
class Life:
    """One process of the zygote.

    `until`: when it is killed if it has not died by then; `aim`: where it is to die.
    """

    name: str
    pid: int
    until: float = float("inf")
    aim: str = ""


class Zygote:
    """Forks lives, and knows which of them live."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.log, self.report = folder / "lives.log", folder / "kills"
        self.report.touch()
        self.lives: dict[str, Life] = {}
        self.names: dict[int, str] = {}  # by process id, also of those that are dead
        self._asked: queue.SimpleQueue[tuple[str, float, str]] = queue.SimpleQueue()
        self._forked: queue.SimpleQueue[Life] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py"), str(self.log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            bufsize=1,
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            fact = json.loads(line)
            if "ended" not in fact:
                self._forked.put(self._born(fact["pid"]))
                continue
            life = self.lives.get(fact["name"])
            if life is not None and life.pid == fact["pid"]:
                del self.lives[fact["name"]]

    def fork(
        self,
        name: str,
        words: Sequence[str],
        *,
        lasts: float = float("inf"),
        aim: str = "",
        passes: int = 1,
    ) -> Life:
        """A new life; at most `lasts` seconds, if it does not die at its point before."""
        assert self._process.stdin is not None
        aiming = (
            {"point": aim, "passes": passes, "report": str(self.report), "name": name}
            if aim
            else None
        )
        self._asked.put((name, lasts, aim))
        self._process.stdin.write(
            json.dumps({"name": name, "words": [*words], "aim": aiming}) + "\n"
        )
        self._process.stdin.flush()
        return self._forked.get(timeout=30)

    def _born(self, pid: int) -> Life:
        """Before its end is read, which may be told in the next line."""
        name, lasts, aim = self._asked.get()
        life = self.lives[name] = Life(name, pid, time.monotonic() + lasts, aim)
        self.names[pid] = name
        return life

    def worker(self, name: str, *, pool: str = "threads", **how: Any) -> Life:
        """A worker.

        Children of a pool take no deliveries: each would go on a round of its own, and none be left
        for the rest.
        """
        more = (
            ["-c", "3", "-Q", ",".join(queue for queue in QUEUES if queue != DELIVER)]
            if pool == "prefork"
            else []
        )
        return self.fork(
            name,
            [
                "worker",
                "-P",
                pool,
                *more,
                "-n",
                f"{name}@%h",
                "--without-gossip",
                "--without-mingle",
            ],
            **how,
        )

    def kill(self, name: str, number: int = signal.SIGKILL) -> bool:
        """False if it was dead already."""
        life = self.lives.pop(name, None)
        if life is None:
            return False
        try:
            os.kill(life.pid, number)
        except ProcessLookupError:
            return False
        return True

    def kills(self) -> list[str]:
        """The points at which lives ended, in that order."""
        return [point for _, _, point in self.died()]

    def died(self) -> list[tuple[float, str, str]]:
        """The same with the time of CLOCK_MONOTONIC, and who it was."""
        rows = [line.split("\t") for line in self.report.read_text().splitlines()]
        return [(float(at), name, point) for at, name, point in rows]

    def close(self) -> None:
        """End every life, the orphans of pools too, and the zygote."""
        with self._process as zygote:  # waits for its end
            assert zygote.stdin is not None
            zygote.stdin.close()
            self._listener.join()


class World:
    """Everything around the lives. `create` and `submit` are the producer's; `told` is what all of
    them wrote down.

    `network`: what lies between each process and Redis, the API and the receiver; without it they
    are connected directly.
    """

    def __init__(
        self,
        folder: Path,
        ends: ExitStack,
        seed: int,
        fsync: str,
        more: Mapping[str, str],
        api: Mapping[str, float],
        split: bool,
    ) -> None:
        self.folder, secret = folder, new_secret()
        self.since_epoch = since_epoch = offset()
        self.history = History(folder / "world.jsonl", "world", since_epoch)
        ends.callback(self.history.close)
        self.history.check_clock()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
        }
        told = [str(folder / "outside.jsonl"), repr(since_epoch)]
        outside = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "outside.py"),
                secret,
                json.dumps({**API, "seed": seed, **api}),
                *told,
            ],
            stdout=subprocess.PIPE,
            stderr=ends.enter_context((folder / "outside.log").open("w")),
            env=environment,
            text=True,
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
        ends.enter_context(outside)
        ends.callback(outside.kill)
        assert outside.stdout is not None
        port = int(outside.stdout.readline())
        self.at = f"http://127.0.0.1:{port}"
        self.redis = Redis(folder, fsync)
        self.redis.start()
        ends.callback(self.redis.kill)
        self.network = Network(self._named) if split else None
        redis_url, self.broker, api_url, self.receiver = self._roads(ends, port)
        ours = SOON | {
            "REDIS_URL": redis_url,
            "BROKER_URL": self.broker,
            "API_URL": api_url,
            "API_TOKEN": "emulated",
        }
        ours |= {
            "WEBHOOK_SECRET": secret,
            "WEBHOOK_ALLOW": "127.0.0.0/8",
            "OPERATIONS_WEBHOOK": f"{self.at}/hook",
            **more,
        }
        self.settings = Settings.load({f"CAVENDISH_{name}": value for name, value in ours.items()})
        self.environment = environment | {
            f"CAVENDISH_{name}": value for name, value in ours.items()
        }
        self.client = ends.enter_context(Client(settings=self.settings))
        self.recorded = Recorded(self.client, self.history, self.receiver, self.settings.deadline)
        self._register()
        self.store = Store(self.redis.url)
        ends.callback(self.store.close)
        self.zygote = Zygote(folder, self.environment)
        ends.callback(self.zygote.close)
        self.store.shared_state.change_rate_limit(
            "default", lambda known: (replace(known, rate=FIRST_RATE), None)
        )
        self.accepted: set[str] = set()
        self.posted: set[str] = set()
        self.posted_groups: dict[str, frozenset[str]] = {}
        self.excused: set[str] = set()
        self.tracked = list[str]()  # the accepted ones, in their order
        self.silenced, self.forgotten = set[str](), set[str]()  # by operators, or soon
        self.members: dict[str, list[str]] = {}
        self.grouped = Counter[Grouped]()
        self._watcher = Watcher(
            self.recorded, SERVICE, lambda: frozenset(self.accepted | self.posted)
        )
        ends.callback(self._watcher.stop)

    def _register(self) -> None:
        """The endpoint that hears of some ends only."""
        place = f"{self.receiver}/{ENDPOINT}"
        made = self.client.add_endpoint(ENDPOINT, place, events="task.failed", unencrypted=True)
        httpx.post(f"{self.at}/secret", content=made.secret, trust_env=False).raise_for_status()

    def _roads(self, ends: ExitStack, port: int) -> tuple[str, str, str, str]:
        """The URLs of store, broker, API and receiver, as the processes know them."""
        network = self.network
        if network is None:
            return self.redis.url, self.redis.broker, self.at, self.at
        ends.callback(network.close)
        front = network.open("redis", self.redis.socket, self.folder / "front.sock")
        api, receiver = (
            f"http://127.0.0.1:{network.open(name, port)}" for name in ("api", "receiver")
        )
        return f"unix://{front}?db=0", f"redis+socket://{front}?virtual_host=1", api, receiver

    def _named(self, pid: int) -> str:
        """Who a process is; children of a pool are one with their parent."""
        if pid == os.getpid():
            return PRODUCER
        with contextlib.suppress(ProcessLookupError):
            return self.zygote.names.get(os.getpgid(pid), "")
        return ""

    def ask(self, what: str) -> Any:
        """What the API and the receiver say."""
        return httpx.get(f"{self.at}/{what}", trust_env=False, timeout=30).json()

    def create(self, count: int) -> list[str]:
        """Make remote tasks."""
        said = httpx.post(
            f"{self.at}/emulator/tasks", json={"count": count}, trust_env=False, timeout=30
        )
        ids: list[str] = said.json()["ids"]
        return ids

    def submit(
        self, ids: Sequence[str], *, deadline: float | None = None, group: Grouped | None = None
    ) -> None:
        """Submit until it is acknowledged."""
        how: dict[str, Any] = {"place": "/hook", "chosen": True, "deadline": deadline}
        how |= {"group": group}
        while (tracked := self.recorded.submit(ids, service=SERVICE, **how)) is None:
            time.sleep(0.05)
        self.accepted |= {*tracked}
        self.tracked += tracked
        if group:
            self.members.setdefault(group[0], []).extend(tracked)
            self.grouped[group] += len(tracked)

    def told(self, keep: Path | None = None) -> list[Line]:
        """Look at everything for the last time, and return the history of all.

        `keep`: the file that it is kept in.
        """
        self._watcher.last_poll()
        for at, name, point in self.zygote.died():
            self.history.note(
                "kill", at=self.history.time_of(at), name=kind_of(name), life=name, where=point
            )
        listed = self.client.iter(Filter(service=SERVICE))
        self.history.note("list", ids=[task.id for task in listed])
        self.history.note("rest", found=self._rest())
        self.history.check_clock()
        self.history.note("end")
        return merge(self.folder.glob("*.jsonl"), keep or self.folder / "kept" / "history.jsonl")

    def _rest(self) -> dict[str, list[str]]:
        """By forgotten id the keys of the store in which it still is. An id leaves the lists of
        deadlines by itself, if it had several deadlines.
        """
        redis: Any = self.store.connection.redis
        read = {
            "hash": redis.hgetall,
            "zset": lambda key: redis.zrange(key, 0, -1),
            "set": redis.smembers,
            "list": lambda key: redis.lrange(key, 0, -1),
            "stream": redis.xrange,
            "string": redis.get,
        }
        found: dict[str, list[str]] = {}
        for key in redis.scan_iter(count=1000):
            kind = redis.type(key)  # of one that is gone by now, another
            if ":deadline:" not in key and kind in read:
                text = f"{key} {read[kind](key)}"
                for one in self.forgotten & {*_ID.findall(text)}:
                    found.setdefault(one, []).append(key)
        return found

    def whole_groups(self) -> list[str]:
        """The groups of which all ids were accepted, in their order."""
        return [name for (name, size), joined in self.grouped.items() if joined == size]

    def done(self, ids: frozenset[str]) -> bool:
        """True once all that was accepted has ended and was announced, and so are whole groups."""
        received, kept = self.ask("received"), ids - self.forgotten
        untold = kept - {*received["taken"]}
        posted = {name for name, members in self.posted_groups.items() if members <= ids}
        if untold - self.silenced or {*self.whole_groups(), *posted} - {*received["groups"]}:
            return False
        tasks = self.client.get_many(sorted(kept), service=SERVICE, with_record=False)
        failed = {one for one, task in tasks.items() if task.state is State.FAILED}
        if (failed & self.accepted) - {*received["failures"]}:
            return False
        return all(
            task_id in tasks
            and tasks[task_id].state.terminal
            and (task_id not in untold or tasks[task_id].state is State.CANCELLED)
            for task_id in kept
        )

    def drain(self, seconds: float, ids: Callable[[], frozenset[str]]) -> float:
        """Wait until all is done, or until the time is up; returns the seconds that it took.

        A webhook that failed twice waits five minutes for its third try, by design: that is not
        waited for here.
        """
        began = time.monotonic()
        while time.monotonic() < began + seconds and not self.done(ids()):
            time.sleep(0.5)
            with contextlib.suppress(StoreUnavailable):
                for lane in self.store.tasks.listed_lanes():
                    for endpoint in self.store.statistics([lane]).pending_by_endpoint:
                        self.store.deliveries.hasten(lane, endpoint, self.store.fleet.now())
        return time.monotonic() - began


class Producer:
    """Hands ids over at a steady rate, whatever happens.

    Who waits for an answer holds up nobody behind.
    """

    def __init__(
        self, world: World, rate: float, *, at_once: int = 4, get_runtime: int = 4
    ) -> None:
        self._world, self._every, self._at_once = world, at_once / rate, at_once
        self._stopped = threading.Event()
        self._queue: queue.Queue[tuple[list[str], Grouped] | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._submit, daemon=True) for _ in range(get_runtime)
        ]
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        for thread in (*self._threads, self._ticker):
            thread.start()

    def _tick(self) -> None:
        at, number = time.monotonic(), 0
        while not self._stopped.is_set():
            number += 1
            ids = self._world.create(self._at_once)
            if number % 20 == 0:
                self._world.excused |= {*ids}
            self._queue.put((ids, (f"group-{number // TICKS}", TICKS * self._at_once)))
            at += self._every
            self._stopped.wait(max(at - time.monotonic(), 0))

    def _submit(self) -> None:
        while (some := self._queue.get()) is not None:
            ids, group = some
            deadline = SHORT_DEADLINE if ids[0] in self._world.excused else None
            self._world.submit(ids, deadline=deadline, group=group)

    def stop(self) -> None:
        """No more ids; returns once those that there are were accepted."""
        self._stopped.set()
        self._ticker.join()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()


@contextmanager
def world(
    seed: int, *, fsync: str = "always", quick: bool = False, split: bool = False, **api: float
) -> Iterator[World]:
    """A world in a temporary folder; nothing of it is left at the end. `quick`: all that takes its
    time takes less.

    `split`: with a network that can be partitioned.
    """
    more, api = (SOONER, {"median": 1.0, **api}) if quick else ({}, api)
    with (
        tempfile.TemporaryDirectory(
            prefix="cavendish-chaos-", ignore_cleanup_errors=True
        ) as folder,
        ExitStack() as ends,
    ):
        yield World(Path(folder), ends, seed, fsync, more, api, split)


def kind_of(name: str) -> str:
    """What a life is, by its name."""
    if name.startswith("operator"):
        return "operator"
    return {"flower": "Flower", "beat": "beat"}.get(name, "worker")


def die_with_parent() -> None:
    """Should the run itself be killed, nothing of it goes on (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
