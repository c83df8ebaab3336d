"""A flood of forged callbacks while the vendor's SDK waits: what it costs, and what it cannot do.

    python tests/bench/callbacks.py [--waits 300] [--rate 1000] [--only waits|rate] [--turns 4]

Two runs with the same API (6 calls/s, tasks of 15 s) and the same waits: in silence, and under a
flood at the true URL, from before the first wait to after the last. A third of what it names are
ids that wait, which it calls finished at once, a third those that have ended, a third nobody's.
One 429 at the end moves the rate of so short a run. So a third run submits ARRIVALS ids a second
without end, and the flood comes and goes in turns of TURN seconds; the rate is read each second.

Printed: callbacks a second that were answered; waits that ended; wrong verdicts (another state than
the API's record says, or settled before the finish); how late the settles were; polls per id (the
mean, the most); calls; the share of 429s; the rate that was learned. Of the third run: the mean of
the rate, the calls a second and the share of 429s, in silence and under the flood, and their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import httpx
from gateway import SERVICE, get, keys, stack, wait_for_all

from cavendish import Client, State
from cavendish.endpoints import encryption
from cavendish.store import Store
from cavendish_worker.service.callback_urls import CallbackUrls

API = ["--rate", "6", "--median", "15"]
#: Connections of the flood, and seconds of it before the first wait and after the last.
CONNECTIONS, AROUND = 16, 3.0
#: Of the third run: ids submitted a second, seconds of a turn, and of the time before the first.
ARRIVALS, TURN, WARM_UP = 20, 40.0, 60.0


class Flood:
    """Posts forged callbacks at a URL, so many a second, until it is stopped."""

    def __init__(self, url: str, ids: Sequence[str], rate: float) -> None:
        self._where, self._ids, self._rate = urlsplit(url), ids, rate
        self.answers: dict[str, int] = {}
        self._began, self._sent, self._stopped = time.monotonic(), 0, False

    async def run(self) -> None:
        await asyncio.gather(*(self._connection(n) for n in range(CONNECTIONS)))

    def stop(self) -> float:
        """Stop it; the callbacks a second that were answered."""
        self._stopped = True
        return self._sent / (time.monotonic() - self._began)

    async def _connection(self, number: int) -> None:
        chance = random.Random(number)
        reader, writer = await asyncio.open_connection(self._where.hostname, self._where.port)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not self._stopped:
                early = self._sent / self._rate - (time.monotonic() - self._began)
                if early > 0:
                    await asyncio.sleep(early)
                self._sent += 1
                known = chance.random() < 2 / 3
                task_id = chance.choice(self._ids) if known else str(uuid.uuid4())
                body = json.dumps({"success": True, "task_id": task_id, "data": []}).encode()
                writer.write(
                    f"POST {self._where.path} HTTP/1.1\r\nhost: a\r\n"
                    f"content-length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                head = await reader.readuntil(b"\r\n\r\n")
                status = head[9:12].decode()
                self.answers[status] = self.answers.get(status, 0) + 1
        writer.close()


async def waits(facts: dict[str, Any], ids: list[str], flood: Flood | None) -> tuple[Any, float]:
    """All waits, under the flood; what was seen, and the rate of the flood."""
    tokens = keys(facts["store"], -(-len(ids) // 50))
    flooding = asyncio.create_task(flood.run()) if flood else None
    await asyncio.sleep(AROUND)
    seen = await wait_for_all(facts["http"], tokens, ids, len(ids))
    await asyncio.sleep(AROUND)
    rate = flood.stop() if flood else 0.0
    if flooding:
        await flooding
    return seen, rate


class Arrivals(threading.Thread):
    """Makes tasks at the API and submits their ids, so many a second, until it is stopped."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._facts, self.ids, self._over = facts, deque[str](maxlen=60 * ARRIVALS), Event()

    def run(self) -> None:
        with Client(self._facts["store"]) as client:
            while not self._over.wait(1.0):
                wanted = {"count": ARRIVALS}
                made = httpx.post(
                    f"{self._facts['api']}/emulator/tasks", json=wanted, trust_env=False
                )
                client.submit(made.json()["ids"], service=SERVICE)
                self.ids.extend(made.json()["ids"])

    def stop(self) -> None:
        self._over.set()
        self.join()


async def turn(facts: dict[str, Any], store: Store, flood: Flood | None) -> dict[str, float]:
    """The mean of the learned rate, the calls a second and the share of 429s, for one turn."""
    flooding = asyncio.create_task(flood.run()) if flood else None
    before, rates = get(f"{facts['api']}/emulator/tally").json(), list[float]()
    while len(rates) < TURN:
        await asyncio.sleep(1.0)
        limit = await asyncio.to_thread(lambda: store.statistics().rate_limits["default"])
        rates.append(limit.rate_at(time.time()))
    after = get(f"{facts['api']}/emulator/tally").json()
    answered = flood.stop() if flood else 0.0
    if flooding:
        await flooding
    calls = after["calls"] - before["calls"]
    refused = after["answers"].get("429", 0) - before["answers"].get("429", 0)
    seen = {"rate": statistics.mean(rates), "calls/s": calls / TURN, "429": refused / calls}
    return seen | {"callbacks/s": answered}


def steady(rate: float, turns: int) -> None:
    """The third run; prints a row for silence, one for the flood, and the ratio of their rates."""
    key = encryption.new_key()
    with stack(*API, CAVENDISH_SECRET_KEY=key) as facts:
        store, arrivals = Store(facts["store"]), Arrivals(facts)
        url = CallbackUrls(facts["http"], (key,)).url("default", SERVICE)
        arrivals.start()
        time.sleep(WARM_UP)
        seen: dict[str, list[dict[str, float]]] = {"silence": [], "flood": []}
        for _ in range(turns):
            for name, several in seen.items():
                flood = Flood(url, arrivals.ids, rate) if name == "flood" else None
                several.append(asyncio.run(turn(facts, store, flood)))
        arrivals.stop()
        store.close()
    means = {name: _means(several) for name, several in seen.items()}
    for name, said in means.items():
        print(json.dumps({"steady": name} | said), flush=True)
    ratio = means["flood"]["rate"] / means["silence"]["rate"]
    print(json.dumps({"rate, flood / silence": round(ratio, 3)}), flush=True)


def _means(several: list[dict[str, float]]) -> dict[str, float]:
    return {each: round(statistics.mean(one[each] for one in several), 3) for each in several[0]}


def row(name: str, rate: float, count: int) -> None:
    """One run; prints its row."""
    key = encryption.new_key()
    with stack(*API, CAVENDISH_SECRET_KEY=key) as facts:
        told = {"count": count}
        made = httpx.post(f"{facts['api']}/emulator/tasks", json=told, trust_env=False)
        ids: list[str] = made.json()["ids"]
        url = CallbackUrls(facts["http"], (key,)).url("default", SERVICE)
        flood = Flood(url, ids, rate) if rate else None
        seen, flooded = asyncio.run(waits(facts, ids, flood))
        store, now = Store(facts["store"]), time.time()
        limit = store.statistics().rate_limits["default"]
        store.close()
        with Client(facts["store"]) as client:
            tasks = list(client.get_many(ids, service=SERVICE).values())
        tally = get(f"{facts['api']}/emulator/tally").json()
    late = [(one.settled_at or 0) - (one.finished_at or 0) for one in tasks]
    wrong = [one.id for one in tasks if one.state is not right(one.record)]
    wrong += [one.id for one in tasks if (one.settled_at or 0) < (one.finished_at or 0) - 0.1]
    said = {"run": name, "callbacks/s": round(flooded), "answers": flood and flood.answers}
    said |= {"ended": len(seen.returned), "lost": seen.lost, "wrong": len(wrong)}
    said |= {"settled after": round(statistics.mean(late), 2)}
    said |= {"polls per id": round(statistics.mean(one.polls for one in tasks), 2)}
    said |= {"most polls": max(one.polls for one in tasks), "calls": tally["calls"]}
    said |= {"429": round(tally["answers"].get("429", 0) / tally["calls"], 3)}
    ceiling = limit.ceiling
    said |= {"rate": round(limit.rate_at(now), 2), "ceiling": ceiling and round(ceiling, 2)}
    print(json.dumps(said), flush=True)


def right(record: Any) -> State:
    return State.SUCCEEDED if record["response"]["success"] else State.FAILED


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--waits", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--only", choices=["waits", "rate"], help="one kind of run")
    parser.add_argument("--turns", type=int, default=4, help="pairs of turns of the third run")
    options = parser.parse_args()
    if options.only in (None, "waits"):
        row("silence", 0, options.waits)
        row("flood", options.rate, options.waits)
    if options.only in (None, "rate"):
        steady(options.rate, options.turns)


if __name__ == "__main__":
    main()
