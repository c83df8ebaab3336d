"""A worker process serves its metrics when it is ready; beat and commands record none."""

from __future__ import annotations

from celery import signals

from cavendish.settings import Settings
from cavendish_worker.telemetry.metrics import recorded, serving


def attach() -> None:
    """Connect to Celery's signal."""
    signals.worker_ready.connect(
        lambda **_: serving.begin(Settings.load().metrics_port, recorded.REGISTRY), weak=False
    )
