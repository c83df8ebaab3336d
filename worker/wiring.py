"""The only place where objects are built: once per process, at their first use, so after any fork."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cached_property

import httpx

from scheduler.client import Client
from scheduler.clock import Clock
from scheduler.forecast import Forecasts
from scheduler.settings import Settings
from scheduler.store import Book
from scheduler.tracking import Lane
from scheduler.verdicts import Patience
from scheduler.whereabouts import book_url
from worker import dispatch, expire, retrieve
from worker.loop import LoopThread
from worker.seats import OTHERS, Seats
from worker.upstream import Limits, Upstream
from worker.webhooks import directory
from worker.webhooks.courier import Courier
from worker.webhooks.round import Knobs
from worker.webhooks.vault import Vault
from worker.wire import egress
from worker.wire.transport import PooledTransport


@dataclass
class Hands:
    """What the Celery tasks of one process work with."""

    settings: Settings

    def __post_init__(self) -> None:
        self.seats_to_ask = Seats(max(self.settings.concurrency - OTHERS, 1))

    @cached_property
    def book(self) -> Book:
        return Book(book_url(self.settings), self.settings.shards)

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
        http = httpx.AsyncClient(transport=PooledTransport(), trust_env=False, follow_redirects=False, headers=headers)
        limits = Limits(s.connect_timeout, s.call_timeout, s.answer_limit)
        return Upstream(http, s.api_url, s.tokens(), limits)

    @cached_property
    def courier(self) -> Courier:
        s = self.settings
        transport = egress.transport(s.webhook_allow, s.webhook_ports, s.egress_proxy or None, s.webhook_calls)
        rules = directory.Rules(
            s.webhook_secret, s.webhook_calls_per_endpoint, s.webhook_disable_after, s.operations_webhook, s.webhook_origin
        )
        endpoints = directory.Directory(self.book, Vault(s.secret_key), rules)
        knobs = Knobs(s.webhook_calls, s.webhook_timeout, s.retention, s.dead_retention, s.result_lifetime)
        return Courier(self.book, transport, self.loop, endpoints, knobs)

    @cached_property
    def forecasts(self) -> Forecasts:
        return Forecasts(self.book.learned)

    @cached_property
    def dispatching(self) -> dispatch.Desk:
        s = self.settings
        return dispatch.Desk(self.book, self.forecasts, dispatch.Knobs(s.tick, s.batch_size, s.lease, s.rate))

    @cached_property
    def retrieving(self) -> retrieve.Desk:
        s = self.settings
        patience = Patience(s.absent_grace, s.absent_tries, s.absent_over)
        knobs = retrieve.Knobs(s.lease, s.call_timeout, s.rate, patience, s.retention, s.events_kept)
        return retrieve.Desk(self.book, self.forecasts, self.upstream, self.loop, knobs)

    @cached_property
    def expiring(self) -> expire.Knobs:
        s = self.settings
        return expire.Knobs(s.last_look, s.retention, s.events_kept)

    def retrieval(self, clock: Clock, lane: Lane, token: str) -> retrieve.Retrieval:
        return retrieve.Retrieval(self.retrieving, clock, lane, token)


_lock = threading.RLock()
_hands: Hands | None = None


def _after_fork() -> None:
    """A child of the fork must not share connections, and its event loop has no thread: it gets hands of its own."""
    global _lock, _hands
    _lock, _hands = threading.RLock(), None


os.register_at_fork(after_in_child=_after_fork)


def hands() -> Hands:
    """The hands of this process."""
    global _hands  # noqa: PLW0603 (one per process is what this module is for)
    with _lock:
        if _hands is None:
            _hands = Hands(Settings.load())
            for part in ("book", "client", "loop", "upstream", "courier"):
                getattr(_hands, part)  # built here under the lock: Celery's threads must not race for them
        return _hands
