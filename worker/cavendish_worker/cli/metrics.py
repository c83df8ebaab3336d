"""metrics: what the store says, for Prometheus."""

from __future__ import annotations

import signal
import threading

import click

from cavendish.env_parsers import listening
from cavendish.errors import StackError
from cavendish.local_paths import store_url
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.cli.output import as_json as json_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.telemetry import logs
from cavendish_worker.telemetry.metrics import scraped, serving


def _where(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[str, int] | None:
    if text is None:
        return None
    try:
        return listening(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


@click.command(short_help="Print or serve what the store says, for Prometheus.")
@click.option(
    "--serve",
    metavar="[HOST:]PORT",
    callback=_where,
    help="Serve them for scrapes, until Ctrl-C (host: 127.0.0.1).",
)
@json_option
def metrics(serve: tuple[str, int] | None, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Print what the store says, in Prometheus' text format; or serve it, read anew at each scrape.

    Exit code 1 if Redis is away; served, that is `cavendish_store_up 0`. Workers serve their own by
    CAVENDISH_METRICS_PORT.

    \b
    cavendish metrics
    cavendish metrics --serve 0.0.0.0:9808
    """
    settings = Settings.load()
    store = Store(store_url(settings), settings.shards)
    registry = scraped.registry_of(store, settings.batch_size, settings.rate)
    if serve is None:
        _print(registry, as_json=as_json)
        store.fleet.now()  # raises where Redis is away
        return
    logs.set_up(settings.log_format, settings.log_level)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    try:
        port = serving.serve(serve, registry)
    except OSError as error:
        raise StackError(
            f"{serve[0]}:{serve[1]} cannot be listened on: {error.strerror}."
        ) from None
    logs.logger().info("metrics.served", at=serving.address(serve[0], port))
    done.wait()


def _print(registry: serving.Registry, *, as_json: bool) -> None:
    if as_json:
        print_json(serving.samples(registry))
    else:
        click.echo(serving.text(registry), nl=False)


COMMANDS = (metrics,)
