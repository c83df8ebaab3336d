"""Publishes several messages in one round trip, where the broker is Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.exceptions import OperationalError
from kombu.exceptions import BatchPublishError  # type: ignore[attr-defined]  # newer than its stubs


def publish_together(app: Celery, publish: Callable[[Any], None]) -> None:
    """Call `publish` with a producer: what it publishes with that leaves together.

    If the broker is away, it is called again, as often as Celery would publish one message. Raises
    OperationalError; some messages may have left then, or twice.
    """
    pool: Any = app.producer_pool
    with pool.acquire(block=True) as producer:

        def once() -> None:
            with producer.batch():
                publish(producer)

        retry = {"retry_errors": (BatchPublishError,), **app.conf.task_publish_retry_policy}
        try:
            producer.connection.ensure(producer, once, **retry)()
        except BatchPublishError as error:
            raise OperationalError(f"{error}: {error.__cause__}") from error
