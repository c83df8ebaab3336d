"""The command line of the chaos.

Each part with a seed that is printed, so that a run can be replayed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chaos import disk, everywhere, restarts, rolling
from chaos.history import read
from chaos.reckoning import Reckoning, table

#: Seconds of killing, at least and at most, in which there must be a thousand kills, one at every
#: point, and 500 partitions.
LONG, LONGEST = 240.0, 540.0
#: Seconds from one partition to the next.
PARTITION_EVERY = 0.5
#: Where histories are kept.
KEPT = Path(".cavendish") / "chaos"
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
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    default=KEPT,
    show_default=True,
    help="Folder of the histories.",
)
def main(parts: tuple[str, ...], seed: int, seconds: float, python: str, keep: Path) -> None:
    """Prove the promise: nothing lost, whatever dies. All parts take about 15 minutes.

    `judge FILE` judges a history that was kept.
    """
    whole, split = seconds >= LONG, PARTITION_EVERY
    file = {part: keep / f"{part}-{seed}.jsonl" for part in PARTS}
    bars: dict[str, Any] = (
        {"at_most": LONGEST, "kills": 1000, "partitions": 500, "every_point": True} if whole else {}
    )
    every: dict[str, Callable[[], bool]] = {
        "kills": lambda: everywhere.run(
            everywhere.Plan(
                seed, seconds, slots=6, partition_every=split, keep=file["kills"], **bars
            ),
            click.echo,
        ),
        "prefork": lambda: everywhere.run(
            everywhere.Plan(
                seed,
                30.0,
                pool="prefork",
                slots=2,
                flower=False,
                door=False,
                partition_every=split,
                keep=file["prefork"],
            ),
            click.echo,
        ),
        "restarts": lambda: restarts.restarts(
            restarts.Plan(seed, 50, python=python, keep=file["restarts"]), click.echo
        ),
        "broker": lambda: restarts.broker_losses(
            restarts.Plan(seed, 8, keep=file["broker"]), click.echo
        ),
        "rolling": lambda: rolling.restarts(click.echo, 1),
        "disk": lambda: disk.costs(click.echo),
    }
    kept = {}
    for part in parts or PARTS:
        began = time.monotonic()
        kept[part] = every[part]()
        click.echo(
            f"{part}: {'kept' if kept[part] else 'BROKEN'}, seed {seed}, "
            f"{time.monotonic() - began:.0f} s"
        )
        click.echo(f"its history: {file[part]}\n" if file[part].exists() else "")
    sys.exit(0 if all(kept.values()) else 1)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def judge(file: Path) -> None:
    """Judge a history that was kept by an earlier run."""
    try:
        reckoning = Reckoning(read(file))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(table(reckoning.rows(), ("what", "number", "bar")) + "\n")
    click.echo(table(reckoning.happened(), ("what was done", "times")) + "\n")
    for proof in reckoning.proofs():
        click.echo(proof)
    sys.exit(0 if reckoning.kept else 1)
