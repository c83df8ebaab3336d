"""What top shows of a poll, and what keys do."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cavendish.policy.durations import DurationModel, Observation, observe
from cavendish.policy.next_poll import Forecast, forecast, until_all
from cavendish_worker.cli.top.keyboard import split
from cavendish_worker.cli.top.overview import sparkline
from cavendish_worker.cli.top.screen import screen
from cavendish_worker.cli.top.view import PAGES, View
from cavendish_worker.wording.rates import NAMES, Rates

NO_DELAY = {"of": 0, "p50": None, "p95": None, "p99": None}


def lane(name: str, **counts: int) -> dict[str, Any]:
    numbers = {
        "pending": 12_345,
        "due": 7,
        "in_flight": 50,
        "deliveries_pending": 3,
        "dead": 1,
        "quarantined": 0,
    }
    rates = dict.fromkeys(NAMES, 1.5)
    return {
        "lane": name,
        **numbers,
        "counts": counts,
        "delay": NO_DELAY,
        "rates": rates,
        "service": {"down_for": 0.0, "paused_since": None},
        "blind": "",
        "operator_pause": "",
        "batch_limit": None,
    }


def endpoint(number: int, **more: Any) -> dict[str, Any]:
    known = {
        "endpoint": f"shop-{number}",
        "url": "https://shop.example/hook",
        "waiting": number,
        "registered": True,
        "disabled_at": None,
    }
    known |= {
        "circuit": "closed",
        "failures": 0,
        "open_for": 0.0,
        "allowance": 10,
        "seconds": 0.2,
        "last_success": 990.0,
    }
    return known | more


def poll(lanes: int = 3, endpoints: int = 3, **more: Any) -> dict[str, Any]:
    account = {
        "rate": 9.5,
        "ceiling": 10.0,
        "used": 8.0,
        "window": None,
        "paused_for": 0.0,
        "pause_reason": "",
        "operator_pause": "",
        "no_token": False,
    }
    worker = {
        "name": "worker@host:1",
        "role": "worker",
        "version": "1",
        "at": 999.0,
        "alive": True,
        "ahead": -0.2,
        "queues": None,
    }
    found = {
        "now": 1000.0,
        "lanes": [lane(f"default/service-{n}/0", succeeded=5) for n in range(lanes)],
        "delay": NO_DELAY,
        "refused_submits": 0,
    }
    found |= {
        "accounts": {"default": account},
        "fleet": [worker | {"accounts": ("default",)}],
        "rates": dict.fromkeys(NAMES, 2.0),
    }
    found |= {
        "emptied_at": None,
        "webhooks": [endpoint(n) for n in range(endpoints)],
        "pauses": [],
        "rate_ceilings": [],
        "endpoints": [],
        "history": {n: [0.0, 1.0] for n in NAMES},
    }
    return found | more


def drawn(view: View, width: int, height: int | None) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, height=height or 25, force_terminal=True, color_system=None
    )
    console.print(screen(view, width, height), end="")
    return console.file.getvalue().split("\n")  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [(80, 24), (120, 35), (60, 12), (200, 60), (40, 5)])
@pytest.mark.parametrize("page", PAGES)
def test_a_screen_is_exactly_as_high_as_the_terminal_and_never_wider(
    page: str, size: tuple[int, int]
) -> None:
    width, height = size
    for found in (poll(40, 60), poll(0, 0, accounts={}, fleet=[]), {}):
        lines = drawn(View(page, found), width, height)
        assert len(lines) == height
        assert max(map(len, lines)) <= width
        assert lines[-1].startswith("q end")


def test_at_80_columns_a_lane_is_shown_whole_with_all_its_numbers() -> None:
    found = poll() | {"lanes": [lane("default/nano-banana/0")]}
    text = "\n".join(drawn(View("lanes", found), 80, 24))
    assert "default/nano-banana/0" in text
    assert "p50 s" in text


def test_the_overview_says_what_matters_first() -> None:
    text = "\n".join(drawn(View("overview", poll()), 120, 35))
    for word in (
        "37,035  pending",
        "15 succeeded",
        "calls",
        "2.0/s",
        "delay p50",
        "9.50",
        "1 worker alive",
        "0 beats alive",
    ):
        assert word in text


def test_the_overview_says_what_is_wrong_in_words() -> None:
    bad = endpoint(1, circuit="open", failures=7, open_for=12.0)
    paused = {
        "default": poll()["accounts"]["default"] | {"paused_for": 9.0, "pause_reason": "HTTP 401"}
    }
    text = "\n".join(
        drawn(
            View("overview", poll(webhooks=[bad], accounts=paused), away="Redis does not answer."),
            120,
            35,
        )
    )
    for word in (
        "shop-1: circuit open, probed in 12 s",
        "9 s more: HTTP 401",
        "Redis does not answer.",
    ):
        assert word in text


def test_the_overview_tells_of_a_service_out_of_order_and_of_an_account_without_a_token() -> None:
    down = lane("default/flux/0") | {
        "service": {"down_for": 8.0, "failures": 3, "reason": "HTTP 503", "paused_since": None}
    }
    unserved = {"down_for": 60.0, "failures": 4, "reason": "HTTP 404", "paused_since": 900.0}
    paused = lane("default/flux-next/0") | {"service": unserved}
    accounts = {"second": poll()["accounts"]["default"] | {"no_token": True}}
    small = lane("default/veo/0") | {"batch_limit": 20}
    found = poll() | {"lanes": [down, paused, small], "accounts": accounts}
    text = "\n".join(drawn(View("overview", found), 120, 35))
    assert "default/flux/0 fails, next call in 8 s: HTTP 503" in text
    assert "default/flux-next/0 is not served since" in text
    assert "next call in 60 s: HTTP 404" in text
    assert "default/veo/0 takes at most 20 ids per call" in text
    assert "no token at any worker" in text


def test_an_endpoint_is_said_to_work_only_once_it_has_acknowledged_something() -> None:
    def state(**known: Any) -> str:
        return drawn(View("webhooks", poll(webhooks=[endpoint(1, **known)])), 140, 20)[4]

    assert "works" in state()
    assert "no success yet" in state(last_success=None)
    assert "2 failures in a row" in state(last_success=None, failures=2)


def test_the_share_of_429s_follows_the_calls_and_of_a_long_error_the_address_is_cut_off() -> None:
    rates = dict.fromkeys(NAMES, 2.0) | {"refused": 1.0}
    away = f"Redis at unix:///{'long/' * 20}redis.sock does not answer (ConnectionError)."
    lines = drawn(View("overview", poll(rates=rates), away=away), 60, 30)
    assert "does not answer" in lines[1]
    (calls,) = [line for line in lines if line.startswith("calls ")]
    assert calls.split("delay")[0].split() == ["calls", "2.0/s", "50%", "met", "429"]


def test_endpoints_in_trouble_come_first_then_those_that_wait_most() -> None:
    found = poll(
        webhooks=[endpoint(1), endpoint(5), endpoint(0, disabled_at=1.0, reason="HTTP 410")]
    )
    text = "\n".join(drawn(View("webhooks", found), 140, 20))
    assert text.index("shop-0") < text.index("shop-5") < text.index("shop-1")
    assert "disabled since" in text


def test_keys_turn_pages_scroll_pause_help_and_end() -> None:
    view = View(found=poll(lanes=50))
    view.press("right")
    assert view.page == "lanes"
    drawn(view, 120, 15)
    for key, first in (
        ("j", 1),
        ("down", 2),
        ("k", 1),
        (" ", 9),
        ("G", 42),
        ("j", 42),
        ("g", 0),
        ("k", 0),
    ):
        view.press(key)
        lines = drawn(view, 120, 15)
        assert any(f"service-{first}/" in line for line in lines[3:6]), (key, lines)
    view.press("4")
    assert (view.page, view.scrolled) == ("fleet", 0)
    view.press("right")
    assert view.page == "overview"
    view.press("left")
    assert view.page == "fleet"
    view.press("?")
    assert any("pause" in line for line in drawn(view, 80, 12)[2:-1])
    view.press("escape")
    view.press("p")
    assert "paused" in drawn(view, 80, 12)[0]
    view.press("x")
    assert not view.ended
    view.press("q")
    assert view.ended


@pytest.mark.parametrize(
    ("sent", "keys", "rest"),
    [
        (b"jk", ["j", "k"], b""),
        (b"\x1b[C\x1bOD\t", ["right", "left", "right"], b""),
        (b"\x1b[5~q", ["page up", "q"], b""),
        (b"\x1b", [], b"\x1b"),
        (b"q\x1b[", ["q"], b"\x1b["),
        (b"\xff", ["ÿ"], b""),
    ],
)
def test_what_a_terminal_sends_is_cut_into_keys(sent: bytes, keys: list[str], rest: bytes) -> None:
    assert split(sent) == (keys, rest)


def test_rates_come_from_the_totals_of_the_last_polls() -> None:
    rates = Rates()
    assert rates.see({"now": 100.0, "lanes": [lane("a/b/0", calls=10)]})[""]["calls"] is None
    later = {
        "now": 102.0,
        "lanes": [
            lane("a/b/0", calls=14, rate_refused=1, delivered=6),
            lane("a/c/0", succeeded=2, failed=2),
        ],
    }
    seen = rates.see(later)
    assert seen["a/b/0"] == dict.fromkeys(NAMES, 0.0) | {
        "calls": 2.0,
        "refused": 0.5,
        "delivered": 3.0,
    }
    assert seen[""]["settled"] == 2.0
    assert list(rates.history["calls"]) == [0.0, 2.0]
    for second in range(20):  # what is old is forgotten
        seen = rates.see({"now": 103.0 + second, "lanes": [lane("a/b/0", calls=14)]})
    assert seen[""]["calls"] == 0.0
    assert rates.see({"now": 50.0, "lanes": []})[""]["calls"] is None  # another store


def test_a_sparkline_is_as_wide_as_asked_and_its_largest_is_full() -> None:
    assert sparkline([0, 1, 2, 4], 6) == "   ▃▅█"
    assert sparkline([], 3) == "   "
    assert sparkline([1.0] * 10, 4) == "████"
    assert sparkline([1.0], 0) == ""


def steady(seconds: float) -> Forecast:
    """The forecast for tasks that all take about this long."""
    durations = DurationModel()
    for number in range(40):
        took = seconds * (0.9 + 0.005 * number)
        durations = observe(
            durations, [Observation(took - 0.1, took, finished=True, duration=took)]
        )
    return forecast(durations)


def test_the_estimate_of_the_last_of_many_is_later_than_that_of_one_and_shrinks_with_age() -> None:
    known = steady(20.0)
    one, many = (until_all([(known, 0.0, 0.0)] * count, 0.5, 3600.0) for count in (1, 100))
    assert 15.0 < one < 25.0
    assert one < many < 120.0
    assert until_all([(known, 10.0, 10.0)], 0.5, 3600.0) == pytest.approx(one - 10.0, abs=3.0)
    assert until_all([(known, 0.0, 0.0)] * 100, 0.95, 3600.0) > many
    assert until_all([(known, 0.0, 0.0)] * 100, 0.95, 5.0) == 5.0  # the deadline
    assert until_all([], 0.5, 10.0) == 0.0
