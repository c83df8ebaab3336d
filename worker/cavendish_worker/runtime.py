"""Builds the objects that the Celery tasks work with: this is the only place where that happens.

Each is built once per process, at its first use, so after any fork.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cached_property

from cavendish.client import Client
from cavendish.endpoints.encryption import Encryption
from cavendish.environment.local_paths import store_url
from cavendish.policy.verdicts import AbsencePolicy
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish_worker.http import egress
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.api_tokens import ApiTokens, TokenNews
from cavendish_worker.polling.concurrency_limit import OTHERS, ConcurrencyLimit
from cavendish_worker.polling.dispatch import Dispatcher
from cavendish_worker.polling.dispatch_round import RoundConfig, Rounds
from cavendish_worker.polling.expire import ExpiryConfig
from cavendish_worker.polling.retrieve import RetrieveConfig, Retriever
from cavendish_worker.polling.upstream import Upstream, upstream_for
from cavendish_worker.webhooks.delivery_loop import LINGER, DeliveryConfig
from cavendish_worker.webhooks.delivery_worker import DeliveryWorker
from cavendish_worker.webhooks.endpoint_cache import EndpointCache, EndpointRules


@dataclass
class Runtime:
    """The objects of one process."""

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
    def api_tokens(self) -> ApiTokens:
        return ApiTokens(self.settings)

    @cached_property
    def upstream(self) -> Upstream:
        return upstream_for(self.settings, self.api_tokens)

    @cached_property
    def token_news(self) -> TokenNews:
        return TokenNews(self.store, self.upstream, self.api_tokens)

    @cached_property
    def delivery_worker(self) -> DeliveryWorker:
        s = self.settings
        transport = egress.transport(
            s.webhook_allow, s.webhook_ports, s.egress_proxy or None, s.webhook_calls
        )
        rules = EndpointRules(
            s.webhook_secret,
            s.webhook_calls_per_endpoint,
            s.webhook_disable_after,
            s.operations_webhook,
            s.webhook_origin,
        )
        endpoints = EndpointCache(self.store, Encryption(s.secret_key), rules)
        times = (s.webhook_timeout, s.retention, s.dead_retention, s.result_lifetime)
        config = DeliveryConfig(s.webhook_calls, *times, linger=LINGER)
        return DeliveryWorker(self.store, transport, self.loop, endpoints, config)

    @cached_property
    def forecasts(self) -> Forecasts:
        return Forecasts(self.store.shared_state)

    @cached_property
    def rounds(self) -> Rounds:
        s = self.settings
        return Rounds(self.store, self.forecasts, RoundConfig(s.batch_size, s.lease, s.rate))

    @cached_property
    def dispatcher(self) -> Dispatcher:
        return Dispatcher(self.store, self.rounds, self.settings.tick)

    @cached_property
    def retriever(self) -> Retriever:
        s = self.settings
        absence_policy = AbsencePolicy(s.absent_grace, s.absent_polls, s.absent_over)
        config = RetrieveConfig(
            s.lease, s.call_timeout, s.rate, absence_policy, s.retention, s.events_kept
        )
        charge = self.rounds.charge
        return Retriever(self.store, self.forecasts, self.upstream, self.loop, config, charge)

    @cached_property
    def expiry_config(self) -> ExpiryConfig:
        s = self.settings
        return ExpiryConfig(s.last_poll, s.retention, s.events_kept)


#: The parts that are built together with the runtime.
_AT_ONCE = "store client loop upstream dispatcher retriever delivery_worker".split()
_lock = threading.RLock()
_runtime: Runtime | None = None


def _after_fork() -> None:
    """A forked child gets a runtime of its own.

    It must not share connections, and the thread of the event loop does not exist in it.
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
            for part in _AT_ONCE:
                getattr(_runtime, part)  # built under the lock: Celery's threads must not race
        return _runtime
