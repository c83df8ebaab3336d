"""The connections of the HTTP service, on its own socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.service.listening import Transport, listen
from serving import service


def test_a_connection_sends_each_piece_of_an_answer_at_once() -> None:
    """Else the body waits until the head is acknowledged, which takes a caller 40 ms."""
    settings = replace(Settings.load({}), http_port=0)
    with (
        listen(settings, Transport()) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.fixture
def connection(store: Store, settings: Settings) -> Iterator[socket.socket]:
    """A connection to a service."""
    with service(settings) as address:
        where = urlsplit(address)
        with socket.create_connection((where.hostname, where.port), timeout=20) as opened:
            yield opened


def data_segments(peer: socket.socket) -> int:
    """How many segments with data have come: tcpi_data_segs_in of Linux."""
    return int.from_bytes(peer.getsockopt(socket.IPPROTO_TCP, 11, 160)[152:156], "little")


def test_head_and_body_of_an_answer_come_in_one_segment(connection: socket.socket) -> None:
    """Else a caller with many connections is woken twice for each answer."""
    for number in range(1, 4):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        assert data_segments(connection) == number


@pytest.mark.parametrize("end", [b"", b"\r\nx: "])
def test_a_head_without_end_is_not_read_for_ever(connection: socket.socket, end: bytes) -> None:
    """Neither one header without end, nor headers without end."""
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: ")
    with suppress(ConnectionError):
        for _ in range(1000):
            connection.sendall(b"a" * 8192 + end)
        pytest.fail("it read eight megabytes")
    with suppress(ConnectionError):
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")


def test_a_few_requests_may_follow_each_other_unasked_and_a_flood_ends_the_connection(
    connection: socket.socket,
) -> None:
    one, answers = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n", b""
    connection.sendall(one * 10)
    while answers.count(b"HTTP/1.1 200") < 10 or not answers.endswith(b"}"):
        answers += connection.recv(65536)
    with suppress(ConnectionError):
        connection.sendall(one * 5000)
        while came := connection.recv(65536):
            answers += came
    assert answers.count(b"HTTP/1.1 200") < 100
    assert b"HTTP/1.1 400" not in answers


def test_a_request_that_cannot_be_read_is_a_400_and_what_follows_one_is_no_answer_to_it(
    connection: socket.socket,
) -> None:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n\x00nonsense\r\n\r\n")
    answers = b""
    with suppress(ConnectionError):
        while came := connection.recv(65536):
            answers += came
    assert not answers or answers.startswith(b"HTTP/1.1 200")


def test_nonsense_is_a_400(connection: socket.socket) -> None:
    connection.sendall(b"\x00nonsense\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 400")
