"""refused show: one refused submit or quarantined message, and what was sent."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import click

from cavendish.store.quarantine import Quarantined
from cavendish.store.refused import RefusedSubmit
from cavendish.stored_json import compact
from cavendish_worker.celeryapp.refused_submits import what_was_sent
from cavendish_worker.celeryapp.submit_message import KEYWORDS
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import plain, print_json
from cavendish_worker.cli.refused.places import fields, places
from cavendish_worker.cli.tables import pairs
from cavendish_worker.wording.times import moment

#: Ids, and characters of a text, that are shown.
_IDS, _TEXT = 100, 2000
#: A text within JSON, which may be cut off at its end, or else a word.
_TEXT_OR_WORD = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[^\s"]++', re.DOTALL)
#: A text within JSON, and the colon behind it if it is a name; and the names whose values are
#: shown: those of a submit and of Celery's messages.
_NAME = re.compile(r'"((?:[^"\\]++|\\.)*+)"(\s*+:)?', re.DOTALL)
_TOLD = KEYWORDS - {"metadata"} | set(
    "ids task id args kwargs callbacks errbacks chain chord headers properties".split()
)
#: A port that is none: the login of a URL whose end was taken for the end of its host.
_NO_PORT = re.compile(r"^[^\[]*:(?!\d*$)")


@click.command("show", short_help="Show one of them, and what was sent.")
@click.argument("entry", metavar="ID")
@json_option
def command(entry: str, as_json: bool) -> None:
    """Show one refused submit or quarantined message, and what was sent.

    Metadata is left out, and so are unknown keywords, and the logins and queries of URLs: they may
    be secrets.

    \b
    cavendish refused show 5b0c6d1e2f3a
    """
    with places() as both:
        found = both.show(entry)
    said = fields(found) | {"reason": without_secrets(found.reason)}
    sent = _message(found) if isinstance(found, Quarantined) else _submit(found)
    if as_json:
        print_json(said | {"sent": sent})
        return
    pairs((said | {"at": moment(found.at)}).items())
    click.echo(f"sent  {plain(sent if isinstance(sent, str) else json.dumps(sent))}")


def without_secrets(text: str) -> str:
    """A text whose URLs have no login and no query any more: neither those between its words, nor
    those that are texts within JSON.
    """
    return _TEXT_OR_WORD.sub(_cleaned, text)


def _cleaned(found: re.Match[str]) -> str:
    text = found[0]
    if not _may_be_url(text.replace("\\/", "/")):
        return text
    if not text.startswith('"'):
        return _bare(text)
    try:
        return compact(_bare(json.loads(text, strict=False)))
    except ValueError:  # it is cut off
        return compact(_bare(text.strip('"\\').replace("\\/", "/")))


def _may_be_url(text: str) -> bool:
    """However misspelt."""
    return "://" in text or "@" in text.partition(":")[2] or "=" in text.partition("?")[2]


def _bare(text: str) -> str:
    """A URL without login and query. Refused ones are often malformed, so too much is left out
    rather than too little.
    """
    before, *query = re.split(r"[?#]", text, maxsplit=1)
    scheme, mark, rest = before.partition("://")
    rest, *another = (rest if mark else before).split("://", 1)
    host, slash, path = rest.partition("/")
    if not mark and "@" in before:
        shown = "…@" + before.rpartition("@")[2]
    elif "@" in host:
        shown = f"{scheme}{mark}…@{host.rpartition('@')[2]}{slash}{path}"
    elif mark and _NO_PORT.search(host):
        shown = f"{scheme}{mark}…"
    else:
        shown = f"{scheme}{mark}{rest}" if mark else before
    return shown + "…" * bool(another) + "?…" * bool(query)


def _submit(refused: RefusedSubmit) -> Any:
    """The ids and options of a submit; of one that was too large, the beginning of its text."""
    sent = what_was_sent(refused)
    if sent is None:
        return _cut(refused.sent)
    ids, options = sent
    told = KEYWORDS - {"metadata"}  # which may be misspelt
    shown = {name: value if name in told else "left out" for name, value in options.items()}
    listed = ids if not isinstance(ids, list) else ids[:_IDS]
    return {"ids": _clean(listed), "options": _clean(shown)}


def _message(message: Quarantined) -> str:
    """The envelope of a message, with its body as text, if it can be read."""
    try:
        said = json.loads(message.message)
        body = base64.b64decode(said["body"]).decode(errors="replace")
        return _cut(body)
    except (ValueError, LookupError, TypeError, RecursionError):
        return _cut(message.message)


def _clean(value: Any) -> Any:
    """A value as JSON has it, without the secrets of its URLs: its texts are cleaned one by one."""
    return json.loads(without_secrets(json.dumps(value, default=str)))


def _cut(text: str) -> str:
    """The beginning of a JSON text, up to metadata, which may be a secret, or an unknown name."""
    names = (found for found in _NAME.finditer(text) if found[2] and found[1] not in _TOLD)
    until = next((found.start() for found in names), len(text))
    end = " …" if until < len(text) or until > _TEXT else ""
    return without_secrets(text[:until])[:_TEXT] + end
