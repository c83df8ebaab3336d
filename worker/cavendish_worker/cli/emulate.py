"""emulate: an emulated API and a webhook receiver."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import click
import httpx

from cavendish.errors import StackError
from cavendish.settings import Settings
from cavendish_worker.cli.emulator_options import emulator_options
from cavendish_worker.cli.options import Number
from cavendish_worker.devstack.emulator import limits, serve
from cavendish_worker.devstack.emulator.receiver import Receiver
from cavendish_worker.devstack.emulator.tasks_api import Emulator, EmulatorConfig
from cavendish_worker.telemetry import logs


def _steps(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> limits.Steps:
    try:
        return limits.steps(texts)
    except ValueError:
        raise click.BadParameter("must be seconds:rate, such as 120:3.") from None


@click.command("emulate", short_help="Serve an emulated API and a webhook receiver.")
@click.option(
    "--port",
    default=0,
    type=click.IntRange(0, 65_535),
    show_default="any free one",
    help="Port on 127.0.0.1.",
)
@click.option(
    "--later",
    multiple=True,
    metavar="SECONDS:RATE",
    callback=_steps,
    help="Another rate, this many seconds after the first task; may be repeated.",
)
@click.option(
    "--burst",
    default=1.0,
    type=Number(1),
    show_default=True,
    help="Calls allowed at once after a rest.",
)
@click.option(
    "--most-ids",
    default=100,
    type=click.IntRange(1),
    show_default=True,
    help="Maximum ids in one batch call.",
)
@click.option(
    "--token",
    "tokens",
    multiple=True,
    default=["emulated"],
    show_default=True,
    help="A token that is accepted, with tasks and a rate limit of its own; may be repeated.",
)
@click.option(
    "--seed",
    type=int,
    default=lambda: int.from_bytes(os.urandom(4), "big"),
    help="Seed of the random numbers, to repeat an earlier run.",
)
@emulator_options
def command(port: int, receiver_failing: float, **config: Any) -> None:
    """Serve an emulated Tasks API, and a webhook receiver that verifies signatures.

    POST /emulator/tasks/10 makes ten remote tasks and answers an id per line (/emulator/tasks with
    {"count": 10}: as JSON); GET /emulator/tally counts the calls; GET /emulator/ledger shows when
    a call first found each task finished; ?token= selects another token. GET /receiver/ledger
    lists the webhooks that arrived. The token is `emulated`.

    \b
    cavendish emulate --port 8000 --rate 10 --faults 0.05
    """
    settings = Settings.load()
    logs.set_up(settings.log_format, settings.log_level)
    try:
        sockets, port = serve.bind(port)
    except OSError as error:
        raise StackError(f"Port {port} cannot be used: {error.strerror}.") from None
    emulator = Emulator(EmulatorConfig(**config, services=settings.services))
    receiver = Receiver(settings.webhook_secret, failing=receiver_failing)

    async def handle(request: httpx.Request) -> httpx.Response:
        at_receiver = request.url.path.startswith("/receiver")
        return await (receiver.handle(request) if at_receiver else emulator.handle(request))

    where = f"http://127.0.0.1:{port}"
    logs.logger().info("emulator.up", at=where, rate=config["rate"], faults=config["faults"])
    asyncio.run(serve.serve(handle, sockets))
