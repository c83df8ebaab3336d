"""What `endpoint add` and `endpoint rotate` share.

Fresh secrets, how they are encrypted, and the one time that they are shown.
"""

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

_IN_THE_CLEAR = """\
CAVENDISH_SECRET_KEY is not set: the store holds this secret unencrypted. `cavendish endpoint new-key` makes a key; set it \
for the workers and here, and rotate."""

unencrypted_option = click.option(
    "--unencrypted",
    is_flag=True,
    help="Let the store hold the secret unencrypted, although the workers have a key.",
)


def encryption_for(
    store: Store, settings: Settings, now: float, *, unencrypted: bool
) -> Encryption:
    """What encrypts a new secret.

    Raises EndpointError where workers have a key, and this shell was not given it.
    """
    encryption = Encryption(settings.secret_key)
    if encryption.encrypts or unencrypted:
        return encryption
    if any(member.encrypts and member.alive(now) for member in store.fleet.members(now)):
        raise EndpointError(
            "Refused: the workers have a CAVENDISH_SECRET_KEY and this shell has none, so the store would hold this secret "
            "unencrypted; set it here, or say --unencrypted."
        )
    return encryption


def fresh_keys(encryption: Encryption, name: str, now: float) -> tuple[str, Key, Key]:
    """A new secret, encrypted, and a new key pair for v1a."""
    secret, private = signing.new_secret(), signing.new_signing_key()
    asymmetric = Key(encryption.encrypt(name, private), now, public=signing.public_key(private))
    return secret, Key(encryption.encrypt(name, secret), now), asymmetric


def tell(said: dict[str, Any], first: str, encryption: Encryption, *, as_json: bool) -> None:
    """Show the one time that a secret is shown."""
    if as_json:
        print_json(said)
    else:
        click.echo(first)
        click.echo(f"secret      {said['secret']}")
        if said["public_key"]:
            click.echo(f"public key  {said['public_key']}")
        click.echo("Give it to the receiver now: it is not shown again.", err=True)
    if not encryption.encrypts:
        click.echo(_IN_THE_CLEAR, err=True)
