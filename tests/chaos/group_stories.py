"""What a history says of each group, and the rules for it. Pure: lines in, violations out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from chaos.history import Line
from chaos.stories import Sight, Story

#: What each rule says; the checker has them among its own.
GROUP_RULES = {
    "incomplete": "all ids of a group have ended, and no completion of it was taken",
    "two completions": "one group was completed under two webhook-ids",
    "miscounted": "a completion came before the last end, or counts otherwise than its ids ended",
}


@dataclass
class GroupStory:
    """All that is said of one group: its ids with the line of a submit, and its completions."""

    name: str
    size: int = 0
    submits: dict[str, int] = field(default_factory=dict)
    completions: list[tuple[int, Line]] = field(default_factory=list)

    def judge(self, stories: Mapping[str, Story]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The rules that are broken, each with the numbers of its lines."""
        names = {line["webhook_id"]: number for number, line in self.completions}
        if len(names) > 1:
            yield "two completions", tuple(names.values())
        whole = len(self.submits) == self.size and all(
            stories[one].acknowledged for one in self.submits if one in stories
        )
        ends, forgotten = self._ends(stories), self._forgotten(stories)
        all_ended = len(ends) + forgotten == self.size
        lines = tuple(sorted({*self.submits.values()}))
        taken = any(200 <= line["answered"] < 300 for _, line in self.completions)
        if whole and all_ended and not taken:
            yield "incomplete", (*lines, *(number for number, _ in self.completions))
        for number, line in self.completions:
            early = any((one.settled_at or 0.0) > line["at"] for one in ends)
            more = Counter(line["counts"])
            more.subtract(Counter(one.state for one in ends))
            wrong = min(more.values(), default=0) < 0 or more.total() != forgotten
            if early or len(self.submits) < self.size or (all_ended and wrong):
                yield "miscounted", (number, *(one.line for one in ends), *lines)

    def _forgotten(self, stories: Mapping[str, Story]) -> int:
        """How many ids were forgotten before anybody saw their end: they count, whatever it was."""
        some = [stories[one] for one in self.submits if one in stories]
        return sum(
            one.forgotten is not None and not any(sight.terminal for sight in one.sights)
            for one in some
        )

    def _ends(self, stories: Mapping[str, Story]) -> list[Sight]:
        sights = (stories[one].sights for one in self.submits if one in stories)
        found = (next((one for one in some if one.terminal), None) for some in sights)
        return [one for one in found if one]


def judged(
    history: Sequence[Line], stories: Mapping[str, Story]
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """What breaks the promise about groups: rule, group, and the lines that prove it."""
    groups: dict[str, GroupStory] = {}
    for number, line in enumerate(history, 1):
        if name := line.get("group"):
            group = groups.setdefault(name, GroupStory(name))
            if line["op"] == "completion":
                group.completions.append((number, line))
            else:
                group.size = line["group_size"]
                for each in line["ids"]:
                    group.submits.setdefault(each, number)
    for group in groups.values():
        yield from ((rule, group.name, lines) for rule, lines in group.judge(stories))
