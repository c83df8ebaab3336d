"""Seats: a slow API starves nothing else."""

from __future__ import annotations

import threading

import pytest

from worker.seats import OTHERS, Seats


def test_who_finds_no_seat_does_not_wait_and_a_seat_comes_back() -> None:
    seats = Seats(1)
    with seats.taken() as first, seats.taken() as second:
        assert (first, second) == (True, False)
    with seats.taken() as again:
        assert again


def test_a_seat_comes_back_from_whoever_fails_and_only_once() -> None:
    seats = Seats(1)
    with pytest.raises(ZeroDivisionError), seats.taken():
        raise ZeroDivisionError
    with seats.taken() as first, seats.taken() as second:
        assert (first, second) == (True, False)


def test_who_found_no_seat_gives_none_back() -> None:
    seats = Seats(2)
    with seats.taken(), seats.taken():
        for _ in range(3):
            with seats.taken() as more:
                assert not more
    with seats.taken() as one, seats.taken() as two, seats.taken() as three:
        assert (one, two, three) == (True, True, False)


def test_rivals_never_hold_more_seats_than_there_are() -> None:
    seats, lock, held, most = Seats(3), threading.Lock(), 0, 0

    def rival() -> None:
        nonlocal held, most
        for _ in range(500):
            with seats.taken() as got:
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
    with seats.taken() as one, seats.taken() as two, seats.taken() as three, seats.taken() as four:
        assert (one, two, three, four) == (True, True, True, False)


def test_threads_are_left_for_dispatch_submit_expire_sweep_and_two_rounds_of_deliveries() -> None:
    assert OTHERS >= 5
