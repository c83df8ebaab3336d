"""The page of the fleet: each process in a row."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from cavendish.task_names import QUEUES
from cavendish_worker.cli.top.drawing import line, table
from cavendish_worker.cli.top.view import View


def draw(view: View, _width: int, room: int | None) -> RenderableType:
    """As many processes as fit, from where the page was scrolled to."""
    now = view.found["now"]
    rows = [
        (
            line(one["name"], "" if one["alive"] else "red"),
            line(f"{max(now - one['at'], 0):.0f} s ago", "" if one["alive"] else "bold red"),
            line(one["version"]),
            "" if one["ahead"] is None else f"{one['ahead']:+.1f}",
            _queues(one["queues"]),
            line(" ".join(one["accounts"])),
        )
        for one in view.part(view.found["fleet"], None if room is None else room - 2)
    ]
    if not rows:
        said = "no heartbeat of a worker or a beat within the last hour: cavendish up"
        return Text(said, style="bold red")
    return table(("process", "heartbeat", "version", ">clock s", "queues", "accounts"), rows)


def _queues(queues: Sequence[str] | None) -> Text:
    if queues is None:
        return Text("?", style="dim")
    if set(QUEUES) <= set(queues):
        return Text("all")
    return line(" ".join(name.removeprefix("cavendish.") for name in queues))
