"""Options that several commands have."""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Any

import click

from cavendish_worker.cli.connect import complete_endpoint


class Number(click.FloatRange):
    """A number within a range; NaN is refused, because it compares with no bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
service_option = partial(
    click.option,
    "--service",
    metavar="NAME",
    help="Service of the remote API, such as nano-banana.",
)
account_option = partial(
    click.option, "--account", metavar="NAME", help="Account of the remote API."
)
endpoint_option = partial(
    click.option,
    "--endpoint",
    metavar="NAME|URL|HASH",
    shell_complete=complete_endpoint,
    help="Only webhooks to this endpoint.",
)
since_option = partial(
    click.option,
    "--since",
    metavar="TIME",
    help="Only items newer than this: a duration (90s, 2h, 3d) or a time.",
)
limit_option = partial(
    click.option, "--limit", metavar="N", show_default=True, help="Maximum number of results."
)
by_option = click.option(
    "--by", metavar="NAME", help="Who does it; default: the user and the host."
)
rate_option = click.option(
    "--rate",
    default=50.0,
    type=Number(min=0, min_open=True),
    show_default=True,
    metavar="N",
    help="Deliveries per second.",
)


def at_a_terminal() -> bool:
    """True if a person can answer a question."""
    return sys.stdin.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Ask a person at a terminal, and end the command if the answer is no."""
    if not yes and at_a_terminal():
        click.confirm(question, abort=True, err=True)
