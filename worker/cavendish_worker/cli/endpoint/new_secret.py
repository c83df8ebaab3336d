"""A new secret of an endpoint: made, encrypted, and shown once, by `add` and `rotate`."""

from __future__ import annotations

from typing import Any

import click

from cavendish.errors import EndpointError
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.webhook_endpoint import Key
from cavendish_worker.cli.output import print_json
from cavendish_worker.webhooks import signing
from cavendish_worker.webhooks.encryption import Encryption

_UNENCRYPTED = (
    "CAVENDISH_SECRET_KEY is not set: the store holds this secret unencrypted. Make a key with "
    "`cavendish endpoint new-key`, set it for the workers and here, and rotate the secret."
)
_REFUSED = (
    "Refused: the workers have a CAVENDISH_SECRET_KEY and this shell has none, so the store would "
    "hold this secret unencrypted. Set the key here, or give --unencrypted."
)

unencrypted_option = click.option(
    "--unencrypted",
    is_flag=True,
    help="Store the secret unencrypted, even if the workers have a key.",
)


def encryption_for(
    store: Store, settings: Settings, now: float, *, unencrypted: bool
) -> Encryption:
    """What encrypts a new secret.

    Raises EndpointError where living workers have a key and this environment has none.
    """
    encryption = Encryption(settings.secret_key)
    if encryption.encrypts or unencrypted:
        return encryption
    if any(member.encrypts and member.alive(now) for member in store.fleet.members(now)):
        raise EndpointError(_REFUSED)
    return encryption


def new_keys(encryption: Encryption, name: str, now: float) -> tuple[str, Key, Key]:
    """A new secret, the same encrypted, and a new key pair for v1a."""
    secret, private = signing.new_secret(), signing.new_signing_key()
    asymmetric = Key(encryption.encrypt(name, private), now, public=signing.public_key(private))
    return secret, Key(encryption.encrypt(name, secret), now), asymmetric


def show_once(
    said: dict[str, Any], sentence: str, encryption: Encryption, *, as_json: bool
) -> None:
    """Print a new secret. `said` has at least `secret` and `public_key` (None for none)."""
    said["encrypted"] = encryption.encrypts
    if as_json:
        print_json(said)
    else:
        click.echo(f"{sentence}\nsecret      {said['secret']}")
        if said["public_key"]:
            click.echo(f"public key  {said['public_key']}")
        click.echo("Give it to the receiver now: it is not shown again.", err=True)
    if not encryption.encrypts:
        click.echo(_UNENCRYPTED, err=True)
