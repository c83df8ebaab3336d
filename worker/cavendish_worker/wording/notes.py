"""What the numbers of `gather` mean, in words; most of their names are known only here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cavendish.policy.operator_controls import Pause, RateCeiling
from cavendish_worker.wording.times import moment

#: Numbers of a lane as `gather` names them, and as people read them.
LANE_NUMBERS = {
    "pending": "pending",
    "due": "due",
    "in_flight": "in flight",
    "deliveries_pending": "to send",
    "dead": "dead",
    "quarantined": "quarantined",
}
#: The numbers that call for action unless they are zero.
ALARMING = ("dead", "quarantined")


def pause(account: Mapping[str, Any]) -> str:
    """Why the API is not called for an account, and for how long; empty if it is called."""
    if account["no_token"]:  # also while it is paused: its ids wait for a worker with a token
        return "no token at any worker"
    by_operator = [account["operator_pause"]] if account["operator_pause"] else []
    rest, reason = account["paused_for"], account["pause_reason"]
    by_api = [f"paused by the API, {rest:.0f} s more: {reason}"] if rest else []
    return "; ".join(by_operator + by_api)


def operator_notes(found: Mapping[str, Any]) -> list[str]:
    """What operators set and no row of an account shows: pauses of services, or before any id; and
    the ceilings of accounts.
    """
    pauses = [Pause(**one) for one in found["pauses"]]
    ceilings = [RateCeiling(**one) for one in found["rate_ceilings"]]
    notes = [f"{one.name} is {one.told}" for one in pauses if one.name not in found["accounts"]]
    return notes + [f"{one.account}: {one.told}" for one in ceilings]


def lane_notes(lane: Mapping[str, Any]) -> list[str]:
    """What is wrong with the service of a lane, its token, or its batches."""
    notes, service, limit = [], lane["service"], lane["batch_limit"]
    again = f"next call in {service['down_for']:.0f} s"
    if service["paused_since"] is not None:
        since = f"since {moment(service['paused_since'])}"
        notes.append(f"{lane['lane']} is not served {since}, {again}: {service['reason']}")
    elif service["down_for"]:
        notes.append(f"{lane['lane']} fails, {again}: {service['reason']}")
    if lane["blind"]:
        notes.append(f"{lane['lane']}: {lane['blind']}; its ids wait")
    if limit:
        notes.append(f"{lane['lane']} takes at most {limit} ids per call")
    return notes


def endpoint_name(endpoint: Mapping[str, Any]) -> str:
    """The name of a registered endpoint; others are known by their URL, as all commands take it."""
    url = "" if endpoint["registered"] else endpoint["url"]
    return str(url or endpoint["endpoint"])


def endpoint_trouble(endpoint: Mapping[str, Any]) -> str:
    """Why an endpoint is sent nothing; empty if it is sent to."""
    if endpoint["disabled_at"] is not None:
        return f"disabled since {moment(endpoint['disabled_at'])}: {endpoint['reason']}"
    if endpoint["circuit"] != "open":
        return ""
    rest = f"{endpoint['open_for']:.0f} s"
    wait = f"probed in {rest}" if endpoint["open_for"] else "about to be probed"
    return f"circuit open, {wait}: {endpoint['failures']} failures in a row"
