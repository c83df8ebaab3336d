"""A bar on stderr for what takes long, at a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def with_bar(things: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same things; a bar shows how many of `total` were taken."""
    if not sys.stderr.isatty():
        yield from things
        return
    # Imported here: rich takes longer to load than most commands run.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import track  # noqa: PLC0415

    yield from track(things, what, total, console=Console(stderr=True), transient=True)
