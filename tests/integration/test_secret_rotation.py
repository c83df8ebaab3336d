"""CAVENDISH_WEBHOOK_SECRET: a command makes one, and a rotation breaks no receiver."""

from __future__ import annotations

import httpx
import pytest
from standardwebhooks import Webhook

from cavendish.endpoints.signing import new_secret, verify
from cavendish.errors import SettingsError
from cavendish.settings import Settings
from delivering import Delivering, Receiver, Served
from shell import said, shell


def test_a_new_secret_is_printed_and_nothing_else() -> None:
    first, second = (shell("secret", "new").stdout.strip() for _ in range(2))
    assert first != second
    assert Settings.load({"CAVENDISH_WEBHOOK_SECRET": first}).webhook_secret == first
    assert said(shell("secret", "new", "--json"))["secret"].startswith("whsec_")


def test_a_rotation_breaks_no_receiver_of_a_plain_url(
    endpoint_index: Delivering, served: Served
) -> None:
    """Whoever knows the old secret, and whoever knows the new one, takes the same webhook.

    Nobody else does.
    """
    old, new, receiver = new_secret(), new_secret(), Receiver()
    endpoint_index.end("x", webhook=served(receiver))
    both = Settings.load({"CAVENDISH_WEBHOOK_SECRET": f"{new}, {old}"}).webhook_secret
    assert both == f"{new},{old}"
    assert endpoint_index.deliver(secret=both).delivered == 1
    (request,) = receiver.got
    headers = dict(request.headers)
    signatures = headers["webhook-signature"].split(" ")
    assert [one[:3] for one in signatures] == ["v1,", "v1,"]
    for secret in (old, new):
        Webhook(secret).verify(request.content, headers)  # raises if it does not fit
    assert (
        verify(new, headers | {"webhook-signature": signatures[0]}, request.content, _at(request))
        is None
    )
    assert verify(new_secret(), headers, request.content, _at(request)) == "no signature fits"


def _at(request: httpx.Request) -> float:
    return float(request.headers["webhook-timestamp"])


def test_of_several_secrets_each_must_be_one() -> None:
    for text in (f"{new_secret()},plain", f"{new_secret()},", ","):
        with pytest.raises(SettingsError, match="whsec_") as refused:
            Settings.load({"CAVENDISH_WEBHOOK_SECRET": text})
        assert "plain" not in str(refused.value)
