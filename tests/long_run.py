"""TESTS_LONG=1 makes a long run: what a test repeats is then repeated more often."""

from __future__ import annotations

import os


def times(usual: int, long: int) -> int:
    """How often: `usual`, or `long` in a long run."""
    return long if "TESTS_LONG" in os.environ else usual
