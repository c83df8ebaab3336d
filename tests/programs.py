"""Programs that some tests need, and that not every machine has."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

#: Where `make clients` puts the vendor's clients that have no place in our own environment.
CLIENTS = Path(sys.prefix) / "clients"


def need(*programs: str) -> None:
    """Skip where a program is not installed; fail there if `TESTS_NEED` lists it, as CI does.

    `clients`: those of the vendor, in CLIENTS.
    """
    for name in programs:
        there = (CLIENTS / ".done").exists() if name == "clients" else shutil.which(name)
        if not there:
            wanted = name in os.environ.get("TESTS_NEED", "").split()
            (pytest.fail if wanted else pytest.skip)(f"{name} is not installed")
