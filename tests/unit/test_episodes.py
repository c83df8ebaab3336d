"""Operators are told of a trouble once when it begins and once when it is over."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.endpoints.webhook_events import TO_OPERATORS
from cavendish.policy.episodes import (
    RULES,
    Announcement,
    Episodes,
    Rule,
    Trouble,
    handed_over,
    looked,
)

T = 1_700_000_000.0


def trouble(kind: str = "service.down", since: float = T, service: str = "flux") -> Trouble:
    subject = {"account": "default", "service": service}
    return Trouble(kind, subject, since, "HTTP 500", {"down_since": since})


def looks(*seen: tuple[float, list[Trouble]], known: Episodes | None = None) -> list[Announcement]:
    """What is told after looks at these times (seconds after T) that saw these troubles."""
    episodes, told = known or Episodes(), list[Announcement]()
    for at, troubles in seen:
        episodes = looked(Episodes.from_json(episodes.to_json()), troubles, T + at)
        told += episodes.untold
        episodes = handed_over(episodes, episodes.untold)
        assert episodes.untold == ()
    return told


def test_every_kind_that_is_told_is_one_that_can_be_chosen() -> None:
    assert {*RULES, *filter(None, (rule.end for rule in RULES.values()))} < {*TO_OPERATORS}


def test_a_trouble_is_told_at_its_beginning_and_at_its_end_with_how_long_it_lasted() -> None:
    one = [trouble()]
    begun, over = looks((10, one), (70, one), (130, []), (190, []), (250, []), (310, []))
    assert (begun.kind, begun.at, begun.since) == ("service.down", T, T)
    assert json.loads(begun.data) == {
        "account": "default",
        "service": "flux",
        "reason": "HTTP 500",
        "down_since": T,
    }
    assert (over.kind, over.at, over.since) == ("service.back", T + 130, T)
    assert json.loads(over.data) == {
        "account": "default",
        "service": "flux",
        "was": "service.down",
        "reason": "HTTP 500",
        "began_at": T,
        "ended_at": T + 130,
        "lasted": 130.0,
    }


def test_a_trouble_that_goes_and_comes_back_soon_is_one_episode() -> None:
    flaps = [(60.0 * turn, [trouble(since=T + 60 * turn)] * (turn % 2)) for turn in range(20)]
    assert [told.kind for told in looks(*flaps)] == ["service.down"]
    quiet = (1200.0, []), (1260.0, []), (1320.0, [])
    assert [told.kind for told in looks(*flaps, *quiet)] == ["service.down", "service.back"]


def test_a_trouble_after_the_end_of_another_is_told_anew() -> None:
    again = [trouble(since=T + 500)]
    kinds = [told.kind for told in looks((0, [trouble()]), (60, []), (200, []), (500, again))]
    assert kinds == ["service.down", "service.back", "service.down"]


def test_a_worker_is_gone_only_if_a_second_look_says_so() -> None:
    gone = [Trouble("worker.gone", {"worker": "w"}, T, "no heartbeat", {})]
    assert looks((20, gone), (60, [])) == []
    assert [told.kind for told in looks((20, gone), (80, gone), (140, gone))] == ["worker.gone"]
    assert [told.kind for told in looks((20, gone), (80, gone), (140, []))] == ["worker.gone"]


def test_troubles_of_several_services_are_told_apart() -> None:
    both = [trouble(), trouble(service="sora")]
    told = looks((0, both), (60, both[:1]), (200, both[:1]))
    services = [(one.kind, json.loads(one.data)["service"]) for one in told]
    assert services == [
        ("service.down", "flux"),
        ("service.down", "sora"),
        ("service.back", "sora"),
    ]


def test_an_announcement_is_kept_until_it_was_handed_over() -> None:
    first = looked(Episodes(), [trouble()], T)
    (untold,) = first.untold
    second = looked(first, [trouble()], T + 60)
    assert second == first
    over = looked(looked(second, [], T + 60), [], T + 600)
    assert [one.kind for one in over.untold] == ["service.down", "service.back"]
    assert [one.kind for one in handed_over(over, [untold]).untold] == ["service.back"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"lasting":[{"kind":1}]}'])
def test_what_cannot_be_read_is_no_episode(text: str | None) -> None:
    assert Episodes.from_json(text) == Episodes()


@pytest.mark.parametrize("part", ["subject", "details"])
@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 500])
def test_an_episode_with_a_damaged_part_is_none(part: str, text: str) -> None:
    known = looked(Episodes(), [trouble()], T)
    (episode,) = known.lasting
    damaged = replace(known, lasting=(replace(episode, **{part: text}),))  # type: ignore[arg-type]
    assert Episodes.from_json(known.to_json()) == known
    assert Episodes.from_json(damaged.to_json()) == Episodes()


@given(st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=40))
def test_begins_and_ends_take_turns_whatever_is_seen(steps: list[tuple[int, bool]]) -> None:
    at, seen = 0.0, list[tuple[float, list[Trouble]]]()
    for seconds, bad in steps:
        at += seconds
        seen.append((at, [trouble(since=T + at)] if bad else []))
    kinds = [told.kind for told in looks(*seen)]
    expected = ["service.down", "service.back"] * len(kinds)
    assert kinds == expected[: len(kinds)]
    assert isinstance(RULES["service.down"], Rule)
