"""Options that are times: a duration before now, or a time such as 2026-11-22T22:50:01Z."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click

from cavendish_worker.wording.times import duration

#: Unix time, as `--json` prints it: too many seconds for a year.
_UNIX = re.compile(r"[0-9]{9,11}(?:\.[0-9]+)?")


def time_of(text: str, now: float, option: str = "--since") -> float:
    """Unix time that an option means: a duration before `now`, an RFC 3339 time, or Unix time.

    A time without an offset is UTC. Raises click.BadParameter.
    """
    if _UNIX.fullmatch(text):
        return float(text)
    back = duration(text)
    if back is not None:
        return now - back
    return moment_of(text, option, "a duration such as 90s, 2h or 3d, or ")


def moment_of(text: str, option: str, other: str = "") -> float:
    """Unix time of an RFC 3339 time; one without an offset is UTC. Raises click.BadParameter.

    `other`: what else the option takes, for the complaint.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        why = f"must be {other}a time such as 2026-11-22T22:50:01Z."
        raise click.BadParameter(why, param_hint=option) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
