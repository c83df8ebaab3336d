"""Callbacks that have proved reliable: announced ids share a call, all others are polled later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from cavendish.clock import Clock
from cavendish.model import Candidate, Lane
from cavendish.policy.callbacks import GATHERING, Callbacks
from cavendish.policy.next_poll import TOLERATED
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.verdicts import AbsencePolicy
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish.store.keys import LaneKeys
from cavendish.submission import SubmitOptions
from cavendish_worker.devstack.emulator.tasks_api import transport
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.dispatch_round import Claimed, Dispatched, RoundConfig, Rounds
from cavendish_worker.polling.retrieve import RetrieveConfig, Retriever
from cavendish_worker.polling.upstream import CallLimits, Upstream

SERVICE, LANE = "nano-banana", Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
#: Callbacks that have announced all of many ends, and come ten a second.
RELIABLE = {"heard": 200.0, "rate": 10.0}
SIZE = 5


def add(store: Store, *ids: str, ago: float = 0.0, producer: str = "") -> float:
    """Ids that were submitted so long ago, to be polled in an hour; returns now."""
    now = store.fleet.now()
    options = SubmitOptions(SERVICE, "default", (), 9999.0, "", "", producer, False)
    store.tasks.add(ids, options, now - ago, now + 3600)
    return now


def know(store: Store, **callbacks: float) -> None:
    known = Callbacks(at=store.fleet.now(), **callbacks)
    store.shared_state.change_callbacks(LANE, lambda _: known)


def announce(store: Store, *ids: str, at: float) -> None:
    assert store.announcements.announce("default", SERVICE, ids, at) == set()


class Round:
    """Rounds of a dispatcher at moments that the test decides."""

    def __init__(self, store: Store) -> None:
        self.batches: list[list[str]] = []
        store.shared_state.change_rate_limit("default", lambda _: (RateLimit(rate=100.0), None))
        self.rounds = Rounds(store, Forecasts(store.shared_state), RoundConfig(SIZE, 60.0, 0.0))

    def at(self, now: float) -> float:
        return self.rounds.run("default", now, self._sent, Dispatched())

    def _sent(self, batches: Sequence[Claimed]) -> None:
        self.batches += [sorted(one.ids) for one in batches]


def test_announced_ids_wait_a_moment_for_others_where_callbacks_come_fast(store: Store) -> None:
    now = add(store, "a", "b", "c", ago=10.0)
    know(store, **RELIABLE)
    announce(store, "a", at=now)
    announce(store, "b", at=now + 0.5)
    rounds = Round(store)
    for later in (0.6, 1.2, GATHERING - 0.01):
        assert rounds.at(now + later) <= GATHERING - later + 0.01
        assert rounds.batches == []
    rounds.at(now + GATHERING + 0.01)
    assert rounds.batches == [["a", "b", "c"]]  # the place that is left costs nothing


def test_a_batch_that_is_full_waits_for_no_more(store: Store) -> None:
    ids = [f"id-{number}" for number in range(SIZE)]
    now = add(store, *ids, "other", ago=10.0)
    know(store, **RELIABLE)
    announce(store, *ids, at=now)
    rounds = Round(store)
    rounds.at(now + 0.01)
    assert rounds.batches == [ids]


def test_an_announced_id_is_polled_at_once_where_callbacks_come_one_by_one(store: Store) -> None:
    now = add(store, "a", "b", ago=10.0)
    know(store, heard=200.0, rate=0.1)
    announce(store, "a", at=now)
    rounds = Round(store)
    rounds.at(now + 0.1)
    assert rounds.batches == [["a", "b"]]


def test_announced_ids_go_before_many_that_are_due(store: Store) -> None:
    """They would wait for longer than without a callback if they came last."""
    ids = [f"id-{number}" for number in range(3 * SIZE)]
    now = add(store, *ids, "a", ago=10.0)
    store.connection.redis.zadd(KEYS.due(""), dict.fromkeys(ids, now - 5))
    announce(store, "a", at=now)
    rounds = Round(store)
    rounds.at(now + 0.1)
    assert "a" in rounds.batches[0]


def test_callbacks_that_were_mostly_forged_are_worth_no_call(store: Store) -> None:
    now = add(store, "a", ago=10.0)
    know(store, wrong=500.0)
    announce(store, "a", at=now)
    rounds = Round(store)
    rounds.at(now + 0.1)
    assert rounds.batches == []


def retrieve(store: Store, loop: LoopThread, now: float, *records: dict[str, Any]) -> None:
    """Claim what is due and ask about it; the API answers with these records."""

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"items": list(records), "count": len(records)})

    limits = CallLimits(5, 5, 2**20)
    upstream = Upstream(transport(answer), "https://a.example", {"default": "token"}, limits)
    config = RetrieveConfig(60.0, 5.0, 0.0, AbsencePolicy(10.0, 3, 60.0), 3600.0, 100)
    clock = Clock(now)
    chosen = store.tasks.candidates(LANE, now, 50)
    ids = store.tasks.claim(LANE, now + 60, "t1", [one for one in chosen if one.due <= now])
    retriever = Retriever(store, Forecasts(store.shared_state), upstream, loop, config)
    retriever.retrieve(clock, LANE, ids, "t1", now + 60)


def finished(task_id: str, now: float, ago: float) -> dict[str, Any]:
    stamps = {"created_at": now - 10, "finished_at": now - ago}
    return {"id": task_id, "response": {"success": True, "data": [{"a": 1}]}} | stamps


def test_ends_that_a_poll_confirms_prove_callbacks_and_late_ones_without_disprove_them(
    store: Store, loop: LoopThread
) -> None:
    now = add(store, "told", "late", "soon", ago=10.0)
    announce(store, "told", at=now)
    store.connection.redis.zadd(KEYS.due(""), {"late": now, "soon": now})
    records = finished("told", now, 3), finished("late", now, 3), finished("soon", now, 0.2)
    retrieve(store, loop, now + 0.1, *records)
    known = store.shared_state.callbacks(LANE)
    assert (known.heard, known.missed, known.wrong) == (1, 1, 0)


def test_a_callback_about_an_id_that_runs_proves_nothing_and_the_id_is_polled_as_without(
    store: Store, loop: LoopThread
) -> None:
    """Its one callback has come, so no other will."""
    now = add(store, "early", "quiet", ago=10.0)
    know(store, heard=200.0)
    announce(store, "early", at=now)
    store.connection.redis.zadd(KEYS.due(""), {"quiet": now})
    retrieve(store, loop, now + 0.1, {"id": "early"}, {"id": "quiet"})
    known = store.shared_state.callbacks(LANE)
    assert (known.missed, known.wrong) == (0, 1)
    early, quiet = store.connection.redis.zmscore(KEYS.due(""), ["early", "quiet"])
    assert early - now < (quiet - now) / 3


def test_an_id_that_had_its_callback_is_weighed_as_if_there_were_none(store: Store) -> None:
    """One that had none yet is worth a little until its poll is due, and then much more."""
    know(store, heard=200.0)
    forecasts, now = Forecasts(store.shared_state), store.fleet.now()
    waits = [
        forecasts.worth(LANE, [Candidate("a", "", due, now - 60, 9e9, now - 30, "", at)], now)
        for due, at in ((now + 1, now - 40), (now + 1, None), (now - 1, None))
    ]
    silent, alive = Callbacks(heard=200.0).silent, math.exp(-30 / 30)
    wait = 30 - 30 * (1 - alive)
    expected = wait, wait * silent, wait * silent / (silent + (1 - silent) * alive)
    assert waits == pytest.approx([each - TOLERATED for each in expected])


def test_what_the_gateway_adopts_is_polled_at_once_and_is_no_callback(
    store: Store, loop: LoopThread
) -> None:
    now = add(store, "adopted")
    announce(store, "adopted", at=now + 0.1)
    retrieve(store, loop, now + 0.2, {"id": "adopted"})
    assert store.shared_state.callbacks(LANE) == Callbacks()
