"""key: the keys of the HTTP API."""

from __future__ import annotations

import click

from cavendish_worker.cli.lazy_group import LazyGroup

SECTIONS = {
    "Keys": {
        "add": "Make a key, and print it once.",
        "list": "List the keys, and when each was last used.",
        "revoke": "Delete a key.",
    },
}


@click.group(
    "key",
    cls=LazyGroup,
    package=__name__,
    sections=SECTIONS,
    short_help="Make, list and revoke keys of the HTTP API.",
)
def command() -> None:
    """Manage the keys of the HTTP API (`cavendish serve`).

    \b
    cavendish key add shop --may submit,read --account shop --own
    """
