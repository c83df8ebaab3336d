"""refused: messages of producers that were refused or quarantined."""

from __future__ import annotations

import click

from cavendish_worker.cli.lazy_group import LazyGroup

SECTIONS = {
    "Commands": {
        "list": "List refused submits and quarantined messages.",
        "show": "Show one of them, and what was sent.",
        "retry": "Submit again what was refused, after its cause was fixed.",
        "drop": "Forget some of them for good.",
    }
}


@click.group(
    "refused",
    cls=LazyGroup,
    package=__name__,
    sections=SECTIONS,
    short_help="List, retry or drop refused submits and quarantined messages.",
)
def command() -> None:
    """List, retry or drop refused submits and quarantined messages.

    A submit by message is refused if something in it is wrong, such as an unknown service. Its
    producer gets no answer, so it is kept here. A message is quarantined if several workers died
    while they worked on it, or if no worker can read it.
    """
