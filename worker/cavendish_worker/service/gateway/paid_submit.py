"""Pure: the content of a paid submit, and what is sent to the API in its place.

Most are sent on as they came, byte for byte. A synchronous one is made asynchronous where its path
takes that: the caller is held instead, and neither a timeout nor a restart loses what was paid for.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from cavendish.stored_json import compact
from cavendish.submission import id_complaint
from cavendish_worker.service.gateway.refusal import Refused, not_json
from cavendish_worker.service.request_body import read_object

#: Paths that make a task, and take `async`, by the vendor's SDK and documents.
MAKES_TASKS = frozenset(
    "dreamina/videos fish/tts flux/images flux/videos hailuo/videos happyhorse/videos "
    "kickart/template-videos kickart/videos kickart/viral-videos kling/motion kling/videos "
    "luma/videos nano-banana/images openai/images/edits openai/images/generations "
    "producer/audios qwen-image/images seedance/videos seedream/images suno/audios suno/midi "
    "suno/mp3 suno/vox suno/wav veo/extend veo/objects veo/reshoot veo/upsample veo/videos "
    "wan/videos webextrator/extract webextrator/render".split()
)
#: Services whose tasks are found by the `trace_id` of their submit.
_TRACED = frozenset("dreamina midjourney openai veo webextrator".split())


@dataclass(frozen=True, slots=True)
class PaidSubmit:
    """A submit: the `body` to be sent, whole or as it comes; `held`: its caller wants the result,
    not an id.

    `tracked`: it makes a task; `model` runs it, if that is said; `trace_id` finds it, or is "".
    """

    body: bytes | AsyncIterator[bytes]
    tracked: bool = False
    held: bool = False
    model: str = ""
    trace_id: str = ""


def read_submit(path: str, content_type: str, body: bytes, callback: str = "") -> PaidSubmit:
    """What a body says that goes to a `path` (service/action). Raises Refused.

    `callback`: our URL for the end of this task, where the caller names none; or "".
    """
    if not makes_task(path, content_type):
        return PaidSubmit(body)
    told = read_object(body)
    if told is None:
        raise not_json()
    added: dict[str, object] = {}
    named = bool(told.get("callback_url"))
    held = not told.get("async") and not named
    if held:
        added["async"] = True
    if callback and not named:
        added["callback_url"] = callback
    trace_id = _text(told.get("trace_id"))
    if not trace_id and path.partition("/")[0] in _TRACED:
        trace_id = added["trace_id"] = str(uuid.uuid4())
    sent = _written(told | added) if added else body
    return PaidSubmit(sent, tracked=True, held=held, model=_model(told), trace_id=trace_id)


def makes_task(path: str, content_type: str) -> bool:
    """True for a body that makes a task, and must be read for that."""
    return path in MAKES_TASKS and _is_json(content_type)


def _written(told: dict[str, Any]) -> bytes:
    try:
        return compact(told).encode()
    except ValueError:
        why = "The body holds a number that JSON cannot express, or that is too large: NaN, 1e999."
        raise Refused(400, "bad_request", why) from None


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return not kind or kind == "application/json" or kind.endswith("+json")


def _model(told: Mapping[str, Any]) -> str:
    model = told.get("model")
    fits = isinstance(model, str) and model.isprintable() and len(model) <= 100
    return str(model) if fits else ""


def _text(value: object) -> str:
    """A value that can be an id; any other one is ""."""
    return value if isinstance(value, str) and id_complaint(value) is None else ""


def task_id_of(answer: object) -> str:
    """The id of the task that an answer to a submit names, or ""."""
    if not isinstance(answer, Mapping):
        return ""
    data = answer.get("data")
    inner = data.get("task_id") if isinstance(data, Mapping) else None
    return _text(answer.get("task_id")) or _text(inner) or _text(answer.get("id"))
