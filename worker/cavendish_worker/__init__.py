"""The processes of Cavendish: Celery, HTTP, the command line. Start at `tasks`.

`celery -A cavendish_worker worker` finds the Celery app here; it is built when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery


def __getattr__(name: str) -> Celery:
    """`cavendish_worker.app`, loaded at its first use so that a command does not load Celery."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cavendish_worker.tasks import app  # noqa: PLC0415 (as said above)

    return app
