"""Beat with a real Redis as book and broker: what it sends, and when it is still."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from conftest import Server

from scheduler.beat import DELIVER, DISPATCH, EXPIRE, SWEEP
from scheduler.store import Book
from scheduler.store.fleet import GONE_AFTER, Member
from scheduler.submission import Wishes
from worker import logs, wiring
from worker.app import build
from worker.timetable import Timetable, Watch


def hear(book: Book, ago: float = 0.0) -> None:
    """A worker's heart has beaten so long ago."""
    book.fleet.beat(Member("worker@here:1", "worker", "1", book.fleet.now() - ago))


def add(book: Book) -> None:
    now = book.fleet.now()
    book.tasks.add(["a"], Wishes("nano-banana", "default", (), 1000.0, "", "", "", False), now, now)


@pytest.fixture
def beat(book: Book, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Timetable]:
    """Beat's scheduler as its process would load it."""
    monkeypatch.setenv("CAVENDISH_REDIS_URL", server.url)
    monkeypatch.setattr(wiring, "_hands", None)
    hand = wiring.hands()
    app = build(hand.settings)
    scheduler = Timetable(app=app)
    yield scheduler
    scheduler.connection.close()
    app.close()
    hand.client.close()
    hand.book.close()
    hand.loop.close(hand.upstream._client.aclose())


def run(beat: Timetable, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(beat.tick())


def sent(book: Book) -> Counter[str]:
    """How many messages lie in each queue."""
    redis = book.connection.redis
    return Counter({task: redis.llen(task) for task in (DISPATCH, DELIVER, EXPIRE, SWEEP) if redis.llen(task)})


def test_nothing_is_sent_while_no_worker_is_heard_of_so_no_messages_pile_up(book: Book, beat: Timetable) -> None:
    add(book)
    hear(book, ago=GONE_AFTER + 1)
    run(beat, 1.2)
    assert sent(book) == {}
    hear(book)
    run(beat, 2.0)
    assert sent(book)[DISPATCH] >= 3


def test_an_idle_stack_gets_no_ticks_and_the_first_comes_within_a_second_of_a_submit(book: Book, beat: Timetable) -> None:
    hear(book)
    run(beat, 1.0)
    assert sent(book) == {DELIVER: 1, SWEEP: 1}
    add(book)
    run(beat, 1.0)
    assert sent(book)[DISPATCH] >= 1
    book.connection.redis.delete("cavendish:{default/nano-banana/0}:deadlines")
    run(beat, 1.5)
    before = sent(book)[DISPATCH]
    run(beat, 1.0)
    assert sent(book)[DISPATCH] == before


def test_a_tick_comes_four_times_a_second_while_ids_are_pending_and_carries_no_time(book: Book, beat: Timetable) -> None:
    hear(book)
    add(book)
    run(beat, 3.0)
    assert 11 <= sent(book)[DISPATCH] <= 13
    message = json.loads(str(book.connection.redis.lindex(DISPATCH, 0)))
    assert (message["headers"]["expires"], message["headers"]["eta"]) == (None, None)


def test_a_wall_clock_that_is_set_back_does_not_stop_beat(book: Book, beat: Timetable, monkeypatch: pytest.MonkeyPatch) -> None:
    hear(book)
    add(book)
    run(beat, 1.0)
    before, behind = sent(book)[DISPATCH], time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: behind)
    run(beat, 1.0)
    assert sent(book)[DISPATCH] >= before + 3


def test_with_the_book_away_nothing_is_sent_and_it_is_said_once(own_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("console", "info")
    book = Book(own_server.url)
    hear(book)
    watch = Watch(book)
    assert watch.worth(SWEEP)
    own_server.kill()
    until = time.monotonic() + 4
    while time.monotonic() < until:
        watch.worth(DISPATCH)
        time.sleep(0.1)
    assert not watch.worth(SWEEP)
    own_server.start()
    hear(book)
    time.sleep(1.1)
    assert watch.worth(SWEEP)
    book.close()
    said = capsys.readouterr().err
    assert (said.count("beat.waits"), said.count("beat.goes_on")) == (1, 1)
