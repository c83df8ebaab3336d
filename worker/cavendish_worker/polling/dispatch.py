"""One tick of the dispatch: which worker makes the rounds of which account, and for how long.

A dispatch goes on until the next tick comes: it waits for the rate limit and claims at the last
moment, so a claim is never older than its call. Any number of beats may fire: each tick is taken
once for each account, so an account has one dispatcher at a time, and different accounts may have
different ones: the worker that gets a tick shares the accounts among all workers. A tick that comes
while a dispatch of this process still runs makes it go on.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cavendish.clock import Clock
from cavendish.store import Store
from cavendish.store.due_index import due_before
from cavendish_worker.polling.dispatch_round import Dispatched, Rounds, Send
from cavendish_worker.polling.pause_log import PauseLog
from cavendish_worker.telemetry.logs import logger

#: Lets another worker dispatch some accounts.
PassOn = Callable[[list[str]], None]

#: Shortest sleep between two rounds, in seconds.
_SHORT = 0.005
#: Seconds by which a dispatch outlasts its tick, so that a late next one leaves no gap. They may
#: overlap: claims and the rate limit are shared.
_OVERLAP = 0.02
#: Seconds between two warnings that an account has no token, and between two checks.
_WARN_EVERY, _CHECK_EVERY = 60.0, 5.0


@dataclass(slots=True)
class Dispatcher:
    """Dispatches for one worker process, in one thread at a time.

    `warned`: when the log last said that there is no token for an account; `stopping`: set once
    this process shuts down; `pause_log`: tells of the pauses of operators.
    """

    store: Store
    rounds: Rounds
    tick: float
    warned: dict[str, float] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)
    pause_log: PauseLog = field(default_factory=PauseLog)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: bool = False
    _until: dict[str, float] = field(default_factory=dict)
    _checked_at: float = -math.inf

    def dispatch(
        self, accounts: Iterable[str], clock: Clock, send: Send, pass_on: PassOn | None = None
    ) -> Dispatched | None:
        """Run one tick for those of some accounts in which anything is due.

        `accounts`: those that this process has a token for; `pass_on`: lets other workers dispatch
        some of them, if there are others. None if other processes dispatch them, or should; or if a
        dispatch of this process still runs, which then goes on for this tick too. Raises
        StoreUnavailable.
        """
        if self.stopping.is_set():
            return None
        started, tick = clock.now(), self.tick
        self._check(accounts := frozenset(accounts), started)
        controls = self.store.controls.known()
        self.pause_log.tell(controls, started)
        asked = [name for name in accounts if not controls.account_pause(name, started + tick)]
        due = due_before(self.store.connection, asked, started + tick)
        if not due:
            return Dispatched()
        if pass_on and min(len(due), self.rounds.workers) > 1:
            due = self._pass_on(due, pass_on)
        with self._lock:
            mine = self.store.fleet.take_tick(tick, due)
            # The next tick comes within this time.
            self._until |= dict.fromkeys(mine, started + tick + _OVERLAP)
            if self._running or not mine:
                return None
            self._running = True
        did = Dispatched()
        try:
            self._run(clock, send, did)
        except BaseException:
            with self._lock:
                self._running, self._until = False, {}
            raise
        return did

    def _check(self, accounts: frozenset[str], now: float) -> None:
        """Now and then: are there ids without a token, and how many workers are there?"""
        if now - self._checked_at < _CHECK_EVERY:
            return
        self._checked_at = now
        self._warn_of_no_token(accounts, now)
        members = self.store.fleet.members(now)
        workers = sum(one.role == "worker" and one.alive(now) for one in members)
        self.rounds.workers = max(workers, 1)

    def _pass_on(self, due: Sequence[str], pass_on: PassOn) -> list[str]:
        """Share accounts among the workers; returns those that this process keeps.

        It keeps those that it serves already: it knows what their producers were charged.
        """
        served = self._until
        ranked = sorted(due, key=lambda account: (account not in served, random.random()))
        share = math.ceil(len(ranked) / self.rounds.workers)
        for first in range(share, len(ranked), share):
            pass_on(ranked[first : first + share])
        return ranked[:share]

    def _run(self, clock: Clock, send: Send, did: Dispatched) -> None:
        while serving := self._serving(now := clock.now()):
            wait = self.run_round(frozenset(serving), now, send, did)
            if wait < max(serving.values()) - now:
                self.stopping.wait(max(wait, _SHORT))
            else:  # the next tick comes first
                self._forget(serving)

    def _serving(self, now: float) -> dict[str, float]:
        """The accounts of this dispatch, each until its tick ends; none ends the dispatch."""
        with self._lock:
            if self.stopping.is_set():
                self._until = {}
            self._until = {account: at for account, at in self._until.items() if now < at}
            self._running = bool(self._until)
            return self._until.copy()

    def _forget(self, served: Mapping[str, float]) -> None:
        """End the dispatch for accounts for which no other tick came meanwhile."""
        with self._lock:
            left = {name: at for name, at in self._until.items() if served.get(name) != at}
            self._until = left

    def run_round(self, accounts: frozenset[str], now: float, send: Send, did: Dispatched) -> float:
        """Send the batches of each account that may be sent now, and count them in `did`.

        Returns the seconds until another batch may be worth a call.
        """
        return min((self.rounds.run(each, now, send, did) for each in accounts), default=math.inf)

    def _warn_of_no_token(self, accounts: frozenset[str], now: float) -> None:
        """Log now and then that ids wait for a token, which another worker may have.

        Otherwise nobody would notice a typo in `account`.
        """
        for account, _ in self.store.deadlines.index.groups():
            if account in accounts or now - self.warned.get(account, -math.inf) < _WARN_EVERY:
                continue
            self.warned[account] = now
            name = "CAVENDISH_API_TOKEN" if account == "default" else "CAVENDISH_API_TOKENS_FILE"
            advice = f"set a token for this account in {name}; its ids wait until a worker has one"
            logger().warning("account.no_token", account=account, advice=advice)
