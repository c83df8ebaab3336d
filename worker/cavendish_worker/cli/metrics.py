"""metrics: the numbers of the store, for Prometheus."""

from __future__ import annotations

import signal
import threading

import click

from cavendish.environment.env_parsers import listening
from cavendish.environment.local_paths import store_url
from cavendish.errors import StackError
from cavendish.policy.producer_quota import ProducerQuota
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.telemetry import logs
from cavendish_worker.telemetry.metrics import scraped, serving


def _where(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> tuple[str, int] | None:
    try:
        return None if text is None else listening(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


@click.command("metrics", short_help="Print or serve metrics of the store for Prometheus.")
@click.option(
    "--serve",
    metavar="[HOST:]PORT",
    callback=_where,
    help="Serve the metrics over HTTP until Ctrl-C (host: 127.0.0.1).",
)
@json_option
def command(serve: tuple[str, int] | None, as_json: bool) -> None:
    """Print metrics of the store in Prometheus' text format, or serve them.

    With --serve they are read anew for each scrape. While Redis is away the exit code is 1; served,
    `cavendish_store_up` is 0. Workers serve their own metrics at CAVENDISH_METRICS_PORT.

    \b
    cavendish metrics
    cavendish metrics --serve 0.0.0.0:9808
    """
    settings = Settings.load()
    store = Store(store_url(settings), settings.shards)
    quota = ProducerQuota(settings.producer_ids, settings.producer_bytes)
    registry = scraped.registry_of(store, settings.batch_size, settings.rate, quota)
    if serve is not None:
        logs.set_up(settings.log_format, settings.log_level)
        _serve(serve, registry)
        return
    if as_json:
        print_json(serving.samples(registry))
    else:
        click.echo(serving.text(registry), nl=False)
    store.fleet.now()  # raises where Redis is away


def _serve(where: tuple[str, int], registry: serving.Registry) -> None:
    """Serve until SIGTERM or SIGINT. Raises StackError if the port cannot be used."""
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    try:
        port = serving.serve(where, registry)
    except OSError as error:
        host, wanted = where
        said = f"{host}:{wanted} cannot be listened on: {error.strerror}."
        raise StackError(said) from None
    logs.logger().info("metrics.served", at=serving.address(where[0], port))
    done.wait()
