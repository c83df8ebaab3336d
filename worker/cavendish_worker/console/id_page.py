"""The page of one id: its history, its webhooks, and what the API said."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from cavendish.endpoints.webhook_endpoint import is_of_group
from cavendish.errors import SubmissionError
from cavendish.model import Lane, State
from cavendish.store.keys import delivery_of
from cavendish.store.outlook import outlook
from cavendish_worker.console import record_tree, timeline
from cavendish_worker.console.page import POLICY, Page


class IdPage(Page):
    """`/cavendish/id/SERVICE/ID?account=NAME&images=1`."""

    async def answer(self, *place: str) -> None:
        service, task_id = place
        account = self.said("account") or "default"
        await self.show("id.html", lambda: self._find(account, service, task_id))

    def _find(self, account: str, service: str, task_id: str) -> dict[str, Any]:
        store, settings = self.parts.store, self.parts.settings
        now = store.fleet.now()
        found = store.tasks.get(account, service, [task_id], with_record=self.login)
        if (task := found.get(task_id)) is None:
            raise SubmissionError(
                f"{task_id!r} is not tracked for the service {service} of the account {account}. "
                "It was never submitted, or it is no longer kept."
            )
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
