"""Options of the emulated API that `up --emulate` and `emulate` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cavendish_worker.cli.options import Number

F = TypeVar("F", bound=Callable[..., Any])
#: Name, default, most, help.
_OPTIONS = (
    ("--rate", 10.0, None, "Calls per second that the emulated API allows."),
    ("--median", 6.0, None, "Median duration of its tasks, in seconds."),
    ("--sigma", 0.5, None, "Spread of the durations: standard deviation of their logarithm."),
    ("--faults", 0.0, 1.0, "Share of calls that fail, 0 to 1."),
    (
        "--callbacks",
        0.0,
        1.0,
        "Share of tasks for whose end the API calls their callback_url, 0 to 1.",
    ),
    ("--receiver-failing", 0.0, 1.0, "Share of webhooks that its receiver refuses, 0 to 1."),
)


def emulator_options(command: F) -> F:
    """Add the options to a command."""
    for name, default, most, text in reversed(_OPTIONS):
        kind = Number(0, most)
        command = click.option(name, default=default, type=kind, show_default=True, help=text)(
            command
        )
    return command
