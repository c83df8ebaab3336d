"""The connections of the HTTP service, on its own socket."""

from __future__ import annotations

import socket
from dataclasses import replace

from cavendish.settings import Settings
from cavendish_worker.service.listening import Transport, listen


def test_a_connection_sends_each_piece_of_an_answer_at_once() -> None:
    """Else the body waits until the head is acknowledged, which takes a caller 40 ms."""
    settings = replace(Settings.load({}), http_port=0)
    with (
        listen(settings, Transport()) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
