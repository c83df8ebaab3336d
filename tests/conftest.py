"""The real parts that tests use.

A Redis server of their own, and HTTP servers on the loopback interface.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import httpx
import pytest
from hypothesis import settings as hypothesis_settings

import bodies
from cavendish import Client
from cavendish.settings import Settings, env_name
from cavendish.store import Store
from cavendish_worker.devstack import embedded_redis as embedded
from cavendish_worker.devstack.emulator import serve
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.telemetry import logs
from delivering import SECRET, Delivering
from shell import Run, shell

#: Nothing is timed in a test: the machine may have better things to do.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

#: Who runs the tests in the background may have them ignore these, and then every process that they
#: start would, too.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each process of xdist begin with its share of the long tests, which mostly wait.

    `--dist worksteal` gives each process an equal part of the list, from its beginning to its end.
    Else the long tests run in few processes, and the last of them alone.
    """
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if "acceptance" in item.path.parts]
    short = iter([item for item in items if "acceptance" not in item.path.parts])
    sizes = [len(items[first::count]) for first in range(count)]
    shares = [long[first::count] for first in range(count)]
    items[:] = [
        item
        for share, size in zip(shares, sizes, strict=True)
        for item in [*share, *islice(short, max(size - len(share), 0))]
    ] + list(short)


class Server:
    """An embedded Redis that a test may kill and start again."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cavendish-test-"))
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}?db=0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = embedded.arguments(self.folder, self.socket)
        self.process = subprocess.Popen(command, env=embedded.environment(), process_group=0)
        embedded.wait_for(self.url, self.process, self.folder / "redis" / "server.log")

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(10)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.kill(signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in [name for name in os.environ if name.startswith("CAVENDISH_")]:
        monkeypatch.delenv(name)
    logs.set_up("console", "error")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The Redis that tests share; each finds it empty."""
    shared = Server()
    shared.start()
    yield shared
    shared.close()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A Redis for one test, which may kill it."""
    own = Server()
    own.start()
    yield own
    own.close()


@pytest.fixture
def store(server: Server) -> Iterator[Store]:
    """An empty store."""
    opened = Store(server.url)
    opened.connection.redis.flushall()
    yield opened
    opened.close()


@pytest.fixture
def settings(server: Server) -> Settings:
    """Settings for the shared Redis; loopback may be dialled."""
    return Settings.load(
        {
            "CAVENDISH_REDIS_URL": server.url,
            "CAVENDISH_API_TOKEN": "emulated",
            "CAVENDISH_WEBHOOK_SECRET": SECRET,
            "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
        }
    )


@pytest.fixture
def client(store: Store, settings: Settings) -> Iterator[Client]:
    """A client of the empty store."""
    with Client(settings=settings) as opened:
        yield opened


@pytest.fixture
def run(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `cavendish` with the shared Redis."""
    monkeypatch.setenv(env_name("redis_url"), settings.redis_url)
    return shell


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    """The event loop of a worker process."""
    thread = LoopThread()
    yield thread
    thread.close()


@contextmanager
def http_server(handler: serve.Handler) -> Iterator[str]:
    """A real HTTP server for a handler, in a thread of its own; yields its address.

    The body of each signed webhook that comes is held against the published schema.
    """
    complaints = list[str]()

    async def checked(request: httpx.Request) -> httpx.Response:
        if "webhook-signature" in request.headers:
            complaints.extend(filter(None, [bodies.complaint(await request.aread())]))
        return await handler(request)

    sockets, port = serve.bind(0)
    started, stop = threading.Event(), asyncio.Event()
    held: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        held.append(asyncio.get_running_loop())
        started.set()
        await serve.serve(checked, sockets, stop)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    started.wait(5)
    yield f"http://127.0.0.1:{port}"
    held[0].call_soon_threadsafe(stop.set)
    thread.join(5)
    assert complaints == []


@pytest.fixture
def served() -> Iterator[Callable[[Callable[[httpx.Request], object]], str]]:
    """Serve handlers of httpx requests over real HTTP for the length of a test."""
    with ExitStack() as stack:
        yield lambda handler: stack.enter_context(http_server(handler))  # type: ignore[arg-type]


@pytest.fixture
def endpoint_index(
    store: Store, loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Delivering]:
    """Deliveries and delivery workers.

    Their rounds end almost as soon as nothing is due, so that a test can look at what waits.
    """
    monkeypatch.setattr("cavendish_worker.webhooks.delivery_loop.PATIENCE", 0.05)
    bench = Delivering(store, loop)
    yield bench
    for transport in bench.transports.values():
        loop.run(transport.aclose(), timeout=5)
