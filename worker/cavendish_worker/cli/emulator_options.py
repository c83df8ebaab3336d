"""Options of the pretend API, which `up --emulate` and `emulate` share."""

from __future__ import annotations

import click

_share = click.FloatRange(0, 1)
rate_option = click.option(
    "--rate",
    default=10.0,
    type=click.FloatRange(min=0),
    show_default=True,
    help="Calls per second that the pretend API allows.",
)
median_option = click.option(
    "--median",
    default=6.0,
    type=click.FloatRange(min=0),
    show_default=True,
    help="Median seconds that its tasks take.",
)
sigma_option = click.option(
    "--sigma",
    default=0.5,
    type=click.FloatRange(min=0),
    show_default=True,
    help="Spread of those seconds (of their logarithm).",
)
faults_option = click.option(
    "--faults",
    default=0.0,
    type=_share,
    show_default=True,
    help="Share of calls that fail, 0 to 1.",
)
failing_option = click.option(
    "--receiver-failing",
    default=0.0,
    type=_share,
    show_default=True,
    help="Share of webhooks that its receiver refuses, 0 to 1.",
)
