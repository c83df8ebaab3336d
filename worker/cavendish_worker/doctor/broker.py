"""Celery's broker: can messages be sent, and if it is a Redis of its own, does that drop any?"""

from __future__ import annotations

from typing import Any

from cavendish.errors import SettingsError
from cavendish.local_paths import broker_url, without_password
from cavendish.settings import Settings
from cavendish.store.server_info import Server
from cavendish_worker.doctor.finding import Finding, ill, well
from cavendish_worker.doctor.redis_server import eviction


def findings(settings: Settings, store: Server) -> list[Finding]:
    """Connect to it as a worker would, once.

    `store`: the server of the store, which need not be examined twice.
    """
    from cavendish_worker.celeryapp.app import build  # noqa: PLC0415 (Celery takes a while to load, and all other commands do without it)

    try:
        where = without_password(broker_url(settings))
        app = build(settings)
    except SettingsError as error:
        return [ill("broker", str(error), "deploy/env.example has every setting.")]
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
            said = _said(connection)
    except Exception as error:  # whatever the library of a broker raises: it is the finding
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        advice = (
            "Start it, or set CAVENDISH_BROKER_URL; unset, the Redis of the store is the broker."
        )
        return [ill("broker", f"{where} does not answer: {first}", advice)]
    finally:
        app.close()
    found = [well("broker", f"answers at {where}")]
    if said and said.get("run_id") != store.run_id:
        found.append(eviction("broker eviction", said.get("maxmemory_policy")))
    return found


def _said(connection: Any) -> dict[str, Any]:
    """What a Redis says of itself; nothing where it forbids that, or is none."""
    client = getattr(connection.default_channel, "client", None)
    try:
        return dict(client.info()) if client is not None else {}
    except connection.channel_errors:
        return {}
