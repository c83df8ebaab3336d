"""The history of a run: one line of JSON for each thing that somebody did or saw.

    {"at": 1795829148.09, "by": "world", "op": "submit", "phase": "invoked", "call": "world-7", ...}

Every process that writes has a file of its own; `merge` makes one of them, which is kept and can be
judged again.

**One clock.** `at` is CLOCK_MONOTONIC of the machine plus one offset that is measured once for the
whole run. All processes of a run are on one machine, so they share that clock; it does not jump;
and it can be read while Redis, which has the program's own clock, is killed or cut off. The offset
makes the times comparable with those of Redis (`settled_at`). Should the wall clock be set during a
run, the two `clock` lines differ, and the checker says so.

What the lines say (times in seconds):
- `submit`, `get`, `cancel`, `forget`, `deadline` with `phase` invoked, and then ok, failed (surely
  not done) or unknown (perhaps done), of one `call`:
  - submit, invoked: `ids`, `places` (the path of each webhook), `deadline` from now, `promised`
    (false: the run itself works against these ids, so they need not end); ok: `answers` by id
    (`new`, `known`, `refused`, or `sent` for a Celery message); `group` and `group_size`, if they
    are of one;
  - get, ok: `seen` by id: null where the id is not known, else [state, settled_at or null];
  - cancel, forget and deadline, invoked: `ids`, `matching` (the group by which a filter chooses
    them, or ''), `silent`, `deadline` from now; ok: `answers` by id (`done`, `ended`, `unknown`, or
    `unmatched`: the filter did not find it);
- `poll`: `ids` of which the API was asked;
- `finish`: `id`, `state` (succeeded or failed): the truth of the API; `at` is when it finished;
- `delivery`: `webhook_id`, `id`, `state`, `place`, `verified`, `answered` (HTTP status); `at` is
  when the request was there;
- `completion`: `webhook_id`, `group`, `counts` by state, `place`, `answered`: of a verified
  `group.completed`;
- `kill`: `name`, `where`; `partition` with `phase` begin or end, `kind`, `way`, `fronts`, `of`;
- `list`: the `ids` that `Client.iter` had at the end; `rest`: `found` by forgotten id, the keys of
  Redis in which it still is;
- `clock`: `wall`, the machine's clock of the day at this moment;
- `end`: all was waited for, so what is missing is lost.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

#: One line, parsed.
Line = Mapping[str, Any]


def offset() -> float:
    """Seconds from CLOCK_MONOTONIC to the epoch, by the tightest of some readings."""
    readings = []
    for _ in range(20):
        before, wall, after = time.monotonic(), time.time(), time.monotonic()
        readings.append((after - before, wall - (before + after) / 2))
    return min(readings)[1]


class History:
    """The file of one process. Lines of several threads do not mix: each is one write."""

    def __init__(self, path: Path, by: str, since_epoch: float) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._by, self._offset, self._calls = by, since_epoch, count(1)

    def now(self) -> float:
        """Seconds since the epoch by the clock of the run."""
        return self.time_of(time.monotonic())

    def time_of(self, monotonic: float) -> float:
        """What another process read from CLOCK_MONOTONIC, by the clock of the run."""
        return monotonic + self._offset

    def note(self, op: str, *, at: float | None = None, **facts: Any) -> None:
        """Write a line."""
        line = {"at": self.now() if at is None else at, "by": self._by, "op": op, **facts}
        os.write(self._file, _text(line).encode())

    def invoked(self, op: str, **facts: Any) -> str:
        """A client is about to do this. Returns the name of the call."""
        call = f"{self._by}-{next(self._calls)}"
        self.note(op, phase="invoked", call=call, **facts)
        return call

    def returned(self, op: str, call: str, phase: str, **facts: Any) -> None:
        """It is done (ok), not done (failed), or nobody knows (unknown)."""
        self.note(op, phase=phase, call=call, **facts)

    def check_clock(self) -> None:
        """Note what the wall clock says now."""
        self.note("clock", wall=offset() + time.monotonic())

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> list[Line]:
    """The lines of a file. Raises ValueError, with its number, for what is no line of a history."""
    lines: list[Line] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            line = json.loads(text)
            sound = isinstance(line["op"], str) and isinstance(line["at"], float)
        except (ValueError, TypeError, KeyError):
            sound = False
        if not sound:
            raise ValueError(f"{path}, line {number} is no history: {text[:80]}")
        lines.append(line)
    return lines


def merge(files: Iterable[Path], target: Path) -> list[Line]:
    """Make one file of the files of all processes, in the order of time; returns its lines."""
    each = (line for path in sorted(files) for line in read(path))
    lines = sorted(each, key=lambda line: line["at"])
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8") as file:
        file.writelines(map(_text, lines))
    return lines


def _text(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
