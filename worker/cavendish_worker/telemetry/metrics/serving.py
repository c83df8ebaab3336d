"""Serves an exposition for scrapes.

Of a worker process by CAVENDISH_METRICS_PORT, of the store by `cavendish metrics --serve`.
"""

from __future__ import annotations

import errno
from typing import Any

from celery import signals
from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from cavendish.settings import Settings
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded

Registry = CollectorRegistry


def attach() -> None:
    """Let a worker process serve what it records, if the settings say so.

    Beat, Flower and commands record nothing.
    """
    signals.worker_ready.connect(lambda **_: begin(Settings.load().metrics_port), weak=False)


def begin(where: tuple[str, int] | None) -> None:
    """Serve what this process records, where that is wanted and can be."""
    if where is None:
        return
    try:
        port = serve(where, recorded.REGISTRY)
    except OSError as error:  # a worker whose numbers nobody sees is better than none
        host = f"{where[0]}:{where[1]}"
        logger().error(
            "metrics.unserved",
            outcome=f"{host} cannot be listened on ({error.strerror}); the worker goes on",
        )
        return
    logger().info("metrics.served", at=address(where[0], port))


def address(host: str, port: int) -> str:
    """Where a scrape finds it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def serve(where: tuple[str, int], registry: CollectorRegistry) -> int:
    """Answer every GET with what the registry says then, from threads of its own.

    Returns the port. Raises OSError.
    """
    try:
        server, _ = start_http_server(where[1], addr=where[0], registry=registry)
    except UnicodeError:  # what is no name at all is not even asked for
        raise OSError(errno.EADDRNOTAVAIL, "no name of a host") from None
    return int(server.server_port)


def samples(registry: CollectorRegistry) -> list[dict[str, Any]]:
    """The same as plain values: one for each line of the text."""
    families = registry.collect()
    return [
        {"name": one.name, "labels": one.labels, "value": one.value}
        for family in families
        for one in family.samples
    ]


def text(registry: CollectorRegistry) -> str:
    """The exposition once, in Prometheus' text format."""
    return generate_latest(registry).decode()
