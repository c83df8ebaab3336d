"""endpoint add: register an endpoint."""

from __future__ import annotations

from typing import Any

import click

from cavendish.endpoints.endpoint_options import shown
from cavendish_worker.cli.endpoint.new_secret import show_once, unencrypted_option
from cavendish_worker.cli.endpoint.setting import options_of, setting_options
from cavendish_worker.cli.endpoint.which import open_endpoints
from cavendish_worker.cli.options import json_option


@click.command("add", short_help="Register an endpoint, and create its secret.")
@click.argument("name")
@click.argument("url")
@click.option(
    "--ed25519",
    is_flag=True,
    help="Also sign with a key pair (v1a); only its public half is shown.",
)
@click.option(
    "--consent",
    "ask",
    is_flag=True,
    help="First ask the endpoint whether it accepts our webhooks (CloudEvents).",
)
@setting_options
@unencrypted_option
@json_option
def command(
    name: str, url: str, ask: bool, ed25519: bool, unencrypted: bool, as_json: bool, **named: Any
) -> None:
    """Register an endpoint, and create the secret that signs its webhooks.

    The secret is shown only once.

    \b
    cavendish endpoint add shop https://shop.example/hooks/cavendish
    cavendish submit --service nano-banana --webhook shop ID
    cavendish endpoint add art https://art.example/in --events task.failed --header 'X-Tenant: 7'
    """
    added, told = open_endpoints().add(
        name, options_of(url, named), ed25519=ed25519, consent=ask, unencrypted=unencrypted
    )
    said = {"name": name} | shown(added) | {"consent": ask}
    show_once(told, said, f"{name} is registered for {url}", as_json=as_json)
