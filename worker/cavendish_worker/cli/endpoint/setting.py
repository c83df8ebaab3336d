"""What `add` and `update` say of an endpoint: its options, how they are read and checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from cavendish.endpoint_options import FASTEST, EndpointOptions
from cavendish.errors import EndpointError
from cavendish.policy.addresses import Network, webhook_complaint
from cavendish.policy.backoff import MOST_RETRIES, WEBHOOK_WINDOW
from cavendish.settings import Settings
from cavendish.webhook_endpoint import Endpoint
from cavendish_worker.cli.times import duration
from cavendish_worker.http import egress
from cavendish_worker.webhooks import consent

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
        help="Send at most N webhooks a minute; an endpoint that consents is asked for it.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, MOST_RETRIES),
        metavar="N",
        help="Attempts after the first one; default: 9, after 5 s, 5 min, 30 min, 2, 5, 10, 14, "
        "20 and 24 h. Others grow from 5 s, so that the last one is made after --retry-for.",
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


def check(
    options: EndpointOptions, known: Endpoint, settings: Settings, allowed: tuple[Network, ...]
) -> None:
    """Raise EndpointError if an endpoint cannot be like this.

    `allowed`: private addresses that may be dialled.
    """
    complaint = options.complaint(known)
    if not complaint and options.url is not None:
        complaint = webhook_complaint(options.url, allowed, settings.webhook_ports)
        if not complaint and "#" in options.url:
            complaint = "the webhook URL must not have a #fragment, which is never sent"
    longest = max(settings.retention, WEBHOOK_WINDOW)
    if not complaint and (options.retry_for or 0.0) > longest:
        complaint = f"webhooks are not tried for longer than CAVENDISH_RETENTION, {longest:g} s"
    if complaint:
        raise EndpointError(f"Refused: {complaint}.")


def ask_consent(
    settings: Settings, allowed: tuple[Network, ...], url: str, rate: float | None, nothing: str
) -> consent.Consent:
    """Ask an endpoint whether it accepts our webhooks. Raises EndpointError if it does not.

    `nothing` says what did not happen then.
    """
    answer = asyncio.run(_ask(settings, allowed, url, rate))
    if not answer.granted:
        raise EndpointError(f"{url} does not consent: {answer.complaint}. {nothing}")
    return answer


async def _ask(
    settings: Settings, allowed: tuple[Network, ...], url: str, rate: float | None
) -> consent.Consent:
    proxy, timeout = settings.egress_proxy or None, settings.webhook_timeout
    asked = int(rate) if rate else None
    async with egress.transport(allowed, settings.webhook_ports, proxy) as transport:
        return await consent.ask(transport, url, settings.webhook_origin, asked, timeout)
