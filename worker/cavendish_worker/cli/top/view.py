"""What a person sees of `top`, and the keys that change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
PAGES = ("overview", "lanes", "webhooks", "fleet")
HELP = (
    ("← →, tab, 1-4", "pages"),
    ("j k, ↓ ↑", "scroll; space and b by a screen, g and G to either end"),
    ("p", "pause: the numbers stay as they are"),
    ("?", "this help"),
    ("q, Ctrl-C", "end"),
)
_END = 10**9


@dataclass
class View:
    """The last poll (`found`), or why there is none (`away`), and how it is shown.

    `scrolled`: rows above the first one that is shown; `room`: rows that fit on the screen.
    """

    page: str = PAGES[0]
    found: dict[str, Any] = field(default_factory=dict)
    away: str = ""
    paused: bool = False
    helping: bool = False
    ended: bool = False
    scrolled: int = 0
    room: int = 10

    def press(self, key: str) -> None:
        """React to one key; any other key does nothing."""
        turns = {"right": 1, "l": 1, "left": -1, "h": -1}
        steps = {"j": 1, "down": 1, "k": -1, "up": -1, " ": self.room, "page down": self.room}
        steps |= {"b": -self.room, "page up": -self.room}
        steps |= {"g": -_END, "home": -_END, "G": _END, "end": _END}
        if key in turns:
            self._turn(PAGES.index(self.page) + turns[key])
        elif key in "1234":
            self._turn(int(key) - 1)
        elif key in steps:
            self.scrolled = max(self.scrolled + steps[key], 0)
        elif key == "p":
            self.paused = not self.paused
        elif key in ("?", "escape"):
            self.helping = key == "?" and not self.helping
        elif key == "q":
            self.ended = True

    def _turn(self, page: int) -> None:
        self.page, self.scrolled, self.helping = PAGES[page % len(PAGES)], 0, False

    def part(self, rows: Sequence[T], room: int | None) -> Sequence[T]:
        """The rows that fit, from the scrolled place on; all if `room` is None."""
        if room is None:
            return rows
        self.room = max(room, 1)
        self.scrolled = max(min(self.scrolled, len(rows) - self.room), 0)
        return rows[self.scrolled : self.scrolled + self.room]
