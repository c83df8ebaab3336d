"""Open the store that the environment names."""

from __future__ import annotations

import click

from cavendish.environment.local_paths import store_url, with_kept
from cavendish.errors import CavendishError
from cavendish.settings import Settings
from cavendish.store import Store


def open_store() -> tuple[Store, Settings]:
    """The store and the settings of the environment, with the secrets that `cavendish up` keeps."""
    settings = with_kept(Settings.load())
    return Store(store_url(settings), settings.shards), settings


def complete_endpoint(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """The names of registered endpoints for the shell's completion; none while Redis is away."""
    try:
        names = open_store()[0].endpoints.all()
    except CavendishError:  # a completion must not print errors
        return []
    return [name for name in names if name.startswith(begun)]
