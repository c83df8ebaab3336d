"""The page of one id: its history, its webhooks, and what the API said."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from cavendish.endpoints.webhook_endpoint import is_of_group
from cavendish.errors import SubmissionError
from cavendish.model import Lane, State, TrackedTask, printable
from cavendish.store.keys import delivery_of
from cavendish.store.outlook import outlook
from cavendish.stored_json import compact
from cavendish.submission import ID_LENGTH
from cavendish_worker.console import record_tree, timeline
from cavendish_worker.console.page import POLICY, Page


class IdPage(Page):
    """`/cavendish/id/SERVICE/ID?account=NAME&images=1`, or `/cavendish/id?service=…&id=…`; with
    `json=record` or `json=metadata` the whole of that, as it is kept.
    """

    async def answer(self, *place: str) -> None:
        service, task_id = place or (self.said("service"), self.said("id"))
        account = self.said("account") or "default"
        if part := self.said("json"):
            task = await self.ask(lambda: self._task(account, service, task_id))
            self._send(task, part)
        else:
            await self.show("id.html", lambda: self._find(account, service, task_id))

    def _send(self, task: TrackedTask, part: str) -> None:
        """All of its record or its metadata: its page shows the beginning."""
        if not self.login:
            raise SubmissionError("Metadata and records are hidden, as Flower has no login.")
        said = {"record": task.record_json, "metadata": task.metadata and compact(task.metadata)}
        if not (text := said.get(part)):
            raise SubmissionError("This id has no such JSON: ask for `record` or `metadata`.")
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(text.encode(errors="surrogateescape"))

    def _task(self, account: str, service: str, task_id: str) -> TrackedTask:
        """Raises SubmissionError for an id that nobody tracks, or that cannot be read."""
        lane = Lane.of(account, service, task_id, self.parts.settings.shards)
        loaded = self.parts.store.tasks.load(lane, [task_id], with_record=self.login)
        if task_id in loaded.tasks:
            return loaded.tasks[task_id]
        name = repr(printable(task_id, ID_LENGTH))
        if why := loaded.unreadable.get(task_id):
            raise SubmissionError(f"The record of {name} in the store cannot be read: {why}.")
        raise SubmissionError(
            f"{name} is not tracked for the service {printable(service, 40)} of the account "
            f"{printable(account, 40)}. It was never submitted, or it is no longer kept."
        )

    def _find(self, account: str, service: str, task_id: str) -> dict[str, Any]:
        store, settings = self.parts.store, self.parts.settings
        now, task = store.fleet.now(), self._task(account, service, task_id)
        lane = Lane.of(account, service, task_id, settings.shards)
        names = [delivery_of(each, task.id) for each in task.webhooks if not is_of_group(each)]
        seen = outlook(store.connection, lane, task, names)
        died = store.closed.died_at(lane, names)
        webhooks = timeline.sent(store.deliveries.load(lane, names, died), seen.receivers)
        tree = record_tree.tree(task.record_json) if self.login and task.record_json else []
        return {
            "task": task,
            "why": timeline.why(task, seen, webhooks, now),
            "steps": timeline.steps(task, seen, webhooks, now),
            "webhooks": webhooks,
            "tree": tree,
            "images": record_tree.images(tree),
            "now": now,
            "pending": task.state is State.PENDING,
        }

    def draw(self, template: str, **found: Any) -> None:
        """Pictures of other sites are loaded only after a click, and from their hosts alone."""
        shown = found.get("images", []) if self.said("images") else []
        if shown:
            hosts = " ".join(sorted({f"https://{urlsplit(each).netloc}" for each in shown}))
            self.set_header("Content-Security-Policy", f"{POLICY} {hosts}")
        super().draw(template, **found, **({"shown_images": shown} if "task" in found else {}))
