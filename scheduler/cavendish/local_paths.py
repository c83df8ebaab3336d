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
from urllib.parse import urlsplit

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

    In the data folder, or in a private temporary one if that path is too long.
    """
    path = data_dir.resolve() / "redis.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"cavendish-{os.getuid()}-{name}" / "redis.sock"


def store_url(settings: Settings) -> str:
    """URL of the Redis that holds the store, with what its writes wait for."""
    url = settings.redis_url or f"unix://{socket_path(settings.data_dir)}?db=0"
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
    return f"redis+socket://{socket_path(settings.data_dir)}?virtual_host=1"


def celery_spelling(url: str) -> str:
    """Celery's spelling of a URL in redis-py's or ours.

    `unix:///path?db=1` is `redis+socket:///path?virtual_host=1`.
    """
    url, *_ = without_wait(url)
    if scheme_of(url) == SENTINEL:
        return many(url).for_celery()
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    return f"redis+socket://{parts.path}?{parts.query.replace('db=', 'virtual_host=')}"
