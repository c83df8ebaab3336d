"""up: the whole stack on this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from ipaddress import ip_address

import click

from cavendish.environment.local_paths import without_password
from cavendish.errors import StackError
from cavendish.settings import Settings, env_name
from cavendish_worker.cli.emulator_options import emulator_options
from cavendish_worker.devstack.stack import Stack
from cavendish_worker.telemetry import logs

_FIRST_STEPS = """\
There is no token for the remote API yet.

  To try everything on this machine, with an emulated API and nothing to sign up for:
      cavendish up --emulate

  To track real tasks, with a token of your own:
      1. Sign in at https://platform.acedata.cloud, open the page of a service (such as
         Nano Banana), and copy its token.
      2. export CAVENDISH_API_TOKEN=…
      3. cavendish up

  Several accounts: CAVENDISH_API_TOKENS_FILE names a JSON file, {"account": "token"}."""


@click.command("up", short_help="Run the whole stack on this machine.")
@click.option("--emulate", is_flag=True, help="Also run an emulated API and a webhook receiver.")
@emulator_options
@click.option("--flower/--no-flower", default=True, show_default=True, help="Start Flower.")
@click.option("--http/--no-http", default=True, show_default=True, help="Start the HTTP service.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=lambda: max((os.cpu_count() or 1) // 2, 1),
    show_default="one per two cores",
    help="Number of worker processes.",
)
def command(emulate: bool, flower: bool, http: bool, workers: int, **config: float) -> None:
    """Run the whole stack on this machine: Redis, worker, beat, Flower and the HTTP service.

    Redis is an embedded server unless CAVENDISH_REDIS_URL is set.

    \b
    cavendish up --emulate                         with an emulated API, to try everything
    CAVENDISH_API_TOKEN=… cavendish up             with the real API
    """
    settings = Settings.load()
    logs.set_up(settings.log_format, settings.log_level)
    if not emulate and not settings.tokens():
        raise StackError(_FIRST_STEPS)
    http = http and _can_serve(settings)
    pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in config.items()]
    options = [word for pair in pairs for word in pair]
    emulator = options if emulate else None
    Stack(settings, emulate=emulator, flower=flower, http=http, workers=workers).up(_announce)


def _can_serve(settings: Settings) -> bool:
    """False without the extra `http`. Raises StackError for an address that others reach."""
    if not ip_address(settings.http_address).is_loopback:
        raise StackError(
            "`cavendish up` serves HTTP to this machine only: unset CAVENDISH_HTTP_ADDRESS, or "
            "give --no-http, and run `cavendish serve` beside it."
        )
    installed = all(map(find_spec, ("fastapi", "uvicorn")))
    if not installed:
        logs.logger().warning("http.off", install="pip install 'cavendish[worker,http]'")
    return installed


def _announce(facts: dict[str, object]) -> None:
    """Log where each part is, and what to try first."""
    for name in ("store", "broker", "api", "receiver", "flower", "http"):
        if name in facts:
            logs.logger().info("stack.up", part=name, at=without_password(str(facts[name])))
    if "http_key" in facts:
        logs.logger().info("stack.hint", http_key=facts["http_key"], see=f"{facts['http']}/docs")
    ours = our_command()
    logs.logger().info("stack.hint", stop="Ctrl-C", see=f"{ours} top")
    if "api" in facts:
        make = f"curl -sX POST {facts['api']}/emulator/tasks/3"
        track = f"{ours} submit --service nano-banana --webhook {facts['receiver']} -"
        logs.logger().info("stack.hint", try_it=f"{make} | {track}")


def our_command() -> str:
    """The command line by which another terminal in this folder runs our commands.

    A virtual environment with our commands may not be active there. A folder whose path the log
    cannot show as a shell reads it is left to the reader.
    """
    command = shlex.quote(sys.argv[0])
    if shutil.which("cavendish"):
        command = "cavendish"
    elif sys.argv[0].endswith("__main__.py"):
        command = f"{shlex.quote(sys.executable)} -m cavendish_worker.cli"
    if not (folder := os.environ.get(env_name("data_dir"))):
        return command
    where = shlex.quote(folder)
    return f"{env_name('data_dir')}={where if repr(where)[1:-1] == where else '…'} {command}"
