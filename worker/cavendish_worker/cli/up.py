"""up and emulate: what runs on this machine."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
from typing import Any

import click
import httpx

from cavendish.errors import StackError
from cavendish.local_paths import without_password
from cavendish.settings import Settings, env_name
from cavendish_worker.devstack.emulator import limits, serve
from cavendish_worker.devstack.emulator.api import Config, Emulator
from cavendish_worker.devstack.emulator.receiver import Receiver
from cavendish_worker.devstack.stack import Stack
from cavendish_worker.telemetry import logs

_HOW_TO_BEGIN = """\
There is no token for the remote API yet.

  To try everything on this machine, with a pretend API and nothing to sign up for:
      cavendish up --emulate

  To track real tasks, with a token of your own:
      1. Sign in at https://platform.acedata.cloud, open the page of a service (such as Nano Banana), and copy its token.
      2. export CAVENDISH_API_TOKEN=…
      3. cavendish up

  Several accounts: CAVENDISH_API_TOKENS_FILE names a JSON file, {"account": "token"}."""

_share = click.FloatRange(0, 1)
_rate = click.option(
    "--rate",
    default=10.0,
    type=click.FloatRange(min=0),
    show_default=True,
    help="Calls per second that the pretend API allows.",
)
_median = click.option(
    "--median",
    default=6.0,
    type=click.FloatRange(min=0),
    show_default=True,
    help="Median seconds that its tasks take.",
)
_sigma = click.option(
    "--sigma",
    default=0.5,
    type=click.FloatRange(min=0),
    show_default=True,
    help="Spread of those seconds (of their logarithm).",
)
_faults = click.option(
    "--faults",
    default=0.0,
    type=_share,
    show_default=True,
    help="Share of calls that fail, 0 to 1.",
)
_failing = click.option(
    "--receiver-failing",
    default=0.0,
    type=_share,
    show_default=True,
    help="Share of webhooks that its receiver refuses, 0 to 1.",
)


@click.command(short_help="Run the whole stack on this machine.")
@click.option("--emulate", is_flag=True, help="Bring a pretend API and a webhook receiver along.")
@_rate
@_median
@_sigma
@_faults
@_failing
@click.option("--flower/--no-flower", default=True, show_default=True, help="Start Flower.")
def up(emulate: bool, flower: bool, **config: float) -> None:  # noqa: FBT001 (click)
    """Run the whole stack on this machine: Redis (embedded unless CAVENDISH_REDIS_URL is set),
    worker, beat, Flower.

    \b
    cavendish up --emulate                         with a pretend API, to try everything
    CAVENDISH_API_TOKEN=… cavendish up             for real
    """
    settings = Settings.load()
    logs.set_up(settings.log_format, settings.log_level)
    if not emulate and not settings.tokens():
        raise StackError(_HOW_TO_BEGIN)
    options = [
        word
        for name, value in config.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    Stack(settings, emulate=options if emulate else None, flower=flower).up(_announce)


def _announce(facts: dict[str, object]) -> None:
    for name in ("book", "broker", "api", "receiver", "flower"):
        if name in facts:
            logs.logger().info("stack.up", part=name, at=without_password(str(facts[name])))
    logs.logger().info("stack.hint", stop="Ctrl-C", see=f"{ourselves()} top")
    if "api" in facts:
        make = f"curl -sX POST {facts['api']}/emulator/tasks/3"
        logs.logger().info(
            "stack.hint",
            try_it=f"{make} | {ourselves()} submit --service nano-banana --webhook {facts['receiver']} -",
        )


def ourselves() -> str:
    """How another terminal in this folder runs our commands.

    They may lie in a virtual environment that is not active there.
    """
    command = shlex.quote(sys.argv[0])
    if shutil.which("cavendish"):
        command = "cavendish"
    elif sys.argv[0].endswith("__main__.py"):
        command = f"{shlex.quote(sys.executable)} -m cavendish_worker.cli"
    where = os.environ.get(env_name("data_dir"))
    return f"{env_name('data_dir')}={shlex.quote(where)} {command}" if where else command


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
@_rate
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
@_median
@_sigma
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
@_faults
@_failing
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


COMMANDS = (up, emulate)
