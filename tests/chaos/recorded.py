"""The clients of a run: each call that they make, and what came of it, is a line of the history."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from cavendish import Client
from cavendish.errors import StoreUnavailable, SubmissionError
from chaos.history import History

#: Seconds between two polls at what has not ended; ids of one poll; ended ones that are looked at
#: again.
EVERY, AT_ONCE, AGAIN = 1.0, 500, 40
#: A place that an endpoint is registered for, and the states of the ends that it chose to hear of.
ENDPOINT, CHOSEN = "failures", {"/failures": ["failed"]}
#: The group of a submit: its name, and how many ids it has.
Grouped = tuple[str, int]


class Recorded:
    """A client that writes down what it asks for and is told.

    `receiver` is the URL before a place.
    """

    def __init__(self, client: Client, history: History, receiver: str, deadline: float) -> None:
        self._client, self._history, self._receiver = client, history, receiver
        self._deadline = deadline

    def submit(
        self,
        ids: Sequence[str],
        *,
        service: str,
        place: str,
        deadline: float | None = None,
        promised: bool = True,
        group: Grouped | None = None,
        chosen: bool = False,
    ) -> list[str] | None:
        """Submit once; `chosen`: with a webhook to the endpoint too.

        Returns the ids that are tracked now, or None if the answer was lost.
        """
        until = self._deadline if deadline is None else deadline
        about: dict[str, Any] = {"ids": [*ids], "deadline": until, "promised": promised}
        about |= {"places": [place, *CHOSEN], "chosen": CHOSEN} if chosen else {"places": [place]}
        grouped = told_of(group)
        call = self._history.invoked("submit", service=service, **about, **grouped)
        try:
            webhook = [self._receiver + place, *([ENDPOINT] if chosen else [])]
            answers = self._client.submit(
                ids, service=service, webhook=webhook, deadline=deadline, **grouped
            )
        except StoreUnavailable as error:
            self._history.returned("submit", call, "unknown", error=str(error)[:200])
            return None
        except SubmissionError as error:
            self._history.returned("submit", call, "failed", error=str(error)[:200])
            raise
        said = {one.id: one.outcome for one in answers}
        self._history.returned("submit", call, "ok", answers=said)
        return [one for one, answer in said.items() if answer != "refused"]

    def message(
        self, ids: Sequence[str], place: str, send: Callable[[], object], group: Grouped
    ) -> None:
        """Hand ids over by a Celery message.

        Raises what `send` raises: then it may be there or not.
        """
        about = {"ids": [*ids], "places": [place], "deadline": self._deadline, "promised": True}
        call = self._history.invoked("submit", **about, **told_of(group))
        try:
            send()
        except Exception as error:
            self._history.returned("submit", call, "unknown", error=str(error)[:200])
            raise
        self._history.returned("submit", call, "ok", answers=dict.fromkeys(ids, "sent"))

    def poll(self, ids: Sequence[str], service: str) -> dict[str, str] | None:
        """Get these ids.

        Returns the state of each that is known, or None if there was no answer.
        """
        call = self._history.invoked("get")
        try:
            found = self._client.get_many(ids, service=service, with_record=False)
        except StoreUnavailable as error:
            self._history.returned("get", call, "unknown", error=str(error)[:200])
            return None
        told = {one: (found[one].state.value, found[one].settled_at) for one in ids if one in found}
        self._history.returned("get", call, "ok", seen={one: told.get(one) for one in ids})
        return {one: state for one, (state, _) in told.items()}


def told_of(group: Grouped | None) -> dict[str, Any]:
    """The options of a submit for its group."""
    return dict(zip(("group", "group_size"), group, strict=True)) if group else {}


class Watcher:
    """Reads every id until it has ended, and now and then ended ones, in a thread of its own."""

    def __init__(self, recorded: Recorded, service: str, ids: Callable[[], frozenset[str]]) -> None:
        self._recorded, self._service, self._ids = recorded, service, ids
        self._ended: set[str] = set()  # or forgotten
        self._known: set[str] = set()
        self._chance, self._stopped = random.Random(1), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(EVERY):
            ended = sorted(self._ended)
            some = self._chance.sample(ended, min(AGAIN, len(ended)))
            self._observation([*sorted(self._ids() - self._ended), *some])

    def _observation(self, ids: Sequence[str]) -> bool:
        answered = True
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            states = self._recorded.poll(some, self._service)
            answered &= states is not None
            for one in some if states is not None else ():
                if states.get(one, "pending" if one not in self._known else "") != "pending":
                    self._ended.add(one)
            self._known |= {*(states or ())}
        return answered

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def last_poll(self) -> None:
        """Stop, and look at every id once more; returns when that was answered."""
        self.stop()
        while not self._observation(sorted(self._ids())):
            time.sleep(0.1)
