"""The page of one endpoint: its state and its attempts; switch, move, test and rotate it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cavendish.controller import checked_text
from cavendish.endpoints.endpoint_manager import EndpointManager
from cavendish.endpoints.endpoint_options import EndpointOptions
from cavendish.endpoints.endpoint_view import EndpointView, view_of
from cavendish.endpoints.webhook_endpoint import Endpoint
from cavendish.errors import SubmissionError
from cavendish.filter import Filter
from cavendish_worker.console.endpoint_rows import charts_of
from cavendish_worker.console.off_loop import PATIENCE
from cavendish_worker.console.page import Page
from cavendish_worker.console.shown import Shown
from cavendish_worker.webhooks.dead_letters import DeadLetters
from cavendish_worker.webhooks.trial import try_endpoint

#: Hours for which the old secret signs as well, and seconds that a test may take.
OVERLAP, TEST = 24.0, 30.0
#: What is noted of each verb.
NOTES = {
    "enable": "Endpoint {} enabled",
    "disable": "Endpoint {} disabled",
    "move": "Endpoint {} given another URL",
    "test": "Endpoint {} sent a test",
    "rotate": "Endpoint {} given a new secret",
}
#: The latest dead letters and ids that are shown, and how many of all endpoints are looked at.
LATEST, LOOKED_AT = 5, 1_000


class EndpointPage(Page):
    """`/cavendish/endpoint/NAME?url=1`."""

    async def answer(self, *place: str) -> None:
        await self.show("endpoint.html", lambda: self._find(place[0]))

    async def act(self, *place: str) -> None:
        name, verb = place[0], self.given("verb")
        verbs: dict[str, Callable[[str], str]] = {
            "enable": self._enable,
            "disable": self._disable,
            "move": self._move,
            "test": self._test,
            "rotate": self._rotate,
        }
        if verb not in verbs:
            raise SubmissionError("Choose what to do with the endpoint.")
        note, patience = NOTES[verb].format(name), TEST if verb == "test" else PATIENCE
        said = await self.carry_out(
            lambda: verbs[verb](name), note, patience, verb=f"endpoint {verb}", endpoint=name
        )
        self.draw("done.html", what=said, back=("endpoint", name))

    @property
    def _manager(self) -> EndpointManager:
        return EndpointManager(self.parts.store, self.parts.settings)

    def _find(self, name: str) -> dict[str, Any]:
        store = self.parts.store
        statistics = self.parts.poll().statistics
        now, view = statistics.now, view_of(store, name, statistics, self.parts.urls)
        seen = Filter(endpoint=view.name)
        latest = store.search.page(seen, None, LATEST, looked_at_most=LOOKED_AT)
        letters, _ = DeadLetters(view.name).page(store, LATEST, looked_at=LOOKED_AT)
        asked = bool(self.said("url")) and self.login
        return {
            "view": view,
            "public": view.public,
            "url": view.url if asked else Shown.host(view.url),
            "hidden": bool(view.url) and not asked,
            "letters": letters,
            "latest": latest.items,
            "now": now,
            "chart": charts_of(store, [view.name], now)[0],
            "signs": view.registered.living_keys(now) if view.registered else (),
        }

    def _enable(self, name: str) -> str:
        view, was_disabled = self._manager.enable(name)
        word = "is enabled" if was_disabled else "was not disabled"
        return f"{name} {word}; {_waiting(view)} for it and become due at once."

    def _disable(self, name: str) -> str:
        reason = checked_text(self.given("reason"), "reason")
        why = f"by {self.who} in Flower" + (f": {reason}" if reason else "")
        view, _ = self._manager.disable(name, why)
        return f"{name} is disabled; {_waiting(view)} for it."

    def _move(self, name: str) -> str:
        options = EndpointOptions(self.given("to"), (), {}, (), None, None, None, frozenset())
        changed: tuple[Endpoint, Endpoint] = self._manager.update(name, options, unencrypted=False)
        where = Shown.host(changed[1].url)
        return f"{name} is now at {where}; its waiting deliveries are due at once."

    def _test(self, name: str) -> str:
        done = try_endpoint(self.parts.store, self.parts.settings, name)
        result = done.result
        where = f" at {result.address}" if result.address else ""
        took = "took" if done.taken else "did not take"
        answer = f" It said: {result.answer[:200]}" if result.answer else ""
        return f"{name} {took} the test: {result.outcome}{where}, {result.seconds:.2f} s.{answer}"

    def _rotate(self, name: str) -> str:
        told = self._manager.rotate(name, OVERLAP * 3600, unencrypted=False)
        public = f" The public key of v1a: {told.public_key}." if told.public_key else ""
        old = f"The old one also signs until {Shown.moment(told.old_until)} UTC."
        return f"The new secret of {name}, shown only now: {told.secret}. {old}{public}"


def _waiting(view: EndpointView) -> str:
    return "1 delivery waits" if view.waiting == 1 else f"{view.waiting:,} deliveries wait"
