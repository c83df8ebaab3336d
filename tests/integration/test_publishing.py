"""Messages that leave together: in one round trip, or none of them counts as sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import OperationalError
from redis import Redis

from cavendish.settings import Settings
from cavendish.store.redis_clients import PACKING
from cavendish_worker.celeryapp.app import build
from cavendish_worker.celeryapp.publishing import publish_together
from conftest import Server

COUNT = 6


@pytest.fixture
def app(own_server: Server) -> Iterator[Celery]:
    url = own_server.url.replace("unix://", "redis+socket://")
    settings = {"CAVENDISH_REDIS_URL": own_server.url, "CAVENDISH_BROKER_URL": url}
    app = build(Settings.load(settings))
    yield app
    app.close()


def redis_of(server: Server) -> Any:
    return Redis(unix_socket_path=str(server.socket))


def publish(app: Celery) -> None:
    def some(producer: Any) -> None:
        for number in range(COUNT):
            app.send_task("cavendish.retrieve", (number,), producer=producer, retry=False)

    publish_together(app, some)


def test_all_leave_in_one_round_trip(app: Celery, own_server: Server) -> None:
    publish(app)
    redis = redis_of(own_server)
    reads = "total_reads_processed"
    before = redis.info("stats")[reads]
    publish(app)
    assert redis.info("stats")[reads] - before == 2  # one of them is the question itself
    assert redis.llen("cavendish.retrieve") == 2 * COUNT


def test_a_broker_that_was_restarted_meanwhile_gets_them_all(
    app: Celery, own_server: Server
) -> None:
    publish(app)
    own_server.kill()
    own_server.start()
    redis_of(own_server).flushall()
    publish(app)
    assert redis_of(own_server).llen("cavendish.retrieve") == COUNT


def test_a_broker_that_is_away_is_an_error_that_celery_names(
    app: Celery, own_server: Server
) -> None:
    publish(app)
    own_server.kill()
    with pytest.raises(OperationalError):
        publish(app)
    own_server.start()
    publish(app)


def test_they_leave_when_the_memory_of_the_broker_is_full(app: Celery, own_server: Server) -> None:
    redis = redis_of(own_server)
    redis.config_set("maxmemory", 1)
    publish(app)
    redis.config_set("maxmemory", 0)
    assert redis.llen("cavendish.retrieve") == COUNT


def test_the_connections_of_the_broker_write_numbers_as_those_of_the_store_do(app: Celery) -> None:
    pool: Any = app.pool
    with pool.acquire(block=True) as connection:
        made = connection.default_channel.pool.make_connection()
        assert made._command_packer is PACKING["command_packer"]
