"""The API's callbacks: `POST /callbacks/{account}/{service}/{token}`.

They are not signed, so nothing in a body is trusted: its `task_id` only names an id to poll soon.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cavendish.submission import id_complaint
from cavendish_worker.service.callback_hints import Heard
from cavendish_worker.service.parts import Shared
from cavendish_worker.service.request_body import Unread, read_body, read_object
from cavendish_worker.telemetry.metrics import answered

#: Bytes and seconds of a callback.
_LARGEST, _WITHIN = 2**20, 5.0

router = APIRouter(include_in_schema=False)


@router.post("/callbacks/{account}/{service}/{token}")
async def called_back(
    account: str, service: str, token: str, request: Request, parts: Shared
) -> Response:
    """204 whatever the body says; 404 for a URL that we did not make."""
    if not parts.callback_urls.opens(account, service, token):
        answered.CALLBACKS.add("foreign")
        raise HTTPException(404)
    try:
        said = read_object(await read_body(request, _LARGEST, _WITHIN)) or {}
    except Unread:
        said = {}
    task_id = said.get("task_id")
    if isinstance(task_id, str) and id_complaint(task_id) is None:
        parts.callback_hints.hear(Heard(account, service, task_id))
        answered.CALLBACKS.add("accepted")
    else:
        answered.CALLBACKS.add("unreadable")
    return Response(status_code=204)
