"""The log of a delivery: what each attempt met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cavendish.model import LoggedAttempt
from cavendish.stored_json import END_OF_TIME, read_lines
from cavendish_worker.cli.tables import table
from cavendish_worker.wording.times import moment


def read_log(log: str) -> list[dict[str, Any]]:
    """The attempts in a delivery log, a line each; lines that cannot be read are left out."""
    return [
        {name: value for name, value in asdict(one).items() if value not in (None, "")}
        for one in read_lines(LoggedAttempt, log)
        if 0 <= one.at < END_OF_TIME
    ]


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
