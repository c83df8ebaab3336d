"""Serves the HTTP service with uvicorn: its socket, its limits, and its end."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from cavendish.errors import StackError
from cavendish.settings import Settings
from cavendish_worker.devstack.ports import url_at
from cavendish_worker.service.application import create_app
from cavendish_worker.service.parts import Parts
from cavendish_worker.service.patience import Protocol
from cavendish_worker.service.request_log import RequestLog
from cavendish_worker.service.short_way import ShortWay
from cavendish_worker.telemetry.metrics import answered
from cavendish_worker.telemetry.metrics import serving as metrics

#: Seconds between the end of the waits and the end of the process, which it needs for itself.
_MARGIN = 3.0


@dataclass(frozen=True, slots=True)
class Transport:
    """How requests come in: a certificate and its private key (PEM), or a proxy that has them.

    `inherited`: the number of a file descriptor, a socket that listens already.
    """

    certificate: Path | None = None
    private_key: Path | None = None
    behind_proxy: bool = False
    inherited: int | None = None


class Server(uvicorn.Server):
    """A server whose end also ends the requests that it holds."""

    def __init__(self, config: uvicorn.Config, parts: Parts) -> None:
        super().__init__(config)
        self._parts = parts

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end it, and its exit code is then 0."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.end)
        yield

    def end(self) -> None:
        """Take no more requests, and answer those that are held."""
        self.should_exit = True
        self._parts.held.end()


def listen(settings: Settings, transport: Transport) -> socket.socket:
    """The socket of the service. Raises StackError if it may not or cannot listen there."""
    if transport.inherited is not None:
        listener = _inherited(transport.inherited)
        if listener.family == socket.AF_UNIX:
            return listener
        refuse_plain(listener.getsockname()[0], transport)
    else:
        refuse_plain(settings.http_address, transport)
        listener = _opened(settings.http_address, settings.http_port)
    # Each connection inherits it. asyncio sets it for sockets of its own making only, and without
    # it the body of an answer waits 40 ms for the acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of(listener: socket.socket, transport: Transport) -> str:
    """Where the service is found."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    at = url_at(*listener.getsockname()[:2])
    return at.replace("http", "https", 1) if transport.certificate else at


def _inherited(number: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=number)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        raise StackError(f"The file descriptor {number} is no socket.") from None
    if not listens:
        raise StackError(f"The file descriptor {number} is a socket that does not listen.")
    return listener


def _opened(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=2048)
    except OSError as error:
        said = f"{address}:{port} cannot be listened on: {error.strerror}."
        raise StackError(said) from None


def refuse_plain(address: str, transport: Transport) -> None:
    """Raise StackError where keys would travel unencrypted to this machine."""
    encrypted = transport.certificate is not None or transport.behind_proxy
    if not encrypted and not ip_address(address.partition("%")[0]).is_loopback:
        raise StackError(
            f"Without TLS the service listens on this machine only, not on {address}: give "
            "--certificate and --private-key, or --behind-proxy where a proxy has them."
        )


async def serve(settings: Settings, transport: Transport, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and the metrics of this process where they are wanted."""
    metrics.begin(settings.metrics_port, answered.REGISTRY)
    server = server_of(settings, transport)
    gc.collect()
    gc.freeze()  # what is there by now stays: to walk it again and again takes 60 ms each time
    await server.serve(sockets=[listener])


def server_of(settings: Settings, transport: Transport = Transport()) -> Server:
    """A server with parts of its own; call it in the event loop that it will run in."""
    parts = Parts.of(settings)
    config = uvicorn.Config(
        RequestLog(ShortWay(create_app(parts))),
        log_config=None,
        access_log=False,
        server_header=False,
        http=Protocol,
        ws="none",
        lifespan="on",
        proxy_headers=transport.behind_proxy,
        forwarded_allow_ips="*" if transport.behind_proxy else None,
        timeout_graceful_shutdown=max(round(settings.shutdown_timeout - _MARGIN), 1),
        ssl_certfile=transport.certificate,
        ssl_keyfile=transport.private_key,
    )
    return Server(config, parts)
