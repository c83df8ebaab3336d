"""The HTTP service on a socket that somebody else holds: systemd, or whoever starts it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cavendish_worker.devstack.ports import free_port
from conftest import Server
from deployed import DEPLOY
from programs import need

UNITS = DEPLOY / "systemd"
_CAVENDISH = [sys.executable, "-m", "cavendish_worker.cli"]


def setting(unit: str, name: str) -> str:
    """What a unit says, once."""
    (said,) = re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
    return str(said)


@contextmanager
def process(command: list[str], server: Server, *fds: int) -> Iterator[subprocess.Popen[str]]:
    environment = {"PATH": os.environ["PATH"], "CAVENDISH_REDIS_URL": server.url}
    with subprocess.Popen(
        command, env=environment, pass_fds=fds, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def ask(where: httpx.HTTPTransport, url: str) -> int:
    with httpx.Client(transport=where, timeout=60) as http:
        return http.get(f"{url}/readyz").status_code


def test_the_units_of_systemd_start_the_service_on_their_socket(own_server: Server) -> None:
    """By systemd's own program for that. Who connects before the service is up is answered."""
    need("systemd-socket-activate")
    port = free_port()
    at = setting("cavendish-http.socket", "ListenStream").replace("5556", str(port))
    program, *words = setting("cavendish-http.service", "ExecStart").split()
    assert Path(program).name == "cavendish"
    assert "cavendish-http.socket" in setting("cavendish-http.service", "Requires")
    starter = [shutil.which("systemd-socket-activate") or "", f"--listen={at}"]
    starter += ["--setenv=CAVENDISH_REDIS_URL", *_CAVENDISH, *words]
    with process(starter, own_server) as service:
        assert service.stderr is not None
        assert "Listening" in service.stderr.readline()
        assert ask(httpx.HTTPTransport(), f"http://127.0.0.1:{port}") == 200
        assert f"127.0.0.1:{port}" in "".join(service.stderr.readline() for _ in range(3))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_whoever_connects_between_two_services_of_a_socket_is_answered_by_the_second(
    own_server: Server, tmp_path: Path, family: socket.AddressFamily
) -> None:
    """Nothing is refused; the socket may be one of this machine only."""
    path = tmp_path / "http.sock"
    place = str(path) if family == socket.AF_UNIX else ("127.0.0.1", 0)
    way = httpx.HTTPTransport(uds=str(path) if family == socket.AF_UNIX else None)
    statuses = list[int]()
    with socket.create_server(place, family=family) as held:
        port = held.getsockname()[1] if family == socket.AF_INET else 80
        command = [*_CAVENDISH, "serve", "--fd", str(held.fileno())]
        url = f"http://127.0.0.1:{port}"
        with process(command, own_server, held.fileno()):
            assert ask(way, url) == 200
        asking = threading.Thread(target=lambda: statuses.append(ask(way, url)))
        asking.start()
        with process(command, own_server, held.fileno()):
            asking.join(60)
    assert statuses == [200]


def test_a_descriptor_that_cannot_be_served_is_one_sentence(
    own_server: Server, tmp_path: Path
) -> None:
    """None, a file, a socket that does not listen, one that others reach without TLS."""
    with (
        (tmp_path / "file").open("w") as file,
        socket.socket() as idle,
        socket.create_server(("0.0.0.0", 0)) as public,
    ):
        wrong = {99: "is no socket", file.fileno(): "is no socket"}
        wrong |= {idle.fileno(): "does not listen", public.fileno(): "Without TLS"}
        for number, why in wrong.items():
            command = [*_CAVENDISH, "serve", "--fd", str(number)]
            fds = () if number == 99 else (number,)
            with process(command, own_server, *fds) as service:
                said = service.communicate(timeout=60)[1]
            assert service.returncode == 1
            assert why in said
            assert said.count("\n") == 1
