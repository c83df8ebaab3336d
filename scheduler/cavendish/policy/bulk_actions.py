"""Pure: what operators do in Flower: to many ids or dead letters at once, step by step, so that it
can be watched and stopped; and to all else, as notes.

A bulk action lies in the store from its confirmation on. One process at a time carries it out, and
notes each step; if it dies, another one goes on. That is harmless: what an action has done to an id
keeps it from being done again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cavendish.filter import Filter
from cavendish.stored_json import compact, parse, read

#: What can be done to ids, and to dead letters, as participles.
VERBS = {
    "cancel": "cancelled",
    "deadline": "given another deadline",
    "forget": "forgotten",
    "replay": "replayed",
}
LETTER_VERBS = {"revive": "revived", "drop": "dropped"}
#: Bulk actions and notes that are kept, the latest, and seconds of silence after which a process is
#: taken for dead.
KEPT, NOTED, SILENT_FOR = 30, 50, 15.0

#: Characters that are kept of what cannot be read.
LONGEST = 20_000


@dataclass(frozen=True, slots=True)
class BulkAction:
    """One action, by its `id`.

    - `verb` of VERBS or LETTER_VERBS, `by` whom, `began_at`, and the `reason` that was given;
    - `chosen`: a filter, as its fields, or `ids`, each as `ACCOUNT SERVICE ID`, and dead letters as
      `LANE DELIVERY`; `counted` when it was confirmed, and whether that was the `whole` number;
    - `deadline_at` and `silent`: what the verb needs;
    - `state`: "running", "done", "stopped" or "failed";
    - `owner`: the process that carries it out, which was alive at `seen_at`; "": none does;
    - `done` ids were changed, `left` were not, since they had ended or are not tracked;
    - `said`: who stopped it, or why it failed.
    """

    id: str
    verb: str
    by: str
    began_at: float
    counted: int
    chosen: str = ""
    ids: tuple[str, ...] = ()
    reason: str = ""
    silent: bool = False
    deadline_at: float = 0.0
    state: str = "running"
    owner: str = ""
    seen_at: float = 0.0
    done: int = 0
    left: int = 0
    ended_at: float = 0.0
    said: str = ""
    whole: bool = True

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the filter that it is about."""
        fields = parse(self.chosen) if self.chosen else {}
        return fields if isinstance(fields, dict) else {}

    @property
    def filter(self) -> Filter | None:
        """The ids that it is about, without those that came after its confirmation; or None."""
        if not self.chosen:
            return None
        found = Filter(**self.fields)
        until = self.began_at if found.until is None else min(found.until, self.began_at)
        return replace(found, until=until)

    @property
    def places(self) -> dict[tuple[str, str], list[str]]:
        """The named ids by account and service."""
        found: dict[tuple[str, str], list[str]] = {}
        for each in self.ids:
            account, service, task_id = each.split(" ", 2)
            found.setdefault((account, service), []).append(task_id)
        return found

    @property
    def participle(self) -> str:
        return (VERBS | LETTER_VERBS).get(self.verb, self.verb)

    @property
    def of_letters(self) -> bool:
        """True if it is about dead letters, not about ids."""
        return self.verb in LETTER_VERBS

    def free(self, now: float) -> bool:
        """True if no living process carries it out."""
        return self.state == "running" and (not self.owner or now - self.seen_at > SILENT_FOR)


def fields_of(found: Filter) -> str:
    """A filter as JSON text."""
    given = {name: getattr(found, name) for name in Filter.__slots__}
    return compact({name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Note:
    """What else an operator did: when (seconds since the Unix epoch), by whom, and a sentence."""

    at: float
    by: str
    what: str


@dataclass(frozen=True, slots=True)
class BulkActions:
    """The latest bulk actions and the latest notes, the newest first.

    `unread`: what lay among them and cannot be read, as JSON texts: it may be of another version,
    so it is kept. Nobody carries it out.
    """

    latest: tuple[BulkAction, ...] = ()
    notes: tuple[Note, ...] = ()
    unread: tuple[str, ...] = ()

    def noted(self, note: Note) -> BulkActions:
        """With one note more; the oldest leave."""
        return replace(self, notes=(note, *self.notes)[:NOTED])

    def get(self, action: str) -> BulkAction | None:
        return next((one for one in self.latest if one.id == action), None)

    def with_new(self, action: BulkAction) -> BulkActions:
        """With one more; of those that have ended, the oldest leave."""
        known = (action, *self.latest)
        ended = [one for one in known if one.state != "running"]
        gone = {one.id for one in ended[max(KEPT - len(known) + len(ended), 0) :]}
        return replace(self, latest=tuple(one for one in known if one.id not in gone))

    def changed(self, action: BulkAction) -> BulkActions:
        """With this one in place of what was known of it."""
        latest = (action if one.id == action.id else one for one in self.latest)
        return replace(self, latest=tuple(latest))

    def taken(self, owner: str, now: float) -> tuple[BulkActions, BulkAction | None]:
        """Give the oldest one that nobody carries out to a process; which one, if any."""
        free = [one for one in self.latest if one.free(now)]
        if not free:
            return self, None
        mine = replace(free[-1], owner=owner, seen_at=now)
        return self.changed(mine), mine

    def stepped(
        self, action: str, owner: str, now: float, done: int, left: int
    ) -> tuple[BulkActions, bool]:
        """Note a step; false if the process must not go on: it was stopped, or another has it."""
        known = self.get(action)
        if known is None or known.owner != owner or known.state != "running":
            return self, False
        known = replace(known, seen_at=now, done=known.done + done, left=known.left + left)
        return self.changed(known), True

    def ended(self, action: str, now: float, state: str, said: str = "") -> BulkActions:
        """End a running one."""
        known = self.get(action)
        if known is None or known.state != "running":
            return self
        return self.changed(replace(known, state=state, ended_at=now, said=said))

    @classmethod
    def from_json(cls, text: object) -> BulkActions:
        """Read what `to_json` wrote. What is damaged does not take the rest along."""
        if not isinstance(text, str):
            return cls()
        whole = read(cls, text)
        if whole is not None and not whole.unread:
            return whole
        actions, notes, unread = list[BulkAction](), list[Note](), list[str]()
        for row in _rows(text):
            if (action := read(BulkAction, row)) is not None:
                actions.append(action)
            elif (note := read(Note, row)) is not None:
                notes.append(note)
            else:
                unread.append(row[:LONGEST])
        actions.sort(key=lambda one: -one.began_at)
        notes.sort(key=lambda one: -one.at)
        return cls(tuple(actions), tuple(notes), tuple(unread[:KEPT]))

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)


def _rows(text: str) -> list[str]:
    """Each action and each note of a text as JSON; the text itself where it has no such parts."""
    try:
        value = parse(text)
        parts = [value.get(name) or [] for name in BulkActions.__slots__]
        return [row if isinstance(row, str) else compact(row) for part in parts for row in part]
    except (ValueError, TypeError, AttributeError):  # no JSON, or other JSON than ours
        return [text]
