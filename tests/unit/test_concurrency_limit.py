"""The concurrency limit: a slow API does not starve the other work."""

from __future__ import annotations

import threading

import pytest

from cavendish_worker.polling.concurrency_limit import OTHERS, ConcurrencyLimit


def test_whoever_reaches_the_limit_does_not_wait_and_a_thread_comes_back() -> None:
    limit = ConcurrencyLimit(1)
    with limit.acquired() as first, limit.acquired() as second:
        assert (first, second) == (True, False)
    with limit.acquired() as free:
        assert free


def test_a_thread_comes_back_from_whoever_fails_and_only_once() -> None:
    limit = ConcurrencyLimit(1)
    with pytest.raises(ZeroDivisionError), limit.acquired():
        raise ZeroDivisionError
    with limit.acquired() as first, limit.acquired() as second:
        assert (first, second) == (True, False)


def test_whoever_reached_the_limit_gives_nothing_back() -> None:
    limit = ConcurrencyLimit(2)
    with limit.acquired(), limit.acquired():
        for _ in range(3):
            with limit.acquired() as more:
                assert not more
    with limit.acquired() as one, limit.acquired() as two, limit.acquired() as three:
        assert (one, two, three) == (True, True, False)


def test_rivals_never_hold_more_than_the_limit() -> None:
    limit, lock, held, most = ConcurrencyLimit(3), threading.Lock(), 0, 0

    def rival() -> None:
        nonlocal held, most
        for _ in range(500):
            with limit.acquired() as got:
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
    with (
        limit.acquired() as one,
        limit.acquired() as two,
        limit.acquired() as three,
        limit.acquired() as four,
    ):
        assert (one, two, three, four) == (True, True, True, False)


def test_threads_are_left_for_dispatch_submit_expire_reconcile_and_two_delivery_loops() -> None:
    assert OTHERS >= 5
