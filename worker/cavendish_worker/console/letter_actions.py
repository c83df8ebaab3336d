"""Revives or drops dead letters of a bulk action, step by step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator

from cavendish.model import Changed, Lane
from cavendish.operator_act import OperatorAct
from cavendish.policy.bulk_actions import BulkAction
from cavendish.replay import RATE
from cavendish.store import Store
from cavendish.store.keys import task_of
from cavendish.undo import changes
from cavendish_worker.webhooks.dead_letters import STEP, DeadLetters


class LetterAction:
    """Carries out one action. It acts on no dead letter twice: what it revived is none any more,
    and what died again since it began is left alone.
    """

    def __init__(self, store: Store, action: BulkAction) -> None:
        self._store, self._action = store, action
        self._due_at = store.fleet.now()

    def steps(self) -> Iterator[list[Changed]]:
        """What became of the ids that they announce. Raises StoreUnavailable."""
        if not self._action.ids:
            wanted = wanted_in(self._action.fields)
            yield from wanted.steps(self._store, self._action.began_at, self._act)
            return
        named = defaultdict[Lane, list[str]](list)
        for each in self._action.ids:
            place, _, name = each.partition(" ")
            named[Lane.parse(place)].append(name)
        for lane, names in named.items():
            for start in range(0, len(names), STEP):
                some = self._unchanged(lane, names[start : start + STEP])
                done = {task_of(name) for name in self._act(lane, some)}
                yield changes(lane, [task_of(name) for name in names[start:][:STEP]], done, ())

    def _unchanged(self, lane: Lane, names: list[str]) -> list[str]:
        """Those that died before the action began."""
        died = self._store.closed.died_at(lane, names)
        return [
            name
            for name, at in zip(names, died, strict=True)
            if at is not None and at < self._action.began_at
        ]

    def _act(self, lane: Lane, names: list[str]) -> Collection[str]:
        if self._action.verb == "drop":
            return self._store.closed.drop(lane, names)
        times = {name: self._due_at + place / RATE for place, name in enumerate(names)}
        self._due_at = max([self._store.fleet.now(), *times.values()])
        act = OperatorAct(self._action.began_at, "revive", self._action.by)
        return self._store.closed.reopen(lane, times, dead=True, act=act)


def fields_of(wanted: DeadLetters) -> dict[str, object]:
    """A filter of dead letters as plain values."""
    said = {"endpoint": wanted.endpoint, "reason": wanted.reason or None}
    said["since"] = wanted.since if math.isfinite(wanted.since) else None  # type: ignore[assignment]
    return {name: value for name, value in said.items() if value is not None}


def wanted_in(fields: dict[str, object]) -> DeadLetters:
    """The filter that `fields_of` turned into plain values."""
    known = {name: fields[name] for name in ("endpoint", "reason", "since") if name in fields}
    return DeadLetters(**known)  # type: ignore[arg-type]
