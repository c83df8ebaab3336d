"""How many attempts at an endpoint were taken in a day, and the chart of it."""

from __future__ import annotations

import re

from cavendish.policy.attempt_history import KEPT, PERIOD, history, period_of
from cavendish_worker.console.success_chart import HEIGHT, LEAST, success_chart

NOW = 1_795_898_650.0
LAST = period_of(NOW)


def test_a_day_has_all_its_half_hours_the_one_that_runs_is_the_last() -> None:
    """Those without attempts too, or the chart would have no time in it."""
    day = history({f"{LAST}": "3", f"-{LAST - 1}": "2"}, NOW).periods
    assert len(day) == KEPT
    assert day[-1].began_at <= NOW < day[-1].began_at + PERIOD
    assert [(each.delivered, each.failed) for each in day[-3:]] == [(0, 0), (0, 2), (3, 0)]


def test_what_is_older_or_damaged_counts_as_no_attempt() -> None:
    """Somebody may have written into Redis by hand."""
    told = {f"{LAST - KEPT}": "9", f"{LAST}": "many", "x": "1", f"-{LAST}": "1"}
    day = history(told, NOW)
    assert (day.delivered, day.failed) == (0, 1)
    for damaged in (None, "text", ValueError("WRONGTYPE")):
        assert history(damaged, NOW).success_rate is None


def test_the_rate_is_whole_only_where_that_is_the_whole_truth() -> None:
    """One lost webhook among a hundred thousand is not 100 %."""
    for delivered, failed, said in (
        (99_999, 1, "99.9 %"),
        (1, 99_999, "0.1 %"),
        (5, 0, "100 %"),
        (0, 5, "0 %"),
        (2, 1, "66.7 %"),
        (0, 0, "-"),
    ):
        chart = success_chart(history({f"{LAST}": str(delivered), f"-{LAST}": str(failed)}, NOW))
        assert chart.percent == said
    assert "of 3 attempts" in success_chart(history({f"{LAST}": "2", f"-{LAST}": "1"}, NOW)).words
    assert "No attempt" in success_chart(history({}, NOW)).words


def test_no_bar_is_higher_than_the_chart_and_each_failure_is_seen() -> None:
    """What failed stands on what was taken."""
    chart = success_chart(history({f"{LAST}": "100000", f"-{LAST}": "1", f"-{LAST - 5}": "7"}, NOW))
    bars = re.findall(r"M(\d+) ([\d.]+)h\d+v-([\d.]+)", chart.delivered + chart.failed)
    assert len(bars) == 3
    for _, ground, high in bars:
        assert float(high) >= LEAST
        assert 0 <= float(ground) - float(high) <= float(ground) <= HEIGHT
    (taken,), missed = (re.findall(r"M(\d+) ", path) for path in (chart.delivered, chart.failed))
    assert taken == missed[-1]
