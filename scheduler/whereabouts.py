"""Where the book and the broker are, when the environment does not say: the embedded server of `cavendish up`."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from scheduler.settings import Settings

#: The longest path that a unix socket may have on every system.
_SOCKET_PATH = 100


def socket_path(data_dir: Path) -> Path:
    """The embedded server's unix socket: in the data folder, or in a private temporary one if that path is too long."""
    path = data_dir.resolve() / "redis.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"cavendish-{os.getuid()}-{name}" / "redis.sock"


def book_url(settings: Settings) -> str:
    """URL of the Redis that holds the book."""
    return settings.redis_url or f"unix://{socket_path(settings.data_dir)}?db=0"


def broker_url(settings: Settings) -> str:
    """URL of Celery's broker. The embedded server keeps it in a database of its own."""
    if settings.broker_url or settings.redis_url:
        return celery_spelling(settings.broker_url or settings.redis_url)
    return f"redis+socket://{socket_path(settings.data_dir)}?virtual_host=1"


def celery_spelling(url: str) -> str:
    """Celery's spelling of a URL in redis-py's: `unix:///path?db=1` is `redis+socket:///path?virtual_host=1`."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    return f"redis+socket://{parts.path}?{parts.query.replace('db=', 'virtual_host=')}"


def without_password(url: str) -> str:
    """A URL that may be shown."""
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    return f"{shown}?{parts.query}" if parts.query and "password" not in parts.query else shown
