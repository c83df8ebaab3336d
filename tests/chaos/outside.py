"""What outlives everything: the pretend API, which knows the truth, and a receiver that believes
Standard Webhooks only.

    python tests/chaos/outside.py SECRET '{"rate": 50, …}'       prints its port

`GET /truth` tells of each remote task when it finishes and how, `GET /received` what came under
which webhook-id. How the receiver answers is in the path: `/hook` takes everything, but one webhook
in thirty only at its second try; `/later` each only at its second; `/abort` wants none of them;
`/gone/…` has gone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from typing import Any

import httpx
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from cavendish_worker.devstack.emulator import serve
from cavendish_worker.devstack.emulator.api import Config, Emulator

#: Seconds that the receiver takes, so that there is time to die while it works.
TAKES = 0.01
#: One in so many webhooks is taken only at its second try.
STUBBORN = 30


class Receiver:
    """Keeps what came, by webhook-id.

    How often it was taken, the id that it tells of, and the state that it says.
    """

    def __init__(self, secret: str) -> None:
        self._webhook = Webhook(secret)
        self.taken: dict[str, list[Any]] = {}
        self.refused: list[str] = []
        self._seen: set[str] = set()

    async def handle(self, request: httpx.Request) -> httpx.Response:
        name, place = request.headers.get("webhook-id", ""), request.url.path.split("/")[1]
        try:
            said = self._webhook.verify(await request.aread(), dict(request.headers))
        except WebhookVerificationError as error:
            self.refused.append(f"{type(error).__name__}: {error}")
            return httpx.Response(401)
        await asyncio.sleep(TAKES)
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
        if said["type"].startswith("task."):
            row = self.taken.setdefault(name, [0, said["data"]["id"], said["data"]["state"]])
            row[0] += 1
        return httpx.Response(204)


async def main(secret: str, config: dict[str, Any]) -> None:
    emulator, receiver = Emulator(Config(**config)), Receiver(secret)
    (account,) = emulator.accounts.values()

    async def handle(request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/truth":
                jobs = account.jobs.values()
                truth = {
                    job.id: [job.finished_at, "failed" if job.kind == "failed" else "succeeded"]
                    for job in jobs
                }
                return httpx.Response(200, json=truth)
            case "/received":
                return httpx.Response(
                    200, json={"taken": receiver.taken, "refused": receiver.refused[:20]}
                )
            case "/many":
                return httpx.Response(
                    200, json={"received": len(receiver.taken), "calls": account.tally.calls}
                )
            case path if path.split("/")[1] in ("hook", "retry_later", "abort", "gone"):
                return await receiver.handle(request)
        return await emulator.handle(request)

    sockets, port = serve.bind(0)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await serve.serve(handle, sockets)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
