"""Pure: what a request to `/{service}/tasks` asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cavendish.submission import id_complaint
from cavendish_worker.service.gateway.refusal import Refused, not_json
from cavendish_worker.service.request_body import read_object

#: Ids of one `retrieve_batch`, at most. The API's clients send 50 or fewer.
MOST_IDS = 1000
#: Ids as the API makes them: UUIDs, and the decimal numbers of one service. Others are not adopted.
_MADE_BY_THE_API = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]{10,25}")
#: The id by which some clients test a token: it exists nowhere.
_NIL = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Retrieve:
    """One id is asked about."""

    id: str


@dataclass(frozen=True, slots=True)
class RetrieveBatch:
    """Several ids are asked about, each once, in this order; of an empty list nothing is known."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that only the API can answer: its history, a trace id, a deletion, which `changes`
    something there.
    """

    changes: bool


Question = Retrieve | RetrieveBatch | Foreign


def read_question(body: bytes) -> Question:
    """What a body asks for. Raises Refused."""
    asked = read_object(body or b"{}")
    if asked is None:
        raise not_json()
    action, task_id, ids = asked.get("action") or "retrieve", asked.get("id"), asked.get("ids")
    if action == "retrieve_batch" and isinstance(ids, list):
        if len(ids) > MOST_IDS:
            raise Refused(400, "bad_request", f"A batch has at most {MOST_IDS} ids.")
        return RetrieveBatch(tuple(dict.fromkeys(each for each in ids if isinstance(each, str))))
    if action == "retrieve" and isinstance(task_id, str):
        return Retrieve(task_id)
    if action == "retrieve" and not (asked.get("trace_id") or asked.get("trace_ids")):
        raise Refused(400, "bad_request", "Name the task: `id` must be a text.")
    return Foreign(changes=not str(action).startswith("retrieve"))


def may_exist(task_id: str) -> bool:
    """False for what no client can have got from the API as the id of a task of its own."""
    return id_complaint(task_id) is None and task_id != _NIL


def adoptable(task_id: str) -> bool:
    """True for an id that is tracked although nobody submitted it: it looks like one of the API."""
    return _MADE_BY_THE_API.fullmatch(task_id) is not None and may_exist(task_id)
