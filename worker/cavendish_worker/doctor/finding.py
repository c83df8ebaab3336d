"""One finding of the doctor: what was examined, what was found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined.

    `advice` is empty where nothing need be done; what is well may have some too.
    """

    what: str
    ok: bool
    found: str
    advice: str = ""
    examined: bool = True


def well(what: str, found: str, advice: str = "") -> Finding:
    return Finding(what, ok=True, found=found, advice=advice)


def ill(what: str, found: str, advice: str) -> Finding:
    return Finding(what, ok=False, found=found, advice=advice)


def skipped(what: str, why: str) -> Finding:
    """Something that cannot be examined from here; that is no fault."""
    return Finding(what, ok=True, found=f"not examined: {why}", examined=False)
