"""Where store and broker are, and the secrets that `cavendish up` keeps in its data folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cavendish.environment import redis_options
from cavendish.environment.redis_url import (
    CLUSTER,
    SENTINEL,
    many,
    scheme_of,
    with_wait,
    without_password,
    without_wait,
)
from cavendish.errors import SettingsError
from cavendish.settings import Settings, env_name

__all__ = [
    "broker_tls",
    "broker_url",
    "celery_spelling",
    "quarantine_url",
    "socket_path",
    "store_url",
    "with_kept",
    "without_password",
]

#: Files of the data folder: the secret that signs webhooks, and the key that encrypts the secrets
#: of endpoints.
WEBHOOK_SECRET, SECRET_KEY = "webhook-secret", "secret-key"
#: The longest path of a unix socket, in bytes, that every system allows.
_SOCKET_PATH = 100


def socket_path(data_dir: Path) -> Path:
    """The unix socket of the embedded server.

    It is in the data folder, or in a private temporary folder if that path is too long, or is not
    UTF-8.
    """
    path = data_dir.resolve() / "redis.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH and _is_text(path):
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"cavendish-{os.getuid()}-{name}" / "redis.sock"


def _is_text(path: Path) -> bool:
    """False for a path with bytes that a URL cannot carry through redis-py and Celery."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True


def _in_url(path: Path) -> str:
    """A path as the URL of a unix socket spells it; redis-py and Celery both decode it once."""
    return quote(str(path), safe="/")


def store_url(settings: Settings) -> str:
    """URL of the Redis that holds the store, with the replicas that its writes wait for."""
    url = settings.redis_url or f"unix://{_in_url(socket_path(settings.data_dir))}?db=0"
    return with_wait(url, settings.wait_replicas, settings.wait_timeout)


def with_kept(settings: Settings) -> Settings:
    """The settings of a command beside `cavendish up`, with the secrets that it keeps.

    The environment wins. A kept key is added to the keys of the environment, since it may have
    encrypted what has to be decrypted. Raises SettingsError for a file that holds something else.
    """
    if settings.redis_url:
        return settings
    secret = settings.webhook_secret or _kept(settings, WEBHOOK_SECRET).webhook_secret
    keys = (*settings.secret_key, *_kept(settings, SECRET_KEY).secret_key)
    return replace(settings, webhook_secret=secret, secret_key=tuple(dict.fromkeys(keys)))


def _kept(settings: Settings, name: str) -> Settings:
    """The one setting that a file of the data folder holds, all else by default."""
    path = settings.data_dir / name
    with suppress(FileNotFoundError, PermissionError):  # it is not there, or belongs to others
        text = path.read_text(errors="replace")
        try:
            return Settings.load({env_name(name.replace("-", "_")): text})
        except SettingsError as error:
            raise SettingsError(
                [f"{path} cannot be used: {complaint}" for complaint in error.complaints]
            ) from None
    return Settings()


def broker_url(settings: Settings) -> str:
    """URL of Celery's broker; the embedded server has a database of its own for it.

    Raises SettingsError if there is no broker but a Redis Cluster.
    """
    url = settings.broker_url or settings.redis_url
    if not settings.broker_url and scheme_of(url) == CLUSTER:
        why = "must name a broker, since Celery cannot use a Redis Cluster as one."
        raise SettingsError([f"CAVENDISH_BROKER_URL {why}"])
    if url:
        return celery_spelling(url)
    return f"redis+socket://{_in_url(socket_path(settings.data_dir))}?virtual_host=1"


def quarantine_url(settings: Settings) -> str | None:
    """URL of the broker's Redis, as the store spells it, where quarantined messages are kept.

    None for a broker that is no Redis.
    """
    if settings.broker_url.startswith("amqp"):
        return None
    url = settings.broker_url or settings.redis_url
    return without_wait(url or f"unix://{_in_url(socket_path(settings.data_dir))}?db=1")[0]


def celery_spelling(url: str) -> str:
    """Celery's spelling of a URL in redis-py's spelling or in ours.

    `unix:///path?db=1` becomes `redis+socket:///path?virtual_host=1`. Its options for TLS are left
    out: `broker_tls` reads them. Raises ValueError.
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
    """The arguments by which Celery verifies a broker behind `rediss://`; empty for others."""
    url = settings.broker_url or settings.redis_url
    return redis_options.read(url)[2] if scheme_of(url) == "rediss" else {}
