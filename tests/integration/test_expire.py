"""The net under every deadline, with a real Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.store import Book
from scheduler.store.keys import LaneKeys
from scheduler.submission import Wishes
from scheduler.tracking import Lane, State
from worker.expire import Knobs, expire_lane, expire_overdue

LANE = Lane("default", "nano-banana")
KNOBS = Knobs(last_look=60.0, retention=3600.0, events_kept=100)


def late(book: Book, seconds: float, count: int = 3) -> None:
    """Ids whose deadline passed so long ago, each with a webhook."""
    now = book.fleet.now()
    wishes = Wishes("nano-banana", "default", ("https://example.com/hook",), 10.0, "", "", "", again=False)
    book.tasks.add([f"id-{number}" for number in range(count)], wishes, now - 10 - seconds, now - seconds)


def hold(book: Book) -> None:
    until = book.fleet.now() + 600
    book.learned.change_pace("default", lambda pace: (replace(pace, hold_until=until, hold_reason="HTTP 403 used_up"), None))


def test_ids_that_cannot_be_asked_about_expire_after_the_time_for_a_last_look(book: Book) -> None:
    late(book, 61.0)
    hold(book)
    ended, debts = expire_overdue(book, LANE, book.clock(), KNOBS)
    assert (ended, len(debts)) == (3, 3)
    task = book.tasks.get("default", "nano-banana", ["id-0"])["id-0"]
    assert task.state is State.EXPIRED
    assert "HTTP 403 used_up" in task.reason


def test_before_that_time_they_wait(book: Book) -> None:
    late(book, 30.0)
    hold(book)
    assert expire_overdue(book, LANE, book.clock(), KNOBS) == (0, [])


def test_ids_that_can_be_asked_about_wait_for_their_last_look(book: Book) -> None:
    late(book, 120.0)
    assert expire_overdue(book, LANE, book.clock(), KNOBS) == (0, [])


@pytest.mark.parametrize("count", [3, 1200])
def test_nothing_waits_for_ever_and_all_end_in_one_run(book: Book, count: int) -> None:
    late(book, 601.0, count)
    assert expire_overdue(book, LANE, book.clock(), KNOBS)[0] == count


def test_a_lane_whose_keys_are_damaged_stops_nobody(book: Book) -> None:
    late(book, 601.0)
    book.connection.redis.delete(LaneKeys(LANE).deadlines)
    book.connection.redis.set(LaneKeys(LANE).deadlines, "?")
    assert expire_lane(book, LANE, book.clock(), KNOBS) == (0, [])
