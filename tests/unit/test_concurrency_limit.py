"""Seats: a slow API starves nothing else."""

from __future__ import annotations

import threading

import pytest

from cavendish_worker.polling.concurrency_limit import OTHERS, ConcurrencyLimit


def test_who_finds_no_seat_does_not_wait_and_a_seat_comes_back() -> None:
    limit = ConcurrencyLimit(1)
    with limit.taken() as first, limit.taken() as second:
        assert (first, second) == (True, False)
    with limit.taken() as restart:
        assert restart


def test_a_seat_comes_back_from_whoever_fails_and_only_once() -> None:
    limit = ConcurrencyLimit(1)
    with pytest.raises(ZeroDivisionError), limit.taken():
        raise ZeroDivisionError
    with limit.taken() as first, limit.taken() as second:
        assert (first, second) == (True, False)


def test_who_found_no_seat_gives_none_back() -> None:
    limit = ConcurrencyLimit(2)
    with limit.taken(), limit.taken():
        for _ in range(3):
            with limit.taken() as more:
                assert not more
    with limit.taken() as one, limit.taken() as two, limit.taken() as three:
        assert (one, two, three) == (True, True, False)


def test_rivals_never_hold_more_limit_than_there_are() -> None:
    limit, lock, held, most = ConcurrencyLimit(3), threading.Lock(), 0, 0

    def rival() -> None:
        nonlocal held, most
        for _ in range(500):
            with limit.taken() as got:
                if got:
                    with lock:
                        held += 1
                        most = max(most, held)
                    with lock:
                        held -= 1

    rivals = [threading.Thread(target=rival) for _ in range(8)]
    for one in rivals:
        one.start()
    for one in rivals:
        one.join()
    assert 1 <= most <= 3
    assert held == 0
    with limit.taken() as one, limit.taken() as two, limit.taken() as three, limit.taken() as four:
        assert (one, two, three, four) == (True, True, True, False)


def test_threads_are_left_for_dispatch_submit_expire_sweep_and_two_rounds_of_deliveries() -> None:
    assert OTHERS >= 5
