"""Celery's broker: can messages be sent, and if it is a Redis of its own, does it keep them all?"""

from __future__ import annotations

from typing import Any

from cavendish.environment.local_paths import broker_url, without_password
from cavendish.errors import SettingsError
from cavendish.settings import Settings
from cavendish.store.server_info import Server
from cavendish_worker.doctor import stray_queues
from cavendish_worker.doctor.finding import Finding, ill, well
from cavendish_worker.doctor.redis_server import eviction


def findings(settings: Settings, store: Server, *, workers: bool) -> list[Finding]:
    """Connect to it once, as a worker would.

    `store`: the server of the store; `workers`: some live, so their Redis user lacks no right.
    """
    # Celery takes a while to load, and all other commands do without it.
    from cavendish_worker.celeryapp.app import build  # noqa: PLC0415
    from cavendish_worker.celeryapp.redis_transport import missing_right  # noqa: PLC0415

    try:
        where = without_password(broker_url(settings))
        app = build(settings)
    except SettingsError as error:
        return [ill("broker", str(error), "deploy/env.example has every setting.")]
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
            info = _info(connection)
            missing = None if workers else missing_right(connection.default_channel)
            strays = stray_queues.findings(connection)
    except Exception as error:  # whatever the broker's library raises is the finding
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        advice = (
            "Start it, or set CAVENDISH_BROKER_URL; unset, the Redis of the store is the broker."
        )
        return [ill("broker", f"{where} does not answer: {first}", advice)]
    finally:
        app.close()
    found = [well("broker", f"answers at {where}")]
    if missing:
        why = f"the Redis user of this environment could not run a worker: {missing}"
        advice = (
            "Give it the rights of deploy/redis-users.acl; "
            "or do nothing if the workers have a user of their own."
        )
        found.append(ill("broker rights", why, advice))
    if info and info.get("run_id") != store.run_id:
        found.append(eviction("broker eviction", info.get("maxmemory_policy")))
    return [*found, *strays]


def _info(connection: Any) -> dict[str, Any]:
    """The INFO of a Redis; empty where it forbids that, or where the broker is no Redis."""
    client = getattr(connection.default_channel, "client", None)
    try:
        return dict(client.info()) if client is not None else {}
    except connection.channel_errors:
        return {}
