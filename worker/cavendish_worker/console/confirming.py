"""Starts a confirmed action: it is stored, logged, and begins."""

from __future__ import annotations

import time

from cavendish.policy.bulk_actions import BulkAction
from cavendish_worker.console.console_parts import ConsoleParts
from cavendish_worker.telemetry.logs import logger

#: Seconds of waiting for the end of a short action, so that its page shows the end at once.
SHORT = 0.2


def begin(parts: ConsoleParts, action: BulkAction) -> BulkAction:
    """Let some Flower carry out an action, this one as a rule. Raises StoreUnavailable."""
    shared = parts.store.shared_state
    shared.change_bulk_actions(lambda known: (known.with_new(action), None))
    what = {"named": len(action.ids)} if action.ids else {"filter": action.chosen}
    logger().info("operator.acted", verb=action.verb, by=action.by, reason=action.reason, **what)
    parts.runner.wake()
    until = time.monotonic() + SHORT
    while time.monotonic() < until:
        known = shared.bulk_actions().get(action.id)
        if known is None or known.state != "running":
            break
        time.sleep(0.02)
    return action
