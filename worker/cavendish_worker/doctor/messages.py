"""Refused submits and quarantined messages: ids that were sent and are not tracked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cavendish.environment.local_paths import quarantine_url
from cavendish.errors import StoreUnavailable
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.quarantine import Quarantine
from cavendish_worker.doctor.finding import Finding, ill, well

_ADVICE = "See `cavendish refused list`; fix the cause, then `cavendish refused retry` or `drop`."


def findings(store: Store, settings: Settings) -> list[Finding]:
    """What lies there. Raises StoreUnavailable if the store is away; a broker may be."""
    found = refused(store)
    if url := quarantine_url(settings):
        quarantine = Quarantine(url)
        try:
            messages = quarantine.list()
        except StoreUnavailable:
            return found  # the finding of the broker says it
        finally:
            quarantine.close()
        if messages:
            found.append(ill("quarantined messages", _said(messages, "quarantined"), _ADVICE))
    return found


def refused(store: Store) -> list[Finding]:
    """The refused submits. Raises StoreUnavailable."""
    submits = store.refused.list()
    if not submits:
        return [well("refused submits", "none")]
    return [ill("refused submits", _said(submits, "refused"), _ADVICE)]


def _said(entries: Sequence[Any], word: str) -> str:
    return f"{len(entries)} {word}, the newest ({entries[0].id}) because: {entries[0].reason}"
