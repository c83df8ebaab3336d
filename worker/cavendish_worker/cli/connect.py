"""Open the store that the environment names, and find an endpoint in it."""

from __future__ import annotations

import re

import click

from cavendish.errors import CavendishError, EndpointError
from cavendish.local_paths import store_url, with_kept
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.webhook_endpoint import endpoint_of, is_url
from cavendish_worker.cli.output import encodable, plain

_HASH = re.compile(r"[0-9a-f]{16}")


def open_store() -> tuple[Store, Settings]:
    """The store and the settings of the environment, with the secrets that `cavendish up` keeps."""
    settings = with_kept(Settings.load())
    return Store(store_url(settings), settings.shards), settings


def not_registered(name: str) -> EndpointError:
    """The error for a name under which no endpoint is registered."""
    return EndpointError(f"No endpoint is registered as {name!r}; see `cavendish endpoint list`.")


def find_endpoint(store: Store, text: str) -> str:
    """The endpoint that a name, a URL or a hash stands for.

    Raises EndpointError for a name that is neither registered nor disabled.
    """
    if not encodable(text):
        raise EndpointError(f"{plain(text)!r} is neither a name nor a URL.")
    if is_url(text) or _HASH.fullmatch(text) or not store.endpoints.missing([text]):
        return endpoint_of(text)
    if text not in store.endpoints.disabled():
        raise not_registered(text)
    return text


def complete_endpoint(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """The names of registered endpoints for the shell's completion; none while Redis is away."""
    try:
        names = open_store()[0].endpoints.all()
    except CavendishError:  # a completion must not print errors
        return []
    return [name for name in names if name.startswith(begun)]
