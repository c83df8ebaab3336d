"""The page of one account: its calls and its services; it pauses, resumes and limits them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cavendish.controller import Controller
from cavendish.errors import SubmissionError
from cavendish.policy.operator_controls import Controls
from cavendish_worker.console.page import Page
from cavendish_worker.wording.notes import pause
from cavendish_worker.wording.times import duration

#: What is noted of each verb.
NOTES = {
    "pause": "paused",
    "resume": "resumed",
    "ceiling": "rate ceiling set",
    "default": "rate ceiling removed",
}


class AccountPage(Page):
    """`/cavendish/account/NAME`."""

    async def answer(self, *place: str) -> None:
        await self.show("account.html", lambda: self._find(place[0]))

    async def act(self, *place: str) -> None:
        verbs: dict[str, Callable[[str], str]] = {
            "pause": self._pause,
            "resume": self._resume,
            "ceiling": self._set_ceiling,
            "default": self._end_ceiling,
        }
        account, verb = place[0], self.given("verb")
        if verb not in verbs:
            raise SubmissionError("Choose what to do with the account.")
        service = self.given("service")
        what = f"{account}/{service}" if service else account
        said = await self.carry_out(
            lambda: verbs[verb](account), f"Account {what}: {NOTES[verb]}", verb=verb, account=what
        )
        self.draw("done.html", what=f"{said}.", back=("account", account))

    @property
    def _controller(self) -> Controller:
        return Controller(self.parts.store)

    def _find(self, name: str) -> dict[str, Any]:
        polled = self.parts.poll()
        found, controls = polled.found, polled.statistics.controls
        lanes = [one for one in found["lanes"] if one["lane"].startswith(f"{name}/")]
        account = found["accounts"].get(name)
        if account is None and name not in _named(controls):
            raise SubmissionError(f"No id of the account {name!r} is kept. Is the name right?")
        own = controls.account_pause(name, found["now"])
        ceiling = controls.ceilings.get(name)
        return {
            "account": name,
            "calls": account,
            "held": pause(account) if account else "",
            "own": own,
            "ceiling": ceiling.told if ceiling else "",
            "services": _services(lanes, controls, name, found["now"]),
        }

    def _pause(self, account: str) -> str:
        service, length = self.given("service") or None, self.given("for")
        seconds = duration(length, "s") if length else None
        if length and seconds is None:
            raise SubmissionError("Enter for how long: 90s, 30m or 2h; or leave it empty.")
        made = self._controller.pause(
            account, service, seconds, None, self.given("reason"), f"{self.who} in Flower"
        )
        return made.sentence[0].upper() + made.sentence[1:]

    def _resume(self, account: str) -> str:
        service = self.given("service") or None
        ended = self._controller.resume(account, service)
        what = f"The service {service} of {account}" if service else f"The account {account}"
        return f"{what} is {'polled again' if ended else 'not paused by an operator'}"

    def _set_ceiling(self, account: str) -> str:
        try:
            calls = float(self.given("calls"))
        except ValueError:
            raise SubmissionError("Enter how many calls per second: 5, or 0.5.") from None
        made = self._controller.set_rate_ceiling(account, calls, f"{self.who} in Flower")
        return f"The account {account} makes {made.told if made else 'what it may'}"

    def _end_ceiling(self, account: str) -> str:
        self._controller.set_rate_ceiling(account, None, None)
        return f"The account {account} makes as many calls as CAVENDISH_RATE of the workers allows"


def _named(controls: Controls) -> set[str]:
    """The accounts for which operators have set something."""
    return {one.account for one in controls.pauses.values()} | {*controls.ceilings}


def _services(
    lanes: list[dict[str, Any]], controls: Controls, account: str, now: float
) -> list[dict[str, Any]]:
    """The services of an account, each with its numbers and its own pause, by name."""
    found: dict[str, dict[str, Any]] = {}
    for lane in lanes:
        service = lane["lane"].split("/")[1]
        one = found.setdefault(
            service, {"name": service, "pending": 0, "due": 0, "in_flight": 0, "lane": lane}
        )
        for number in ("pending", "due", "in_flight"):
            one[number] += lane[number]
    for paused in controls.in_force(now):
        if paused.account == account and paused.service:
            one = found.setdefault(
                paused.service,
                {"name": paused.service, "pending": 0, "due": 0, "in_flight": 0, "lane": None},
            )
            one["pause"] = paused
    return [one for _, one in sorted(found.items())]
