"""The page of the webhooks: the endpoints, and the dead letters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cavendish.errors import SubmissionError
from cavendish.model import OPERATIONS
from cavendish_worker.console.endpoint_rows import matching, rows
from cavendish_worker.console.id_filter import time_in
from cavendish_worker.console.page import Page
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.webhooks.dead_letters import DeadLetters
from cavendish_worker.webhooks.reopening import MOST, chunks, reopen

#: Endpoints and dead letters on one page; dead letters that a preview shows, and a second revives.
ENDPOINTS, LETTERS, SHOWN, RATE = 50, 50, 20, 50.0
VERBS = {"revive": "sent again, each with all its attempts", "drop": "forgotten for good"}
#: Dead letters that are looked at for one page: it must cost Redis little, however few match.
LOOKED_AT = 2_000
#: Seconds that an action on many dead letters may take.
PATIENCE = 30.0


class WebhooksPage(Page):
    """`/cavendish/webhooks?named=…&from=50&endpoint=…&reason=…&since=…&before=…`."""

    async def answer(self, *place: str) -> None:  # noqa: ARG002
        await self.show("webhooks.html", self._find)

    def _find(self) -> dict[str, Any]:
        polled, store = self.parts.poll(), self.parts.store
        now, statistics = polled.found["now"], polled.statistics
        named = self.said("named")
        names = matching(polled.endpoints, named, statistics, self.parts.urls)
        first = int(self.said("from")) if self.said("from").isdecimal() else 0
        wanted, before = self._wanted(now), self.said("before")
        start = time_in(before, now) if before else math.inf
        letters, following = wanted.page(store, LETTERS, start, LOOKED_AT)
        last = first + ENDPOINTS
        said = {name: self.said(name) for name in ("endpoint", "reason", "since")}
        return {
            "now": now,
            "endpoints": rows(store, statistics, self.parts.urls, names[first:last]),
            "named": named,
            "many": len(names),
            "more": self.to("webhooks", named=named, **{"from": last}) if names[last:] else "",
            "alerts": next((one for one in statistics.lanes if one.lane == OPERATIONS), None),
            "alerted": self.parts.settings.operations_webhook,
            "letters": letters,
            "following": self.to("webhooks", **said, before=following) if following else "",
            "said": said,
        }

    def _wanted(self, now: float) -> DeadLetters:
        return _wanted(self.said, now)


class DeadPage(Page):
    """`/cavendish/dead`: a form names a verb, and dead letters or a filter; it is confirmed."""

    async def act(self, *place: str) -> None:  # noqa: ARG002
        verb = self.given("verb")
        if verb not in VERBS:
            raise SubmissionError("Choose what to do with the dead letters.")
        if not self.given("confirmed"):
            await self.show("confirm_dead.html", lambda: self._asked(verb))
            return
        done = await self.parts.off_loop.ask(lambda: self._carry_out(verb), PATIENCE)
        self.draw("done.html", what=f"{done:,} dead letters are {VERBS[verb]}.", back="webhooks")

    def _wanted(self, now: float) -> DeadLetters:
        names = tuple(filter(None, self.get_body_arguments("delivery")))
        wanted = _wanted(self.given, now, names)
        if wanted == DeadLetters() and not self.given("all"):
            raise SubmissionError("Choose dead letters, or a filter that they match.")
        return wanted

    def _asked(self, verb: str) -> dict[str, Any]:
        now = self.parts.store.fleet.now()
        wanted = self._wanted(now)
        letters, more = wanted.page(self.parts.store, MOST)
        said = {name: self.given(name) for name in ("endpoint", "reason", "all")}
        said["since"] = str(wanted.since) if self.given("since") else ""
        return {
            "verb": verb,
            "done": VERBS[verb],
            "count": len(letters),
            "more": bool(more),
            "letters": letters[:SHOWN],
            "names": wanted.deliveries,
            "said": said,
        }

    def _carry_out(self, verb: str) -> int:
        store = self.parts.store
        now = store.fleet.now()
        letters, _ = self._wanted(now).page(store, MOST)
        chosen = [(one.lane, one.name) for one in letters]
        if verb == "drop":
            done = sum(store.closed.drop(lane, names) for lane, names in chunks(chosen))
        else:
            done = len(reopen(store, chosen[::-1], now, RATE, dead=True))
        self.parts.poll_anew()
        logger().info("operator.acted", verb=f"dead {verb}", by=self.who, count=done)
        return done


def _wanted(one: Callable[[str], str], now: float, deliveries: tuple[str, ...] = ()) -> DeadLetters:
    """The dead letters that the words of a URL or of a form mean: `one` finds each by its name."""
    since = one("since")
    return DeadLetters(
        one("endpoint") or None,
        time_in(since, now) if since else -math.inf,
        one("reason"),
        deliveries,
    )
