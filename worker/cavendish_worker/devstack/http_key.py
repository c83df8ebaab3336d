"""The key of the HTTP service that `cavendish up` makes, and keeps in a file of its data folder."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from cavendish.errors import StoreUnavailable
from cavendish.policy.access import RIGHTS, ApiKey, is_text_of
from cavendish.store import Store
from cavendish_worker.devstack import data_folder
from cavendish_worker.telemetry.logs import logger


def keep(store_url: str, path: Path) -> bool:
    """Make a key that may do everything, unless the one in the file counts in this store.

    False while the store is away: `cavendish key add` makes one later. Raises OSError.
    """
    store, text = Store(store_url), ""
    with suppress(FileNotFoundError):
        text = path.read_text(errors="replace").strip()
    try:
        if any(is_text_of(key, text) for key in store.api_keys.all()):
            return True
        now, fresh, name = round(store.fleet.now(), 3), None, "up"
        while fresh is None:
            fresh = store.api_keys.add(ApiKey(name, "", "", RIGHTS, created_at=now))
            name = f"up-{secrets.token_hex(4)}"  # another folder has made one in this store
        data_folder.write(path, f"{fresh}\n")
        return True
    except StoreUnavailable as error:
        logger().warning("http.no_key", outcome=str(error))
        return False
    finally:
        store.close()
