"""What a history adds up to, for people: the table of a run, and each violation with its lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from chaos.checker import RULES, violations
from chaos.history import Line
from chaos.stories import DONE

#: Violations that are shown in full.
SHOWN = 10


class Reckoning:
    """The verdict of the checker on one history, with what was counted in it."""

    def __init__(self, history: Sequence[Line]) -> None:
        self._history, self.violations = history, violations(history)
        self.acknowledged = {
            one: answer
            for line in self._lines("submit", phase="ok")
            for one, answer in line["answers"].items()
            if answer != "refused" and one not in self._unpromised
        }
        seen = [line["seen"].items() for line in self._lines("get", phase="ok")]
        self._ended = {one: told[0] for row in seen for one, told in row if told and told[1]}

    def _lines(self, op: str, **facts: str) -> list[Line]:
        return [
            line
            for line in self._history
            if line["op"] == op and all(line.get(name) == said for name, said in facts.items())
        ]

    @property
    def _unpromised(self) -> set[str]:
        asked = self._lines("submit", phase="invoked")
        return {one for line in asked if not line.get("promised", True) for one in line["ids"]}

    def _changed(self, verb: str) -> int:
        """How many ids an operator was told to be changed."""
        lines = self._lines(verb, phase="ok")
        return len({one for line in lines for one, said in line["answers"].items() if said == DONE})

    def _interrupted(self) -> int:
        verbs = ("cancel", "forget", "deadline")
        asked = sum(len(self._lines(verb, phase="invoked")) for verb in verbs)
        return asked - sum(len(self._lines(verb, phase="ok")) for verb in verbs)

    @property
    def kept(self) -> bool:
        """True if the promise was kept, and there was something to keep."""
        return bool(self.acknowledged) and not self.violations

    def rows(self) -> list[tuple[str, str, str]]:
        """The table: what, how many, and the bar."""
        ours = self.acknowledged.keys()
        finished = {line["id"] for line in self._lines("finish")}
        taken = [line for line in self._lines("delivery") if line["answered"] < 300]
        names = Counter(line["webhook_id"] for line in taken if line["id"] in ours)
        expired = sum(self._ended.get(one) == "expired" for one in ours)
        completed = {line["webhook_id"] for line in self._lines("completion")}
        changed = {verb: self._changed(verb) for verb in ("cancel", "forget", "deadline")}
        lost_answers = len(self._lines("submit", phase="unknown"))
        broken = Counter(one.rule for one in self.violations)
        return [
            ("ids with an acknowledged submit", _number(len(ours)), ""),
            (
                "of these by a Celery message",
                _number(Counter(self.acknowledged.values())["sent"]),
                "",
            ),
            ("submits whose answer was lost", _number(lost_answers), "allowed"),
            ("finished at the API", _number(len(finished & ours)), ""),
            ("seen to have ended", _number(len(ours & self._ended.keys())), ""),
            ("taken by the receiver, by webhook-id", _number(len(names)), ""),
            ("taken again under one webhook-id", _number(names.total() - len(names)), "allowed"),
            ("groups completed, by webhook-id", _number(len(completed)), ""),
            ("cancelled by operators", _number(changed["cancel"]), ""),
            ("forgotten by operators", _number(changed["forget"]), ""),
            ("given another deadline", _number(changed["deadline"]), ""),
            ("calls of operators that were interrupted", _number(self._interrupted()), "allowed"),
            ("expired at a short deadline", _number(expired), "allowed"),
            ("lines of the history", _number(len(self._history)), ""),
            ("violations", _number(len(self.violations)), "0"),
            *((f"- {rule}", _number(broken[rule]), "0") for rule in RULES if broken[rule]),
        ]

    def happened(self) -> list[tuple[str, str]]:
        """What was done to the run: kills by what died, and partitions by kind and way."""
        kills = Counter(f"kill of {line['name']}" for line in self._lines("kill"))
        splits = Counter(
            f"partition: {line['kind']}, {line['way']}, "
            f"{'all' if line['of'] is None else 'one process'}"
            for line in self._lines("partition", phase="begin")
        )
        return [
            (what, _number(count))
            for what, count in (*sorted(kills.items()), *sorted(splits.items()))
        ]

    def proofs(self) -> list[str]:
        """The first violations with their lines."""
        return [one.shown(self._history) for one in self.violations[:SHOWN]]


def _number(count: int) -> str:
    return f"{count:,}"


def table(rows: Iterable[Sequence[str]], head: Sequence[str]) -> str:
    """A Markdown table with straight columns."""
    everything = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in everything
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
