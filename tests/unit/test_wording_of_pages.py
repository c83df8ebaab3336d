"""What our pages in Flower make of records, delays, durations and addresses."""

from __future__ import annotations

import json

import pytest

from cavendish_worker.console.delay_chart import HEIGHT, MINUTES, WIDTH, chart
from cavendish_worker.console.record_tree import MOST, images, tree
from cavendish_worker.console.shown import Shown


def test_a_record_is_a_tree_with_all_its_digits_and_keys_that_come_twice() -> None:
    """Python's own reader would round the one and drop the other."""
    lines = tree('{"a": 1.50, "a": [12345678901234567890123, null, {}], "b": "<i>"}')
    assert [(one.depth, one.name, one.value) for one in lines] == [
        (0, "", ""),
        (1, "a", "1.50"),
        (1, "a", ""),
        (2, "0", "12345678901234567890123"),
        (2, "1", "null"),
        (2, "2", "{}"),
        (1, "b", "<i>"),
    ]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"\\ud800"', "NaN", "[1e400]"])
def test_any_record_has_some_tree(text: str) -> None:
    """Whatever an API has said, the page of its id can be shown."""
    assert all(one.value.encode() is not None for one in tree(text))


def test_a_long_record_is_cut() -> None:
    """A page of a megabyte helps nobody."""
    lines = tree(f"[{','.join(['1'] * 10_000)}]")
    assert (len(lines), lines[-1].kind) == (MOST + 1, "cut")


def test_only_pictures_at_https_are_offered() -> None:
    """A page never loads what may be anything, or over a line that others read."""
    said = (
        '["https://a.example/b.png?x=1", "http://a.example/b.png", "javascript:x.png", "https://["]'
    )
    assert images(tree(said)) == ["https://a.example/b.png?x=1"]


def test_the_chart_has_the_oldest_minute_on_the_left_and_the_highest_delay_at_the_top() -> None:
    """A minute without ends is left out."""
    made = chart({0: [1.0], MINUTES - 1: [4.0, 2.0], 3: []})
    assert made.p95 == f"{WIDTH:.1f},{HEIGHT * 0.75:.1f} 0.0,0.0"
    assert (made.last50, made.last95, made.most) == (1.0, 1.0, 4.0)
    assert chart({}).last50 is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0.5, "0.50 s"), (59.6, "1 min"), (3661, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_a_duration_is_said_in_two_words(seconds: float | None, words: str) -> None:
    """Nobody reads 90,000 seconds."""
    assert Shown.lasted(seconds) == words


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ada:secret@a.example:8/hook?token=secret", "https://a.example:8/…"),
        ("", ""),
        ("https://[", "…"),
        ("http://[::1]/x", "http://[::1]/…"),
    ],
)
def test_of_a_url_only_its_host_is_shown(url: str, shown: str) -> None:
    """Its path and its query may be secret."""
    assert Shown.host(url) == shown


@pytest.mark.parametrize(
    "host", ["a.example; script-src-elem *", "a.example 'unsafe-inline'", "b@a.example", "", "a,b"]
)
def test_a_host_that_would_change_the_policy_of_a_page_shows_no_picture(host: str) -> None:
    """The policy is a header in which the hosts of shown pictures stand."""
    assert images(tree(json.dumps({"image_url": f"https://{host}/b.png"}))) == []


@pytest.mark.parametrize("minute", [0, 7, MINUTES - 1])
def test_the_only_minute_with_ends_is_a_short_line_within_the_chart(minute: int) -> None:
    """A line of one point is not drawn at all."""
    points = chart({minute: [2.0]}).p50.split()
    across = [float(point.partition(",")[0]) for point in points]
    assert len(points) == 2
    assert 0 < abs(across[0] - across[1]) < WIDTH / 20
    assert 0 <= min(across) <= max(across) <= WIDTH


def test_a_long_text_of_a_record_is_cut_and_says_how_much_is_missing() -> None:
    """One value may be a whole picture."""
    (line,) = tree(json.dumps("x" * 5000))
    assert line.value.endswith("x… (and 3,000 more characters)")
    (line,) = tree(json.dumps([*range(100_000)]))
    assert line.value.startswith("[0, 1, 2")
    assert line.value.endswith(" more characters)")
    deep = tree("[" * 90 + "]" * 90)
    assert [one.depth for one in deep] == [*range(90)]
