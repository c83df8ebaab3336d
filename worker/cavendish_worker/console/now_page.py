"""The first page: the state of everything now, and what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cavendish.endpoints.endpoint_view import views
from cavendish.model import Lane, State
from cavendish.store.delays import recent_delays
from cavendish_worker.console.delay_chart import HEIGHT, MINUTES, WIDTH, chart
from cavendish_worker.console.endpoint_rows import unsettled
from cavendish_worker.console.page import Page
from cavendish_worker.console.shown import Shown
from cavendish_worker.doctor.stored import complaints
from cavendish_worker.wording.notes import lane_notes, operator_notes, pause

#: Rows of a table, and complaints, at most: the rest is counted.
ROWS, COMPLAINTS = 50, 20


class NowPage(Page):
    """`/cavendish`."""

    async def answer(self, *place: str) -> None:  # noqa: ARG002
        await self.show("now.html", self._find)

    def _find(self) -> dict[str, Any]:
        store, settings = self.parts.store, self.parts.settings
        polled = self.parts.poll()
        found, statistics = polled.found, polled.statistics
        busiest = sorted(found["lanes"], key=lambda lane: -lane["pending"])
        lanes = [Lane.parse(lane["lane"]) for lane in busiest]
        waiting = unsettled(statistics)
        seen = [
            replace(view, url=Shown.host(view.url) if view.url else "")
            for view in views(store, statistics, self.parts.urls, waiting[:COMPLAINTS])
        ]
        wrong = complaints(store, settings, statistics, seen)
        return {
            "found": found,
            "counts": _states(found),
            "oldest": _oldest(found, statistics),
            "chart": chart(recent_delays(store.connection, lanes, found["now"], MINUTES)),
            "size": (WIDTH, HEIGHT),
            "accounts": [_account(name, one, found) for name, one in found["accounts"].items()],
            "lanes": busiest[:ROWS],
            "more_lanes": max(len(busiest) - ROWS, 0),
            "notes": _notes(found)[:ROWS],
            "alive": {role: _alive(found, role) for role in ("worker", "beat")},
            "complaints": wrong[:COMPLAINTS],
            "place": _place,
            "more_complaints": max(len(wrong) + len(waiting) - len(seen) - COMPLAINTS, 0),
        }


def _place(what: str) -> tuple[str, str] | None:
    """The page of the account or the endpoint that a complaint is about."""
    kind, _, name = what.partition(" ")
    return (kind, name) if kind in ("account", "endpoint") and name and " " not in name else None


def _notes(found: dict[str, Any]) -> list[str]:
    return operator_notes(found) + [note for lane in found["lanes"] for note in lane_notes(lane)]


def _states(found: dict[str, Any]) -> dict[str, int]:
    """How many ids are pending, and have ended in each state since the lanes began."""
    lanes = found["lanes"]
    ended = [state for state in State if state.terminal]
    counts = {
        state.value: sum(one["counts"].get(state.value, 0) for one in lanes) for state in ended
    }
    return {State.PENDING.value: sum(one["pending"] for one in lanes)} | counts


def _oldest(found: dict[str, Any], statistics: Any) -> float | None:
    """For how many seconds the longest due id has been due; None if none is due."""
    times = [one.due_since for one in statistics.tracked if one.due_since is not None]
    return found["now"] - min(times) if times else None


def _account(name: str, account: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What is shown of an account; `refused`: the share of its calls now that met a 429."""
    rates = [one["rates"] for one in found["lanes"] if one["lane"].startswith(f"{name}/")]
    calls = sum(each["calls"] or 0.0 for each in rates)
    refused = sum(each["refused"] or 0.0 for each in rates)
    return account | {
        "name": name,
        "refused": refused / calls if calls else None,
        "pause": pause(account),
    }


def _alive(found: dict[str, Any], role: str) -> int:
    return sum(one["role"] == role and one["alive"] for one in found["fleet"])
