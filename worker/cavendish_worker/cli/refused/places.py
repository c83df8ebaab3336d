"""The two places of what was not accepted: refused submits, and quarantined messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import click

from cavendish.client import Client
from cavendish.environment.local_paths import quarantine_url
from cavendish.errors import SubmissionError
from cavendish.model import Submitted
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.quarantine import Quarantine, Quarantined
from cavendish.store.refused import RefusedSubmit
from cavendish_worker.celeryapp.refused_submits import what_was_sent
from cavendish_worker.celeryapp.submit_message import submit
from cavendish_worker.cli.connect import open_store

#: The kind of a quarantined message; that of a refused submit is the kind of its error.
MESSAGE = "message"

entries_argument = click.argument("entries", nargs=-1, metavar="[ID]...")


@dataclass(frozen=True, slots=True)
class Places:
    """The refused submits of the store, and the messages of a broker that is a Redis."""

    store: Store
    settings: Settings
    quarantine: Quarantine | None

    def list(self) -> list[RefusedSubmit | Quarantined]:
        """What lies there, the newest first, without what was sent. Raises StoreUnavailable."""
        messages = self.quarantine.list() if self.quarantine else []
        return sorted([*self.store.refused.list(), *messages], key=lambda one: (-one.at, one.id))

    def show(self, entry_id: str) -> RefusedSubmit | Quarantined:
        """One of them, with what was sent. Raises SubmissionError if it is not there."""
        if submit_refused := self.store.refused.show(entry_id):
            return submit_refused
        if self.quarantine and (message := self.quarantine.show(entry_id)):
            return message
        raise SubmissionError(f"Nothing refused has the id {entry_id!r}.")

    def drop(self, entry_id: str) -> bool:
        """Forget one of them; false if it is not there. Raises StoreUnavailable."""
        dropped = self.store.refused.drop([entry_id]) > 0
        return dropped or (self.quarantine is not None and self.quarantine.drop(entry_id))

    def retry(self, entry_id: str, client: Client) -> str:
        """Submit again what was refused, or put a message back into its queue; what came of it.

        Raises SubmissionError if it is not there, or refused again: then it stays.
        """
        found = self.show(entry_id)
        if isinstance(found, Quarantined):
            back = self.quarantine is not None and self.quarantine.retry(entry_id)
            return f"put back into the queue {found.queue}" if back else "retried by another one"
        sent = what_was_sent(found)
        if sent is None:
            raise SubmissionError("it was not kept as it came, so its producer must send it again")
        answers = submit(client, *sent)
        if refused := [answer for answer in answers if answer.refused]:
            raise SubmissionError(f"{len(refused)} ids are refused again: {refused[0].reason}")
        self.store.refused.drop([entry_id])
        return _counted(answers)

    def chosen(self, ids: Sequence[str], *, everything: bool) -> Sequence[str]:
        """The ids that are meant. Raises UsageError if none are named."""
        if not ids and not everything:
            raise click.UsageError("Name some of `cavendish refused list`, or give --all.")
        return [one.id for one in self.list()] if everything else ids


@contextmanager
def places() -> Iterator[Places]:
    """Both places, as the environment names them."""
    store, settings = open_store()
    url = quarantine_url(settings)
    quarantine = Quarantine(url) if url else None
    try:
        yield Places(store, settings, quarantine)
    finally:
        if quarantine:
            quarantine.close()


def fields(one: RefusedSubmit | Quarantined) -> dict[str, Any]:
    """What is known of one of them as plain values, without what was sent: the same for both."""
    if isinstance(one, Quarantined):
        known = asdict(RefusedSubmit(one.at, MESSAGE, one.reason, size=one.size, id=one.id))
        known |= {"queue": one.queue, "deaths": one.deaths}
    else:
        known = asdict(one) | {"queue": None, "deaths": None}
    del known["sent"]
    return {"id": known.pop("id")} | known


def _counted(answers: Sequence[Submitted]) -> str:
    words = ("new", "known")
    count = {word: sum(answer.outcome == word for answer in answers) for word in words}
    return " · ".join(f"{number} {word}" for word, number in count.items() if number) or "no ids"
