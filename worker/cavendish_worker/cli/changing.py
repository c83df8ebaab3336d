"""What `cancel`, `deadline` and `forget` share: ids or a filter, a count, what became of each."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import chain
from typing import Any

import click

from cavendish import Changed, Filter
from cavendish.store import Store
from cavendish.undo import pending_only
from cavendish_worker.cli.filters import filter_options, wanted
from cavendish_worker.cli.id_lines import format_option, named_ids
from cavendish_worker.cli.interrupted import told_if_interrupted
from cavendish_worker.cli.options import at_a_terminal, json_option, yes_option
from cavendish_worker.cli.output import counts, print_json
from cavendish_worker.cli.progress import with_bar

#: What is to be changed, its service and account; as the methods of a client take it.
Chosen = tuple[list[str] | Filter, str | None, str | None]


def changing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ids or a filter, and the options that `chosen` and `carry_out` need."""
    every = click.option(
        "--all", "every", is_flag=True, help="All ids, if no other option selects."
    )
    argument = click.argument("ids", nargs=-1, metavar="[ID...|-]")
    for option in (json_option, yes_option, every, format_option, filter_options, argument):
        command = option(command)
    return command


def chosen(
    store: Store,
    ids: tuple[str, ...],
    form: str,
    options: dict[str, Any],
    *,
    every: bool,
    pending: bool = True,
) -> Chosen:
    """What the words of a command name; of a filter only what is `pending`, if that is said.

    Raises click.UsageError where it is not clear what is meant.
    """
    given = {name for name, value in options.items() if value not in (None, ())}
    if not ids:
        if not given and not every:
            raise click.UsageError("Name ids, or options such as --producer; --all means all ids.")
        found = wanted(store, options)
        return pending_only(found) if pending else found, None, None
    if more := sorted(given - {"service", "account"}):
        raise click.UsageError(f"--{more[0]} finds ids; it does not go with ids that are named.")
    if options["service"] is None:
        raise click.UsageError("Name the --service of the ids.")
    return named_ids(ids, form), options["service"], options["account"]


def carry_out(
    store: Store,
    found: Chosen,
    changes: Iterator[list[Changed]],
    what: str,
    *,
    sure: bool,
    as_json: bool,
) -> None:
    """Change what was chosen, and print what became of it; unless `sure`, ask with the number.

    `what`: the verb as a participle, such as "cancelled". Exit code 1 if an id is unknown.
    """
    ids, named = found[0], isinstance(found[0], list)
    number = store.search.count(ids) if isinstance(ids, Filter) else len(ids)
    if number and not sure:
        many = "1 id" if number == 1 else f"{number:,} ids"
        if not at_a_terminal():
            raise click.UsageError(f"{many} would be {what}: add --yes.")
        click.confirm(f"{many} will be {what}. Go on?", abort=True, err=True)
    done = list[Changed]()
    again = "run it again for the rest"
    with told_if_interrupted(lambda: f"Stopped; at least {len(done):,} ids are {what}, {again}."):
        done += with_bar(chain.from_iterable(changes), number, what) if number else ()
    numbers = Counter(one.outcome for one in done)
    told = {what: numbers["done"], "ended": numbers["ended"], "unknown": numbers["unknown"]}
    if as_json:
        print_json(told | ({"items": [asdict(one) for one in done]} if named else {}))
    else:
        click.echo(counts(told) or "no such ids")
    for one in done:
        if one.outcome == "unknown" and not as_json:
            click.echo(f"{one.id}: not tracked for the service {one.service}", err=True)
    if numbers["unknown"]:
        sys.exit(1)
