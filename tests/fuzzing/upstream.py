"""Answers of the remote API, over real sockets, through `ask` and `classify` to a verdict.

An id has ended exactly if its record in a whole answer says so; every id of a batch is accounted
for, and a sound answer must be understood.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

from cavendish.model import Lane, State, TrackedTask
from cavendish.policy.verdicts import AbsencePolicy
from cavendish.store import Store
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.polling.ask import Asker
from cavendish_worker.polling.classify import Classified, classify_batch, confirm_absent
from cavendish_worker.polling.upstream import CallLimits, Upstream
from cavendish_worker.telemetry.tracing import Polls
from fuzzing import contract, wire
from fuzzing.reading import bears_out
from fuzzing.server import Case, Server
from fuzzing.tally import Tally

#: Askers at once; seconds for a call, and for one that must succeed; bytes of an answer.
AT_ONCE, SOON, PATIENT, LIMIT = 8, 0.6, 20.0, 2**20
_POLICY = AbsencePolicy(0.0, 3, 60.0)


def run(seed: int, count: int, store: Store) -> Tally:
    """So many answers to calls, about three ids each or about one."""
    tally, loop, server = Tally("answers of the API", seed), LoopThread(), Server()
    loop.run(server.open(), timeout=5)
    loop.run(_watch(tally), timeout=5)
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(count):
        numbers.put(number)
    askers = [_Asking(tally, store, loop, server, f"fuzz{n}") for n in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(one.some, numbers) for one in askers]:
            done.result()
    for one in askers:
        loop.run(one.transport.aclose(), timeout=5)
    loop.run(server.close(), timeout=5)
    loop.close()
    if server.strangers:
        tally.mistake(f"{server.strangers} requests that nobody sent")
    return tally.end()


async def _watch(tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, said: tally.traceback(f"event loop: {said}"))


def drawn(seed: int, number: int) -> tuple[contract.Body, wire.Said, bool]:
    """The body and the answer of one case, and whether it is about one id alone."""
    chance = Random(f"api {seed} {number}")
    single = chance.random() < 0.25
    body = contract.alone(chance, ids_of(number)[0]) if single else None
    body = body or contract.batch(chance, ids_of(number))
    return body, wire.answer(chance, body.status, body.data), single


def ids_of(number: int) -> list[str]:
    return [f"c{number}-{place}" for place in range(3)]


class _Asking:
    """One thread of a worker, with an account and a lane of its own."""

    def __init__(
        self, tally: Tally, store: Store, loop: LoopThread, server: Server, account: str
    ) -> None:
        self.tally, self.store, self.loop, self.server = tally, store, loop, server
        self.lane = Lane(account, "nano-banana")
        self.transport = PooledTransport()
        self.clock = store.clock()

    def some(self, numbers: queue.SimpleQueue[int]) -> None:
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                return
            body, said, single = drawn(self.tally.seed, number)
            case = self.server.begin(number, said)
            found = self.ask(number, SOON, single=single)
            self.tally.made += 1
            if found is not None:
                self.judge(number, body, case, found, single=single)
            del self.server.cases[number]

    def ask(self, number: int, seconds: float, *, single: bool) -> Classified | None:
        """What is found out about the ids; None if it raised or never ended, which is counted."""
        upstream = Upstream(
            self.transport,
            f"http://127.0.0.1:{self.server.port}",
            {self.lane.account: "token"},
            CallLimits(seconds, seconds, LIMIT),
        )
        unpaused = {"rate": 1000.0, "paused_until": 0.0}
        self.store.shared_state.change_rate_limit(
            self.lane.account,
            lambda known: (replace(known, **unpaused), None),  # type: ignore[arg-type]
        )
        now = self.clock.now()
        parts = (self.store, upstream, self.loop, self.clock, self.lane, Polls())
        asker = Asker(*parts, 0.0, seconds, now + seconds)
        try:
            if single:
                task = TrackedTask(ids_of(number)[0], *self.lane_names, now - 100, now + 100)
                return confirm_absent(asker, [task], _POLICY, at_most=1)
            return classify_batch(asker.ask_batch(ids_of(number)), now)
        except TimeoutError:
            self.tally.death(f"case {number} never ended")
        except Exception as error:  # whatever it is, it would reach a log
            self.tally.traceback(f"case {number}: {error!r}")
        return None

    @property
    def lane_names(self) -> tuple[str, str, State]:
        return self.lane.service, self.lane.account, State.PENDING

    def judge(
        self, number: int, body: contract.Body, case: Case, found: Classified, *, single: bool
    ) -> None:
        ids = ids_of(number)[: 1 if single else 3]
        where = f"case {number}"
        seen = [*found.readings, *found.missing, *found.put_back]
        if sorted(seen) != sorted(ids):
            self.tally.mistake(f"{where}: of {ids} it accounts for {seen}")
        if case.received > found.asked.calls:
            self.tally.mistake(f"{where}: {case.received} requests for {found.asked.calls} calls")
        for task_id, (reading, _) in found.readings.items():
            if not reading.reason.isprintable() or not reading.notice.isprintable():
                self.tally.mistake(f"{where}: {reading}")
            if reading.verdict in ("succeeded", "failed") and not (
                case.received
                and bears_out(case.said.data, task_id, str(reading.verdict), alone=single)
            ):
                self.tally.mistake(f"{where}: {task_id} {reading} by {case.said.data[:1500]!r}")
        if case.said.sound and body.sound:
            self.tally.good += 1
            self.must_be_understood(number, body, found, single=single)

    def must_be_understood(
        self, number: int, body: contract.Body, found: Classified | None, *, single: bool
    ) -> None:
        """Once more on a connection of its own, if an earlier answer spoilt the first one."""
        if found is not None and _differing(body, found, ids_of(number)):
            self.loop.run(self.transport.aclose(), timeout=5)
            self.transport = PooledTransport()
            found = self.ask(number, PATIENT, single=single)
        if found is None or (wrong := _differing(body, found, ids_of(number))):
            said = body.data[:1500]
            self.tally.mistake(f"case {number}: {wrong or found} for the sound {said!r}")


def _differing(body: contract.Body, found: Classified, ids: Sequence[str]) -> list[str]:
    """The ids whose verdicts are not the truth, with what they are."""
    wrong = []
    for task_id in ids:
        truth = body.truth.get(task_id, "")
        reading = found.readings.get(task_id)
        verdict = str(reading[0].verdict) if reading else ""
        if task_id in found.missing:
            verdict = "absent"
        if truth and verdict != truth:
            wrong.append(f"{task_id} is {verdict or 'put back'}, not {truth}")
    return wrong
