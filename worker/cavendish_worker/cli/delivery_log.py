"""The log of a delivery: what each attempt met."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cavendish_worker.cli.output import moment
from cavendish_worker.cli.tables import table


def read_log(log: str) -> list[dict[str, Any]]:
    """The attempts in a delivery log, a line each; lines that are no JSON objects are left out."""
    found = []
    for line in log.splitlines():
        try:
            read = json.loads(line)
        except ValueError:
            continue
        found += [read] if isinstance(read, dict) else []
    return found


def print_log(attempts: Sequence[dict[str, Any]]) -> None:
    """Print a table of the attempts, if there are any."""
    rows = [
        (
            moment(attempt.get("at")),
            attempt.get("seconds"),
            attempt.get("outcome"),
            attempt.get("address", ""),
            str(attempt.get("answer", ""))[:100],
        )
        for attempt in attempts
    ]
    if rows:
        table(("attempt", "seconds", "outcome", "address", "answer"), rows, cut="answer")
