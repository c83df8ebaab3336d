"""Programs that some tests need, and that not every machine has."""

from __future__ import annotations

import os
import shutil

import pytest


def need(*programs: str) -> None:
    """Skip where a program is not installed; fail there if `TESTS_NEED` lists it, as CI does."""
    for name in programs:
        if not shutil.which(name):
            wanted = name in os.environ.get("TESTS_NEED", "").split()
            (pytest.fail if wanted else pytest.skip)(f"{name} is not installed")
