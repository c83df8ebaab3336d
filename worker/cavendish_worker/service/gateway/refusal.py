"""What the gateway refuses, in the one form of an error that none of the API's clients crashes on.

No answer is a 402, which makes an SDK with a wallet pay, nor a redirect, which none follows.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping

from starlette.responses import Response

from cavendish.model import printable
from cavendish_worker.service.request_body import CLOSE

#: Statuses after which the vendor's SDK sends a request again, also a paid one.
SENT_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})
#: The status of a submit whose fate is uncertain, or whose task failed: no client sends it again.
FINAL = 424


class Refused(Exception):
    """A request is answered by an error: an HTTP status, a code of the API, and one sentence.

    `unread`: its body was not read to the end.
    """

    def __init__(self, status: int, code: str, message: str, *, unread: bool = False) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.unread = status, code, message, unread


class UncertainFate(Refused):
    """A paid submit may have made a task, and nobody knows which. `said`: what came of the call."""

    def __init__(self, said: str) -> None:
        self.said = printable(said, 300)
        super().__init__(
            FINAL,
            "submit_uncertain",
            "The API may have accepted this submit, and may charge for it; it was not sent again. "
            f"Search the API for its task before you repeat it. ({self.said})",
        )


def error(refused: Refused) -> Response:
    """The answer to a refused request."""
    told = {"code": refused.code, "message": refused.message}
    headers = CLOSE if refused.unread else None
    return answer(refused.status, {"error": told, "trace_id": str(uuid.uuid4())}, headers)


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer. Halves of surrogate pairs, which a record may hold, stay escaped."""
    text = json.dumps(body, separators=(",", ":"))
    given = dict(headers or {}) | {"cache-control": "no-store"}
    return Response(text, status, given, media_type="application/json")


def not_json() -> Refused:
    """The body of a request is no JSON object."""
    return Refused(400, "bad_request", "The body must be a JSON object.")
