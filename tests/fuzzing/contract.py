"""Bodies as the remote API could send them, by chance: its documented records, whole or mutated.

For each id the truth is known, unless its record was mutated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

from fuzzing.shapes import damaged, fields, mutated, value

_GOLDEN = Path(__file__).parents[1] / "golden"
_CODES = (
    "used_up forbidden bad_request not_found task_not_found too_many_requests api_error "
    "too_many_ids nope invalid_token token_mismatched content_moderation"
).split()
_STATUSES = (400, 401, 402, 403, 404, 413, 422, 429, 500, 502, 503, 504)
#: Dates and numbers in place of times.
_TIMES = tuple(
    (
        '"0001-01-01T00:00:00Z" "0" 0 -1 1e308 1e999 NaN null true "2026-11-22T22:50:01Z" '
        '1757183048147 "1757183048.147" "9999-12-31T23:59:59-23:59" [] {} "soon" "" 1e-300 "1e9" '
        '"٣" -0.0'
    ).split()
)


#: Shapes that the vendor's clients and tests show, and what they mean.
_SHAPES = {
    "failed": [
        '{"response":{"success":false,"error":{"code":"api_error","message":"no"}}}',
        '{"response":{"error":{"code":"timeout","message":"no"}}}',
        '{"finished_at":1757183048.1,"response":{"success":false,"error":"temporary"}}',
        '{"response":{"success":false,"data":[{"image_url":"https://x/y.png"}],"error":{"code":"a"}}}',
    ],
    "pending": [
        '{"created_at":1757183048.1}',
        '{"response":null}',
        '{"response":{}}',
        '{"response":{"success":true}}',
        '{"response":{"success":true,"data":[]}}',
        '{"state":"","response":{"success":true,"data":null}}',
        '{"finished_at":"0001-01-01T00:00:00Z","response":{"success":true}}',
    ],
}


@dataclass
class Body:
    """What a body says. `truth`: by id, `succeeded`, `failed`, `pending`, `absent`, or "" if open.

    `sound`: an answer of status 200 that tells the truth about each id.
    """

    status: int
    data: bytes
    truth: dict[str, str] = field(default_factory=dict)
    sound: bool = False


@cache
def _golden() -> list[tuple[str, str]]:
    """The documented records as JSON, with what they mean."""
    found = [(text, meaning) for meaning, texts in _SHAPES.items() for text in texts]
    for path in sorted(_GOLDEN.glob("*.json")):
        shown = [
            (one["record"], one["expected"]) for one in json.loads(path.read_text())["records"]
        ]
        texts = [(json.dumps(one), meaning) for one, meaning in shown if isinstance(one, dict)]
        found += [(text, meaning) for text, meaning in texts if len("{}") < len(text) < 5000]
    return found


def batch(chance: Random, ids: Sequence[str]) -> Body:
    """The answer to `retrieve_batch`."""
    if chance.random() < 0.15:
        return _refusal(chance)
    truth, items = dict[str, str](), list[str]()
    for task_id in ids:
        if chance.random() < 0.1:
            truth[task_id] = "absent"
            continue
        text, truth[task_id] = record(chance, task_id)
        items.append(text)
        if chance.random() < 0.03:  # of duplicates, one that ended counts
            items.append(record(chance, task_id)[0])
            truth[task_id] = ""
    while chance.random() < 0.1:
        stranger = chance.choice([value(chance), record(chance, "a-stranger")[0]])
        items.insert(chance.randrange(len(items) + 1), stranger)
    chance.shuffle(items)
    count = str(len(items)) if chance.random() < 0.8 else value(chance, 2)
    text = f'{{"items":[{",".join(items)}],"count":{count}}}'
    sound = all(map(_reads, items)) and (bool(items) or count == "0") and _reads(count)
    return _spoken(chance, Body(200, b"", truth, sound), text)


def alone(chance: Random, task_id: str) -> Body:
    """The answer to `retrieve`."""
    if chance.random() < 0.15:
        return _refusal(chance)
    if chance.random() < 0.1:
        return Body(200, chance.choice((b"{}", b"null")), {task_id: "absent"}, sound=True)
    text, truth = record(chance, task_id)
    return _spoken(chance, Body(200, b"", {task_id: truth}, _reads(text)), text)


def record(chance: Random, task_id: str) -> tuple[str, str]:
    """A record of this id, and what it means; "" if that is open."""
    text, meaning = chance.choice(_golden())
    said = json.loads(text)
    said["id"] = task_id
    if chance.random() < 0.5:
        return json.dumps(said, ensure_ascii=chance.random() < 0.5), meaning
    text = mutated(chance, said, _TIMES)
    if chance.random() < 0.2 and (more := fields(chance)):  # also of names that are there
        text = (
            text[:-1] + "," + more + "}" if chance.random() < 0.5 else "{" + more + "," + text[1:]
        )
    return text, ""


def _reads(text: str) -> bool:
    """True if a strict reader of JSON takes it, so that it costs the others nothing."""
    try:
        json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _spoken(chance: Random, body: Body, text: str) -> Body:
    """The text as bytes: in another encoding, damaged, or under another status now and then."""
    body.data = text.encode(errors="surrogatepass")
    match chance.randrange(40):
        case 0:
            body.data = text.encode(
                chance.choice(("utf-16", "utf-32", "utf-8-sig")), "surrogatepass"
            )
        case 1 | 2:
            body.data, body.sound = damaged(chance, body.data), False
        case 3:
            body.status, body.sound = chance.choice((201, 202, 204, 206, 304, 500, 301)), False
    return body


def _refusal(chance: Random) -> Body:
    """An error as the gateway reports it, or something of its kind."""
    status = chance.choice(_STATUSES) if chance.random() < 0.9 else chance.randrange(100, 1000)
    code, message = chance.choice(_CODES), value(chance, 3)
    text = chance.choice(
        [
            f'{{"error":{{"code":"{code}","message":{message}}}}}',
            f'{{"error":"{code}","trace_id":{message}}}',
            f'{{"code":"{code}","detail":{message}}}',
            value(chance),
            "<html>Bad Gateway</html>",
            "",
        ]
    )
    return Body(status, text.encode(errors="surrogatepass"))
