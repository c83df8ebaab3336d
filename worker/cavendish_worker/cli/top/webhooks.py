"""The page of the webhook endpoints: each in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from cavendish.policy.circuit import NOTED_FOR
from cavendish_worker.cli.top.drawing import WIDE, line, table
from cavendish_worker.cli.top.view import View
from cavendish_worker.wording.notes import endpoint_name, endpoint_trouble


def draw(view: View, width: int, room: int | None) -> RenderableType:
    """As many endpoints as fit: first those in trouble, then those with most deliveries."""
    found = view.found
    if not found["webhooks"]:
        return Text("no endpoint is registered, and no delivery waits for any", style="dim")
    ranked = sorted(
        found["webhooks"],
        key=lambda one: (not endpoint_trouble(one), -one["waiting"], one["endpoint"]),
    )
    shown = view.part(ranked, None if room is None else room - 2)
    return endpoint_table(shown, found["now"], width)


def endpoint_table(endpoints: Sequence[dict[str, Any]], now: float, width: int) -> RenderableType:
    """A row for each endpoint; a wide terminal also gets the URLs of registered ones."""
    rows = [
        (
            line(endpoint_name(one)),
            f"{one['waiting']:,}",
            one["allowance"],
            "" if one["seconds"] is None else f"{one['seconds']:.2f}",
            _last_success(one, now),
            line(*_health(one)),
            line(one["url"] if one["registered"] else "", "dim"),
        )
        for one in endpoints
    ]
    columns = ("endpoint", ">waiting", ">room", ">answer s", ">success", "state", "url")
    shown = len(columns) - (width < WIDE)
    return table(columns[:shown], [row[:shown] for row in rows])


def _last_success(endpoint: dict[str, Any], now: float) -> str:
    if endpoint["last_success"] is None:
        return ""
    ago = now - endpoint["last_success"]
    return "lately" if ago < NOTED_FOR + 5 else f"{ago:.0f} s ago"


def _health(endpoint: dict[str, Any]) -> tuple[str, str]:
    """The state of an endpoint and its colour; it works only once it has acknowledged something."""
    if trouble := endpoint_trouble(endpoint):
        return trouble, "bold red"
    if failures := endpoint["failures"]:
        some = "the last attempt failed" if failures == 1 else f"{failures} failures in a row"
        return some, "dark_orange"
    return ("no success yet", "dim") if endpoint["last_success"] is None else ("works", "green")
