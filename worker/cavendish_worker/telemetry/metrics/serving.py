"""Serves metrics over HTTP: those of a process, or of the store.

Workers and the HTTP service do it if CAVENDISH_METRICS_PORT is set, and `cavendish metrics --serve`
for the store.
"""

from __future__ import annotations

import errno
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from cavendish_worker.telemetry.logs import logger

Registry = CollectorRegistry


def begin(where: tuple[str, int] | None, registry: CollectorRegistry) -> None:
    """Serve the metrics of this process, at the host and port `where`; None: do not."""
    if where is None:
        return
    try:
        port = serve(where, registry)
    except OSError as error:
        host = f"{where[0]}:{where[1]}"
        logger().error(
            "metrics.unserved",
            outcome=f"{host} cannot be listened on ({error.strerror}); the process goes on",
        )
        return
    logger().info("metrics.served", at=address(where[0], port))


def address(host: str, port: int) -> str:
    """The URL of the metrics."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def serve(where: tuple[str, int], registry: CollectorRegistry) -> int:
    """Answer every GET with the metrics of that moment, in threads; returns the port.

    Raises OSError.
    """
    try:
        server, _ = start_http_server(where[1], addr=where[0], registry=registry)
    except UnicodeError:  # no resolver takes it
        raise OSError(errno.EADDRNOTAVAIL, "no name of a host") from None
    return int(server.server_port)


def samples(registry: CollectorRegistry) -> list[dict[str, Any]]:
    """The metrics as plain values: one for each line of the text."""
    families = registry.collect()
    return [
        {"name": one.name, "labels": one.labels, "value": one.value}
        for family in families
        for one in family.samples
    ]


def text(registry: CollectorRegistry) -> str:
    """The metrics in Prometheus' text format."""
    return generate_latest(registry).decode()
