"""What a history says of each id, in the order in which it was said: what the rules look at."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.history import Line

PENDING, CANCELLED, EXPIRED, UNKNOWN = "pending", "cancelled", "expired", "unknown"
#: What an operator is told of an id: it was changed; it was not there, by name or by a filter.
DONE, GONE = "done", ("unknown", "unmatched")
ACKNOWLEDGED = ("new", "known", "sent")
#: Seconds by which the two clocks may move against each other before the clock counts as set.
STEP = 0.05
_CALLS, _NOTES = (
    ("submit", "get", "cancel", "forget", "deadline"),
    (
        "finish",
        "poll",
        "delivery",
        "completion",
        "kill",
        "partition",
        "list",
        "rest",
        "clock",
        "end",
    ),
)


@dataclass(frozen=True)
class Call:
    """A call that names an id. `done` is infinite where its answer is unknown."""

    began: float
    line: int
    facts: Line
    done: float = math.inf
    done_line: int = 0
    answer: str = ""

    @property
    def lines(self) -> tuple[int, ...]:
        return (self.line, self.done_line) if self.done_line else (self.line,)

    def wants(self, place: str, state: str | None) -> bool:
        """Whether a submit has a webhook to this place that is to hear of this end."""
        chosen: dict[str, list[str]] = self.facts.get("chosen", {})
        return place in self.facts["places"] and state in chosen.get(place, [state])


@dataclass(frozen=True)
class Sight:
    """What a get saw of an id; `state` is None where the id was not known."""

    began: float
    at: float
    line: int
    state: str | None
    settled_at: float | None

    @property
    def terminal(self) -> bool:
        return self.state not in (None, PENDING)


@dataclass(frozen=True)
class Delivery:
    """What came to the receiver."""

    at: float
    line: int
    facts: Line

    @property
    def state(self) -> str:
        return str(self.facts["state"])


@dataclass
class Story:
    """All that is said of one id. Calls that surely did nothing are left out."""

    id: str
    submits: list[Call] = field(default_factory=list)
    cancels: list[Call] = field(default_factory=list)
    forgets: list[Call] = field(default_factory=list)
    deadlines: list[Call] = field(default_factory=list)
    polls: list[tuple[float, int]] = field(default_factory=list)
    listed: tuple[int, int] | None = None  # the line of the list, and how often it has the id
    rest: int = 0  # the line in which it is still in Redis
    sights: list[Sight] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    finish: tuple[float, int, str] | None = None

    @property
    def acknowledged(self) -> Call | None:
        """The first submit that was acknowledged, of an id that is to end."""
        sound = [
            call
            for call in self.submits
            if call.answer in ACKNOWLEDGED and call.facts.get("promised", True)
        ]
        return min(sound, key=lambda call: call.done, default=None)

    @property
    def cancelled(self) -> Call | None:
        """The first cancel that was acknowledged as done."""
        sure = [call for call in self.cancels if call.answer == DONE]
        return min(sure, key=lambda call: call.done, default=None)

    @property
    def forgotten(self) -> Call | None:
        """The first forget that was acknowledged; None if a submit may have come behind it."""
        sure = [call for call in self.forgets if call.answer in (DONE, *GONE)]
        first = min(sure, key=lambda call: call.done, default=None)
        again = first and any(call.done > first.began for call in self.submits)
        return None if again else first

    def may_be_gone(self, at: float) -> bool:
        """True if a forget may have been done by this time."""
        return any(call.began < at for call in self.forgets if call.answer not in GONE)

    @property
    def ends(self) -> list[tuple[float, int, str, float | None]]:
        """Who told of its end: when, in which line, the state, and the settle if it is told."""
        seen = [
            (one.at, one.line, str(one.state), one.settled_at)
            for one in self.sights
            if one.terminal
        ]
        told = [(one.at, one.line, one.state, None) for one in self.deliveries]
        return sorted([*seen, *told], key=lambda one: one[:2])


class Reading:
    """Goes through the lines once, and sorts them by id.

    `blamed`: what no single id's story shows, as (rule, id or "", numbers of lines).
    """

    def __init__(self, history: Sequence[Line]) -> None:
        self.stories: dict[str, Story] = {}
        self.blamed: list[tuple[str, str, tuple[int, ...]]] = []
        self._open: dict[str, tuple[int, Line]] = {}
        self._owners: dict[str, dict[str, int]] = defaultdict(dict)
        self._clock: tuple[float, int] | None = None
        self._ended, last = False, -math.inf
        for number, line in enumerate(history, 1):
            try:
                self._take(number, line)
                if line["at"] < last:
                    self._blame("history", number)
                last = max(last, line["at"])
            except (KeyError, TypeError, ValueError, AttributeError):
                self._blame("history", number)
        for number, line in self._open.values():
            self._close(number, line, None, 0)
        if not self._ended:
            self._blame("history", len(history))
        for owners in self._owners.values():
            if len(owners) > 1:
                self.blamed.append(("shared webhook-id", min(owners), tuple(owners.values())))

    def _blame(self, rule: str, *lines: int) -> None:
        self.blamed.append((rule, "", lines))

    def _of(self, task_id: str) -> Story:
        return self.stories.setdefault(task_id, Story(task_id))

    def _take(self, number: int, line: Line) -> None:
        op = line["op"]
        if op in _CALLS and line["phase"] == "invoked":
            if line["call"] in self._open:
                raise ValueError
            self._open[line["call"]] = (number, line)
        elif op in _CALLS:
            began, asked = self._open.pop(line["call"])
            if asked["op"] != op or line["phase"] not in ("ok", "failed", "unknown"):
                raise ValueError
            self._close(began, asked, line, number)
        elif op in _NOTES:
            self._noted(number, op, line)
        else:
            raise ValueError

    def _noted(self, number: int, op: str, line: Line) -> None:
        if op == "finish":
            self._of(line["id"]).finish = (line["at"], number, line["state"])
        elif op == "poll":
            for task_id in line["ids"]:
                self._of(task_id).polls.append((line["at"], number))
        elif op == "list":
            self._listed(number, Counter(line["ids"]))
        elif op == "rest":
            for task_id in line["found"]:
                self._of(task_id).rest = number
        elif op == "delivery":
            self._delivered(number, line)
        elif op == "clock":
            ahead = line["wall"] - line["at"]
            if self._clock is not None and abs(ahead - self._clock[0]) > STEP:
                self._blame("clock", self._clock[1], number)
            self._clock = self._clock or (ahead, number)
        elif op == "end":
            self._ended = True

    def _delivered(self, number: int, line: Line) -> None:
        if not line["verified"]:
            self._blame("unverified", number)
            return
        self._owners[line["webhook_id"]].setdefault(line["id"], number)
        self._of(line["id"]).deliveries.append(Delivery(line["at"], number, line))

    def _listed(self, number: int, times: Counter[str]) -> None:
        for task_id in {*self.stories, *times}:
            self._of(task_id).listed = number, times[task_id]

    def _close(self, began: int, asked: Line, answer: Line | None, number: int) -> None:
        """Give a call to the ids that it names."""
        phase = answer["phase"] if answer else "unknown"
        if asked["op"] == "get":
            if answer and phase == "ok":
                self._saw(asked["at"], answer, number)
            return
        for task_id in asked["ids"] if phase != "failed" else ():
            done = Call(asked["at"], began, asked)
            if answer and phase == "ok":
                said = answer["answers"].get(task_id, "")
                if said == "refused":
                    continue
                done = Call(asked["at"], began, asked, answer["at"], number, said)
            story = self._of(task_id)
            calls = {"submit": story.submits, "cancel": story.cancels, "forget": story.forgets}
            calls.get(asked["op"], story.deadlines).append(done)
            unmatched = done.answer == "unmatched" and asked["op"] == "forget"
            if done.answer == "unknown" or unmatched:
                story.sights.append(Sight(done.began, done.done, number, None, None))

    def _saw(self, began: float, answer: Line, number: int) -> None:
        for task_id, seen in answer["seen"].items():
            state, settled_at = seen or (None, None)
            sight = Sight(began, answer["at"], number, state, settled_at)
            self._of(task_id).sights.append(sight)
