"""What several tests of parts share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import kombu.transport
import pytest

from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.celeryapp import broker_clock
from cavendish_worker.celeryapp import redis_transport as broker
from conftest import Server
from consuming import Broker
from serving import caller, new_key, service


@pytest.fixture
def lists(own_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    # Another test of this process may have set the clock, by a Redis of its own.
    monkeypatch.setattr(broker_clock, "_clock", None)
    # In a worker, nobody asks for a transport before ours is installed; here another test may have.
    monkeypatch.setitem(kombu.transport._transport_cache, "redis", broker.Transport)
    # Kombu's wait of a second is waited to its end whenever a connection is closed.
    monkeypatch.setattr(broker.Transport, "brpop_timeout", 0.05)
    one = Broker(own_server, tmp_path)
    yield one
    for process in one.started:
        process.kill()
        process.wait(10)
    one.redis.close()
    one.log.close()


@pytest.fixture
def address(store: Store, settings: Settings) -> Iterator[str]:
    """Where the service listens."""
    with service(settings) as where:
        yield where


@pytest.fixture
def http(address: str, store: Store) -> Iterator[httpx.Client]:
    """A client with a key that may do everything."""
    with caller(address, new_key(store, "ops")) as opened:
        yield opened
