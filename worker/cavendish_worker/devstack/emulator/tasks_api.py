"""The emulated Tasks API: one handler, for tests (`httpx.MockTransport`) and for the demo, which
serves it on loopback.

It behaves like the real API with all its oddities: many forms of pending, no status word, unknown
ids that are only missing, records that become visible late, a page limit, partial success. Its
configuration adds a rate limit, latency, and faults of a network. Each token is an account with its
own limit, its own remote tasks (those of others seem unknown), and its own tally and ledger.
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
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from cavendish.service_names import is_allowed
from cavendish_worker.devstack.emulator.limits import Bucket, Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorConfig:
    """How the emulated API behaves. Times in seconds, shares in 0..1.

    `rate`: calls per second for each token (0: no limit); `later`: its changes, in seconds since
    the token's first task. /emulator/… without a token means the first one. `services`: those that
    are served beside the known ones; "*": any. `callbacks`: share of the tasks whose end is told to
    the `callback_url` of their submit.
    """

    rate: float = 10.0
    burst: float = 1.0
    later: Steps = ()
    retry_after: bool = True
    latency: float = 0.05
    median: float = 6.0
    sigma: float = 0.5
    failing: float = 0.08
    partial: float = 0.05
    faults: float = 0.0
    callbacks: float = 0.0
    visible_after: float = 0.3
    page_limit: int = 12
    most_ids: int = 100
    tokens: tuple[str, ...] = ("emulated",)  # this token opens nothing
    services: tuple[str, ...] = ()
    seed: int = 1


class Reset(httpx.ReadError):
    """The server closes the connection in the middle of an answer."""


class Stall(httpx.ReadTimeout):
    """The server accepts the call and never answers."""


@dataclass(slots=True)
class Job:
    """A remote task."""

    id: str
    created_at: float
    finished_at: float
    kind: str
    shape: int
    model: str
    told: int = 0
    told_at: float | None = None


@dataclass(slots=True)
class Tally:
    """What the emulated API was asked.

    `repeated`: polls of ids after an answer had already shown that they were finished.
    """

    calls: int = 0
    polls: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    repeated: int = 0


@dataclass(slots=True)
class Account:
    """One token. It has its own random numbers, so that equal accounts get equal tasks."""

    bucket: Bucket
    chance: random.Random
    jobs: dict[str, Job] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def tallied(self, now: float) -> dict[str, Any]:
        """What was asked, for `GET /emulator/tally`."""
        tally = self.tally
        return {
            "tasks": len(self.jobs),
            "finished": sum(job.finished_at <= now for job in self.jobs.values()),
            "calls": tally.calls,
            "polls": tally.polls,
            "answers": dict(tally.answers),
            "repeated": tally.repeated,
        }

    def ledger(self, now: float) -> list[dict[str, Any]]:
        """Each finished task, and when an answer first showed it, for `GET /emulator/ledger`."""
        names = ("id", "created_at", "finished_at", "told_at")
        jobs = [job for job in self.jobs.values() if job.finished_at <= now]
        return [{name: getattr(job, name) for name in names} for job in jobs]


def transport(handler: Callable[[httpx.Request], Awaitable[httpx.Response]]) -> httpx.MockTransport:
    """A handler as a transport for `httpx.AsyncClient`; it streams answers like a server."""

    async def answer(request: httpx.Request) -> httpx.Response:
        whole = await handler(request)
        body = httpx.ByteStream(await whole.aread())
        return httpx.Response(whole.status_code, headers=whole.headers, stream=body)

    return httpx.MockTransport(answer)


class Emulator:
    """One emulated API. `handle` answers requests; `create` makes remote tasks directly."""

    def __init__(self, config: EmulatorConfig, now: Callable[[], float] = time.time) -> None:
        self.config, self._now, self._chance = config, now, random.Random(config.seed)
        self.accounts = {
            token: Account(
                Bucket(config.rate, config.burst, config.later), random.Random(config.seed)
            )
            for token in config.tokens
        }
        self._first = self.accounts[config.tokens[0]]
        self._outage = (0, 0.0)  # the status that every call is answered with, and until when
        self._calling = set[asyncio.Task[None]]()
        self._http: httpx.AsyncClient | None = None

    def create(
        self, count: int, model: str = "nano-banana", account: Account | None = None
    ) -> list[str]:
        """Make remote tasks of an account, by default the first one; returns their ids."""
        owner = account or self._first
        ids = [str(uuid.UUID(int=self._chance.getrandbits(128), version=4)) for _ in range(count)]
        now, chance = self._now(), owner.chance
        owner.bucket.begin(now)
        for task_id in ids:
            duration = self.config.median * math.exp(self.config.sigma * chance.gauss(0, 1))
            kinds = ("failed", "partial", "succeeded")
            failing, partial = self.config.failing, self.config.partial
            kind = chance.choices(kinds, (failing, partial, 1 - failing - partial))[0]
            shape = chance.randrange(6)
            owner.jobs[task_id] = Job(task_id, now, now + duration, kind, shape, model)
        return ids

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request. Raises Reset or Stall as a network would."""
        path, method = request.url.path, request.method
        body = self._json(await request.aread())
        if path.startswith("/emulator/"):
            return self._control(
                method, path.removeprefix("/emulator/"), request.url.params.get("token"), body
            )
        service, _, action = path.strip("/").partition("/")
        served = is_allowed(service, self.config.services)
        if method != "POST" or not served or not action:
            return self._error(self._first, 404, "no_api", "no such API")
        await asyncio.sleep(self.config.latency * self._chance.uniform(0.5, 1.5))
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        account = self.accounts.get(token)
        if scheme != "Bearer" or account is None:
            return self._error(self._first, 401, "invalid_token", "the token is not valid")
        status, until = self._outage
        if self._now() < until:
            account.tally.calls += 1
            code = "too_many_requests" if status == 429 else "api_error"
            return self._error(account, status, code, "an outage")
        if action != "tasks":
            return self._submit(account, body)
        return self._tasks(account, body)

    def _control(
        self, method: str, what: str, token: str | None, body: dict[str, Any]
    ) -> httpx.Response:
        account = self._first if token is None else self.accounts.get(token)
        if account is None:
            return self._error(self._first, 404, "no_token", "no such token")
        made, _, count = what.partition("/")
        if (method, made) == ("POST", "tasks") and count.isdecimal():  # for a shell: one id a line
            ids = self.create(int(count), account=account)
            return httpx.Response(200, text="".join(f"{task_id}\n" for task_id in ids))
        match method, what:
            case "POST", "tasks":
                model = str(body.get("model", "nano-banana"))
                ids = self.create(int(body.get("count", 1)), model, account)
                return httpx.Response(200, json={"ids": ids})
            case "POST", "outage":
                until = self._now() + float(body.get("seconds", 60))
                self._outage = (int(body.get("status", 500)), until)
                return httpx.Response(200, json={"until": until})
            case "GET", "tally":
                return httpx.Response(200, json=account.tallied(self._now()))
            case "GET", "ledger":
                return httpx.Response(200, json={"tasks": account.ledger(self._now())})
        return self._error(self._first, 404, "no_api", "no such API")

    def _tasks(self, account: Account, body: dict[str, Any]) -> httpx.Response:
        account.tally.calls += 1
        if not account.bucket.take(self._now()):
            headers = {"retry-after": "1"} if self.config.retry_after else {}
            return self._error(account, 429, "too_many_requests", "slow down", headers)
        if self._chance.random() < self.config.faults:
            return self._fault(account)
        if body.get("action") == "retrieve_batch":
            return self._batch(account, body)
        account.tally.polls += 1
        account.tally.answers["retrieve"] += 1
        job = account.jobs.get(str(body.get("id")))
        return httpx.Response(
            200, json=self._record(account, job) if job and self._visible(job) else {}
        )

    def _batch(self, account: Account, body: dict[str, Any]) -> httpx.Response:
        ids = body.get("ids")
        if not isinstance(ids, list) or not ids:
            return self._error(account, 400, "bad_request", "ids must not be empty")
        if len(ids) > self.config.most_ids:
            why = f"too many ids: at most {self.config.most_ids}"
            return self._error(account, 400, "bad_request", why)
        account.tally.polls += len(ids)
        account.tally.answers["retrieve_batch"] += 1
        asked = (account.jobs.get(task_id) for task_id in dict.fromkeys(map(str, ids)))
        jobs = [job for job in asked if job and self._visible(job)]
        page = jobs[: int(body.get("limit", self.config.page_limit))]
        self._chance.shuffle(page)
        return httpx.Response(
            200, json={"items": [self._record(account, job) for job in page], "count": len(jobs)}
        )

    def _submit(self, account: Account, body: dict[str, Any]) -> httpx.Response:
        task_id = self.create(1, str(body.get("model", "nano-banana")), account)[0]
        url = body.get("callback_url")
        if isinstance(url, str) and self._chance.random() < self.config.callbacks:
            calling = asyncio.create_task(self._call_back(url, account.jobs[task_id]))
            self._calling.add(calling)
            calling.add_done_callback(self._calling.discard)
        return httpx.Response(
            200, json={"success": True, "task_id": task_id, "trace_id": str(uuid.uuid4())}
        )

    async def _call_back(self, url: str, job: Job) -> None:
        """Tell the end of a task, unsigned and once, as the API does."""
        await asyncio.sleep(job.finished_at - self._now())
        if self._http is None:  # one for all: its certificates take longer to load than to use
            self._http = httpx.AsyncClient(trust_env=False)
        with suppress(httpx.HTTPError):
            body = self._response(job) | {"trace_id": str(uuid.uuid4())}
            await self._http.post(url, json=body)

    def _visible(self, job: Job) -> bool:
        return self._now() >= job.created_at + self.config.visible_after

    def _record(self, account: Account, job: Job) -> dict[str, Any]:
        record: dict[str, Any] = {
            "_id": job.id.replace("-", "")[:24],
            "id": job.id,
            "created_at": round(job.created_at, 3),
            "type": "images",
        }
        prompt = "a banana at dusk, 水彩"
        record["request"] = {"action": "generate", "prompt": prompt, "model": job.model}
        if self._now() < job.finished_at:
            acknowledged: dict[str, Any] = {"success": True, "task_id": job.id}
            responses = [None, {}, {"task_id": job.id}, acknowledged, acknowledged | {"data": []}]
            shapes = [{}, *({"response": response} for response in responses)]
            return record | shapes[job.shape]
        account.tally.repeated += job.told > 0
        job.told += 1
        job.told_at = job.told_at or self._now()
        stamps = {
            "started_at": round(job.created_at + 0.06, 3),
            "finished_at": round(job.finished_at, 3),
        }
        stamps["elapsed"] = round(job.finished_at - job.created_at, 3)
        return record | stamps | {"response": self._response(job)}

    def _response(self, job: Job) -> dict[str, Any]:
        if job.kind == "failed":
            error = {"code": "api_error", "message": "the picture could not be made"}
            return {"success": False, "task_id": job.id, "error": error}
        url = f"https://cdn.example.com/{job.id}.png"
        images = [{"prompt": "a banana at dusk", "image_url": url}]
        data = images if job.kind == "partial" else images * 2
        return {"success": True, "task_id": job.id, "data": data}

    def _fault(self, account: Account) -> httpx.Response:
        kind = self._chance.choice(("error", "gateway", "reset", "garbage"))
        account.tally.answers[kind] += 1
        if kind == "error":
            return self._error(None, 500, "api_error", "internal error")
        if kind == "gateway":
            return httpx.Response(502, html="<html><h1>502 Bad Gateway</h1></html>")
        if kind == "reset":
            raise Reset("the server closed the connection")
        return httpx.Response(
            200, content=b'{"items": [{"id": "', headers={"content-type": "application/json"}
        )

    def _error(
        self,
        account: Account | None,
        status: int,
        code: str,
        message: str,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        if account:
            account.tally.answers[str(status)] += 1
        body = {"error": {"code": code, "message": message}, "trace_id": str(uuid.uuid4())}
        return httpx.Response(status, json=body, headers=headers)

    @staticmethod
    def _json(raw: bytes) -> dict[str, Any]:
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}
