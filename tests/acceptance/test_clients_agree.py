"""Five clients of the vendor, unmodified, read the same records: at the API itself, and through us.

The records are the 13 forms that were seen of the API. A worker polls them, and the gateway tells
them. The tables in PRODUCERS.md and README.md are what this test sees.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import Parts
from cavendish.settings import Settings
from cavendish_worker.devstack.emulator.tasks_api import EmulatorConfig
from conftest import Server
from delivering import Served
from programs import CLIENTS, need
from serving import service

ROOT = Path(__file__).parents[2]
URL = "https://cdn.example.com/a.png"
DATA, ERROR = [{"image_url": URL}], {"code": "api_error", "message": "no channel"}
FINISHED = {"finished_at": 1_780_000_000.5}
#: Records as the API tells them, without their ids; what the words say is what stands in them.
SHAPES: dict[str, dict[str, Any]] = {
    "pending: no `response`": {"request": {"prompt": "p"}},
    "pending: no `response`, a `callback_url`": {"request": {"callback_url": "https://a.example"}},
    "pending: `response` is `null`": {"response": None},
    "pending: `response` is `{}`": {"response": {}},
    "pending: the same, `finished_at` is `null`": {"response": {}, "finished_at": None},
    "pending: `success` is `false`, a text": {"response": {"success": False, "error": "busy"}},
    "success, data, time": {"response": {"success": True, "data": DATA}, **FINISHED},
    "success: no flag": {"response": {"data": DATA}, **FINISHED},
    "success: no time": {"response": {"success": True, "data": DATA}},
    "failure, as documented": {"response": {"success": False, "error": ERROR}, **FINISHED},
    "failure: the same, and a `state`": {
        "response": {"success": False, "error": ERROR},
        "state": "failed",
        **FINISHED,
    },
    "failure: the error is a text": {"response": {"success": False, "error": "no"}, **FINISHED},
    "failure: only an error, no time": {"response": {"error": ERROR}},
}
IDS = {what: str(uuid.uuid5(uuid.NAMESPACE_URL, what)) for what in SHAPES}
RECORDS = {IDS[what]: {"id": IDS[what], **record} for what, record in SHAPES.items()}


async def api(request: httpx.Request) -> httpx.Response:
    """The API, which knows these records."""
    asked = json.loads(await request.aread())
    if asked["action"] == "retrieve":
        return httpx.Response(200, json=RECORDS.get(asked["id"], {}))
    items = [RECORDS[each] for each in asked["ids"] if each in RECORDS]
    return httpx.Response(200, json={"items": items, "count": len(items)})


@pytest.fixture
def parts(own_server: Server, served: Served) -> Iterator[Parts]:
    parts = Parts(own_server.url, served, EmulatorConfig(), API_URL=served(api))
    yield parts
    parts.close()


def verdicts(address: str) -> dict[str, dict[str, str]]:
    """By id and client; each client asks this address."""
    command = [sys.executable, str(ROOT / "tests/clients/verdicts.py"), address, *RECORDS]
    environment = os.environ | {"PYTHONPATH": str(CLIENTS)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    found: dict[str, dict[str, str]] = json.loads(said.stdout.splitlines()[-1])
    return found


def table(direct: dict[str, dict[str, str]], through: dict[str, dict[str, str]]) -> str:
    """What PRODUCERS.md shows: right verdicts are plain, wrong ones bold."""
    names = list(next(iter(direct.values())))
    rows = [["the API's record", *names, "through Cavendish, all five"], ["---"] * (len(names) + 2)]
    for what, task_id in IDS.items():
        right = right_verdict(what)
        said = [one if one == right else f"**{one}**" for one in direct[task_id].values()]
        rows.append([what, *said, ", ".join(sorted(set(through[task_id].values())))])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def short_table(direct: dict[str, dict[str, str]], through: dict[str, dict[str, str]]) -> str:
    """What README.md shows: how many records each client reads right."""
    names = list(next(iter(direct.values())))
    rows = [[f"of {len(IDS)} forms of records, read right", *names], ["---"] * (len(names) + 1)]
    for where, found in {"at the API itself": direct, "through Cavendish": through}.items():
        right = {
            name: sum(found[task_id][name] == right_verdict(what) for what, task_id in IDS.items())
            for name in names
        }
        rows.append([where, *(str(right[name]) for name in names)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def right_verdict(what: str) -> str:
    words = {"pending": "pending", "success": "succeeded", "failure": "failed"}
    return next(verdict for word, verdict in words.items() if what.startswith(word))


def test_five_clients_that_disagree_about_the_apis_records_agree_about_ours(
    parts: Parts, settings: Settings, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("clients")
    monkeypatch.setattr("cavendish_worker.service.gateway.lookup.HOLD", 0.1)
    parts.client.submit(list(RECORDS), service=SERVICE)
    ended = [IDS[what] for what in SHAPES if not what.startswith("pending")]
    parts.celery("worker")
    parts.celery("beat")
    wait_until(lambda: parts.settled(ended), 60, "the others have ended")
    address = parts.environment["CAVENDISH_API_URL"]
    with service(replace(settings, redis_url=own_server.url, api_url=address)) as gateway:
        through = verdicts(gateway)
    direct = verdicts(address)
    for what, task_id in IDS.items():
        assert set(through[task_id].values()) == {right_verdict(what)}, (what, through[task_id])
    pages = {"deploy/PRODUCERS.md": table, "README.md": short_table}
    for page, drawn in pages.items():
        shown = drawn(direct, through)
        assert shown in (ROOT / page).read_text(), f"the table of {page} is now:\n{shown}"
