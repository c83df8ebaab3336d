"""endpoint test: send a signed test webhook to an endpoint."""

from __future__ import annotations

import sys

import click

from cavendish_worker.cli.connect import complete_endpoint, open_store
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.webhooks.trial import try_endpoint


@click.command("test", short_help="Send a signed test webhook to an endpoint.")
@click.argument("which", metavar="NAME|URL", shell_complete=complete_endpoint)
@json_option
def command(which: str, as_json: bool) -> None:
    """Send a signed test webhook, `endpoint.test`, from this process.

    Exit code 0 only if the receiver answers 2xx.

    \b
    cavendish endpoint test shop
    """
    done = try_endpoint(*open_store(), which)
    result = done.result
    if as_json:
        fields = ("outcome", "status", "seconds", "address", "answer")
        said = {"endpoint": done.endpoint, "url": done.url, "webhook_id": done.webhook_id}
        print_json(
            said | {"taken": done.taken} | {field: getattr(result, field) for field in fields}
        )
    else:
        where = f" at {result.address}" if result.address else ""
        click.echo(f"{result.outcome}{where} after {result.seconds:.3f} s")
        if result.answer:
            click.echo(result.answer[:200])
    if not done.taken:
        sys.exit(1)
