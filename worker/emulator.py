"""The pretend API: one handler for tests (`httpx.MockTransport`) and, served on loopback, for the demo.

It keeps the contract of the Tasks API with all its oddities: many ways to say pending, no status word,
unknown ids that are simply missing, records that become visible late, a page limit, partial success.
Knobs add a rate limit, latency, and faults that a network has.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """How the pretend API behaves. Times in seconds, shares in 0..1, `rate` in calls per second (0: no limit)."""

    rate: float = 10.0
    burst: float = 1.0
    retry_after: bool = True
    latency: float = 0.05
    median: float = 6.0
    sigma: float = 0.5
    failing: float = 0.08
    partial: float = 0.05
    faults: float = 0.0
    visible_after: float = 0.3
    page_limit: int = 12
    most_ids: int = 100
    token: str = "emulated"  # noqa: S105 (nothing is behind it)
    seed: int = 1


class Reset(httpx.ReadError):
    """The server closes the connection in the middle of an answer."""


class Stall(httpx.ReadTimeout):
    """The server accepts the question and never answers."""


@dataclass(slots=True)
class Job:
    """A remote task of the pretend API."""

    id: str
    created_at: float
    finished_at: float
    fate: str
    shape: int
    model: str
    told: int = 0


@dataclass(slots=True)
class Tally:
    """What the pretend API saw; `again` counts ids asked about after an answer had told that they were finished."""

    calls: int = 0
    looks: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    again: int = 0


def transport(handler: Callable[[httpx.Request], Awaitable[httpx.Response]]) -> httpx.MockTransport:
    """A handler as a transport for `httpx.AsyncClient`, with answers that are streamed as a server's are."""

    async def answer(request: httpx.Request) -> httpx.Response:
        said = await handler(request)
        return httpx.Response(said.status_code, headers=said.headers, stream=httpx.ByteStream(await said.aread()))

    return httpx.MockTransport(answer)


class Emulator:
    """One pretend API. `handle` takes any request; `create` makes remote tasks directly."""

    def __init__(self, knobs: Knobs, now: Callable[[], float] = time.time) -> None:
        self.knobs, self._now, self._chance = knobs, now, random.Random(knobs.seed)
        self.jobs: dict[str, Job] = {}
        self.tally = Tally()
        self._tokens, self._filled_at = knobs.burst, now()

    def create(self, count: int, model: str = "nano-banana") -> list[str]:
        """Make remote tasks; returns their ids."""
        ids = [str(uuid.UUID(int=self._chance.getrandbits(128), version=4)) for _ in range(count)]
        now = self._now()
        for task_id in ids:
            duration = self.knobs.median * math.exp(self.knobs.sigma * self._chance.gauss(0, 1))
            fates = ("failed", "partial", "succeeded")
            failing, partial = self.knobs.failing, self.knobs.partial
            fate = self._chance.choices(fates, (failing, partial, 1 - failing - partial))[0]
            self.jobs[task_id] = Job(task_id, now, now + duration, fate, self._chance.randrange(6), model)
        return ids

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request. Raises Reset or Stall where the network would."""
        path, method = request.url.path, request.method
        if (method, path) == ("GET", "/emulator/tally"):
            return httpx.Response(200, json=self._tallied())
        body = self._json(await request.aread())
        if (method, path) == ("POST", "/emulator/tasks"):
            return httpx.Response(
                200, json={"ids": self.create(int(body.get("count", 1)), str(body.get("model", "nano-banana")))}
            )
        service, _, action = path.strip("/").partition("/")
        if method != "POST" or not service or not action:
            return self._error(404, "no_api", "no such API")
        await asyncio.sleep(self.knobs.latency * self._chance.uniform(0.5, 1.5))
        if request.headers.get("authorization") != f"Bearer {self.knobs.token}":
            return self._error(401, "invalid_token", "the token is not valid")
        if action != "tasks":
            return self._submit(body)
        return self._tasks(body)

    def _tasks(self, body: dict[str, Any]) -> httpx.Response:
        self.tally.calls += 1
        if not self._within_rate():
            headers = {"retry-after": "1"} if self.knobs.retry_after else {}
            return self._error(429, "too_many_requests", "slow down", headers)
        if self._chance.random() < self.knobs.faults:
            return self._fault()
        if body.get("action") == "retrieve_batch":
            return self._batch(body)
        self.tally.looks += 1
        self.tally.answers["retrieve"] += 1
        job = self.jobs.get(str(body.get("id")))
        return httpx.Response(200, json=self._record(job) if job and self._visible(job) else {})

    def _batch(self, body: dict[str, Any]) -> httpx.Response:
        ids = body.get("ids")
        if not isinstance(ids, list) or not ids:
            return self._error(400, "bad_request", "ids must not be empty")
        if len(ids) > self.knobs.most_ids:
            return self._error(400, "bad_request", f"too many ids: at most {self.knobs.most_ids}")
        self.tally.looks += len(ids)
        self.tally.answers["retrieve_batch"] += 1
        jobs = [job for task_id in dict.fromkeys(map(str, ids)) if (job := self.jobs.get(task_id)) and self._visible(job)]
        page = jobs[: int(body.get("limit", self.knobs.page_limit))]
        self._chance.shuffle(page)
        return httpx.Response(200, json={"items": [self._record(job) for job in page], "count": len(jobs)})

    def _submit(self, body: dict[str, Any]) -> httpx.Response:
        task_id = self.create(1, str(body.get("model", "nano-banana")))[0]
        return httpx.Response(200, json={"success": True, "task_id": task_id, "trace_id": str(uuid.uuid4())})

    def _visible(self, job: Job) -> bool:
        return self._now() >= job.created_at + self.knobs.visible_after

    def _record(self, job: Job) -> dict[str, Any]:
        record: dict[str, Any] = {
            "_id": job.id.replace("-", "")[:24],
            "id": job.id,
            "created_at": round(job.created_at, 3),
            "type": "images",
            "request": {"action": "generate", "prompt": "a banana at dusk, 水彩", "model": job.model},
        }
        if self._now() < job.finished_at:
            acknowledged: dict[str, Any] = {"success": True, "task_id": job.id}
            shapes: list[dict[str, Any]] = [
                {},
                {"response": None},
                {"response": {}},
                {"response": {"task_id": job.id}},
                {"response": acknowledged},
            ]
            shapes.append({"response": {**acknowledged, "data": []}})
            return record | shapes[job.shape]
        self.tally.again += job.told > 0
        job.told += 1
        stamps = {"started_at": round(job.created_at + 0.06, 3), "finished_at": round(job.finished_at, 3)}
        stamps["elapsed"] = round(job.finished_at - job.created_at, 3)
        return record | stamps | {"response": self._response(job)}

    def _response(self, job: Job) -> dict[str, Any]:
        if job.fate == "failed":
            error = {"code": "api_error", "message": "the picture could not be made"}
            return {"success": False, "task_id": job.id, "error": error}
        images = [{"prompt": "a banana at dusk", "image_url": f"https://cdn.example.com/{job.id}.png"}]
        return {"success": True, "task_id": job.id, "data": images if job.fate == "partial" else images * 2}

    def _within_rate(self) -> bool:
        if not self.knobs.rate:
            return True
        now = self._now()
        self._tokens = min(self._tokens + (now - self._filled_at) * self.knobs.rate, self.knobs.burst)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _fault(self) -> httpx.Response:
        kind = self._chance.choice(("error", "gateway", "reset", "garbage"))
        self.tally.answers[kind] += 1
        if kind == "error":
            return self._error(500, "api_error", "internal error", count=False)
        if kind == "gateway":
            return httpx.Response(502, html="<html><h1>502 Bad Gateway</h1></html>")
        if kind == "reset":
            raise Reset("the server closed the connection")
        return httpx.Response(200, content=b'{"items": [{"id": "', headers={"content-type": "application/json"})

    def _error(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None, *, count: bool = True
    ) -> httpx.Response:
        if count:
            self.tally.answers[str(status)] += 1
        body = {"error": {"code": code, "message": message}, "trace_id": str(uuid.uuid4())}
        return httpx.Response(status, json=body, headers=headers)

    def _tallied(self) -> dict[str, Any]:
        finished = sum(job.finished_at <= self._now() for job in self.jobs.values())
        tally = self.tally
        return {
            "tasks": len(self.jobs),
            "finished": finished,
            "calls": tally.calls,
            "looks": tally.looks,
            "answers": dict(tally.answers),
            "again": tally.again,
        }

    @staticmethod
    def _json(raw: bytes) -> dict[str, Any]:
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}
