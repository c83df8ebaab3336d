"""replay: deliver again what a receiver acknowledged and lost."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cavendish.controller import whoever_calls
from cavendish.endpoints.endpoint_view import find_endpoint
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.options import (
    endpoint_option,
    json_option,
    limit_option,
    rate_option,
    since_option,
)
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.times import time_of
from cavendish_worker.webhooks import replaying
from cavendish_worker.webhooks.reopening import MOST, spread


@click.command("replay", short_help="Send delivered webhooks of an endpoint again.")
@endpoint_option(required=True, help="The endpoint whose webhooks are sent again.")
@since_option(
    required=True,
    help="Only webhooks of ids that ended after this: a duration (90s, 2h, 3d) or a time.",
)
@rate_option
@limit_option(
    default=MOST,
    type=click.IntRange(1, MOST),
    help="Maximum number of webhooks; those of the same second are sent together, even if "
    "there are more.",
)
@json_option
def command(endpoint: str, since: str, rate: float, limit: int, as_json: bool) -> None:
    """Send delivered webhooks of an endpoint again, the oldest first.

    They keep their webhook-ids. It reaches back as far as ended ids are kept (CAVENDISH_RETENTION).

    \b
    cavendish replay --endpoint shop --since 3h
    """
    store, _ = open_store()
    found, now = find_endpoint(store, endpoint), store.fleet.now()
    by = whoever_calls()
    replayed, cut = replaying.replay(store, found, time_of(since, now), rate, limit, by=by)
    go_on = None if cut is None else f"{datetime.fromtimestamp(cut, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if as_json:
        print_json({"endpoint": found, "replayed": replayed, "since": go_on})
    else:
        click.echo(f"{replayed} are sent again" + spread(replayed, rate))
    if go_on:
        click.echo(f"There are more: go on with --since {go_on}", err=True)
