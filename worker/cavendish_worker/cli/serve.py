"""serve: the HTTP service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from cavendish.environment.local_paths import with_kept
from cavendish.errors import StackError
from cavendish.settings import Settings
from cavendish_worker.telemetry import logs

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("serve", short_help="Serve the HTTP API for programs in any language.")
@click.option("--certificate", type=_FILE, metavar="FILE", help="Certificate for TLS (PEM).")
@click.option(
    "--private-key", type=_FILE, metavar="FILE", help="Private key of the certificate (PEM)."
)
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="A proxy in front of the service has TLS: listen on any address, trust X-Forwarded-For.",
)
@click.option(
    "--fd",
    type=click.IntRange(3),
    metavar="NUMBER",
    help="Take an inherited socket that listens already, in place of address and port.",
)
def command(
    certificate: Path | None, private_key: Path | None, behind_proxy: bool, fd: int | None
) -> None:
    """Serve the HTTP API at CAVENDISH_HTTP_ADDRESS and CAVENDISH_HTTP_PORT until Ctrl-C.

    /docs describes the API for people, /openapi.json for programs. Without TLS the service listens
    on this machine only. It needs the extra `http`.

    \b
    cavendish serve
    CAVENDISH_HTTP_ADDRESS=0.0.0.0 cavendish serve --behind-proxy
    """
    try:
        from cavendish_worker.service import listening  # noqa: PLC0415 (it needs the extra)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cavendish"):
            raise
        raise StackError(
            f"`cavendish serve` needs {error.name}: pip install 'cavendish[worker,http]'"
        ) from None
    if bool(certificate) != bool(private_key):
        raise click.UsageError("--certificate and --private-key belong together.")
    settings = with_kept(Settings.load())
    logs.set_up(settings.log_format, settings.log_level)
    transport = listening.Transport(certificate, private_key, behind_proxy, fd)
    with listening.listen(settings, transport) as listener:
        logs.logger().info("http.served", at=listening.address_of(listener, transport))
        asyncio.run(listening.serve(settings, transport, listener))
