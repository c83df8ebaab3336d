"""The page that asks whether dead letters are to be revived or dropped: how many, and which."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Any

from cavendish.errors import SubmissionError
from cavendish.model import Lane
from cavendish.policy.bulk_actions import LETTER_VERBS, BulkAction
from cavendish.store.keys import task_of
from cavendish.stored_json import compact
from cavendish_worker.console.confirming import begin
from cavendish_worker.console.id_filter import bounded, time_in
from cavendish_worker.console.letter_actions import fields_of
from cavendish_worker.console.page import Page
from cavendish_worker.webhooks.dead_letters import DeadLetters

DONE = {"revive": "sent again, each with all its attempts", "drop": "forgotten for good"}
#: Dead letters that a preview shows and looks at, and that may be named.
SHOWN, LOOKED_AT, NAMED = 20, 2_000, 200
WORDS = ("endpoint", "since", "reason")


class DeadPage(Page):
    """`/cavendish/dead?verb=…&endpoint=…&reason=…&since=…&until=…`: what would be done to all that
    match, and how many they are.

    A form names a verb, and dead letters or a filter, and leads there; or it confirms what was
    asked.
    """

    async def answer(self, *place: str) -> None:  # noqa: ARG002
        self.check_operates()
        verb = self._verb(self.said("verb"))
        await self.show("confirm_dead.html", lambda: self._asked(verb))

    async def act(self, *place: str) -> None:  # noqa: ARG002
        verb = self._verb(self.given("verb"))
        if self.given("confirmed"):
            action = await self.ask(lambda: self._begun(verb))
            self.parts.poll_anew()
            self.redirect(self.to("action", action.id), status=303)
        elif names := self._names():
            rows = [task_of(each.partition(" ")[2]) for each in names]
            found = {"verb": verb, "done": DONE[verb], "names": names, "rows": rows, "said": {}}
            self.draw("confirm_dead.html", **found, count=len(names), whole=True, failed="")
        else:
            said = await self.ask(self._narrowed)
            self.redirect(self.to("dead", verb=verb, **said), status=303)

    def _verb(self, verb: str) -> str:
        if verb not in LETTER_VERBS:
            raise SubmissionError("Choose what to do with the dead letters.")
        return verb

    def _names(self) -> tuple[str, ...]:
        """The dead letters that were named, each as `LANE DELIVERY`."""
        names = tuple(dict.fromkeys(filter(None, self.get_body_arguments("delivery"))))
        if len(names) > NAMED:
            raise SubmissionError(f"Name at most {NAMED} dead letters.")
        for each in names:
            lane, _, name = each.partition(" ")
            if ":" not in name:
                raise SubmissionError("Name each dead letter with its lane.")
            try:
                Lane.parse(lane)
            except ValueError:
                raise SubmissionError("Name each dead letter with its lane.") from None
        return names

    def _narrowed(self) -> dict[str, Any]:
        now = self.parts.store.fleet.now()
        if not self.given("all") and not any(map(self.given, WORDS)):
            raise SubmissionError("Choose dead letters, or a filter that they match.")
        wanted = wanted_by(self.given, now)
        return fields_of(wanted) | {"until": now}

    def _asked(self, verb: str) -> dict[str, Any]:
        store = self.parts.store
        now = store.fleet.now()
        wanted = wanted_by(self.said, now)
        until = time_in(self.said("until"), now) if self.said("until") else now
        letters, _ = wanted.page(store, SHOWN, until, LOOKED_AT)
        what = f"dead {compact(fields_of(wanted))} {until}"
        count = self.parts.counts.of(what, lambda: wanted.counted(store, until))
        rows = [f"{one.task_id} to {one.endpoint}: {one.outcome}" for one in letters[:SHOWN]]
        said = {name: self.said(name) for name in (*WORDS, "until")}
        known = {"count": count.number, "whole": count.whole, "failed": count.failed}
        return {"verb": verb, "done": DONE[verb], "names": (), "rows": rows, "said": said} | known

    def _begun(self, verb: str) -> BulkAction:
        now, names = self.parts.store.fleet.now(), self._names()
        fields = fields_of(wanted_by(self.given, now))
        if not names and not fields and not self.given("all"):
            raise SubmissionError("Choose dead letters, or a filter that they match.")
        until = time_in(self.given("until"), now) if self.given("until") else now
        count = self.parts.counts.known(f"dead {compact(fields)} {until}")
        action = BulkAction(
            secrets.token_hex(8),
            verb,
            f"{self.who} in Flower",
            min(until, now),
            len(names) or (count.number if count else 0),
            "" if names else compact(fields),
            names,
            whole=bool(names or (count and count.whole)),
        )
        return begin(self.parts, action)


def wanted_by(one: Callable[[str], str], now: float) -> DeadLetters:
    """The dead letters that the words of a URL or of a form mean: `one` finds each by its name."""
    endpoint, since, reason = (bounded(one(name)) for name in WORDS)
    return DeadLetters(endpoint or None, time_in(since, now) if since else -math.inf, reason)
