"""How the pages spell times, durations, numbers and addresses."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cavendish.stored_json import END_OF_TIME
from cavendish_worker.console.record_tree import beginning
from cavendish_worker.wording.times import moment

#: Characters that are shown of a value.
LONGEST = 20_000


class Shown:
    """Functions for templates, which escape what these return."""

    moment = staticmethod(moment)

    @staticmethod
    def iso(at: float | None) -> str:
        """The same for programs."""
        if at is None or not 0 <= at < END_OF_TIME:
            return ""
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")

    @staticmethod
    def lasted(seconds: float | None) -> str:
        """A duration in words, such as `2 min 5 s`; empty for none."""
        if seconds is None or not math.isfinite(seconds):
            return ""
        if seconds < 10:
            return f"{seconds:.2f} s"
        whole = round(seconds)
        for unit, name, smaller, its in (
            (86400, "d", 3600, "h"),
            (3600, "h", 60, "min"),
            (60, "min", 1, "s"),
        ):
            if whole >= unit:
                rest = whole % unit // smaller
                return f"{whole // unit:,} {name}" + (f" {rest} {its}" if rest else "")
        return f"{whole} s"

    @staticmethod
    def number(value: float | None, digits: int = 0) -> str:
        """A number with its thousands apart; - for none."""
        return "-" if value is None else f"{value:,.{digits}f}"

    @staticmethod
    def host(url: str) -> str:
        """Scheme and host of a URL: the rest of it may be secret."""
        try:
            parts = urlsplit(url)
        except ValueError:  # of a damaged record
            return "…"
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}/…" if parts.scheme else url

    @staticmethod
    def text(value: object) -> str:
        """The beginning of a value as JSON, for people."""
        return beginning(json.dumps(value, ensure_ascii=False, indent=2), LONGEST)
