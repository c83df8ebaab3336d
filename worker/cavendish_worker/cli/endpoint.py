"""endpoint.

Webhook endpoints, registered under a name with secrets of their own, or known by their URL.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from cavendish.env_parsers import secrets_of
from cavendish.errors import EndpointError
from cavendish.model import OPERATIONS
from cavendish.policy.addresses import Network, webhook_complaint
from cavendish.policy.circuit import Circuit, afresh
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.webhook_endpoint import (
    LONGEST_OVERLAP,
    Disabled,
    Endpoint,
    endpoint_of,
    is_url,
    name_complaint,
)
from cavendish_worker import doctor
from cavendish_worker.cli.arguments import duration, endpoint_names, meant, opened, sure, yes_option
from cavendish_worker.cli.output import as_json, moment, plain, print_json, table
from cavendish_worker.cli.secrets import encryption_for, fresh_keys, tell, unencrypted_option
from cavendish_worker.http import egress
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.webhooks import consent, payload
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind
from cavendish_worker.webhooks.encryption import Encryption, new_key
from cavendish_worker.webhooks.endpoint_cache import FRESH_FOR
from cavendish_worker.webhooks.post import Target, post

which_argument = click.argument("which", metavar="NAME|URL|HASH", shell_complete=endpoint_names)


def _view(store: Store, text: str) -> doctor.EndpointView:
    """The endpoint that is meant; one that nothing is known of is well, and pending nothing."""
    name = meant(store, text)
    views = {view.name: view for view in doctor.endpoints(store)}
    return views.get(name) or doctor.EndpointView(
        name, text if is_url(text) else "", None, None, store.shared_state.circuits([name])[0], 0
    )


def _standing(shown: dict[str, Any]) -> str:
    if not shown["enabled"]:
        return f"disabled since {moment(shown['disabled_at'])}: {shown['reason']}"
    return (
        "enabled"
        if shown["registered"]
        else "by its URL"
        if name_complaint(shown["name"])
        else "not registered"
    )


@click.group(short_help="Register webhook endpoints, rotate secrets, disable, test.")
def endpoint() -> None:
    """The webhook endpoints.

    Registered under a name with secrets of their own, or known by their URL.
    """


@endpoint.command()
@click.argument("name")
@click.argument("url")
@click.option(
    "--ed25519", is_flag=True, help="Sign with a key pair too (v1a); only its public half is shown."
)
@click.option(
    "--consent",
    "ask",
    is_flag=True,
    help="Ask the endpoint first whether it wants what we send (CloudEvents).",
)
@click.option(
    "--rate",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --consent: ask for so many calls a minute.",
)
@unencrypted_option
@as_json
def add(name: str, url: str, ask: bool, rate: int | None, as_json: bool, **flags: bool) -> None:  # noqa: FBT001 (click)
    """Register an endpoint, and make the secret that signs what is sent there. It is shown this
    once.

    \b
    cavendish endpoint add shop https://shop.example/hooks/cavendish
    cavendish submit --service nano-banana --webhook shop ID
    """
    if rate and not ask:
        raise click.UsageError("--rate goes with --consent.")
    store, settings = opened()
    allowed, taken = (
        store.fleet.allowed() + settings.webhook_allow,
        EndpointError(f"An endpoint is registered as {name!r} already."),
    )
    complaint = name_complaint(name) or webhook_complaint(url, allowed, settings.webhook_ports)
    if complaint:
        raise EndpointError(f"Refused: {complaint}.")
    if "#" in url:
        raise EndpointError(
            "Refused: the webhook URL must not have a #fragment, which is never sent."
        )
    if not store.endpoints.missing([name]):
        raise taken
    now, ed25519 = store.fleet.now(), flags["ed25519"]
    encryption = encryption_for(store, settings, now, unencrypted=flags["unencrypted"])
    answer = asyncio.run(_ask(settings, allowed, url, rate)) if ask else consent.Consent()
    if not answer.granted:
        raise EndpointError(f"{url} does not consent: {answer.complaint}. Nothing was registered.")
    secret, key, asymmetric = fresh_keys(encryption, name, now)
    keys = (key, asymmetric) if ed25519 else (key,)
    if not store.endpoints.add(
        Endpoint(name, url, now, keys, consent=ask, per_minute=answer.per_minute)
    ):
        raise taken
    store.shared_state.change_circuit(
        name, lambda _: Circuit()
    )  # whatever an endpoint of that name did before
    store.endpoints.enable(name)
    said: dict[str, Any] = {"name": name, "url": url, "secret": secret}
    said |= {
        "public_key": asymmetric.public if ed25519 else None,
        "consent": ask,
        "per_minute": answer.per_minute,
        "encrypted": encryption.encrypts,
    }
    tell(said, f"{name} is registered for {url}", encryption, as_json=as_json)


async def _ask(
    settings: Settings, allowed: tuple[Network, ...], url: str, rate: int | None
) -> consent.Consent:
    async with egress.transport(
        allowed, settings.webhook_ports, settings.egress_proxy or None
    ) as transport:
        return await consent.ask(
            transport, url, settings.webhook_origin, rate, settings.webhook_timeout
        )


@endpoint.command("list")
@as_json
def list_endpoints(as_json: bool) -> None:  # noqa: FBT001 (click)
    """List the endpoints: the registered ones, and those known by their URL that are pending
    something or are disabled.

    \b
    cavendish endpoint list
    """
    store, _ = opened()
    now = store.fleet.now()
    found = [view.to_json(now) for view in doctor.endpoints(store)]
    if as_json:
        print_json(
            [{name: value for name, value in one.items() if name != "keys"} for one in found]
        )
    elif found:
        columns = ("endpoint", "state", "circuit", "waiting", "signatures", "last success", "url")
        table("", columns, [_row(one) for one in found])
    else:
        click.echo("no endpoints")


def _row(shown: dict[str, Any]) -> tuple[object, ...]:
    signatures = " ".join(shown["signatures"]) + (
        f" ({shown['overlapping']} overlap)" if shown["overlapping"] else ""
    )
    last = moment(shown["last_success"])
    return (
        shown["name"],
        _standing(shown),
        shown["circuit"],
        shown["waiting"],
        signatures,
        last,
        shown["url"],
    )


@endpoint.command("show")
@which_argument
@as_json
def show_endpoint(which: str, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Show one endpoint: its state, its circuit, and its keys, but no secret.

    \b
    cavendish endpoint show shop
    """
    store, _ = opened()
    shown = _view(store, which).to_json(store.fleet.now())
    if as_json:
        print_json(shown)
        return
    times = ("disabled_at", "open_until", "last_success", "created_at")
    rows = [
        (name.replace("_", " "), moment(value) if name in times else value)
        for name, value in shown.items()
        if name != "keys"
    ]
    words = {True: "yes", False: "no"}
    told = [
        (n, words[v] if isinstance(v, bool) else " ".join(v) if isinstance(v, list) else v)
        for n, v in rows
    ]
    table("", ("", ""), [(name, value) for name, value in told if value not in ("", None)])
    if shown["keys"]:
        columns, keys = ("key", "made", "signs until", "public key"), shown["keys"]
        table(
            "",
            columns,
            [
                (k["kind"], moment(k["made_at"]), moment(k["until"]), k["public_key"] or "")
                for k in keys
            ],
        )


@endpoint.command()
@click.argument("name", shell_complete=endpoint_names)
@click.option(
    "--overlap",
    default="24h",
    show_default=True,
    metavar="HOURS|7d",
    help="How long the old secret signs along.",
)
@unencrypted_option
@as_json
def rotate(name: str, overlap: str, unencrypted: bool, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Give an endpoint a new secret, shown this once; what signed until now signs along for a
    while.

    \b
    cavendish endpoint rotate shop --overlap 48
    """
    seconds = duration(overlap, bare="h")
    if seconds is None or seconds > LONGEST_OVERLAP:
        raise click.BadParameter(
            "must be hours, or a duration such as 90m, 36h or 7d, and at most 7 days.",
            param_hint="--overlap",
        )
    store, settings = opened()
    now = store.fleet.now()
    encryption = encryption_for(store, settings, now, unencrypted=unencrypted)
    secret, key, asymmetric = fresh_keys(encryption, name, now)

    def step(known: Endpoint) -> Endpoint:
        both = any(old.public for old in known.living_keys(now))
        return known.rotated((key, asymmetric) if both else (key,), now, seconds)

    changed = store.endpoints.change(name, step)
    if changed is None:
        raise EndpointError(
            f"No endpoint is registered as {name!r}; see `cavendish endpoint list`."
        )
    public = asymmetric.public if asymmetric in changed.keys else None
    said = {
        "name": name,
        "secret": secret,
        "public_key": public,
        "old_until": now + seconds,
        "encrypted": encryption.encrypts,
    }
    old = f"signs along until {moment(now + seconds)} UTC" if seconds else "no longer signs"
    tell(said, f"{name} has a new secret; the old one {old}", encryption, as_json=as_json)


@endpoint.command()
@which_argument
@as_json
def enable(which: str, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Send to an endpoint again, whether it was disabled or its circuit is open; what waits for it
    is due at once.

    \b
    cavendish endpoint enable shop
    """
    store, _ = opened()
    view = _view(store, which)
    store.shared_state.change_circuit(view.name, afresh)
    changed = store.endpoints.enable(view.name)
    # Workers believe for a second what they have read; one that came earlier would leave it alone
    # for a minute.
    visit = store.fleet.now() + FRESH_FOR
    for lane in [*store.tasks.lanes(), OPERATIONS]:
        store.deliveries.hasten(lane, view.name, visit)
        store.deliveries.postpone(lane, {view.name: visit})
    if as_json:
        print_json(
            {
                "endpoint": view.name,
                "enabled": True,
                "was_disabled": changed,
                "waiting": view.waiting,
            }
        )
    else:
        click.echo(
            f"{which} {'is enabled' if changed else 'was not disabled'}; {doctor.counted(view.waiting)} for it"
        )


@endpoint.command()
@which_argument
@click.option(
    "--reason",
    default="by hand",
    show_default=True,
    metavar="TEXT",
    help="Why, for those who look later.",
)
@as_json
def disable(which: str, reason: str, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Send nothing more to an endpoint until it is enabled; what is pending to it waits.

    \b
    cavendish endpoint disable shop --reason "moves to another host"
    """
    store, _ = opened()
    view = _view(store, which)
    changed = store.endpoints.disable(
        view.name, Disabled(store.fleet.now(), plain(reason), view.url)
    )
    if as_json:
        print_json(
            {
                "endpoint": view.name,
                "enabled": False,
                "was_disabled": not changed,
                "waiting": view.waiting,
            }
        )
    else:
        click.echo(
            f"{which} {'is disabled' if changed else 'was disabled before'}; {doctor.counted(view.waiting)} for it"
        )


@endpoint.command()
@click.argument("name", shell_complete=endpoint_names)
@yes_option
@as_json
def remove(name: str, yes: bool, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Forget a registered endpoint and its secrets; what is pending to it goes to the dead letters
    when its turn comes.

    \b
    cavendish endpoint remove shop
    """
    store, _ = opened()
    missing = EndpointError(
        f"No endpoint is registered as {name!r}; see `cavendish endpoint list`."
    )
    if store.endpoints.missing([name]):
        raise missing
    waiting = _view(store, name).waiting
    kind = (
        f"; {doctor.counted(waiting)} for it, and what is pending goes to the dead letters when its turn comes"
        if waiting
        else ""
    )
    sure(f"Remove {name}{kind}?", yes=yes)
    if not store.endpoints.remove(name):
        raise missing
    if as_json:
        print_json({"name": name, "removed": True, "waiting": waiting})
    else:
        click.echo(f"{name} is removed{kind}")


@endpoint.command("test")
@click.argument("which", metavar="NAME|URL", shell_complete=endpoint_names)
@as_json
def test_endpoint(which: str, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Send a signed `endpoint.test` from this process, by the rules of all webhooks. Exit code 0
    only if it is taken (2xx).

    \b
    cavendish endpoint test shop
    """
    store, settings = opened()
    now = store.fleet.now()
    target, allowed = (
        _target(store, settings, which, now),
        store.fleet.allowed() + settings.webhook_allow,
    )
    complaint = webhook_complaint(target.url, allowed, settings.webhook_ports)
    if complaint:
        raise EndpointError(f"Refused: {complaint}.")
    name = payload.event_id("endpoint.test", endpoint_of(which), repr(now))
    body = payload.endpoint_event(
        "endpoint.test", {"endpoint": endpoint_of(which), "url": target.url}, now
    )
    result = asyncio.run(_send(settings, allowed, target, name, body, now))
    taken = result.kind is ResultKind.DELIVERED
    if as_json:
        said = {
            name: getattr(result, name)
            for name in ("outcome", "status", "seconds", "address", "answer")
        }
        print_json(
            {
                "endpoint": endpoint_of(which),
                "url": target.url,
                "webhook_id": name,
                "taken": taken,
                **said,
            }
        )
    else:
        where = f" at {result.address}" if result.address else ""
        click.echo(f"{result.outcome}{where} after {result.seconds:.3f} s")
        if result.answer:
            click.echo(result.answer[:200])
    if not taken:
        sys.exit(1)


def _target(store: Store, settings: Settings, which: str, now: float) -> Target:
    if is_url(which):
        if not settings.webhook_secret:
            raise EndpointError(
                "CAVENDISH_WEBHOOK_SECRET is not set; unsigned webhooks are never sent."
            )
        return Target(which, secrets_of(settings.webhook_secret))
    registered = store.endpoints.all().get(which)
    if registered is None:
        raise EndpointError(
            f"No endpoint is registered as {which!r}; see `cavendish endpoint list`."
        )
    encryption = Encryption(settings.secret_key)
    keys = tuple(encryption.open(which, key.encrypted) for key in registered.living_keys(now))
    return Target(registered.url, keys, settings.webhook_origin if registered.consent else "")


async def _send(
    settings: Settings,
    allowed: tuple[Network, ...],
    target: Target,
    name: str,
    body: bytes,
    now: float,
) -> AttemptResult:
    async with egress.transport(
        allowed, settings.webhook_ports, settings.egress_proxy or None
    ) as transport:
        return await post(
            transport, target, name, body, now, settings.webhook_timeout, ShutdownDeadline()
        )


@endpoint.command("new-key")
@as_json
def make_key(as_json: bool) -> None:  # noqa: FBT001 (click)
    """Print a fresh key for CAVENDISH_SECRET_KEY, which encrypts the secrets of endpoints in the
    store.

    \b
    export CAVENDISH_SECRET_KEY=$(cavendish endpoint new-key)
    """
    key = new_key()
    print_json({"key": key}) if as_json else click.echo(key)


COMMANDS = (endpoint,)
