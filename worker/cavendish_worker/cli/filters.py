"""The filter that `list`, `cancel`, `forget` and `deadline` have in common, as options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cavendish.filter import Filter
from cavendish.model import State
from cavendish.store import Store
from cavendish_worker.cli.options import (
    account_option,
    endpoint_option,
    service_option,
    since_option,
)
from cavendish_worker.cli.times import time_of

#: The options, in the order of `--help`.
_OPTIONS = (
    service_option(help="Only ids of this service of the remote API."),
    account_option(help="Only ids of this account of the remote API."),
    click.option(
        "--state",
        multiple=True,
        type=click.Choice([state.value for state in State]),
        help="Only ids in this state; may be repeated.",
    ),
    click.option("--producer", metavar="NAME", help="Only ids of this producer."),
    click.option("--model", metavar="NAME", help="Only ids of this model."),
    click.option("--key", metavar="TEXT", help="Only ids to which their producer gave this key."),
    click.option("--group", metavar="NAME", help="Only ids of this group."),
    endpoint_option(help="Only ids with a webhook to this endpoint."),
    since_option(),
    click.option("--until", metavar="TIME", help="Only items older than this; written as --since."),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a filter; `wanted` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def wanted(store: Store, options: dict[str, Any]) -> Filter:
    """The filter that these options mean. Raises click.BadParameter."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    now = store.fleet.now()
    for name in ("since", "until"):
        if name in given:
            given[name] = time_of(given[name], now, f"--{name}")
    return Filter(**given)
