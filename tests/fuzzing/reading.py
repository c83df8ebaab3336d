"""An independent, simple reading of what a server sent: does it bear out what Cavendish concluded?

It shares no code with the product, and where a text can be read in two ways it allows both: it is
a judge of conclusions that nothing justifies.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

_STATUS = re.compile(rb"\s*HTTP/\d\.?\d (\d{3})(?=[ \r\n])")
_BLANK = re.compile(rb"\r?\n[ \t]*\r?\n")
_WELL = {"succeeded", "success", "complete", "completed", "finished", "done", "ok", "ready"}
_WELL |= {"succeed", "successful"}
_BADLY = {"failed", "failure", "fail", "error", "errored", "cancelled", "canceled", "dead"}
_BADLY |= {"timeout", "rejected", "aborted"}


def final_answer(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Status, head and rest of the first final answer whose head is complete, or None."""
    while (first := _STATUS.match(data)) and (end := _BLANK.search(data, first.end())):
        status = int(first[1])
        if status >= 200 or status == 101:
            return status, data[: end.end()], data[end.end() :]
        data = data[end.end() :]
    return None


def bodies(head: bytes, rest: bytes) -> Iterator[bytes]:
    """The ways to read a body: up to its length, in chunks, to the end; unpacked where packed."""
    lengths = re.findall(rb"(?im)^content-length[ \t]*:[ \t]*(\d{1,15})", head)
    raws = [rest, *(rest[: int(length)] for length in lengths)]
    if b"chunked" in head.lower():
        raws.append(_joined(rest))
    for raw in raws:
        yield raw
        for unpack in (gzip.decompress, zlib.decompress, _leniently):
            try:
                yield unpack(raw)
            except (OSError, EOFError, zlib.error):
                continue


def _leniently(raw: bytes) -> bytes:
    return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(raw, 2**21)


def _joined(rest: bytes) -> bytes:
    """The chunks of a body, as far as they can be read."""
    joined = b""
    while size := re.match(rb"[ \t]*([0-9a-fA-F]{1,8})[^\n]*\n", rest):
        length = int(size[1], 16)
        joined += rest[size.end() : size.end() + length]
        rest = rest[size.end() + length :].removeprefix(b"\r").removeprefix(b"\n")
        if not length:
            break
    return joined


def parsed(body: bytes) -> Any:
    """The JSON of a body, leniently. Raises ValueError and RecursionError."""
    text = body.decode(json.detect_encoding(body), "replace")
    return json.JSONDecoder(strict=False, parse_int=_whole, parse_constant=lambda _: None).decode(
        text
    )


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) < 400 else digits


def records(body: Any) -> Iterator[dict[str, Any]]:
    """Every object that could be the record of an id: the body itself, and its items."""
    items = body.get("items") if isinstance(body, dict) else None
    for one in [body, *(items if isinstance(items, list) else ())]:
        if isinstance(one, dict):
            yield one


def says(record: dict[str, Any], task_id: str, verdict: str, *, alone: bool) -> bool:
    """True if the record is about this id, and could mean that it `succeeded` or `failed`.

    `alone`: the answer is about this id only, so its record need not name it (an id such as null
    or 0 names nothing).
    """
    names = [record[key] for key in ("id", "task_id") if record.get(key)]
    if task_id not in names and (names or not alone):
        return False
    response = record.get("response", record)
    if not isinstance(response, dict):
        return False
    words = set(_words(record)) | set(_words(response))
    if verdict == "succeeded":
        ended = record.get("finished_at") or response.get("finished_at")
        return response.get("success") is not False and bool(
            ended or words & _WELL or _links(response)
        )
    status = str(response.get("status"))
    wrong = response.get("error") or record.get("error") or words & _BADLY
    return response.get("success") is False or bool(wrong) or status[:1] in ("4", "5")


def _words(place: dict[str, Any]) -> Iterator[str]:
    data = place.get("data")
    for one in [place, *(data if isinstance(data, list) else [data])]:
        for key in ("state", "status"):
            if isinstance(one, dict) and isinstance(word := one.get(key), str):
                yield word.strip().lower()


def _links(value: Any) -> bool:
    """True if a URL stands anywhere in the value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str) and one.startswith(("http://", "https://", "data:")):
            return True
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return False


def bears_out(data: bytes, task_id: str, verdict: str, *, alone: bool) -> bool:
    """True if an answer of these bytes could say so of the id, read in one way or another."""
    found = final_answer(data)
    if found is None or found[0] != 200:
        return False
    for body in bodies(*found[1:]):
        try:
            found_in = records(parsed(body))
            if any(says(record, task_id, verdict, alone=alone) for record in found_in):
                return True
        except RecursionError:
            return task_id.encode() in body
        except ValueError:
            continue
    return False
