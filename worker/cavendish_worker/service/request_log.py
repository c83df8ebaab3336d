"""One line in the log for each request: what was asked, by which key, and what came of it; and one
count in the metrics.

The line names the path as the routes spell it, so neither an id nor a token stands in it.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import answered

HEADER = "x-request-id"
_HEADER = HEADER.encode()
_SANE = re.compile(rb"[A-Za-z0-9._-]{1,64}")
#: Asked every few seconds by machines.
_QUIET = {"/healthz", "/readyz", "/metrics"}


class BrokenOff(Exception):
    """The rest of an answer does not come: its connection ends, by which the caller knows."""


class RequestLog:
    """Logs the requests of an application, and gives each an id, which the answer names.

    An `x-request-id` of the caller, such as a proxy, is kept if it is a plain word.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._process, self._numbers = secrets.token_hex(4), itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, request_id = time.monotonic(), 500, self._id_of(scope)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except BrokenOff:
            pass
        finally:
            path = getattr(scope.get("route"), "path", "")
            method, seconds = scope["method"] if path else "", time.monotonic() - began
            known = method if status != 405 else ""  # any word may stand there
            answered.REQUESTS.add(known, path, str(status))
            answered.DURATION.add(seconds, path)
            write = logger().debug if path in _QUIET else logger().info
            write(
                "http.request",
                method=method,
                path=path,
                status=status,
                seconds=round(seconds, 3),
                key=scope.get("state", {}).get("key_name", ""),
                request_id=request_id,
            )

    def _id_of(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == _HEADER and _SANE.fullmatch(value):
                return str(value.decode())
        return f"{self._process}-{next(self._numbers)}"
