"""Beat's tick with a real Redis: it asks the pace first, and claims only what may be asked."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import pytest

from scheduler.condition import failed
from scheduler.forecast import Forecasts
from scheduler.pace import Pace
from scheduler.store import Book
from scheduler.store.keys import LaneKeys
from scheduler.submission import Wishes
from scheduler.tracking import Lane
from worker import logs
from worker.dispatch import Desk, Drained, Knobs, drain

LANE = Lane("default", "nano-banana")
KNOBS = Knobs(tick=0.25, batch_size=50, lease=60.0, rate=0.0)


class Sent:
    """Where the batches of a test go."""

    def __init__(self) -> None:
        self.batches: list[tuple[Lane, list[str], str]] = []

    def __call__(self, lane: Lane, ids: list[str], token: str, _until: float) -> None:
        self.batches.append((lane, ids, token))

    @property
    def ids(self) -> list[str]:
        return [task_id for _, ids, _ in self.batches for task_id in ids]


def add(book: Book, count: int, lane: Lane = LANE) -> None:
    now = book.fleet.now()
    wishes = Wishes(lane.service, lane.account, (), 1000.0, "", "", "", False)
    book.tasks.add([f"{lane.service}-{number}" for number in range(count)], wishes, now - 10, now - 10)


def tick(book: Book, sent: Sent, knobs: Knobs = KNOBS) -> Drained | None:
    return drain(Desk(book, Forecasts(book.learned), knobs), ["default"], book.clock(), sent)


def full_tick(book: Book, sent: Sent, knobs: Knobs = KNOBS) -> Drained | None:
    """A tick that nobody else has taken."""
    book.connection.redis.delete("cavendish:tick")
    return tick(book, sent, knobs)


def allow(book: Book, rate: float) -> None:
    book.learned.change_pace("default", lambda _: (Pace(rate=rate), None))


def test_a_batch_is_filled_to_its_size_and_no_further(book: Book) -> None:
    add(book, 70)
    allow(book, 1000.0)
    sent = Sent()
    full_tick(book, sent)
    assert [len(ids) for _, ids, _ in sent.batches] == [50, 20]
    assert len(set(sent.ids)) == 70


def test_no_more_is_claimed_than_the_pace_allows(book: Book) -> None:
    add(book, 500)
    allow(book, 8.0)
    sent = Sent()
    for _ in range(4):
        full_tick(book, sent)
    assert 6 <= len(sent.batches) <= 10
    assert book.connection.redis.hlen(LaneKeys(LANE).leases) == len(sent.ids)


def test_a_configured_ceiling_caps_the_pace(book: Book) -> None:
    add(book, 500)
    allow(book, 1000.0)
    sent = Sent()
    for _ in range(4):
        full_tick(book, sent, replace(KNOBS, rate=4.0))
    assert 3 <= len(sent.batches) <= 5


def test_a_held_account_is_not_asked_and_nothing_is_claimed(book: Book) -> None:
    add(book, 10)
    book.learned.change_pace("default", lambda pace: (replace(pace, hold_until=book.fleet.now() + 60, hold_reason="x"), None))
    sent = Sent()
    full_tick(book, sent)
    assert sent.batches == []
    assert book.connection.redis.hlen(LaneKeys(LANE).leases) == 0


def test_a_service_out_of_order_does_not_stop_its_neighbours(book: Book) -> None:
    add(book, 10)
    add(book, 10, Lane("default", "flux"))
    allow(book, 1000.0)
    now = book.fleet.now()
    for _ in range(6):
        book.learned.change_condition(LANE, lambda known: (failed(known, "HTTP 500", now + 1, now, 0.0), None))
    sent = Sent()
    full_tick(book, sent)
    assert {lane.service for lane, _, _ in sent.batches} == {"flux"}


def test_an_account_without_a_token_is_left_alone(book: Book) -> None:
    add(book, 10, Lane("other", "nano-banana"))
    sent = Sent()
    full_tick(book, sent)
    assert sent.batches == []


def test_two_beats_at_once_are_harmless(book: Book) -> None:
    add(book, 300)
    allow(book, 40.0)
    sent, ran = Sent(), []

    def beat() -> None:
        for _ in range(12):
            ran.append(tick(book, sent))
            time.sleep(0.08)

    beats = [threading.Thread(target=beat) for _ in range(2)]
    for one in beats:
        one.start()
    for one in beats:
        one.join()
    assert ran.count(None) > 0
    assert len(sent.ids) == len(set(sent.ids)) == 300


def test_a_tick_ends_in_its_time_so_ticks_never_pile_up(book: Book) -> None:
    add(book, 5000)
    allow(book, 5.0)
    started = time.monotonic()
    full_tick(book, Sent())
    assert time.monotonic() - started < 0.25 + 0.2


def test_ids_whose_message_cannot_be_sent_are_due_again_at_once(book: Book) -> None:
    add(book, 10)
    allow(book, 1000.0)

    def broken(*_: object) -> None:
        raise OSError("the broker is away")

    with pytest.raises(OSError, match="broker"):
        full_tick(book, broken)  # type: ignore[arg-type]
    assert book.connection.redis.hlen(LaneKeys(LANE).leases) == 0
    sent = Sent()
    full_tick(book, sent)
    assert len(sent.ids) == 10


def test_a_lone_id_of_a_small_lane_gets_its_turn_beside_a_crowd(book: Book) -> None:
    add(book, 2000)
    add(book, 1, Lane("default", "flux"))
    allow(book, 8.0)
    sent, desk = Sent(), Desk(book, Forecasts(book.learned), KNOBS)
    for _ in range(4):
        book.connection.redis.delete("cavendish:tick")
        drain(desk, ["default"], book.clock(), sent)
    assert "flux" in {lane.service for lane, _, _ in sent.batches[:4]}


def test_a_lane_whose_keys_are_damaged_does_not_stop_the_others(book: Book) -> None:
    add(book, 10)
    add(book, 10, Lane("default", "flux"))
    allow(book, 1000.0)
    book.connection.redis.delete(LaneKeys(LANE).producers)
    book.connection.redis.set(LaneKeys(LANE).producers, "?")
    sent = Sent()
    full_tick(book, sent)
    assert {lane.service for lane, _, _ in sent.batches} == {"flux"}


def test_ids_of_an_account_without_a_token_are_told_of_once_a_minute(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", "warning")
    lane, sent = Lane("shpo", "nano-banana"), Sent()
    full_tick(book, sent)
    assert capsys.readouterr().err == ""  # nothing waits for it yet
    add(book, 1, lane)
    desk = Desk(book, Forecasts(book.learned), KNOBS)
    for _ in range(3):
        book.connection.redis.delete("cavendish:tick")
        drain(desk, ["default"], book.clock(), sent)
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["event"], line["account"]) == ("account.no_token", "shpo")
    assert "CAVENDISH_API_TOKENS_FILE" in line["advice"]
    assert not sent.ids
