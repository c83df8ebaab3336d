"""When a token counts as blind, and what an absence proves then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cavendish.model import State, TrackedTask
from cavendish.policy.verdicts import ABSENT, AbsencePolicy, Reading, Verdict, decide
from cavendish.policy.visibility import (
    ALARMING,
    ENOUGH,
    LONGEST_WAIT,
    NOTED_EVERY,
    REPORTED_FOR,
    Visibility,
    missed,
    saw,
    used,
)

NEW = used(Visibility(), "t1", 1000.0)
SEEING = saw(NEW, 1000.0)
TASK = TrackedTask("a", "nano-banana", "default", State.PENDING, 0.0, 5000.0)
POLICY = AbsencePolicy(10.0, 3, 60.0)


def test_a_token_is_blind_until_an_id_is_known_under_it() -> None:
    assert NEW.blind
    assert not SEEING.blind
    assert not missed(SEEING, ENOUGH - 1, 1001.0).blind


def test_a_token_is_blind_again_after_enough_absent_ids_without_a_known_one() -> None:
    blind = missed(missed(SEEING, 12, 1001.0), 8, 1002.0)
    assert (blind.blind, blind.blind_since) == (True, 1002.0)
    assert blind.reason == ("the API answers, but knows none of the last 20 ids under this token")
    assert not missed(saw(missed(SEEING, 12, 1001.0), 1001.5), 8, 1002.0).blind


def test_the_first_known_id_ends_it_at_once() -> None:
    seeing = saw(missed(NEW, 60, 1001.0), 1002.0)
    assert not seeing.blind
    assert (seeing.absent, seeing.counts_from) == (0, 1002.0)


def test_another_token_has_seen_nothing_yet() -> None:
    assert used(SEEING, "t1", 2000.0) == SEEING
    assert used(SEEING, "t2", 2000.0) == Visibility("t2", counts_from=2000.0)


def test_a_known_id_changes_nothing_where_ids_are_known() -> None:
    assert saw(SEEING, 1500.0) == SEEING


def test_an_absent_id_that_was_counted_changes_nothing_but_once_a_minute_when_that_was() -> None:
    first = missed(NEW, 1, 1001.0)
    assert missed(first, 0, 1001.0 + NOTED_EVERY - 1) == first
    later = missed(first, 0, 1001.0 + NOTED_EVERY)
    assert later == replace(first, absent_at=1001.0 + NOTED_EVERY)


def test_it_is_reported_from_the_first_absent_id_until_an_hour_after_the_last() -> None:
    one = missed(NEW, 1, 1001.0)
    assert not NEW.reported(1000.0)
    assert one.reported(1001.0)
    assert one.reported(1000.0 + REPORTED_FOR)
    assert not one.reported(1001.0 + REPORTED_FOR)
    assert not missed(SEEING, 1, 1001.0).reported(1001.0)


def test_a_few_absent_ids_alarm_nobody() -> None:
    assert not missed(NEW, ALARMING - 1, 1001.0).alarming
    assert missed(NEW, ALARMING, 1001.0).alarming
    assert not missed(SEEING, ALARMING, 1001.0).alarming


@pytest.mark.parametrize(
    ("ids", "words"),
    [(1, "none of 1 id under this token"), (60, "none of 60 ids under this token")],
)
def test_the_reason_says_of_how_many_ids_none_is_known(ids: int, words: str) -> None:
    assert missed(NEW, ids, 1001.0).reason == f"the API answers, but knows {words}"


def test_no_id_becomes_unknown_under_a_blind_token_and_its_deadline_says_why() -> None:
    blind, task = missed(NEW, 60, 1001.0), replace(TASK, absences=9, absent_since=1001.0)
    assert decide(task, ABSENT, None, 1090.0, POLICY, SEEING).state is State.UNKNOWN
    assert decide(task, ABSENT, None, 1090.0, POLICY, blind).state is State.PENDING
    ended = decide(task, ABSENT, None, 5000.0, POLICY, blind)
    assert (ended.state, ended.reason) == (
        State.EXPIRED,
        "the deadline passed; the last poll found it absent; the API answers, but knows none of "
        "60 ids under this token: it may be that of another owner",
    )


def test_an_id_that_the_account_may_not_ask_about_fails_also_under_a_blind_token() -> None:
    task = replace(TASK, absences=2, absent_since=1001.0)
    forbidden = Reading(Verdict.FORBIDDEN, "HTTP 403")
    assert decide(task, forbidden, None, 1090.0, POLICY, NEW).state is State.FAILED


def test_absences_of_a_blind_time_do_not_count_afterwards() -> None:
    seeing = saw(missed(NEW, 60, 1001.0), 2000.0)
    task = replace(TASK, absences=9, absent_since=1500.0)
    outcome = decide(task, ABSENT, None, 2001.0, POLICY, seeing)
    assert (outcome.state, outcome.absences, outcome.absent_since) == (State.PENDING, 1, 2001.0)
    assert seeing.first_absence(task)
    assert not seeing.first_absence(replace(task, absent_since=2001.0))


def test_the_waits_between_polls_of_an_absent_id_double_under_a_blind_token() -> None:
    assert [NEW.wait(absences, 20.0) for absences in (1, 2, 3, 10, 10**6)] == [
        20.0,
        40.0,
        80.0,
        LONGEST_WAIT,
        LONGEST_WAIT,
    ]
    assert SEEING.wait(10, 20.0) == 20.0


@pytest.mark.parametrize("text", [None, "", "[" * 10_000, '{"absent":1e999}', '{"known":1}'])
def test_what_cannot_be_read_is_a_token_that_was_never_used(text: object) -> None:
    assert Visibility.from_json(text) == Visibility()
    assert Visibility.from_json(SEEING.to_json()) == SEEING
