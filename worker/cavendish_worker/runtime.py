"""The only place where objects are built.

Once per process, at their first use, so after any fork.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cached_property

import httpx

from cavendish.client import Client
from cavendish.clock import Clock
from cavendish.local_paths import store_url
from cavendish.model import Lane
from cavendish.policy.verdicts import Patience
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish_worker.http import egress
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.polling import dispatch, expire, retrieve
from cavendish_worker.polling.concurrency_limit import OTHERS, ConcurrencyLimit
from cavendish_worker.polling.upstream import Limits, Upstream
from cavendish_worker.webhooks import endpoint_cache
from cavendish_worker.webhooks.delivery_loop import Config
from cavendish_worker.webhooks.delivery_worker import DeliveryWorker
from cavendish_worker.webhooks.encryption import Encryption


@dataclass
class Runtime:
    """What the Celery tasks of one process work with."""

    settings: Settings

    def __post_init__(self) -> None:
        self.retrieve_limit = ConcurrencyLimit(max(self.settings.concurrency - OTHERS, 1))

    @cached_property
    def store(self) -> Store:
        return Store(store_url(self.settings), self.settings.shards)

    @cached_property
    def client(self) -> Client:
        return Client(settings=self.settings)

    @cached_property
    def loop(self) -> LoopThread:
        return LoopThread()

    @cached_property
    def upstream(self) -> Upstream:
        s = self.settings
        headers = {"user-agent": "Cavendish", "accept-encoding": "identity"}
        http = httpx.AsyncClient(
            transport=PooledTransport(), trust_env=False, follow_redirects=False, headers=headers
        )
        limits = Limits(s.connect_timeout, s.call_timeout, s.answer_limit)
        return Upstream(http, s.api_url, s.tokens(), limits)

    @cached_property
    def delivery_worker(self) -> DeliveryWorker:
        s = self.settings
        transport = egress.transport(
            s.webhook_allow, s.webhook_ports, s.egress_proxy or None, s.webhook_calls
        )
        rules = endpoint_cache.Rules(
            s.webhook_secret,
            s.webhook_calls_per_endpoint,
            s.webhook_disable_after,
            s.operations_webhook,
            s.webhook_origin,
        )
        endpoints = endpoint_cache.EndpointCache(self.store, Encryption(s.secret_key), rules)
        config = Config(
            s.webhook_calls, s.webhook_timeout, s.retention, s.dead_retention, s.result_lifetime
        )
        return DeliveryWorker(self.store, transport, self.loop, endpoints, config)

    @cached_property
    def forecasts(self) -> Forecasts:
        return Forecasts(self.store.shared_state)

    @cached_property
    def dispatching(self) -> dispatch.Desk:
        s = self.settings
        return dispatch.Desk(
            self.store, self.forecasts, dispatch.Config(s.tick, s.batch_size, s.lease, s.rate)
        )

    @cached_property
    def retrieving(self) -> retrieve.Desk:
        s = self.settings
        patience = Patience(s.absent_grace, s.absent_polls, s.absent_over)
        config = retrieve.Config(
            s.lease, s.call_timeout, s.rate, patience, s.retention, s.events_kept
        )
        return retrieve.Desk(self.store, self.forecasts, self.upstream, self.loop, config)

    @cached_property
    def expiring(self) -> expire.Config:
        s = self.settings
        return expire.Config(s.last_poll, s.retention, s.events_kept)

    def retrieval(self, clock: Clock, lane: Lane, token: str) -> retrieve.Retrieval:
        return retrieve.Retrieval(self.retrieving, clock, lane, token)


_lock = threading.RLock()
_runtime: Runtime | None = None


def _after_fork() -> None:
    """A child of the fork must not share connections, and its event loop has no thread.

    It gets runtime of its own.
    """
    global _lock, _runtime
    _lock, _runtime = threading.RLock(), None


os.register_at_fork(after_in_child=_after_fork)


def get_runtime() -> Runtime:
    """The runtime of this process."""
    global _runtime  # noqa: PLW0603 (one per process is what this module is for)
    with _lock:
        if _runtime is None:
            _runtime = Runtime(Settings.load())
            for part in ("book", "client", "loop", "upstream", "courier"):
                getattr(
                    _runtime, part
                )  # built here under the lock: Celery's threads must not race for them
        return _runtime
