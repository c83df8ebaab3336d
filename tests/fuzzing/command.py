"""The command line of the fuzz: a table of what was made and what went wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click

from cavendish.store import Store
from cavendish_worker.telemetry import logs
from conftest import Server
from fuzzing import http_requests, lines, receivers, stale, upstream, workers
from fuzzing.tally import Tally, table

#: How many of each kind are made: answers in two halves, stale bytes at each end.
COUNTS = {"answers": 100_000, "envelopes": 50_000, "lines": 20_000, "requests": 20_000}
COUNTS |= {"stale": 1_000}


def fuzz(kind: str, seed: int, count: int, server: Server) -> list[Tally]:
    """Make so many of one kind."""
    if kind == "answers":
        store = Store(server.url)
        try:
            return [
                receivers.run(seed, count - count // 2),
                upstream.run(seed, count // 2, store),
            ]
        finally:
            store.close()
    with_server: dict[str, Callable[[int, int, Server], Tally]] = {
        "envelopes": workers.run,
        "lines": lines.run,
        "requests": http_requests.run,
    }
    if kind in with_server:
        return [with_server[kind](seed, count, server)]
    return [stale.run(seed, count)]


@click.command()
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*COUNTS]),
    help="Only inputs of this kind; may be repeated.",
)
@click.option(
    "--seed",
    type=int,
    default=lambda: int(time.time()) % 100_000,
    help="Makes the inputs of an earlier run again.",
)
@click.option("--count", type=click.IntRange(min=1), help="How many of each kind.")
def main(only: tuple[str, ...], seed: int, count: int | None) -> None:
    """Generated answers, messages and lines of stdin, to real parts over real sockets.

    Ends with 1 if one of them caused a traceback or a death, or was acknowledged wrongly.
    """
    logs.set_up("console", "critical")  # each refusal is a line, and there are many
    tallies = list[Tally]()
    for kind in only or COUNTS:
        server = Server()
        server.start()
        try:
            tallies += fuzz(kind, seed, count or COUNTS[kind], server)
        finally:
            server.close()
    for one in tallies:
        for finding in one.findings:
            click.echo(f"{one.kind}: {finding}")
        for note in one.notes:
            click.echo(f"{one.kind}: {note}")
    click.echo(table(tallies))
    sys.exit(not all(one.clean for one in tallies))
