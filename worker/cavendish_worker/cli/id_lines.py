"""Ids as `submit` and `wait` take them: as words, or a line each from stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from cavendish import Submitted

#: What a line may say of its id.
_KEYS = set(
    "service account webhook deadline metadata model producer restart traceparent key group "
    "group_size".split()
)


def read_ids(
    ids: tuple[str, ...], refused: list[Submitted]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each id with the options of its own line; `-` alone reads the lines of stdin.

    A line that cannot be read is added to `refused`, and the others go on.
    """
    if ids != ("-",):
        yield from ((task_id, {}) for task_id in ids)
        return
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            if not (line := raw.decode().strip()):
                continue
            task_id, own = _read(line)
        except (AttributeError, TypeError, ValueError, KeyError, RecursionError):
            reason = "the line is neither an id nor a JSON object with an id"
            refused.append(Submitted(f"line {number}", "refused", reason=reason))
            continue
        if unknown := sorted(set(own) - _KEYS):
            reason = f"line {number} has the unknown key {unknown[0][:40]!r}"
            refused.append(Submitted(str(task_id), "refused", reason=reason))
            continue
        yield task_id, own


def _read(line: str) -> tuple[Any, dict[str, Any]]:
    """The id of a line, and what else it says. Raises what json and a wrong type raise."""
    if not line.startswith(("{", "[", '"')):
        return line, {}
    read = json.loads(line)
    own: dict[str, Any] = {"id": read} if isinstance(read, str) else read
    return own.pop("id"), own
