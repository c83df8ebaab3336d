"""/docs: a page for people that shows the OpenAPI document: no script, nothing is loaded."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cavendish_worker.service.openapi_document import operations

router = APIRouter(include_in_schema=False)

#: A browser loads and runs nothing for this page, whatever stands in it.
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
}
_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { overflow: auto; padding: .6rem; background: color-mix(in srgb, currentColor 8%, transparent) }
details { margin: .4rem 0; padding: .3rem .6rem; border-radius: .3rem;
  border: 1px solid color-mix(in srgb, currentColor 25%, transparent) }
summary { cursor: pointer }
b { display: inline-block; min-width: 4.5rem }
td { text-align: left; vertical-align: top; padding: .1rem .8rem .1rem 0 }
"""


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The page."""
    return HTMLResponse(page(request.app.openapi()), headers=_HEADERS)


def page(document: dict[str, Any]) -> str:
    """The HTML of a document."""
    by_tag: dict[str, list[str]] = {}
    for method, path, one in operations(document):
        shown = _operation(method, path, one)
        by_tag.setdefault(one.get("tags", ["other"])[0], []).append(shown)
    parts = [f"<h2>{escape(tag)}</h2>{''.join(shown)}" for tag, shown in by_tag.items()]
    errors = {
        status: said
        for _, _, one in operations(document)
        for status, said in one["responses"].items()
        if not _succeeded(status)
    }
    schemas = [_schema(name, one) for name, one in document["components"]["schemas"].items()]
    title, about = document["info"]["title"], document["info"].get("description", "")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{escape(title)} {escape(document['info']['version'])}</h1>{_paragraphs(about)}"
        f'<p>For programs: <a href="/openapi.json">openapi.json</a></p>{"".join(parts)}'
        f"<h2>errors</h2><table>{_answers(errors)}</table>"
        f"<h2>schemas</h2>{''.join(schemas)}</html>"
    )


def _operation(method: str, path: str, one: dict[str, Any]) -> str:
    rows = [
        (each["name"], each["in"], each["schema"], each.get("required", False), each)
        for each in one.get("parameters", ())
    ]
    parameters = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{where}{', required' if required else ''}"
        f"<td><code>{escape(_kind(schema))}</code><td>{escape(said.get('description', ''))}"
        for name, where, schema, required, said in rows
    )
    body = one.get("requestBody", {}).get("content", {})
    bodies = "".join(f"<p>Body: {_linked(each['schema'])}</p>" for each in body.values())
    good = {status: said for status, said in one["responses"].items() if _succeeded(status)}
    bad = ", ".join(sorted(one["responses"].keys() - good))
    errors = f"<p>Errors: {bad}</p>" if bad else ""
    return (
        f"<details><summary><b>{method}</b> <code>{escape(path)}</code> "
        f"{escape(one.get('summary', ''))}</summary>{_paragraphs(one.get('description', ''))}"
        f"<table>{parameters}</table>{bodies}<table>{_answers(good)}</table>{errors}</details>"
    )


def _succeeded(status: str) -> bool:
    return status.startswith("2")


def _answers(responses: dict[str, Any]) -> str:
    return "".join(
        f"<tr><td>{status}<td>{''.join(map(_linked, _schemas(said)))}"
        f"<td>{escape(said['description'])}"
        for status, said in sorted(responses.items())
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    anchor = escape(name, quote=True)
    return (
        f'<details id="{anchor}"><summary><code>{anchor}</code></summary>'
        f"<pre>{escape(text)}</pre></details>"
    )


def _schemas(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [each.get("schema", {}) for each in answer.get("content", {}).values()]


def _linked(schema: dict[str, Any]) -> str:
    kind = escape(_kind(schema), quote=True)
    return (
        f'<a href="#{kind}"><code>{kind}</code></a> ' if _name(schema) else f"<code>{kind}</code> "
    )


def _name(schema: dict[str, Any]) -> str:
    """The schema that is referred to, also by one of several; empty if there is none."""
    for each in (schema, *schema.get("anyOf", ())):
        if "$ref" in each:
            return str(each["$ref"]).rpartition("/")[2]
    return ""


def _kind(schema: dict[str, Any]) -> str:
    if name := _name(schema):
        return name
    kinds = [str(each.get("type", "any")) for each in schema.get("anyOf", [schema])]
    return " or ".join(kind for kind in kinds if kind != "null")


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part)
