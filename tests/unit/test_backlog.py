"""The backlog is counted when it matters, and never taken for shorter than this process made it."""

from __future__ import annotations

from cavendish_worker.polling.backlog import Backlog


class Broker:
    def __init__(self, waiting: int = 0) -> None:
        self.waiting, self.counted = waiting, 0

    def count(self) -> int:
        self.counted += 1
        return self.waiting


def test_while_there_is_room_it_is_counted_four_times_a_second() -> None:
    broker = Broker(waiting=1)
    backlog = Backlog(broker.count)
    assert [backlog.room(1, 6, n / 100) for n in range(100)] == [1] * 100
    assert broker.counted == 4


def test_what_was_sent_since_the_count_counts() -> None:
    broker = Broker(waiting=2)
    backlog = Backlog(broker.count)
    rooms = []
    for _ in range(5):
        rooms.append(backlog.room(1, 6, 0.1))
        backlog.sent()
        broker.waiting += 1
    assert rooms == [1, 1, 1, 1, 0]


def test_where_it_seems_full_it_is_counted_anew() -> None:
    broker = Broker()
    backlog = Backlog(broker.count)
    for _ in range(50):  # a worker begins with each at once
        assert backlog.room(4, 6, 0.1) == 4
        for _ in range(4):
            backlog.sent()
    assert broker.counted == 50


def test_whoever_may_send_any_number_lets_it_be_counted_once_half_of_the_room_is_gone() -> None:
    """Most rounds that may send sixteen batches send one."""
    broker = Broker()
    backlog = Backlog(broker.count)
    rooms = []
    for _ in range(8):
        rooms.append(backlog.room(16, 6, 0.1))
        backlog.sent()
    assert (rooms, broker.counted) == ([6, 5, 4, 3, 6, 5, 4, 3], 2)


def test_no_more_is_given_than_is_wanted_and_nothing_where_too_many_wait() -> None:
    assert Backlog(Broker(waiting=4).count).room(16, 6, 1.0) == 2
    assert Backlog(Broker(waiting=9).count).room(16, 6, 1.0) == 0
