"""Carries out bulk actions in a thread of Flower's process, one at a time.

Each step is noted in the store, so whoever looks sees how far it is, anybody may stop it, and after
a restart, of this process or of another one, it goes on.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from itertools import chain

from cavendish.errors import CavendishError, StoreUnavailable
from cavendish.filter import Filter
from cavendish.model import Changed
from cavendish.policy.bulk_actions import BulkAction
from cavendish.replay import Replay
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.new_tasks import by_lane
from cavendish.submission import SHORTEST_DEADLINE
from cavendish.undo import Chosen, Undo
from cavendish_worker.console.letter_actions import LetterAction
from cavendish_worker.telemetry.logs import logger

#: Seconds between two looks for actions whose process died.
EVERY = 5.0


class BulkRunner:
    """The thread, from the first `wake` on."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._undo, self._name = Undo(store, settings), secrets.token_hex(8)
        self._called, self._waits_for = threading.Event(), ""
        threading.Thread(target=self._run, name="bulk-actions", daemon=True).start()

    def wake(self) -> None:
        """Look at once: there is a new action."""
        self._called.set()

    def _run(self) -> None:
        while True:
            try:
                while action := self._take():
                    self._carry_out(action)
            except StoreUnavailable as away:
                self._waits(str(away))
            except Exception:
                logger().exception("bulk.error")
            self._called.wait(EVERY)
            self._called.clear()

    def _waits(self, why: str) -> None:
        """Say once why nothing goes on; an action is taken up again, here or elsewhere."""
        if why != self._waits_for:
            logger().warning("bulk.waits", outcome=why)
        self._waits_for = why

    def _take(self) -> BulkAction | None:
        if not self._store.shared_state.bulk_actions().latest:
            return None  # the usual case costs one read
        now = self._store.fleet.now()
        return self._store.shared_state.change_bulk_actions(
            lambda known: known.taken(self._name, now)
        )

    def _carry_out(self, action: BulkAction) -> None:
        began, shared = time.monotonic(), self._store.shared_state
        try:
            for changes in self._steps(action):
                if not self._noted(action, changes):
                    return
        except StoreUnavailable:
            raise
        except Exception as error:  # one that cannot be carried out must not stand in the way
            said = str(error) if isinstance(error, CavendishError) else repr(error)[:200]
            logger().error("bulk.failed", id=action.id, outcome=said)
            now = self._store.fleet.now()
            shared.change_bulk_actions(
                lambda known: (known.ended(action.id, now, "failed", said), None)
            )
            return
        now, self._waits_for = self._store.fleet.now(), ""
        shared.change_bulk_actions(lambda known: (known.ended(action.id, now, "done"), None))
        took = round(time.monotonic() - began, 3)
        logger().info("bulk.done", id=action.id, verb=action.verb, by=action.by, seconds=took)

    def _noted(self, action: BulkAction, changes: list[Changed]) -> bool:
        done, now = sum(one.outcome == "done" for one in changes), self._store.fleet.now()
        return self._store.shared_state.change_bulk_actions(
            lambda known: known.stepped(action.id, self._name, now, done, len(changes) - done)
        )

    def _steps(self, action: BulkAction) -> Iterator[list[Changed]]:
        if action.of_letters:
            return LetterAction(self._store, action).steps()
        if (found := action.filter) is not None:
            return self._of(action, found, None, None)
        return chain.from_iterable(
            self._of(action, ids, service, account)
            for (account, service), ids in action.places.items()
        )

    def _of(
        self, action: BulkAction, chosen: Chosen, service: str | None, account: str | None
    ) -> Iterator[list[Changed]]:
        if action.verb == "forget":
            return self._undo.forget(chosen, service, account)
        if action.verb == "deadline":  # the same moment, also when it is taken up again
            left = max(action.deadline_at - self._store.fleet.now(), SHORTEST_DEADLINE)
            return self._undo.set_deadline(chosen, service, account, left, action.by)
        if action.verb == "cancel":
            return self._undo.cancel(
                chosen,
                service,
                account,
                silent=action.silent,
                reason=action.reason,
                by=action.by,
            )
        return self._replay(action, chosen, service or "", account or "")

    def _replay(
        self, action: BulkAction, chosen: Chosen, service: str, account: str
    ) -> Iterator[list[Changed]]:
        replay = Replay(self._store, action.began_at, action.by)
        if isinstance(chosen, Filter):
            return replay.matching(chosen)
        ids = [str(each) for each in chosen]
        lanes = by_lane(account, service, ids, self._settings.shards)
        return (replay.of(lane, some) for lane, some in lanes)
