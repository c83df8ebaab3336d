"""What the environment does not say and `cavendish up` keeps in its data folder.

Where store and broker are, and secrets.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cavendish import redis_options
from cavendish.errors import SettingsError
from cavendish.redis_url import (
    CLUSTER,
    SENTINEL,
    many,
    scheme_of,
    with_wait,
    without_password,
    without_wait,
)
from cavendish.settings import Settings, env_name

__all__ = [
    "book_url",
    "broker_tls",
    "broker_url",
    "celery_spelling",
    "socket_path",
    "with_kept",
    "without_password",
]

#: The files of the data folder with what signs webhooks, and what encrypts the secrets of
#: endpoints.
WEBHOOK_SECRET, SECRET_KEY = "webhook-secret", "secret-key"
#: The longest path that a unix socket may have on every system.
_SOCKET_PATH = 100


def socket_path(data_dir: Path) -> Path:
    """The embedded server's unix socket.

    In the data folder, or in a temporary one if its path is too long or no UTF-8.
    """
    path = data_dir.resolve() / "redis.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH and _is_text(path):
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"cavendish-{os.getuid()}-{name}" / "redis.sock"


def _is_text(path: Path) -> bool:
    """False for a path with bytes that no URL can carry through Redis' client and Celery's."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True


def _in_url(path: Path) -> str:
    """A path as the URL of a unix socket spells it: both clients undo this once."""
    return quote(str(path), safe="/")


def store_url(settings: Settings) -> str:
    """URL of the Redis that holds the store, with what its writes wait for."""
    url = settings.redis_url or f"unix://{_in_url(socket_path(settings.data_dir))}?db=0"
    return with_wait(url, settings.wait_replicas, settings.wait_timeout)


def with_kept(settings: Settings) -> Settings:
    """The settings of a command beside `cavendish up`: what it keeps for its parts is found as its
    socket is.

    What the environment says wins; a kept key is added to its keys, since it may have encrypted
    what is to be opened. Raises SettingsError for a file that holds something else.
    """
    kept = {"webhook_secret": WEBHOOK_SECRET, "secret_key": SECRET_KEY}
    found = Settings()
    for setting, name in kept.items() if not settings.redis_url else ():
        path = settings.data_dir / name
        with suppress(FileNotFoundError, PermissionError):  # there is none, or it is another's
            text = path.read_text(errors="replace")
            try:
                found = replace(
                    found, **{setting: getattr(Settings.load({env_name(setting): text}), setting)}
                )
            except SettingsError as error:
                raise SettingsError(
                    [f"{path} cannot be used: {complaint}" for complaint in error.complaints]
                ) from None
    secret, keys = (
        settings.webhook_secret or found.webhook_secret,
        (*settings.secret_key, *found.secret_key),
    )
    return replace(settings, webhook_secret=secret, secret_key=tuple(dict.fromkeys(keys)))


def broker_url(settings: Settings) -> str:
    """URL of Celery's broker.

    The embedded server keeps it in a database of its own. Raises SettingsError.
    """
    if not settings.broker_url and scheme_of(settings.redis_url) == CLUSTER:
        raise SettingsError(
            [
                "CAVENDISH_BROKER_URL must name a broker, since Celery cannot use a Redis Cluster as one."
            ]
        )
    if settings.broker_url or settings.redis_url:
        return celery_spelling(settings.broker_url or settings.redis_url)
    return f"redis+socket://{_in_url(socket_path(settings.data_dir))}?virtual_host=1"


def quarantine_url(settings: Settings) -> str | None:
    """URL of the broker's Redis as the store spells it, where quarantined messages lie.

    None for a broker that is none.
    """
    if settings.broker_url.startswith("amqp"):
        return None
    if not (settings.broker_url or settings.redis_url):
        return f"unix://{_in_url(socket_path(settings.data_dir))}?db=1"
    return without_wait(settings.broker_url or settings.redis_url)[0]


def celery_spelling(url: str) -> str:
    """Celery's spelling of a URL in redis-py's or ours: `unix:///path?db=1` is
    `redis+socket:///path?virtual_host=1`.

    What it says of TLS goes to Celery by `broker_tls`. Raises ValueError.
    """
    url, *_ = without_wait(url)
    if scheme_of(url) == SENTINEL:
        return many(url).for_celery()
    if scheme_of(url) not in ("redis", "rediss", "unix", "redis+socket"):
        return url
    where, said, _ = redis_options.read(url)
    number = said.get("virtual_host") or said.get("db")
    parts = urlsplit(where)
    if parts.scheme in ("unix", "redis+socket"):
        return f"redis+socket://{parts.path}" + (f"?virtual_host={number}" if number else "")
    return parts._replace(path=f"/{number}").geturl() if number else where


def broker_tls(settings: Settings) -> dict[str, Any]:
    """How Celery's Redis transport verifies a broker behind `rediss://`; empty for any other."""
    url = settings.broker_url or settings.redis_url
    return redis_options.read(url)[2] if scheme_of(url) == "rediss" else {}
