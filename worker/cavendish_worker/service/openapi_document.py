"""The OpenAPI document: FastAPI's description of the routes, and the errors that they share."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from cavendish_worker.service.problem_details import MEDIA_TYPE

ABOUT = """\
Track the ids of slow remote jobs, read their results, wait for their ends.

Each request carries a key: `Authorization: Bearer cav_…`. Errors are problem documents (RFC 9457)
with one sentence in `detail`. Times are in seconds since the Unix epoch. Submits are idempotent:
after a 5xx or a lost answer, send the same again. A parameter or a field that an operation does not
have is refused with 422, so a typo changes nothing unseen."""

#: Status -> when it is answered. Those of all routes with a key, and those with a body.
_KEYED = {
    "400": "The request cannot be read.",
    "401": "There is no key, or it is unknown, revoked or expired.",
    "403": "The key may not do this.",
    "404": "It does not exist, or the key may not see it.",
    "422": "A value in the request is not valid, or its query has an unknown parameter.",
    "429": "A rate, a quota or a limit is exceeded: try again after `Retry-After` seconds.",
    "503": "Redis is away: try again after `Retry-After` seconds.",
}
_OF_BODY = {
    "408": "The body did not arrive in time.",
    "409": "The request conflicts with what is stored.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "A problem document (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["about:blank"]},
        "title": {"type": "string", "examples": ["Not Found"]},
        "status": {"type": "integer", "examples": [404]},
        "detail": {"type": "string", "examples": ["There is no such resource; /docs lists them."]},
        "kind": {"type": "string", "description": "What is wrong, in one word."},
        "errors": {
            "type": "array",
            "description": "Each thing that is wrong, with its place.",
            "items": {
                "type": "object",
                "properties": {"at": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_ANSWER = {"schema": {"$ref": "#/components/schemas/Problem"}}


class Documented(FastAPI):
    """An application whose document names its problems."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = _with_problems(super().openapi())
        return self.openapi_schema


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation."""
    return [
        (method.upper(), path, one)
        for path, item in document["paths"].items()
        for method, one in item.items()
    ]


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = PROBLEM
    for _, path, one in operations(document):
        one["responses"].pop("422", None)
        if one.get("security"):
            said = _KEYED | (_OF_BODY if "requestBody" in one else {})
        else:
            said = {"503": _KEYED["503"]} if path == "/readyz" else {}
        one["responses"] |= {
            status: {"description": text, "content": {MEDIA_TYPE: _ANSWER}}
            for status, text in said.items()
        }
    return document
