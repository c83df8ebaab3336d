"""What commands about webhooks share.

Which endpoint is meant, since when, and whether it is meant at all.
"""

from __future__ import annotations

import math
import re
import sys
from datetime import UTC, datetime
from typing import Any

import click

from cavendish.errors import CavendishError, EndpointError
from cavendish.local_paths import store_url, with_kept
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.webhook_endpoint import endpoint_of, is_url
from cavendish_worker.cli.output import plain, sound

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HASH = re.compile(r"[0-9a-f]{16}")


class Number(click.FloatRange):
    """A number within a range. NaN, which compares with nothing, lies in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def duration(text: str, bare: str = "") -> float | None:
    """Seconds in a text such as 90s, 2h or 7d.

    A bare number has the unit `bare`. None for anything else.
    """
    found = _DURATION.fullmatch(text.strip())
    unit = found[2] or bare if found else ""
    return float(found[1]) * _SECONDS[unit] if found and unit else None


def time_of(text: str, now: float, option: str = "--since") -> float:
    """The time that such an option means.

    So long before `now`, or an RFC 3339 time (UTC where it names no offset).
    """
    back = duration(text)
    try:
        at = datetime.fromisoformat(text) if back is None else None
    except ValueError:
        raise click.BadParameter(
            "must be a duration back such as 90s, 2h or 3d, or a time such as 2026-11-22T22:50:01Z.",
            param_hint=option,
        ) from None
    if at is None:
        return now - (back or 0.0)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def at_a_terminal() -> bool:
    """True if somebody is there to answer."""
    return sys.stdin.isatty()


def sure(question: str, *, yes: bool) -> None:
    """Ask, where somebody is there to answer, and end if the answer is no."""
    if not yes and at_a_terminal():
        click.confirm(question, abort=True, err=True)


def opened() -> tuple[Store, Settings]:
    """The store that the environment names, and its settings with what `cavendish up` keeps beside
    them.
    """
    settings = with_kept(Settings.load())
    return Store(store_url(settings), settings.shards), settings


def meant(store: Store, text: str) -> str:
    """The endpoint that a name, a URL or a hash stands for.

    Raises EndpointError for a name of which nothing is known.
    """
    if not sound(text):
        raise EndpointError(f"{plain(text)!r} is neither a name nor a URL.")
    known = (
        is_url(text)
        or _HASH.fullmatch(text)
        or not store.endpoints.missing([text])
        or text in store.endpoints.disabled()
    )
    if not known:
        raise EndpointError(
            f"No endpoint is registered as {text!r}; see `cavendish endpoint list`."
        )
    return endpoint_of(text)


def endpoint_names(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """For the shell's completion.

    The registered endpoints; none while Redis is away, since nobody wants errors there.
    """
    try:
        names = opened()[0].endpoints.all()
    except CavendishError:
        return []
    return [name for name in names if name.startswith(begun)]


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
since_option = click.option(
    "--since",
    metavar="TIME",
    help="So long back (90s, 2h, 3d), or since a time such as 2026-11-22T22:50:01Z.",
)
rate_option = click.option(
    "--rate",
    default=50.0,
    type=Number(min=0, min_open=True),
    show_default=True,
    help="How many a second.",
)
