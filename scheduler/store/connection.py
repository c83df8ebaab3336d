"""The connection to Redis, and the one place where its errors become ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.commands.core import Script
from redis.retry import Retry

from scheduler.errors import BookUnavailable, SettingsError
from scheduler.whereabouts import without_password

#: Seconds. Redis answers in milliseconds; a longer silence means that it is away.
SOCKET_TIMEOUT = 5.0

_AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)
_REFUSING = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError, redis.exceptions.NoPermissionError)
_REFUSING_WORDS = ("OOM", "MISCONF", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "BUSY", "UNBLOCKED")


class Connection:
    """Redis as the store uses it: named scripts, pipelines, and errors in one sentence."""

    def __init__(self, url: str) -> None:
        try:
            self.redis = redis.Redis.from_url(
                _plain(url),
                decode_responses=True,
                encoding_errors="surrogateescape",
                socket_timeout=SOCKET_TIMEOUT,
                socket_connect_timeout=2.0,
                health_check_interval=15,
                # A lost connection is tried again at once; a silence is not: its retries would multiply to a minute.
                retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), 2, supported_errors=(redis.ConnectionError,)),
                retry_on_error=[redis.ConnectionError],
            )
        except ValueError as error:
            raise SettingsError([f"CAVENDISH_REDIS_URL cannot be used: {error}."]) from None
        self.where = without_password(url)
        self._scripts: dict[str, Script] = {}

    def close(self) -> None:
        self.redis.close()

    def script(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run `scripts/NAME.lua` on its own."""
        with self.errors():
            return self._script(name)(keys=keys, args=args)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Everything that means «Redis is away or will not write» becomes BookUnavailable."""
        try:
            yield
        except _AWAY as error:
            hint = " Does `cavendish up` run, here or with the same CAVENDISH_DATA_DIR?" if self.where.startswith("unix") else ""
            raise BookUnavailable(f"Redis at {self.where} does not answer ({_first_line(error)}).{hint}") from None
        except redis.ResponseError as error:
            if isinstance(error, _REFUSING) or any(word in str(error)[:200] for word in _REFUSING_WORDS):
                raise BookUnavailable(f"Redis at {self.where} refuses ({_first_line(error)}).") from None
            raise

    def pipeline(self) -> redis.client.Pipeline:
        """A pipeline without a transaction: one round trip, and each command stands for itself."""
        return self.redis.pipeline(transaction=False)

    def queue(self, pipe: redis.client.Pipeline, name: str, keys: Sequence[str], args: Sequence[Any]) -> None:
        """Add a run of `scripts/NAME.lua` to a pipeline."""
        self._script(name)(keys=keys, args=args, client=pipe)

    def _script(self, name: str) -> Script:
        if name not in self._scripts:
            source = files("scheduler").joinpath("scripts", f"{name}.lua").read_text()
            self._scripts[name] = self.redis.register_script(source)
        return self._scripts[name]


def _plain(url: str) -> str:
    """redis-py's spelling of a URL in Celery's: `redis+socket:///path?virtual_host=2` is `unix:///path?db=2`."""
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return url
    number = parse_qs(parts.query).get("virtual_host", ["0"])[0]
    return f"unix://{parts.path}?db={number}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
