"""The proxy of the chaos: each fault, by real sockets between real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cavendish.store import Store
from chaos import history
from chaos.partitioner import Partitioner
from chaos.partitions import KINDS, WAYS, Fault, Network, Place
from conftest import Server

#: Seconds in which nothing comes that does not come at all.
SILENCE = 0.3


class Echo:
    """A server that answers each piece of what it gets with the same, and keeps it."""

    def __init__(self, at: Place) -> None:
        family = socket.AF_UNIX if isinstance(at, Path) else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.bind(str(at) if isinstance(at, Path) else ("127.0.0.1", at))
        self._socket.listen()
        self.at: Place = at if isinstance(at, Path) else self._socket.getsockname()[1]
        self.got = b""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(
                    target=self._serve, args=self._socket.accept()[:1], daemon=True
                ).start()

    def _serve(self, connection: socket.socket) -> None:
        with closing(connection), suppress(OSError):
            while data := connection.recv(65536):
                self.got += data
                connection.sendall(data)

    def close(self) -> None:
        self._socket.close()


def to(place: Place) -> socket.socket:
    """A connection, on which a silence ends in TimeoutError."""
    connection = socket.socket(socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET)
    connection.settimeout(5)
    try:
        connection.connect(str(place) if isinstance(place, Path) else ("127.0.0.1", place))
    except OSError:
        connection.close()
        raise
    return connection


def silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE)
    try:
        return connection.recv(1) is None
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)


def ended(connection: socket.socket) -> bool:
    """True if it was reset or closed."""
    try:
        return connection.recv(1) == b""
    except (ConnectionResetError, BrokenPipeError):
        return True


def whole(connection: socket.socket, count: int) -> bytes:
    """So many bytes, or what came before the end."""
    data = b""
    with suppress(ConnectionError):
        while len(data) < count and (more := connection.recv(count - len(data))):
            data += more
    return data


def eventually(asked: object) -> None:
    until = time.monotonic() + 5
    while not asked():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.01)


class Between:
    """A front, what is behind it, and a connection through it."""

    def __init__(self, network: Network, echo: Echo, front: Place) -> None:
        self.network, self.echo, self.front = network, echo, front
        self.connection = to(front)
        self.connection.sendall(b"hello")
        assert whole(self.connection, 5) == b"hello"


@pytest.fixture(params=["unix", "tcp"])
def between(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Between]:
    unix = request.param == "unix"
    echo, network = Echo(tmp_path / "echo" if unix else 0), Network()
    made = Between(network, echo, network.open("echo", echo.at, tmp_path / "front" if unix else 0))
    yield made
    made.connection.close()
    network.close()
    echo.close()


def fault(kind: str, way: str = "both", **more: object) -> Fault:
    return Fault(kind, ("echo",), way, **more)  # type: ignore[arg-type]


def test_without_a_fault_everything_passes_both_ways_to_its_end(between: Between) -> None:
    data = bytes(range(256)) * 4000
    threading.Thread(target=between.connection.sendall, args=(data,), daemon=True).start()
    assert whole(between.connection, len(data)) == data
    between.connection.shutdown(socket.SHUT_WR)
    assert ended(between.connection)
    eventually(lambda: not between.network.linked())


def test_cut_resets_what_is_connected_and_what_connects_until_it_ends(between: Between) -> None:
    cut = fault("cut")
    between.network.begin(cut)
    assert ended(between.connection)
    with suppress(OSError), to(between.front) as late:
        assert ended(late)
    between.network.end(cut)
    with to(between.front) as restart:
        restart.sendall(b"x")
        assert whole(restart, 1) == b"x"


def test_a_cut_on_the_way_down_loses_the_answer_of_what_was_done(between: Between) -> None:
    between.network.begin(fault("cut", "down"))
    between.connection.sendall(b"do it")
    assert ended(between.connection)
    assert between.echo.got == b"hellodo it"


def test_a_cut_on_the_way_up_lets_nothing_reach_the_server(between: Between) -> None:
    between.network.begin(fault("cut", "up"))
    between.connection.sendall(b"do it")
    assert ended(between.connection)
    assert between.echo.got == b"hello"


@pytest.mark.parametrize(("way", "reaches"), [("up", False), ("down", True), ("both", False)])
def test_a_freeze_takes_connections_and_forwards_nothing_until_it_ends(
    between: Between, way: str, reaches: bool
) -> None:
    freeze = fault("freeze", way)
    between.network.begin(freeze)
    with to(between.front) as late:
        for one in (between.connection, late):
            one.sendall(b"x")
            assert silent(one)
        eventually(lambda: between.echo.got == (b"helloxx" if reaches else b"hello"))
        between.network.end(freeze)
        assert whole(between.connection, 1) == whole(late, 1) == b"x"


def test_a_lossy_freeze_resets_only_the_connections_that_held_something(between: Between) -> None:
    freeze = fault("freeze", "down", lossy=True)
    with to(between.front) as idle:
        idle.sendall(b"a")
        assert whole(idle, 1) == b"a"
        between.network.begin(freeze)
        between.connection.sendall(b"x")
        assert silent(between.connection)
        between.network.end(freeze)
        assert ended(between.connection)
        idle.sendall(b"b")
        assert whole(idle, 1) == b"b"


def test_a_delay_keeps_the_order_and_each_piece_comes_that_much_later(between: Between) -> None:
    between.network.begin(fault("delay", "down", seconds=1.0))
    began = time.monotonic()
    for piece in (b"a", b"b", b"c"):
        between.connection.sendall(piece)
        time.sleep(0.05)
    eventually(lambda: between.echo.got == b"helloabc")
    assert whole(between.connection, 3) == b"abc"
    assert time.monotonic() - began >= 1.0  # not sooner; how much later is the machine's business


@pytest.mark.parametrize("after", [0, 1, 7, 9])
def test_a_tear_lets_so_many_bytes_of_the_answer_pass(between: Between, after: int) -> None:
    between.network.begin(fault("tear", "down", after=after))
    between.connection.sendall(b"0123")
    assert whole(between.connection, 4) == b"0123"[:after]
    if after > 4:
        between.connection.sendall(b"4567890")
        assert whole(between.connection, 7) == b"4567890"[: after - 4]
    assert ended(between.connection)


def test_a_tear_on_the_way_up_lets_so_many_bytes_of_the_request_pass(between: Between) -> None:
    between.network.begin(fault("tear", "up", after=2))
    between.connection.sendall(b"0123")
    eventually(lambda: between.echo.got == b"hello01")
    whole(between.connection, 2)
    assert ended(between.connection)


def test_nobody_behind_the_front_is_a_connection_that_ends(
    between: Between, tmp_path: Path
) -> None:
    nobody = tmp_path / "nobody" if isinstance(between.front, Path) else 1
    front = between.network.open(
        "nobody", nobody, tmp_path / "nobody-front" if isinstance(nobody, Path) else 0
    )
    with suppress(OSError), to(front) as connection:
        assert ended(connection)


_CLIENT = """
import socket, sys
from chaos.partitions import sign
sign()
place = sys.argv[1]
one = socket.socket(socket.AF_UNIX if "/" in place else socket.AF_INET)
one.connect(place if "/" in place else ("127.0.0.1", int(place)))
for line in sys.stdin:
    try:
        one.sendall(b"x")
        print("answered" if one.recv(1) else "ended", flush=True)
    except OSError:
        print("ended", flush=True)
"""


def test_a_fault_of_one_process_leaves_the_others_alone(between: Between) -> None:
    command = [sys.executable, "-c", _CLIENT, str(between.front)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    found = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    both = [subprocess.Popen(command, text=True, bufsize=1, env=found, **pipes) for _ in range(2)]  # type: ignore[call-overload]

    def asked() -> list[str]:
        for one in both:
            one.stdin.write("go\n")
        return [one.stdout.readline().strip() for one in both]

    assert asked() == ["answered", "answered"]
    assert between.network.linked()["echo", str(both[0].pid)] == 1
    between.network.begin(fault("cut", of=str(both[0].pid)))
    assert asked() == ["ended", "answered"]
    for one in both:
        with one:
            one.stdin.close()


def test_a_fault_of_another_front_changes_nothing(between: Between) -> None:
    between.network.begin(Fault("cut", ("redis", "api")))
    between.connection.sendall(b"x")
    assert whole(between.connection, 1) == b"x"


def test_chosen_partitions_come_from_the_seed_are_noted_and_end(tmp_path: Path) -> None:
    """Two partitioners of one seed choose alike.

    Each partition that began has its end in the history.
    """
    told = []
    for name in ("one", "two"):
        network, written = Network(), history.History(tmp_path / name, name, history.offset())
        chosen = Partitioner(network, written, 7, 0.0, lambda: ["w1", "w2"])
        while chosen.total < 60:
            chosen.go()
        chosen.heal()
        network.close()
        written.close()
        told.append(history.read(tmp_path / name))
    about = ("kind", "way", "fronts", "of", "seconds", "after", "lossy")
    one, two = (
        [[line[key] for key in about] for line in lines if line["phase"] == "begin"]
        for lines in told
    )
    assert one == two
    assert {(row[0], row[1]) for row in one} == {(kind, way) for kind in KINDS for way in WAYS}
    assert {row[3] for row in one} == {None, "w1", "w2"}
    assert sum(line["phase"] == "end" for line in told[0]) == len(one) == 60


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_clock_that_was_asked_for_over_a_slow_connection_is_right_all_the_same(
    server: Server, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delay of one direction would set it off by half of it: it lasts for the first answer."""
    network = Network()
    try:
        front = network.open("redis", server.socket, 0)
        store = Store(f"redis://127.0.0.1:{front}/0")
        store.fleet.now()  # connected
        fault = Fault("delay", ("redis",), way, seconds=1.0)
        network.begin(fault)
        real, asked = store.fleet.now, list[int]()

        def now() -> float:
            asked.append(1)
            try:
                return real()
            finally:
                network.end(fault)

        monkeypatch.setattr(store.fleet, "now", now)
        clock = store.clock()
        assert len(asked) > 1
        direct = Store(server.url).fleet
        before, shown, after = direct.now(), clock.now(), direct.now()
        assert before - 0.3 < shown < after + 0.3
        store.close()
    finally:
        network.close()
