"""The command line of the chaos.

Each part with a seed that is printed, so that a run can be replayed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click

from chaos import disk, everywhere, restarts, rolling

#: Seconds of killing, at least and at most, in which there must be a thousand kills, and one at
#: every point.
LONG, LONGEST = 240.0, 450.0
PARTS = ("kills", "prefork", "restarts", "broker", "rolling", "disk")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option(
    "--seed",
    type=int,
    default=lambda: int(time.time()) % 100_000,
    help="Replays the choices of an earlier run.",
)
@click.option(
    "--seconds",
    type=float,
    default=LONG,
    show_default=True,
    help="How long everything is killed everywhere.",
)
@click.option(
    "--celery",
    "python",
    default=sys.executable,
    metavar="PYTHON",
    help="Interpreter of the restarts' worker.",
)
def main(parts: tuple[str, ...], seed: int, seconds: float, python: str) -> None:
    """Prove the promise: nothing lost, whatever dies. All parts take less than 15 minutes."""
    whole = seconds >= LONG
    every: dict[str, Callable[[], bool]] = {
        "kills": lambda: everywhere.run(
            everywhere.Plan(
                seed,
                seconds,
                LONGEST if whole else 0.0,
                slots=6,
                kills=1000 if whole else 0,
                every_point=whole,
            ),
            click.echo,
        ),
        "prefork": lambda: everywhere.run(
            everywhere.Plan(seed, 30.0, pool="prefork", slots=2, flower=False, door=False),
            click.echo,
        ),
        "restarts": lambda: restarts.restarts(restarts.Plan(seed, 50, python=python), click.echo),
        "broker": lambda: restarts.broker_losses(restarts.Plan(seed, 8), click.echo),
        "rolling": lambda: rolling.restarts(click.echo, 1),
        "disk": lambda: disk.costs(click.echo),
    }
    kept = {}
    for part in parts or PARTS:
        began = time.monotonic()
        kept[part] = every[part]()
        click.echo(
            f"{part}: {'kept' if kept[part] else 'BROKEN'}, seed {seed}, {time.monotonic() - began:.0f} s\n"
        )
    sys.exit(0 if all(kept.values()) else 1)
