"""The Celery app: its queues, limits and logging. Messages are hints; the store has the facts."""

from __future__ import annotations

import gc
import logging
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import kombu
from celery import Celery, signals
from celery.app.amqp import AMQP
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from celery.worker.consumer import Consumer
from kombu import Queue

from cavendish.environment.local_paths import broker_tls, broker_url
from cavendish.environment.redis_url import many
from cavendish.settings import Settings
from cavendish.task_names import QUEUES, beat_schedule
from cavendish_worker.celeryapp import redis_transport as broker
from cavendish_worker.celeryapp.envelope import compressed
from cavendish_worker.celeryapp.task_message import prepare
from cavendish_worker.telemetry import logs

#: Seconds after which a worker whose Redis user lacks a right tries to connect again.
REFUSED_AGAIN = 2.0
#: New objects after which the garbage collector looks for cycles among them.
_YOUNG_OBJECTS = 20_000
#: Seconds for which the events of tasks are gathered before they are published together.
EVENTS_EVERY = 0.25
#: Seconds after which a thread that computes lets another one go on.
SWITCH = 0.001


class PatientConnection(kombu.Connection):
    """Reconnects within a second after the broker is back.

    Celery's own waits grow to 30 s, and no setting changes that.
    """

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        waits = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 1.0}
        return super().ensure_connection(*args, **waits | kwargs)

    def info(self) -> dict[str, Any]:
        """What `celery inspect` and Flower show, without the passwords that they do not hide."""
        shown = dict(super().info())
        options = dict(shown["transport_options"])
        options.pop("sentinel_kwargs", None)
        return shown | {"alternates": [], "transport_options": options}


class TolerantConsumer(Consumer):
    """Refuses a message that Celery cannot handle, and Celery's own tasks, in one line of the log.

    Celery itself would end, loop for ever, or log a traceback with all of the message.
    """

    connection_errors: tuple[type[BaseException], ...]
    _flush_events: Callable[[], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The worker sends messages itself when it starts. If one of them fails, it connects again
        # instead of ending.
        self.connection_errors = (*self.connection_errors, kombu.exceptions.OperationalError)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Wait a little before Celery connects again, if Redis refuses a right to this user."""
        super().on_connection_error_after_connected(exc)
        if logs.refuses(exc):
            time.sleep(REFUSED_AGAIN)

    def register_with_event_loop(self, hub: Any) -> None:
        """Publish the events of tasks together; Celery does so at each turn of its loop."""
        super().register_with_event_loop(hub)
        hub.call_repeatedly(EVENTS_EVERY, self._flush_events)

    def on_send_event_buffered(self) -> None:  # type: ignore[override]
        """Leave the event to the timer."""

    def stop(self) -> None:
        """Publish what waits for the timer, if the broker is there."""
        with suppress(*self.connection_errors):
            self._flush_events()
        super().stop()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)

        def take(message: Any) -> None:
            try:
                complaint = compressed(message.headers, message.content_encoding)
                if complaint := complaint or prepare(message):
                    self._refuse(message, complaint)
                else:
                    handle(message)
            except MemoryError:
                raise  # not the fault of the message
            except Exception as error:  # anybody may have sent anything
                self.on_decode_error(message, error)

        return take

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Refuse a message; Celery calls it for a body that cannot even become bytes."""
        self._refuse(message, f"{type(exc).__name__}: {exc}"[:200])

    def _refuse(self, message: Any, why: str) -> None:
        if isinstance(message.channel, broker.Channel):
            message.channel.refuse_in_hand(message.delivery_tag, why)
        else:
            logs.logger().error("message.refused", outcome=why)
        message.reject_log_error(logging.getLogger("celery.worker"), self.connection_errors)


class PatientAMQP(AMQP):
    Connection = PatientConnection


class LosslessDispatcher(EventDispatcher):
    """Loses no event that one thread sends while another thread publishes.

    Celery empties its list after publishing, including events that came meanwhile.
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


class LosslessEvents(Events):
    dispatcher_cls = f"{__name__}:LosslessDispatcher"


class App(Celery):
    amqp_cls = f"{__name__}:PatientAMQP"
    events_cls = f"{__name__}:LosslessEvents"


# Celery warns root users about pickle; this app takes nothing but JSON.
warnings.filterwarnings("ignore", message=".*superuser privileges")


def build(settings: Settings) -> Celery:
    """The app for these settings. It connects to nothing yet."""
    broker.install()
    app = App("cavendish", set_as_current=False)
    app.conf.update(_broker(settings) | _tasks() | _worker(settings) | _beat(settings))
    return app


def _broker(settings: Settings) -> dict[str, Any]:
    waits = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.4}
    return {
        "broker_url": broker_url(settings).partition("?master_name=")[0],
        "broker_use_ssl": broker_tls(settings) or None,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": _transport_options(settings),
        # RabbitMQ: a machine that is gone is noticed within 20 s, not within 4 min.
        "broker_heartbeat": 10,
        "task_publish_retry_policy": waits,
    }


def _tasks() -> dict[str, Any]:
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_queues": [Queue(name, routing_key=name) for name in QUEUES],
        "task_routes": {name: {"queue": name} for name in QUEUES},
        "task_create_missing_queues": False,
        "task_default_queue": QUEUES[0],
    }


def _worker(settings: Settings) -> dict[str, Any]:
    return {
        "worker_consumer": f"{__name__}:TolerantConsumer",
        "worker_pool": "threads",
        "worker_concurrency": settings.concurrency,
        "worker_prefetch_multiplier": 1,
        # To raise the count again, Celery asks RabbitMQ from the pool's threads, on the connection
        # that the main thread reads: each may take the other's answer and wait for ever.
        "worker_enable_prefetch_count_reduction": False,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
    }


def _beat(settings: Settings) -> dict[str, Any]:
    schedule = beat_schedule(settings)
    return {
        "beat_scheduler": "cavendish_worker.celeryapp.beat:BeatScheduler",
        "beat_max_loop_interval": 1,
        "beat_schedule": {
            entry.task: {"task": entry.task, "schedule": entry.every} for entry in schedule
        },
    }


def _transport_options(settings: Settings) -> dict[str, Any]:
    """Options of the Redis transport.

    They notice a dead server soon, and give back the messages of a dead worker soon after its
    leases have run out.
    """
    broker = broker_url(settings)
    if broker.startswith("amqp"):
        return {}
    return _sentinel_options(broker) | {
        "visibility_timeout": settings.lease + 15,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # A worker that is killed while it gives messages back blocks the others for this long.
        "unacked_mutex_expire": 10,
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 15,
    }


def _sentinel_options(broker: str) -> dict[str, Any]:
    """What Celery does not read from the URL.

    A Sentinel that is away must not delay the call to the next one.
    """
    if not broker.startswith("sentinel"):
        return {}
    where = many(broker)
    calls: dict[str, Any] = {"socket_timeout": 1, "socket_connect_timeout": 1, "retry": None}
    calls["password"] = where.sentinel_password
    return {"master_name": where.name, "sentinel_kwargs": calls}


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    settings = Settings.load()
    logs.set_up(settings.log_format, settings.log_level)


@signals.celeryd_after_setup.connect
def _spare_a_warning(**_: Any) -> None:
    """Ignore a warning about a setting that is off on purpose.

    Celery shows it each time the broker is lost, and its logging turns all warnings on.
    """
    text = "(?s).*on connection loss cancels all currently executed tasks"
    warnings.filterwarnings("ignore", message=text)


@signals.worker_init.connect
def _tune_python(**_: Any) -> None:
    """Thousands of small objects live for one batch and die with it, most without the collector.

    Its usual thresholds cost a twentieth of a busy worker, much of it for modules that never die.
    And a dispatch waits for the other threads at each answer of Redis.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    sys.setswitchinterval(SWITCH)


@signals.worker_init.connect
def _refuse_other_pools(sender: Any, **_: Any) -> None:
    pool = sender.pool_cls.__module__.rpartition(".")[2]
    if pool not in ("thread", "prefork"):
        sys.exit(
            f"Cavendish's workers run threads; with `{pool}`, one slow call would stop all others: "
            "leave out -P."
        )
