"""What outlives everything: the emulated API, which knows the truth, and a receiver that believes
Standard Webhooks only.

    python tests/chaos/outside.py SECRET '{"rate": 50, …}' HISTORY OFFSET      prints its port

When each remote task finishes and how, the ids that are polled, and each delivery, are lines of the
history; `GET /received` has the ids that were taken, and those at `/failures`. How the receiver
answers is in the path: `/hook` and `/failures` take everything, but one webhook in thirty only at
its second try; `/later` each only at its second; `/abort` wants none of them; `/gone/…` has gone.
`POST /secret` has one more secret that webhooks may be signed with.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from cavendish_worker.devstack.emulator import serve
from cavendish_worker.devstack.emulator.tasks_api import Emulator, EmulatorConfig
from chaos.history import History

#: Seconds that the receiver takes, so that there is time to die while it works.
TAKES = 0.01
#: One in so many webhooks is taken only at its second try.
STUBBORN = 30
PLACES = ("hook", "failures", "retry_later", "abort", "gone")


class Receiver:
    """Notes what came, and keeps the ids that were taken."""

    def __init__(self, secret: str, history: History) -> None:
        self._webhooks, self._history = [Webhook(secret)], history
        self.taken: set[str] = set()
        self.failures: set[str] = set()
        self.groups: set[str] = set()
        self._seen: set[str] = set()

    def trust(self, secret: str) -> None:
        """Take webhooks that are signed with this secret too."""
        self._webhooks.append(Webhook(secret))

    def _verified(self, raw: bytes, headers: dict[str, str]) -> Any:
        for webhook in self._webhooks[1:]:
            with suppress(WebhookVerificationError):
                return webhook.verify(raw, headers)
        return self._webhooks[0].verify(raw, headers)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        at, name, path = (
            self._history.now(),
            request.headers.get("webhook-id", ""),
            request.url.path,
        )
        facts = {"at": at, "webhook_id": name, "place": path}
        try:
            said = self._verified(await request.aread(), dict(request.headers))
        except WebhookVerificationError as error:
            self._history.note(
                "delivery", **facts, verified=False, answered=401, id="", state=str(error)
            )
            return httpx.Response(401)
        await asyncio.sleep(TAKES)
        answer = self._answer(name, path.split("/")[1])
        if said["type"].startswith("task."):
            task_id, state = said["data"]["id"], said["data"]["state"]
            status = answer.status_code
            self._history.note(
                "delivery", **facts, verified=True, answered=status, id=task_id, state=state
            )
            if answer.is_success:
                (self.failures if path == "/failures" else self.taken).add(task_id)
        if said["type"] == "group.completed":
            about = {"group": said["data"]["group"], "counts": said["data"]["counts"]}
            self._history.note("completion", **facts, answered=answer.status_code, **about)
            if answer.is_success:
                self.groups.add(about["group"])
        return answer

    def _answer(self, name: str, place: str) -> httpx.Response:
        first = name not in self._seen
        self._seen.add(name)
        if place == "gone":
            return httpx.Response(410)
        if place == "abort":
            return httpx.Response(400, headers={"webhook-delivery": "abort-message"})
        if first and (place == "retry_later" or zlib.crc32(name.encode()) % STUBBORN == 0):
            return httpx.Response(
                503, headers={"retry-after": "1"} if place == "retry_later" else {}
            )
        return httpx.Response(204)


def polled(body: Any) -> list[str]:
    """The ids that a request asks about."""
    if not isinstance(body, dict):
        return []
    return [*body.get("ids", ()), *([body["id"]] if "id" in body else [])]


async def main(secret: str, config: dict[str, Any], history: History) -> None:
    emulator, receiver = (
        Emulator(EmulatorConfig(**config), history.now),
        Receiver(secret, history),
    )
    (account,) = emulator.accounts.values()

    async def handle(request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/emulator/tasks":
                answer = await emulator.handle(request)
                for job in (account.jobs[one] for one in answer.json()["ids"]):
                    state = "failed" if job.kind == "failed" else "succeeded"
                    history.note("finish", at=job.finished_at, id=job.id, state=state)
                return answer
            case "/secret":
                receiver.trust((await request.aread()).decode())
                return httpx.Response(204)
            case "/received":
                some = {
                    name: sorted(getattr(receiver, name))
                    for name in ("taken", "failures", "groups")
                }
                return httpx.Response(200, json=some)
            case "/many":
                return httpx.Response(
                    200, json={"received": len(receiver.taken), "calls": account.tally.calls}
                )
            case path if path.split("/")[1] in PLACES:
                return await receiver.handle(request)
        if ids := polled(json.loads(await request.aread() or b"{}")):
            history.note("poll", ids=ids)
        return await emulator.handle(request)

    sockets, port = serve.bind(0)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await serve.serve(handle, sockets)


if __name__ == "__main__":
    written = History(Path(sys.argv[3]), "outside", float(sys.argv[4]))
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), written))
