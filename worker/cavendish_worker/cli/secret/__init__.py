"""secret: the secrets that sign webhooks to plain URLs."""

from __future__ import annotations

import click

from cavendish_worker.cli.lazy_group import LazyGroup

SECTIONS = {"Create": {"new": "Print a new secret for CAVENDISH_WEBHOOK_SECRET."}}


@click.group(
    "secret",
    cls=LazyGroup,
    package=__name__,
    sections=SECTIONS,
    short_help="Print a secret for CAVENDISH_WEBHOOK_SECRET.",
)
def command() -> None:
    """Create the secrets that sign webhooks to plain URLs.

    \b
    cavendish secret new
    """
