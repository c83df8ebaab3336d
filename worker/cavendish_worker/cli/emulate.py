"""emulate: a pretend API and a webhook receiver."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import click
import httpx

from cavendish.errors import StackError
from cavendish.settings import Settings
from cavendish_worker.cli.emulator_options import (
    failing_option,
    faults_option,
    median_option,
    rate_option,
    sigma_option,
)
from cavendish_worker.devstack.emulator import limits, serve
from cavendish_worker.devstack.emulator.api import Config, Emulator
from cavendish_worker.devstack.emulator.receiver import Receiver
from cavendish_worker.telemetry import logs


def _steps(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> limits.Steps:
    try:
        return limits.steps(texts)
    except ValueError:
        raise click.BadParameter("write seconds:rate, like 120:3") from None


@click.command(short_help="Serve a pretend API and a webhook receiver.")
@click.option(
    "--port", default=0, show_default="any free one", help="Port on the loopback interface."
)
@rate_option
@click.option(
    "--later",
    multiple=True,
    metavar="SECONDS:RATE",
    callback=_steps,
    help="Another rate from so long after the first task on.",
)
@click.option(
    "--burst", default=1.0, show_default=True, help="Calls that it allows at once after a rest."
)
@median_option
@sigma_option
@click.option("--most-ids", default=100, show_default=True, help="Most ids in one batch call.")
@click.option(
    "--token",
    "tokens",
    multiple=True,
    default=["emulated"],
    show_default=True,
    help="A token that it takes; each has its own tasks and its own limit.",
)
@click.option(
    "--seed",
    type=int,
    default=lambda: int.from_bytes(os.urandom(4), "big"),
    help="Repeats an earlier run's chances.",
)
@faults_option
@failing_option
def emulate(port: int, receiver_failing: float, **config: Any) -> None:
    """Serve a pretend Tasks API, and a webhook receiver that verifies signatures, on the loopback
    interface.

    POST /emulator/tasks/10 makes remote tasks, an id a line (/emulator/tasks {"count": 10}: in
    JSON); GET /emulator/tally tells what was asked; GET /emulator/ledger tells when each finished
    task was first seen finished; ?token= picks another token's. GET /receiver/ledger tells what
    arrived. Its token is `emulated`.

    \b
    cavendish emulate --port 8000 --rate 10 --faults 0.05
    """
    settings = Settings.load()
    logs.set_up(settings.log_format, settings.log_level)
    try:
        sockets, port = serve.bind(port)
    except OSError as error:
        raise StackError(f"Port {port} cannot be used: {error.strerror}.") from None
    emulator = Emulator(Config(**config))
    receiver = Receiver(settings.webhook_secret, failing=receiver_failing)

    async def handle(request: httpx.Request) -> httpx.Response:
        at_receiver = request.url.path.startswith("/receiver")
        return await (receiver.handle(request) if at_receiver else emulator.handle(request))

    logs.logger().info(
        "emulator.up", at=f"http://127.0.0.1:{port}", rate=config["rate"], faults=config["faults"]
    )
    asyncio.run(serve.serve(handle, sockets))


COMMANDS = (emulate,)
