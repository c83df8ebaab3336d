"""up: the whole stack on this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import sys

import click

from cavendish.errors import StackError
from cavendish.local_paths import without_password
from cavendish.settings import Settings, env_name
from cavendish_worker.cli.emulator_options import (
    failing_option,
    faults_option,
    median_option,
    rate_option,
    sigma_option,
)
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


@click.command(short_help="Run the whole stack on this machine.")
@click.option("--emulate", is_flag=True, help="Bring a pretend API and a webhook receiver along.")
@rate_option
@median_option
@sigma_option
@faults_option
@failing_option
@click.option("--flower/--no-flower", default=True, show_default=True, help="Start Flower.")
def up(emulate: bool, flower: bool, **config: float) -> None:
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
    for name in ("store", "broker", "api", "receiver", "flower"):
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


COMMANDS = (up,)
