"""What `endpoint add` and `endpoint rotate` share: fresh secrets, how they are sealed, and the one time that they are shown."""

from __future__ import annotations

from typing import Any

import click

from scheduler.endpoints import Key
from scheduler.errors import EndpointError
from scheduler.settings import Settings
from scheduler.store import Book
from worker.cli.output import print_json
from worker.webhooks import signing
from worker.webhooks.vault import Vault

_IN_THE_CLEAR = """\
CAVENDISH_SECRET_KEY is not set: the book holds this secret unencrypted. `cavendish endpoint new-key` makes a key; set it \
for the workers and here, and rotate."""

unencrypted_option = click.option(
    "--unencrypted", is_flag=True, help="Let the book hold the secret unencrypted, although the workers have a key."
)


def vault_for(book: Book, settings: Settings, now: float, *, unencrypted: bool) -> Vault:
    """What seals a new secret. Raises EndpointError where workers have a key, and this shell was not given it."""
    vault = Vault(settings.secret_key)
    if vault.encrypts or unencrypted:
        return vault
    if any(member.seals and member.alive(now) for member in book.fleet.members(now)):
        raise EndpointError(
            "Refused: the workers have a CAVENDISH_SECRET_KEY and this shell has none, so the book would hold this secret "
            "unencrypted; set it here, or say --unencrypted."
        )
    return vault


def fresh_keys(vault: Vault, name: str, now: float) -> tuple[str, Key, Key]:
    """A new secret, sealed, and a new key pair for v1a."""
    secret, private = signing.new_secret(), signing.new_signing_key()
    asymmetric = Key(vault.seal(name, private), now, public=signing.public_key(private))
    return secret, Key(vault.seal(name, secret), now), asymmetric


def tell(said: dict[str, Any], first: str, vault: Vault, *, as_json: bool) -> None:
    """Show the one time that a secret is shown."""
    if as_json:
        print_json(said)
    else:
        click.echo(first)
        click.echo(f"secret      {said['secret']}")
        if said["public_key"]:
            click.echo(f"public key  {said['public_key']}")
        click.echo("Give it to the receiver now: it is not shown again.", err=True)
    if not vault.encrypts:
        click.echo(_IN_THE_CLEAR, err=True)
