"""The pages of actions on ids: they are requested, confirmed with a count, watched, stopped."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from cavendish.controller import checked_text
from cavendish.errors import SubmissionError
from cavendish.filter import Filter
from cavendish.policy.bulk_actions import VERBS, BulkAction, BulkActions, fields_of
from cavendish.undo import check_deadline, pending_only
from cavendish_worker.console.confirming import begin
from cavendish_worker.console.id_filter import TIMES, words
from cavendish_worker.console.page import Page
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.wording.times import duration

#: Ids that may be named.
NAMED = 200


class ActPage(Page):
    """`/cavendish/act?verb=…&state=…`: what would be done to all that match, and to how many.

    A form names a verb, and ids or a filter, and leads there; or it confirms what was asked.
    """

    async def answer(self, *place: str) -> None:  # noqa: ARG002
        self.check_operates()
        verb = self._verb(self.said("verb"))
        states = self.get_query_arguments("state")
        await self.show("confirm.html", lambda: self._asked(verb, *self._filter(self.said, states)))

    async def act(self, *place: str) -> None:  # noqa: ARG002
        verb = self._verb(self.given("verb"))
        if self.given("confirmed"):
            action = await self.ask(lambda: self._begun(verb))
            self.redirect(self.to("action", action.id), status=303)
        elif ids := self._ids():
            nothing: dict[str, Any] = {"said": {}, "failed": ""}
            found = {"verb": verb, "done": VERBS[verb], "ids": ids, "count": len(ids)}
            self.draw("confirm.html", **found, whole=True, **nothing)
        else:
            said = await self.ask(lambda: self._narrowed(verb))
            self.redirect(self.to("act", verb=verb, **said), status=303)

    def _verb(self, verb: str) -> str:
        if verb not in VERBS:
            raise SubmissionError("Choose what to do with the ids.")
        return verb

    def _ids(self) -> tuple[str, ...]:
        ids = tuple(dict.fromkeys(self.get_body_arguments("id")))
        if any(each.count(" ") < 2 for each in ids) or len(ids) > NAMED:
            raise SubmissionError(f"Name at most {NAMED} ids, each with its account and service.")
        return ids

    def _narrowed(self, verb: str) -> dict[str, Any]:
        """The words of a filter, which mean the same moments whenever they are confirmed."""
        now = self.parts.store.fleet.now()
        found = words(self.given, self.get_body_arguments("state"), now)
        if not found.any and not self.given("all"):
            raise SubmissionError("Choose ids, or a filter that they match.")
        wanted = pending_only(found.filter) if verb in ("cancel", "deadline") else found.filter
        times = {"since": wanted.since or "", "until": min(wanted.until or now, now)}
        return dict(found.said) | times

    def _filter(self, one: Any, states: list[str]) -> tuple[Filter, dict[str, Any]]:
        found = words(one, states, self.parts.store.fleet.now())
        times = {name: getattr(found.filter, name) for name in TIMES if name in found.said}
        return found.filter, dict(found.said) | times

    def _asked(self, verb: str, found: Filter, said: dict[str, Any]) -> dict[str, Any]:
        """What would be done, and to how many, as far as they are counted."""
        if found.until is None:
            raise SubmissionError("Choose ids, or a filter that they match.")
        found = pending_only(found) if verb in ("cancel", "deadline") else found
        count = self.parts.counts.of(fields_of(found), lambda: self._counted(found))
        known = {"count": count.number, "whole": count.whole, "failed": count.failed}
        return {"verb": verb, "done": VERBS[verb], "ids": (), "said": said} | known

    def _counted(self, found: Filter) -> Iterable[int]:
        return map(len, self.parts.store.search.steps(found))

    def _begun(self, verb: str) -> BulkAction:
        now, ids = self.parts.store.fleet.now(), self._ids()
        found, said = self._filter(self.given, self.get_body_arguments("state"))
        if not ids and not said and not self.given("all"):
            raise SubmissionError("Choose ids, or a filter that they match.")
        seconds = duration(self.given("in"), default_unit="s") or 0.0
        if verb == "deadline":
            if not seconds:
                raise SubmissionError("Enter the new deadline: 90s, 2h or 3d from now.")
            check_deadline(seconds)
        found = pending_only(found) if not ids and verb in ("cancel", "deadline") else found
        chosen = "" if ids else fields_of(found)
        count = self.parts.counts.known(chosen)
        action = BulkAction(
            secrets.token_hex(8),
            verb,
            f"{self.who} in Flower",
            now,
            len(ids) or (count.number if count else 0),
            chosen,
            ids,
            checked_text(self.given("reason"), "reason"),
            silent=bool(self.given("silent")),
            deadline_at=round(now + seconds, 3),
            whole=bool(ids or (count and count.whole)),
        )
        return begin(self.parts, action)


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
        await self.show("actions.html", self._found)

    def _found(self) -> dict[str, Any]:
        known = self.parts.store.shared_state.bulk_actions()
        return {"actions": known.latest, "notes": known.notes, "unread": len(known.unread)}
