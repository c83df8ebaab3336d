"""The circuit of an endpoint.

It grows, halves, opens after failures in a row, and lets a single probe through.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.policy.circuit import (
    FIRST_ALLOWANCE,
    FIRST_WAIT,
    LONGEST_WAIT,
    NOTED_FOR,
    SLOW,
    TRIP,
    Circuit,
    afresh,
    failed,
    failing_for,
    worked,
)

MOST = 50
T = 1_700_000_000.0


def fails(
    circuit: Circuit,
    times: int,
    now: float = T,
    *,
    sent_at: float | None = None,
    chance: float = 0.0,
) -> Circuit:
    """So many failures, each of a call that was sent after the one before, unless `sent_at` says
    otherwise.
    """
    for n in range(times):
        circuit = failed(circuit, now + n if sent_at is None else sent_at, now + n, chance)
    return circuit


#: What may befall an endpoint: seconds since the last event, a success (of so many calls) or a
#: failure, how long it took, a rest.
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 1000),
        st.integers(0, 20),
        st.floats(0, 30),
        st.none() | st.floats(0, 1e5),
        st.floats(0, 1, exclude_max=True),
    ),
    max_size=60,
)


@given(EVENTS, st.integers(1, 200))
def test_the_room_lies_within_one_and_most_whenever_the_circuit_does_not_rest(
    events: list[tuple[float, int, float, float | None, float]], most: int
) -> None:
    circuit, now = Circuit(), T
    for passed, calls, seconds, rest, chance in events:
        now += passed
        before = circuit
        if calls:
            circuit = worked(circuit, calls, seconds, now, most)
            assert circuit.failures == circuit.trips == 0
            assert circuit.open_until == 0
            assert circuit.allowance == min(before.allowance + calls, most)
        else:
            circuit = failed(circuit, now - seconds, now, chance, rest)
            assert circuit.failures == before.failures + 1
            assert before.trips <= circuit.trips <= before.trips + 1
            assert circuit.allowance in (before.allowance, max(before.allowance / 2, 1.0))
            assert circuit.open_until >= max(
                before.open_until, now + rest if rest is not None else 0
            )
        assert circuit.allowance >= 1
        rests = now < circuit.open_until
        assert circuit.room(now, most) == 0 if rests else 1 <= circuit.room(now, most) <= most
        assert circuit.room(max(now, circuit.open_until), most) >= 1
        assert (circuit.trips > 0) == (circuit.failures >= TRIP)
        assert Circuit.from_json(circuit.to_json()) == circuit


def test_the_allowance_grows_with_each_success_and_halves_with_each_failure() -> None:
    circuit = Circuit()
    assert circuit.room(T, MOST) == FIRST_ALLOWANCE
    circuit = worked(circuit, 7, 0.1, T, MOST)
    assert circuit.room(T, MOST) == FIRST_ALLOWANCE + 7
    circuit = worked(circuit, 1000, 0.1, T, MOST)
    assert circuit.room(T, MOST) == MOST
    assert [fails(circuit, n).allowance for n in range(5)] == [50.0, 25.0, 12.5, 6.25, 3.125]
    assert fails(circuit, 30).allowance == 1.0


def test_a_ceiling_that_was_lowered_holds_at_once() -> None:
    circuit = worked(Circuit(), 90, 0.1, T, 100)
    assert circuit.room(T, 3) == 3
    assert worked(circuit, 1, 0.1, T, 3).allowance == 3


def test_it_opens_only_after_so_many_failures_in_a_row() -> None:
    circuit = fails(worked(Circuit(), 1, 0.1, T, MOST), TRIP - 1)
    assert (circuit.state, circuit.trips) == ("closed", 0)
    assert circuit.room(T + TRIP, MOST) >= 1
    saved = fails(worked(circuit, 1, 0.1, T + 10, MOST), TRIP - 1, T + 20)
    assert (saved.state, saved.room(T + 30, MOST) >= 1) == ("closed", True)
    opened = failed(circuit, T + TRIP, T + TRIP, 0.0)
    assert (opened.state, opened.trips, opened.open_until) == ("open", 1, T + TRIP + FIRST_WAIT)
    assert opened.room(T + TRIP, MOST) == 0
    assert opened.room(T + TRIP + FIRST_WAIT - 0.001, MOST) == 0


def test_a_circuit_whose_wait_is_over_lets_one_probe_through_and_closes_with_its_success() -> None:
    circuit = fails(Circuit(allowance=40.0), TRIP, sent_at=T - 1)
    assert circuit.allowance == 20
    assert circuit.room(circuit.open_until, MOST) == 1
    well = worked(circuit, 1, 0.1, circuit.open_until + 1, MOST)
    assert (well.state, well.failures, well.trips, well.failing_since) == ("closed", 0, 0, 0.0)
    assert well.room(circuit.open_until + 1, MOST) == int(circuit.allowance + 1)


@given(st.floats(0, 1, exclude_max=True))
def test_each_probe_that_fails_doubles_the_wait_up_to_the_longest(chance: float) -> None:
    circuit, now, waits = fails(Circuit(), TRIP, chance=chance), T + TRIP - 1, []
    for _ in range(12):
        waits.append(circuit.open_until - now)
        now = circuit.open_until + 1
        circuit = failed(circuit, now - 1, now, chance)
    expected = [min(FIRST_WAIT * 2**n, LONGEST_WAIT) * (1 + 0.1 * chance) for n in range(12)]
    assert waits == pytest.approx(expected, abs=1e-3)
    assert max(waits) <= LONGEST_WAIT * 1.1


@pytest.mark.parametrize("in_flight", [TRIP, 10, 200])
def test_calls_in_flight_when_the_first_failed_halve_once_and_open_the_circuit_once(
    in_flight: int,
) -> None:
    circuit = Circuit(allowance=32.0)
    for n in range(in_flight):
        circuit = failed(circuit, T, T + 15 + n * 0.01, 0.0)
    assert (circuit.allowance, circuit.trips, circuit.failures) == (16.0, 1, in_flight)
    assert circuit.open_until == pytest.approx(T + 15 + (TRIP - 1) * 0.01 + FIRST_WAIT)


def test_calls_sent_between_the_first_failure_and_the_opening_open_it_no_second_time() -> None:
    circuit = failed(Circuit(), T, T + 1, 0.0)
    circuit = fails(circuit, TRIP - 1, T + 5, sent_at=T)
    assert circuit.trips == 1
    late = failed(circuit, T + 2, T + 11, 0.0)
    assert (late.trips, late.open_until, late.failures) == (1, circuit.open_until, TRIP + 1)
    probe = failed(circuit, circuit.open_until, circuit.open_until + 1, 0.0)
    assert probe.trips == 2


@pytest.mark.parametrize("rest", [1.0, 30.0, 3600.0])
def test_a_rest_that_was_asked_for_is_respected_to_its_end(rest: float) -> None:
    circuit = failed(Circuit(), T - 1, T, 0.0, rest)
    assert (circuit.state, circuit.trips) == ("open", 0)
    assert circuit.room(T + rest - 0.01, MOST) == 0
    assert circuit.room(T + rest, MOST) == FIRST_ALLOWANCE / 2
    shorter = failed(circuit, T, T + 0.5, 0.0, 0.1)
    assert shorter.open_until == T + max(rest, 0.6)


def test_of_a_rest_and_the_wait_of_the_circuit_the_longer_holds() -> None:
    circuit = fails(Circuit(), TRIP - 1)
    assert failed(circuit, T + 9, T + 9, 0.0, 100.0).open_until == T + 9 + 100
    assert failed(circuit, T + 9, T + 9, 0.0, 1.0).open_until == T + 9 + FIRST_WAIT


def test_only_an_endpoint_that_answers_well_and_soon_is_trusted() -> None:
    assert not Circuit().trusted
    well = worked(Circuit(), 1, 0.1, T, MOST)
    assert well.trusted
    assert not failed(well, T, T, 0.0).trusted
    assert not worked(Circuit(), 1, SLOW, T, MOST).trusted
    assert worked(Circuit(), 1, SLOW - 0.001, T, MOST).trusted
    assert worked(failed(well, T, T, 0.0), 1, 0.1, T + 1, MOST).trusted


def test_an_endpoint_that_is_begun_afresh_keeps_its_last_success_and_no_failure() -> None:
    well = worked(Circuit(), 1, 0.1, T, MOST)
    assert afresh(well) is well
    restart = afresh(fails(well, TRIP))
    assert (restart.state, restart.failures, restart.ok_at, restart.trusted) == (
        "closed",
        0,
        T,
        False,
    )
    assert worked(restart, 1, 0.1, T + 9, MOST).trusted


def test_one_slow_answer_is_smoothed_and_many_are_believed() -> None:
    circuit = worked(Circuit(), 1, 0.1, T, MOST)
    assert worked(circuit, 1, 2.0, T + 1, MOST).trusted
    for n in range(10):
        circuit = worked(circuit, 1, 10.0, T + n, MOST)
    assert not circuit.trusted
    assert 8 < circuit.seconds < 10


@given(st.integers(1, 100), st.floats(0, 0.9), st.floats(0, NOTED_FOR, exclude_max=True))
def test_when_nothing_is_to_be_noted_it_is_the_very_same_object(
    calls: int, seconds: float, passed: float
) -> None:
    circuit = Circuit(allowance=float(MOST), ok_at=T, seconds=0.1)
    at = T + passed
    if at - T < NOTED_FOR:
        assert worked(circuit, calls, seconds, at, MOST) is circuit


@pytest.mark.parametrize(
    "circuit",
    [
        Circuit(allowance=49.0, ok_at=T),
        Circuit(allowance=50.0, ok_at=T - NOTED_FOR),
        Circuit(allowance=50.0),
        Circuit(allowance=50.0, ok_at=T, failures=1),
        Circuit(allowance=50.0, ok_at=T, open_until=T - 1),
        Circuit(allowance=50.0, ok_at=T, seconds=SLOW),
    ],
    ids=["may grow", "long ago", "never", "failed", "rested", "was slow"],
)
def test_whatever_has_changed_is_noted(circuit: Circuit) -> None:
    noted = worked(circuit, 1, 0.0, T, MOST)
    assert noted is not circuit
    assert (noted.allowance, noted.ok_at, noted.failures, noted.open_until) == (50.0, T, 0, 0.0)


def test_it_fails_since_the_first_failure_after_the_last_success() -> None:
    circuit = worked(Circuit(), 1, 0.1, T, MOST)
    assert failing_for(circuit, T + 1000) == 0
    circuit = fails(circuit, 9, T + 100)
    assert failing_for(circuit, T + 1100) == 1000
    assert failing_for(worked(circuit, 1, 0.1, T + 1200, MOST), T + 1300) == 0


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "5",
        "null",
        "[]",
        '["allowance"]',
        '"closed"',
        '{"allowance": "many"}',
        '{"allowance": null}',
        '{"allowance": NaN}',
        '{"open_until": Infinity}',
        '{"open_until": 1' + "0" * 400 + "}",
        '{"of": 1, "another": 2, "version": 3}',
        '{"failures": [1]}',
    ],
)
def test_what_nobody_can_read_is_a_new_circuit(text: str | None) -> None:
    assert Circuit.from_json(text) == Circuit()
    assert Circuit.from_json(text).room(T, MOST) == FIRST_ALLOWANCE


def test_what_an_older_version_wrote_is_read_with_defaults() -> None:
    assert Circuit.from_json('{"failures": 3}') == replace(Circuit(), failures=3)
    assert json.loads(Circuit().to_json())["allowance"] == FIRST_ALLOWANCE
