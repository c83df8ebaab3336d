"""alive: the probe that an orchestrator runs beside a worker or a beat, in the same container."""

from __future__ import annotations

import socket
import sys
import threading
from dataclasses import asdict, dataclass

import click

from cavendish.errors import StoreUnavailable
from cavendish.local_paths import store_url
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.cli.container import asked, page_of
from cavendish_worker.cli.output import as_json, print_json

#: Seconds after which the store counts as away, whatever holds it up (a resolver, for one, may take
#: half a minute): a probe that is cut off counts as failed, and would end a worker for the silence
#: of Redis.
PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the store says of the processes of a host.

    `ago`: seconds since the last was heard of, None for never.
    """

    alive: bool
    process: str = ""
    ago: float | None = None
    away: str = ""

    def told(self, who: str) -> str:
        """The same in one sentence."""
        if self.away:
            return f"Whether a {who} lives cannot be told: {self.away}"
        if self.ago is None:
            return f"No {who} was ever heard of, or it said goodbye."
        return f"{self.process} was heard of {self.ago:.1f} s ago{'.' if self.alive else ', which is too long.'}"


@click.command(short_help="Probe whether the worker or beat of this host lives.")
@click.option(
    "--role",
    type=click.Choice(["worker", "beat"]),
    help="Which process; without it any of this host.",
)
@click.option(
    "--name",
    "host",
    metavar="HOST",
    help="Host name of the process; without it that of this machine or container.",
)
@click.option(
    "--ready",
    is_flag=True,
    help="Also fail while Redis is away: for a readiness probe, not for a liveness probe.",
)
@click.option(
    "--container",
    is_flag=True,
    help="Whatever is the first process here: Flower and the exporter are asked by HTTP.",
)
@click.option("--pid", default=1, hidden=True, help="Another process than the first one.")
@as_json
def alive(
    role: str | None, host: str | None, ready: bool, container: bool, pid: int, as_json: bool
) -> None:  # noqa: FBT001 (click)
    """Exit with 0 if the worker or beat of this host was heard of lately.

    While Redis is away nobody can be heard, and to end a worker for it would help nobody: the
    answer then is 0, too, and with --ready it is 1.

    \b
    cavendish alive --role worker
    cavendish alive --role beat --ready
    """
    host = host or socket.gethostname()
    if container and (page := page_of(pid, Settings.load())):
        complaint = asked(page, PATIENCE)
        click.echo(complaint or f"{page} answers.", err=bool(complaint))
        sys.exit(bool(complaint))
    pulse = _within(PATIENCE, Settings.load(), role, host)
    good = pulse.alive or (bool(pulse.away) and not ready)
    if as_json:
        print_json(asdict(pulse) | {"role": role, "host": host})
    else:
        click.echo(pulse.told(f"{role or 'process'} of {host}"), err=not good)
    if not good:
        sys.exit(1)


def feel(store: Store, role: str | None, host: str) -> Pulse:
    """The pulse of the process of a host that was heard of last. Names are `role@host:pid`."""
    try:
        now = store.fleet.now()
        members = store.fleet.members(now)
    except StoreUnavailable as error:
        return Pulse(alive=False, away=str(error))
    there = [
        one
        for one in members
        if role in (None, one.role) and one.name.startswith(f"{one.role}@{host}:")
    ]
    if not there:
        return Pulse(alive=False)
    last = max(there, key=lambda member: member.at)
    return Pulse(last.alive(now), last.name, round(now - last.at, 3))


def _within(seconds: float, settings: Settings, role: str | None, host: str) -> Pulse:
    """The pulse, or that the store is away if it cannot be had in time."""
    found: list[Pulse | Exception] = []

    def poll() -> None:
        try:
            found.append(feel(Store(store_url(settings), settings.shards), role, host))
        except (
            Exception
        ) as error:  # a URL that cannot be used, for one: it is told where it can be seen
            found.append(error)

    thread = threading.Thread(target=poll, name="cavendish-alive", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        return Pulse(alive=False, away=f"Redis was silent for {seconds:g} s.")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


COMMANDS = (alive,)
