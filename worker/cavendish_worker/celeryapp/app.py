"""The Celery app: queues, limits, logging. Messages are hints; the store holds the facts."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import kombu
from celery import Celery, signals
from celery.app.amqp import AMQP
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from celery.worker.consumer import Consumer
from kombu import Queue

from cavendish.local_paths import broker_tls, broker_url
from cavendish.redis_url import many
from cavendish.settings import Settings
from cavendish.task_names import QUEUES, beat_schedule
from cavendish_worker.celeryapp import redis_transport as broker
from cavendish_worker.console import flower
from cavendish_worker.telemetry import logs

#: Seconds until a worker whose user lacks a right attempts again.
REFUSED_AGAIN = 2.0


class PatientConnection(kombu.Connection):
    """Reconnects within a second of the broker's return.

    Celery's own waits grow to 30 s and no setting says otherwise.
    """

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        return super().ensure_connection(
            *args, **{"interval_start": 0.2, "interval_step": 0.2, "interval_max": 1.0, **kwargs}
        )

    def info(self) -> dict[str, Any]:
        """What `celery inspect` and Flower show of it.

        Without the passwords that lie deeper than they look for some.
        """
        said = dict(super().info())
        options = {
            name: value
            for name, value in said["transport_options"].items()
            if name != "sentinel_kwargs"
        }
        return said | {"alternates": [], "transport_options": options}


class WaryConsumer(Consumer):
    """Refuses a message that Celery itself trips over (no id, a task that is a list ...), and would
    end or loop for ever.
    """

    connection_errors: tuple[type[BaseException], ...]
    strategies: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What comes of a message that it sends itself as it begins is waited out like any other
        # loss, and does not end it.
        self.connection_errors = (*self.connection_errors, kombu.exceptions.OperationalError)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Celery begins anew at once.

        Where Redis refuses this user, somebody has to do something first.
        """
        super().on_connection_error_after_connected(exc)
        if logs.refuses(exc):
            time.sleep(REFUSED_AGAIN)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)

        def take(message: Any) -> None:
            try:
                if complaint := broker.inflates(message.headers, message.content_encoding):
                    self._refuse(message, complaint)
                    return
                flower.tidy(message.headers)
                handle(message)
            except MemoryError:
                raise  # it is not the message's fault
            except Exception as error:  # whatever a stranger may have sent
                self._refuse(message, f"{type(error).__name__}: {error}"[:200])

        return take

    def update_strategies(self) -> None:
        """Celery has tasks of its own, such as one that calls itself again for ever.

        Whoever may push could call them.
        """
        super().update_strategies()
        for name in set(self.strategies) - set(QUEUES):
            del self.strategies[name]

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """In one line; Celery's own shows the whole message."""
        name = (
            (body or message.headers or {}).get("task")
            if isinstance(body or message.headers, dict)
            else None
        )
        self._refuse(
            message, f"it calls {str(name or exc)[:60]!r}, which is no Celery task of ours"
        )

    def _refuse(self, message: Any, why: str) -> None:
        logs.logger().error("message.refused", outcome=why)
        message.reject_log_error(logging.getLogger("celery.worker"), self.connection_errors)


class PatientAMQP(AMQP):
    Connection = PatientConnection


class Dispatcher(EventDispatcher):
    """Loses no event that one thread sends while another publishes.

    Celery empties the list of what it has not published, too.
    """

    _group_buffer: dict[str, list[Any]]
    _publish: Callable[..., None]
    producer: Any
    mutex: Any

    def flush(self, errors: bool = True, groups: bool = True) -> None:  # noqa: FBT001, FBT002 (Celery's)
        with self.mutex:
            for group, events in self._group_buffer.items() if groups else ():
                taken = events[:]
                del events[: len(taken)]
                if taken:
                    self._publish(taken, self.producer, f"{group}.multi")
        super().flush(errors, groups=False)


class WholeEvents(Events):
    dispatcher_cls = f"{__name__}:Dispatcher"


class App(Celery):
    amqp_cls = f"{__name__}:PatientAMQP"
    events_cls = f"{__name__}:WholeEvents"


# Celery warns root users about pickle; this app takes nothing but JSON.
warnings.filterwarnings("ignore", message=".*superuser privileges")


def build(settings: Settings) -> Celery:
    """The app for these settings. Connects to nothing yet."""
    broker.install()
    flower.set_up(settings)
    app = App("cavendish", set_as_current=False)
    app.conf.update(
        broker_url=broker_url(settings).partition("?master_name=")[0],
        broker_use_ssl=broker_tls(settings) or None,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(settings),
        # RabbitMQ: a machine that is gone is noticed within 20 s, not within 4 min.
        broker_heartbeat=10,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_queues=[Queue(name, routing_key=name) for name in QUEUES],
        task_routes={name: {"queue": name} for name in QUEUES},
        task_create_missing_queues=False,
        task_default_queue=QUEUES[0],
        task_publish_retry_policy={
            "max_retries": 2,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.4,
        },
        worker_consumer=f"{__name__}:WaryConsumer",
        worker_pool="threads",
        worker_concurrency=settings.concurrency,
        worker_prefetch_multiplier=1,
        # Its way back up asks RabbitMQ from the pool's threads, on the connection that the main
        # thread reads: each may take the other's answer and wait for ever.
        worker_enable_prefetch_count_reduction=False,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        beat_scheduler="cavendish_worker.celeryapp.beat:Timetable",
        beat_max_loop_interval=1,
        beat_schedule={
            entry.task: {"task": entry.task, "schedule": entry.every}
            for entry in beat_schedule(settings)
        },
    )
    return app


def _transport_options(settings: Settings) -> dict[str, Any]:
    """Redis transport.

    Notice a dead server soon, and give the messages of a dead worker back soon after its leases.
    """
    broker = broker_url(settings)
    if broker.startswith("amqp"):
        return {}
    return _sentinel_options(broker) | {
        "visibility_timeout": settings.lease + 15,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # A worker that is killed while it gives messages back keeps the others from it for so
        # long.
        "unacked_mutex_expire": 10,
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 15,
    }


def _sentinel_options(broker: str) -> dict[str, Any]:
    """What Celery does not read from the URL.

    A Sentinel that is away must not hold up the asking of the next.
    """
    if not broker.startswith("sentinel"):
        return {}
    where = many(broker)
    asking = {
        "socket_timeout": 1,
        "socket_connect_timeout": 1,
        "retry": None,
        "password": where.sentinel_password,
    }
    return {"master_name": where.name, "sentinel_kwargs": asking}


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    settings = Settings.load()
    logs.set_up(settings.log_format, settings.log_level)


@signals.celeryd_after_setup.connect
def _spare_a_warning(**_: Any) -> None:
    """At each loss of the broker Celery advises a setting that is off on purpose.

    Its logging turns all such warnings on.
    """
    warnings.filterwarnings(
        "ignore", message="(?s).*on connection loss cancels all currently executed tasks"
    )


@signals.worker_init.connect
def _refuse_other_pools(sender: Any, **_: Any) -> None:
    pool = sender.pool_cls.__module__.rpartition(".")[2]
    if pool not in ("thread", "prefork"):
        sys.exit(
            f"Cavendish's workers run threads, and `{pool}` would let one slow call stop everything: leave out -P."
        )
