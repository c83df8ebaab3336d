"""What a write to the disk costs, and what is lost without it: `appendfsync always` against
`everysec`.

Two ends: the server is killed; or the machine loses its power, at its worst: everything that was
not synced is gone. The latter needs strace, which notes what the server wrote and synced of its
append-only file. With `everysec` the server acknowledges while a sync is under way, and writes only
when that is done, at most two seconds later: so a kill loses too.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cavendish import Client
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from chaos.reckoning import table
from chaos.world import SERVICE, Redis

Say = Callable[[str], None]
HOOK = "https://example.com/hook"
_LINE = re.compile(
    r"^(?P<pid>\d+) +(?:<\.\.\. )?(?P<call>write|pwrite64|fdatasync|fsync)\b(?P<rest>.*)$"
)


@dataclass(frozen=True)
class Cost:
    """What one way of writing costs and loses.

    `lost`: acknowledged ids that a restarted server did not know, of so many.
    """

    fsync: str
    one_by_one: float
    in_hundreds: float
    settles: float
    killed: tuple[int, int]
    power: tuple[int, int] | None


class Submitters:
    """Threads that submit without a pause and note what was acknowledged."""

    def __init__(self, url: str, *, at_once: int, get_runtime: int = 4) -> None:
        self.acknowledged: list[str] = []
        self._at_once, self._url, self._stopped = at_once, url, threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(get_runtime)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, runtime: int) -> None:
        turn = 0
        with Client(settings=Settings.load({"CAVENDISH_REDIS_URL": self._url})) as client:
            while not self._stopped.is_set():
                turn += 1
                ids = [f"{id(self)}-{runtime}-{turn}-{number}" for number in range(self._at_once)]
                try:
                    client.submit(ids, service=SERVICE)
                except StoreUnavailable:
                    continue
                self.acknowledged += ids

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def costs(say: Say, *, seconds: float = 4.0, kills: int = 10, power: int = 3) -> bool:
    """Measure both; true if `always`, which `cavendish up` uses, lost nothing."""
    say("What the disk costs: 4 producers at once; settles of 50 ids, each with a delivery\n")
    found = [_cost(fsync, seconds, kills, power) for fsync in ("always", "everysec")]

    def lost(pair: tuple[int, int] | None) -> str:
        return "not measured: no strace here" if pair is None else f"{pair[0]:,} of {pair[1]:,}"

    rows = [
        ("submits/s, one id each", *(f"{one.one_by_one:,.0f}" for one in found)),
        ("ids/s, submits of 100", *(f"{one.in_hundreds:,.0f}" for one in found)),
        ("settles/s, 50 at a time", *(f"{one.settles:,.0f}" for one in found)),
        (
            f"acknowledged and lost, server killed {kills} times",
            *(lost(one.killed) for one in found),
        ),
        (f"acknowledged and lost, power lost {power} times", *(lost(one.power) for one in found)),
    ]
    say(table(rows, ("what", *(f"appendfsync {one.fsync}" for one in found))) + "\n")
    always = found[0]
    return not always.killed[0] and not (always.power and always.power[0])


def _cost(fsync: str, seconds: float, kills: int, power: int) -> Cost:
    with tempfile.TemporaryDirectory(prefix="cavendish-chaos-") as name:
        server = Redis(Path(name), fsync)
        server.start()
        one, many = (_rate(server.url, at_once, seconds) for at_once in (1, 100))
        settles = _settles(server.url, seconds)
        server.kill()
        (Path(name) / "second").mkdir()
        killed = _killed(Redis(Path(name) / "second", fsync), kills)
        cut = (
            [_power_lost(Path(name) / f"power{number}", fsync) for number in range(power)]
            if shutil.which("strace")
            else []
        )
    return Cost(
        fsync,
        one,
        many,
        settles,
        killed,
        (sum(a for a, _ in cut), sum(b for _, b in cut)) if cut else None,
    )


def _rate(url: str, at_once: int, seconds: float) -> float:
    submitters = Submitters(url, at_once=at_once)
    time.sleep(seconds)
    submitters.stop()
    return len(submitters.acknowledged) / seconds


def _settles(url: str, seconds: float) -> float:
    store, lane = Store(url), Lane.of("default", "flux", "x", 1)
    with Client(settings=Settings.load({"CAVENDISH_REDIS_URL": url})) as client:
        for start in range(0, 20_000, 2_000):
            client.submit(
                [f"settled-{number}" for number in range(start, start + 2_000)],
                service="flux",
                webhook=HOOK,
            )
    settled, until = 0, time.monotonic() + seconds
    while time.monotonic() < until and settled < 20_000:
        now = store.fleet.now()
        ids = store.tasks.claim(lane, now + 60, "t", store.tasks.candidates(lane, now, 50))
        tasks = store.tasks.load(lane, ids, token="t").tasks.values()
        record = {
            "response": {"success": True, "data": [{"image_url": "https://cdn.example.com/1.png"}]}
        }
        outcomes = [(Outcome(task, State.SUCCEEDED, record=record), 0.0) for task in tasks]
        settled += len(store.tasks.settle(lane, "t", now, outcomes, 3600, 1000))
    took = seconds - (until - time.monotonic())
    store.close()
    return settled / took


def _killed(server: Redis, kills: int) -> tuple[int, int]:
    server.start()
    acknowledged: list[str] = []
    for _ in range(kills):
        submitters = Submitters(server.url, at_once=5)
        time.sleep(0.4)
        server.kill()
        submitters.stop()
        acknowledged += submitters.acknowledged
        server.start()
    lost = _missing(server.url, acknowledged)
    server.kill()
    return lost, len(acknowledged)


def _missing(url: str, acknowledged: list[str]) -> int:
    with Client(settings=Settings.load({"CAVENDISH_REDIS_URL": url})) as client:
        return len(
            set(acknowledged)
            - client.get_many(acknowledged, service=SERVICE, with_record=False).keys()
        )


def _power_lost(folder: Path, fsync: str) -> tuple[int, int]:
    """Kill the server under strace, and cut its file where it was synced last.

    Returns how many were lost, of how many.
    """
    folder.mkdir()
    trace, calls = folder / "trace", "trace=write,pwrite64,fdatasync,fsync"
    server = Redis(
        folder,
        fsync,
        through=["strace", "-f", "-qq", "-s", "0", "-e", calls, "-y", "-o", str(trace)],
    )
    server.start()
    submitters = Submitters(server.url, at_once=5)
    time.sleep(2.5)
    assert server.process is not None
    (child,) = map(
        int,
        Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split(),
    )
    acknowledged = list(submitters.acknowledged)
    os.kill(child, signal.SIGKILL)
    server.process.wait(10)
    submitters.stop()
    file = server.folder / "redis" / "appendonlydir" / "appendonly.aof.1.incr.aof"
    synced = synced_bytes(trace.read_text(errors="replace"), file.name)
    assert 0 < synced <= file.stat().st_size
    with file.open("r+b") as cut:
        cut.truncate(synced)
    restart = Redis(folder, fsync)
    restart.start()
    lost = _missing(restart.url, acknowledged)
    restart.kill()
    return lost, len(acknowledged)


def synced_bytes(trace: str, name: str) -> int:
    """How many bytes of a file were synced for certain, by what strace noted.

    Written before a sync began that ended well.
    """
    written, synced = 0, 0
    writing: set[str] = set()
    syncing: dict[str, int] = {}
    for line in trace.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        pid, call, rest = found["pid"], found["call"], found["rest"]
        resumed, unfinished = " resumed>" in rest, "<unfinished" in rest
        answer = re.search(r"= (\d+)$", rest)
        if "sync" in call:
            if not resumed and f"{name}>" in rest:
                syncing[pid] = written
            if not unfinished and answer and pid in syncing:
                synced = max(synced, syncing.pop(pid))
        else:
            if not resumed and f"{name}>" in rest:
                writing.add(pid)
            if not unfinished and pid in writing:
                writing.discard(pid)
                written += int(answer[1]) if answer else 0
    return synced
