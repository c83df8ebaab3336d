"""The pages of what is done to ids: asked for, confirmed with a count, watched, stopped."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import Any

from cavendish.controller import checked_text
from cavendish.errors import SubmissionError
from cavendish.filter import Filter
from cavendish.policy.bulk_actions import VERBS, BulkAction, BulkActions, fields_of
from cavendish.undo import pending_only
from cavendish_worker.console.id_filter import words
from cavendish_worker.console.page import Page
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.wording.times import duration

#: Seconds for which the ids are counted, and the most that may be named.
COUNTED_FOR, NAMED = 1.0, 200
#: Seconds of waiting for the end of a short action, so that its page shows the end at once.
SHORT = 1.0


class ActPage(Page):
    """`/cavendish/act`: a form names a verb, and ids or a filter; its answer asks to confirm it."""

    async def act(self, *place: str) -> None:  # noqa: ARG002
        verb = self.given("verb")
        if verb not in VERBS:
            raise SubmissionError("Choose what to do with the ids.")
        if not self.given("confirmed"):
            await self.show("confirm.html", lambda: self._asked(verb))
            return
        action = await self.ask(lambda: self._begun(verb))
        self.redirect(self.to("action", action.id), status=303)

    def _chosen(self, now: float) -> tuple[tuple[str, ...], Filter, dict[str, Any]]:
        """The named ids, or the filter with the words of the URL that mean it."""
        ids = tuple(dict.fromkeys(self.get_body_arguments("id")))
        if any(each.count(" ") < 2 for each in ids) or len(ids) > NAMED:
            raise SubmissionError(f"Name at most {NAMED} ids, each with its account and service.")
        found = words(self.given, self.get_body_arguments("state"), now)
        if not ids and not found.any and not self.given("all"):
            raise SubmissionError("Choose ids, or a filter that they match.")
        return ids, found.filter, dict(found.said)

    def _asked(self, verb: str) -> dict[str, Any]:
        """What would be done, and to how many."""
        store = self.parts.store
        now = store.fleet.now()
        ids, found, said = self._chosen(now)
        if not ids:
            found = pending_only(found) if verb in ("cancel", "deadline") else found
            # The same moments, whenever it is confirmed.
            found = replace(found, until=min(found.until or now, now))
            said |= {"since": found.since or "", "until": found.until}
        count, whole = (len(ids), True) if ids else self._counted(found)
        return {"verb": verb, "done": VERBS[verb], "ids": ids, "said": said} | {
            "count": count,
            "whole": whole,
            "now": now,
        }

    def _counted(self, found: Filter) -> tuple[int, bool]:
        """How many match, and whether all were looked at in time."""
        count, until = 0, time.monotonic() + COUNTED_FOR
        for some in self.parts.store.search.steps(found):
            count += len(some)
            if time.monotonic() > until:
                return count, False
        return count, True

    def _begun(self, verb: str) -> BulkAction:
        store = self.parts.store
        now = store.fleet.now()
        ids, found, _ = self._chosen(now)
        seconds = duration(self.given("in"), default_unit="s") or 0.0
        if verb == "deadline" and not seconds:
            raise SubmissionError("Enter the new deadline: 90s, 2h or 3d from now.")
        if not ids and verb in ("cancel", "deadline"):
            found = pending_only(found)
        counted = self.given("counted")
        action = BulkAction(
            secrets.token_hex(8),
            verb,
            f"{self.who} in Flower",
            now,
            int(counted) if counted.isdecimal() else 0,
            "" if ids else fields_of(found),
            ids,
            checked_text(self.given("reason"), "reason"),
            silent=bool(self.given("silent")),
            deadline_at=round(now + seconds, 3),
        )
        store.shared_state.change_bulk_actions(lambda known: (known.with_new(action), None))
        what = {"ids": len(ids)} if ids else {"filter": action.chosen}
        logger().info("operator.acted", verb=verb, by=action.by, reason=action.reason, **what)
        self.parts.runner.wake()
        self._wait(action.id)
        return action

    def _wait(self, action: str) -> None:
        until = time.monotonic() + SHORT
        while time.monotonic() < until:
            known = self.parts.store.shared_state.bulk_actions().get(action)
            if known is None or known.state != "running":
                return
            time.sleep(0.05)


class ActionPage(Page):
    """`/cavendish/action/ID`: how far it is; its form stops it."""

    async def answer(self, *place: str) -> None:
        await self.show("action.html", lambda: self._found(place[0]))

    async def act(self, *place: str) -> None:
        await self.ask(lambda: self._stop(place[0]))
        self.redirect(self.to("action", place[0]), status=303)

    def _found(self, action: str) -> dict[str, Any]:
        store = self.parts.store
        known = store.shared_state.bulk_actions().get(action)
        if known is None:
            raise SubmissionError("This action is no longer kept: only the latest ones are.")
        return {"action": known, "now": store.fleet.now()}

    def _stop(self, action: str) -> None:
        store, by = self.parts.store, f"stopped by {self.who}"
        now = store.fleet.now()

        def step(known: BulkActions) -> tuple[BulkActions, None]:
            return known.ended(action, now, "stopped", by), None

        store.shared_state.change_bulk_actions(step)
        logger().info("operator.stopped", id=action, by=self.who)


class ActionsPage(Page):
    """`/cavendish/actions`: the latest of them."""

    async def answer(self, *place: str) -> None:  # noqa: ARG002
        await self.show(
            "actions.html",
            lambda: {"actions": self.parts.store.shared_state.bulk_actions().latest},
        )
