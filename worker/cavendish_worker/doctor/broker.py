"""Celery's broker: can messages be sent, and if it is a Redis of its own, does that drop any?"""

from __future__ import annotations

from typing import Any

from cavendish.errors import SettingsError
from cavendish.local_paths import broker_url, without_password
from cavendish.settings import Settings
from cavendish.store.server_info import Server
from cavendish_worker.doctor.finding import Finding, ill, well
from cavendish_worker.doctor.redis_server import eviction


def findings(settings: Settings, store: Server, *, workers: bool) -> list[Finding]:
    """Connect to it as a worker would, once. `store`: the server of the store, which need not be
    examined twice.

    `workers`: some live, so it cannot be for a lack of rights that none does.
    """
    from cavendish_worker.celeryapp.app import build  # noqa: PLC0415 (Celery takes a while to load, and all other commands do without it)
    from cavendish_worker.celeryapp.redis_transport import missing_right  # noqa: PLC0415

    try:
        where = without_password(broker_url(settings))
        app = build(settings)
    except SettingsError as error:
        return [ill("broker", str(error), "deploy/env.example has every setting.")]
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
            said = _said(connection)
            missing = None if workers else missing_right(connection.default_channel)
    except Exception as error:  # whatever the library of a broker raises: it is the finding
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        advice = (
            "Start it, or set CAVENDISH_BROKER_URL; unset, the Redis of the store is the broker."
        )
        return [ill("broker", f"{where} does not answer: {first}", advice)]
    finally:
        app.close()
    found = [well("broker", f"answers at {where}")]
    if missing:
        advice = "Give it the rights of deploy/redis-users.acl; or nothing, if the workers have a user of their own."
        found.append(
            ill(
                "broker rights",
                f"the Redis user of this environment could not run a worker: {missing}",
                advice,
            )
        )
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
