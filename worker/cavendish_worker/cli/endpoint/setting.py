"""The options of an endpoint that `add` and `update` have, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from cavendish.endpoints.endpoint_options import FASTEST, EndpointOptions
from cavendish.errors import EndpointError
from cavendish.policy.backoff import MOST_RETRIES
from cavendish_worker.wording.times import duration

F = TypeVar("F", bound=Callable[..., Any])


def _events(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (event.strip() for event in (text or "").split(","))))


def _headers(
    ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
) -> list[tuple[str, str]]:
    lines = [line for text in texts for line in _lines(text)]
    pairs = [line.partition(":") for line in lines]
    if any(not colon for _, colon, _ in pairs):
        why = "must be 'NAME: VALUE', or @FILE with such lines."
        raise click.BadParameter(why, ctx, param)
    return [(name.strip(), value.strip(" \t")) for name, _, value in pairs]


def _lines(text: str) -> Iterable[str]:
    """A header, or those of a file: what stands in a command is seen by all on the machine."""
    if not text.startswith("@"):
        return [text]
    try:
        with click.open_file(text[1:], encoding="utf-8") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise click.BadParameter(f"{Path(text[1:])} cannot be read: {why}.") from None
    return [line for line in content.splitlines() if line.strip()]


def _seconds(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    seconds = duration(text)
    if seconds is None:
        raise click.BadParameter("must be a duration such as 90s, 12h or 2d.", ctx, param)
    return seconds


_OPTIONS = (
    click.option(
        "--events",
        metavar="KIND,…",
        callback=_events,
        help="Send only these kinds, such as task.failed,group.completed or task.*; default: all.",
    ),
    click.option(
        "--header",
        "headers",
        multiple=True,
        metavar="'NAME: VALUE'|@FILE",
        callback=_headers,
        help="Send this header with each webhook; its value is stored like a secret. @FILE has "
        "such lines.",
    ),
    click.option(
        "--rate",
        type=click.IntRange(1, FASTEST),
        metavar="N",
        help="Send at most N webhooks a minute; --consent also asks for this rate.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, MOST_RETRIES),
        metavar="N",
        help="Attempts after the first one; default: 9, after 5 s, 5 min, 30 min, 2, 5, 10, 14, "
        "20 and 24 h. With another number the waits grow from 5 s, and the last attempt is made "
        "after --retry-for.",
    ),
    click.option(
        "--retry-for",
        metavar="12h|2d",
        callback=_seconds,
        help="Time from the first attempt to the last, at most 7 days; default: 75 h 35 min.",
    ),
)


def setting_options(command: F) -> F:
    """Give a command the options of an endpoint that both `add` and `update` have."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options_of(url: str | None, named: dict[str, Any]) -> EndpointOptions:
    """The options that were named. Raises EndpointError for a header that is given twice."""
    names = [name.lower() for name, _ in named["headers"]]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise EndpointError(f"Refused: the header {twice} is given twice.")
    return EndpointOptions(
        url,
        named["events"],
        dict(named["headers"]),
        tuple(named.get("removed", ())),
        named["rate"],
        named["retries"],
        named["retry_for"],
        frozenset(named.get("reset", ())),
    )
