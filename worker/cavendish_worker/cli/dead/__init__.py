"""dead: the dead letters, webhooks that could not be delivered."""

from __future__ import annotations

import click

from cavendish_worker.cli.lazy_group import LazyGroup

SECTIONS = {
    "Commands": {
        "list": "List the dead letters.",
        "show": "Show dead letters with all their attempts.",
        "revive": "Deliver dead letters again.",
        "drop": "Forget dead letters for good.",
    }
}


@click.group(
    "dead",
    cls=LazyGroup,
    package=__name__,
    sections=SECTIONS,
    short_help="List, revive or drop dead letters.",
)
def command() -> None:
    """List, revive or drop dead letters: webhooks that could not be delivered."""
