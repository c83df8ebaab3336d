"""Holds the bodies of webhooks against `deploy/webhook-bodies.schema.json`.

Receivers may meet fields that they do not know, so the schema allows them; here none may be sent
that the schema does not name.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

SCHEMA = Path(__file__).parents[1] / "deploy" / "webhook-bodies.schema.json"


def complaint(body: bytes) -> str | None:
    """Why this is no body of a webhook, or None."""
    value = json.loads(body)
    found = best_match(validator().iter_errors(value))
    return f"{found.json_path}: {found.message} in {body[:500]!r}" if found else None


@cache
def validator() -> Draft202012Validator:
    """The schema, without room for other fields."""
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    for definition in schema["$defs"].values():
        _close(definition)
    return Draft202012Validator(schema)


def _close(schema: Any) -> None:
    if not isinstance(schema, dict):
        return
    if "properties" in schema:
        schema["additionalProperties"] = False
        for inner in schema["properties"].values():
            _close(inner)
