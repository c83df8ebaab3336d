"""Seats: a slow API or receiver starves nothing else."""

from __future__ import annotations

import pytest

from worker.seats import OTHERS, Seats, shared_out


def test_who_finds_no_seat_does_not_wait_and_a_seat_comes_back() -> None:
    seats = Seats(1)
    with seats.taken() as first, seats.taken() as second:
        assert (first, second) == (True, False)
    with seats.taken() as again:
        assert again


@pytest.mark.parametrize("concurrency", [5, 6, 8, 16, 64])
def test_threads_are_always_left_for_the_others(concurrency: int) -> None:
    asking, delivering = shared_out(concurrency)
    assert asking.number >= 1
    assert delivering.number >= 1
    assert asking.number + delivering.number + OTHERS == concurrency
