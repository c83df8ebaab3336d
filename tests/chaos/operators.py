"""Operators, who cancel ids, forget them and give them another deadline while everything dies.

What one is to do stands in a file, an order a line. It is a process that is killed like the others:
the next life of it begins with the order in which the last one died.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

from cavendish import Client, Filter
from cavendish.errors import StoreUnavailable
from cavendish.settings import Settings
from chaos.history import History
from chaos.world import SERVICE, World

NAMES = ("operator0", "operator1")
#: Seconds from one order of an operator to the next; until it looks for one; until it tries again.
EVERY, LOOK, AGAIN = 0.8, 0.02, 0.1
#: The last ids, and groups, of which some are chosen: about half of them have ended.
IDS, GROUPS = 120, 10
#: How often each verb comes, and the seconds of a deadline.
VERBS = {"cancel": 9, "forget": 6, "deadline": 5}
DEADLINES = (2.0, 8.0, 120.0)
#: Shares: of orders that name a group by a filter, and of cancels that are silent.
BY_FILTER, SILENT = 0.25, 0.4


class Orders:
    """What the operators of a world are to do, all of it from one seed."""

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._chance = world, random.Random(f"operators {seed}")
        self._at, self._given = dict.fromkeys(NAMES, time.monotonic()), dict.fromkeys(NAMES, 0)
        for name in NAMES:
            for path in _files(world.folder, name):
                path.touch()

    def words(self, name: str) -> list[str]:
        """What the zygote is asked for."""
        return ["operator", name, str(self._world.folder), repr(self._world.since_epoch)]

    def go(self) -> None:
        """One moment: give those an order whose time has come."""
        for name, at in self._at.items():
            if time.monotonic() >= at and (order := self._order()):
                self._at[name] = time.monotonic() + self._chance.uniform(0.4, 1.6) * EVERY
                with _files(self._world.folder, name)[0].open("a") as file:
                    file.write(json.dumps(order) + "\n")
                self._given[name] += 1

    def wait(self, seconds: float) -> None:
        """Wait until all is done, at most so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(
            _files(self._world.folder, name)[1].stat().st_size < given
            for name, given in self._given.items()
        ):
            time.sleep(LOOK)

    def _order(self) -> dict[str, Any] | None:
        world, chance = self._world, self._chance
        ids, groups = world.tracked[-IDS:], world.whole_groups()[-GROUPS:]
        if not ids:
            return None
        group = chance.choice(groups) if groups and chance.random() < BY_FILTER else ""
        some = world.members[group] if group else chance.sample(ids, min(len(ids), 4))
        (verb,) = chance.choices([*VERBS], [*VERBS.values()])
        order: dict[str, Any] = {"verb": verb, "ids": [*some], "matching": group}
        if verb == "cancel":
            order["silent"] = chance.random() < SILENT
            world.silenced |= {*some} if order["silent"] else set()
        if verb == "deadline":
            order["deadline"] = chance.choice(DEADLINES)
        if verb == "forget":
            world.forgotten |= {*some}
        return order


def operate(name: str, folder: str, since_epoch: str) -> None:
    """Carry out one order after the other, for ever."""
    orders, done = _files(Path(folder), name)
    who = f"{name}-{os.getpid()}"
    history = History(Path(folder) / f"{name}.jsonl", who, float(since_epoch))
    with Client(settings=Settings.load()) as client, done.open("ab", buffering=0) as finished:
        while True:
            given = orders.read_text().split("\n")[:-1]
            number = done.stat().st_size
            if number == len(given):
                time.sleep(LOOK)
            elif _carried_out(client, history, json.loads(given[number])):
                finished.write(b".")
            else:
                time.sleep(AGAIN)


def _carried_out(client: Client, history: History, order: dict[str, Any]) -> bool:
    """False if nobody knows."""
    verb, about = order.pop("verb"), {**order}
    call = history.invoked(verb, **about)
    ids, group = order.pop("ids"), order.pop("matching")
    chosen = Filter(service=SERVICE, group=group) if group else ids
    if not group:
        order["service"] = SERVICE
    method = {"deadline": client.set_deadline, "cancel": client.cancel, "forget": client.forget}
    try:
        said = {one.id: one.outcome for one in method[verb](chosen, **order)}
    except StoreUnavailable as error:
        history.returned(verb, call, "unknown", error=str(error)[:200])
        return False
    history.returned(verb, call, "ok", answers={one: said.get(one, "unmatched") for one in ids})
    return True


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    """The orders, and a byte for each that is done."""
    return folder / f"{name}.orders", folder / f"{name}.done"
