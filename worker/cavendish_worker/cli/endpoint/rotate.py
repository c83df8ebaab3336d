"""endpoint rotate: give an endpoint a new secret; the old one still works for a while."""

from __future__ import annotations

import click

from cavendish.endpoints.webhook_endpoint import LONGEST_OVERLAP
from cavendish_worker.cli.endpoint.new_secret import show_once, unencrypted_option
from cavendish_worker.cli.endpoint.which import name_argument, open_endpoints
from cavendish_worker.cli.options import json_option
from cavendish_worker.wording.times import duration, moment


def _seconds(_ctx: click.Context, _param: click.Parameter, text: str) -> float:
    seconds = duration(text, default_unit="h")
    if seconds is None or seconds > LONGEST_OVERLAP:
        raise click.BadParameter(
            "must be hours, or a duration such as 90m, 36h or 7d, and at most 7 days."
        )
    return seconds


@click.command("rotate", short_help="Give an endpoint a new secret.")
@name_argument
@click.option(
    "--overlap",
    default="24h",
    show_default=True,
    metavar="HOURS|7d",
    callback=_seconds,
    help="Time for which the old secret also signs.",
)
@unencrypted_option
@json_option
def command(name: str, overlap: float, unencrypted: bool, as_json: bool) -> None:
    """Give an endpoint a new secret, which is shown only once.

    For a while both secrets sign each webhook.

    \b
    cavendish endpoint rotate shop --overlap 48
    """
    told = open_endpoints().rotate(name, overlap, unencrypted=unencrypted)
    old = f"also signs until {moment(told.old_until)} UTC" if overlap else "no longer signs"
    said = {"name": name, "old_until": told.old_until}
    show_once(told, said, f"{name} has a new secret; the old one {old}", as_json=as_json)
