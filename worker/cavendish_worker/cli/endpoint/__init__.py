"""endpoint: webhook endpoints, registered under a name or known by their URL."""

from __future__ import annotations

import click

from cavendish_worker.cli.lazy_group import LazyGroup

SECTIONS = {
    "Inspect": {
        "list": "List the endpoints.",
        "show": "Show one endpoint: its state, its circuit and its keys.",
        "test": "Send a signed test webhook to an endpoint.",
    },
    "Register": {
        "add": "Register an endpoint, and create its secret.",
        "update": "Change an endpoint; it keeps its secret.",
        "rotate": "Give an endpoint a new secret.",
        "remove": "Forget a registered endpoint and its secrets.",
        "new-key": "Print a new key for CAVENDISH_SECRET_KEY.",
    },
    "Switch": {
        "enable": "Send to an endpoint again.",
        "disable": "Send nothing to an endpoint until it is enabled.",
    },
}


@click.group(
    "endpoint",
    cls=LazyGroup,
    package=__name__,
    sections=SECTIONS,
    short_help="Register webhook endpoints, rotate secrets, disable, test.",
)
def command() -> None:
    """Manage webhook endpoints.

    An endpoint is registered under a name, with secrets of its own, or is known by its URL.
    """
