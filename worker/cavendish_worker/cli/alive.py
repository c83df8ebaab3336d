"""alive: the probe that an orchestrator runs in the container of a worker or a beat."""

from __future__ import annotations

import socket
import sys
import threading
from dataclasses import asdict, dataclass

import click

from cavendish.environment.local_paths import store_url
from cavendish.errors import StoreUnavailable
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.cli.container import complaint_of, page_of
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json

#: Seconds after which the store counts as away, whatever the reason (a resolver, for example, may
#: take half a minute): an orchestrator counts a probe that it must cut off as failed, and would
#: end a worker because Redis is silent.
PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the store knows of the processes of a host.

    `ago`: seconds since the last heartbeat, None for none. `away`: why the store cannot say.
    """

    alive: bool
    process: str = ""
    ago: float | None = None
    away: str = ""

    def sentence(self, role: str, host: str) -> str:
        """The same for people."""
        if self.away:
            return f"Cannot tell whether the {role} of {host} is alive: {self.away}"
        if self.ago is None:
            return f"No {role} is registered for host {host}."
        too_old = "" if self.alive else ", which is too long ago"
        return f"The last heartbeat of {self.process} came {self.ago:.1f} s ago{too_old}."


@click.command("alive", short_help="Check whether the worker or beat of this host is alive.")
@click.option(
    "--role",
    type=click.Choice(["worker", "beat"]),
    help="Role of the process; default: any process of the host.",
)
@click.option(
    "--name",
    "host",
    metavar="HOST",
    help="Host name of the process; default: that of this machine or container.",
)
@click.option(
    "--ready",
    is_flag=True,
    help="Also fail while Redis is away: for a readiness probe, not for a liveness probe.",
)
@click.option(
    "--container",
    is_flag=True,
    help="Check whatever the first process of this container is; Flower and the exporter by HTTP.",
)
@click.option("--pid", default=1, hidden=True, help="Check this process, not the first one.")
@json_option
def command(
    role: str | None, host: str | None, ready: bool, container: bool, pid: int, as_json: bool
) -> None:
    """Exit with 0 if the worker or beat of this host sent a heartbeat lately.

    While Redis is away no heartbeat can be read, and ending a worker would not help: the exit
    code is then 0, too; with --ready it is 1.

    \b
    cavendish alive --role worker
    cavendish alive --role beat --ready
    """
    host = host or socket.gethostname()
    if container and (page := page_of(pid, Settings.load())):
        complaint = complaint_of(page, PATIENCE)
        click.echo(complaint or f"{page} answers.", err=bool(complaint))
        sys.exit(bool(complaint))
    pulse = _within(PATIENCE, Settings.load(), role, host)
    good = pulse.alive or (bool(pulse.away) and not ready)
    if as_json:
        print_json(asdict(pulse) | {"role": role, "host": host})
    else:
        click.echo(pulse.sentence(role or "process", host), err=not good)
    if not good:
        sys.exit(1)


def _read(store: Store, role: str | None, host: str) -> Pulse:
    """The pulse of the process with the last heartbeat. Names are `role@host:pid`."""
    try:
        now = store.fleet.now()
        members = store.fleet.members(now)
    except StoreUnavailable as error:
        return Pulse(alive=False, away=str(error))
    of_host = [
        member
        for member in members
        if role in (None, member.role) and member.name.startswith(f"{member.role}@{host}:")
    ]
    if not of_host:
        return Pulse(alive=False)
    last = max(of_host, key=lambda member: member.at)
    return Pulse(last.alive(now), last.name, round(now - last.at, 3))


def _within(seconds: float, settings: Settings, role: str | None, host: str) -> Pulse:
    """The pulse, or that the store is away if it does not answer in time."""
    found: list[Pulse | Exception] = []

    def read() -> None:
        try:
            found.append(_read(Store(store_url(settings), settings.shards), role, host))
        except Exception as error:  # for example a wrong URL: raised again below
            found.append(error)

    thread = threading.Thread(target=read, name="cavendish-alive", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        return Pulse(alive=False, away=f"Redis was silent for {seconds:g} s.")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]
