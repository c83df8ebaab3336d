"""A name whose name server is silent delays no other name, and takes one thread at most."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from cavendish_worker.http import resolver
from cavendish_worker.http.faults import ResolverAway
from cavendish_worker.http.resolver import Resolver


class NameServer:
    """Names that end in `.silent` get no answer before `speak`; any other is 203.0.113.7."""

    def __init__(self) -> None:
        self.speak, self.asked, self.lock = threading.Event(), list[str](), threading.Lock()

    def look_up(self, name: str, port: int, **_: object) -> list[object]:
        with self.lock:
            self.asked.append(name)
        if name.endswith(".silent"):
            self.speak.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.7", port))]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    one = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", one.look_up)
    yield one
    one.speak.set()


def test_two_hundred_silent_names_do_not_keep_a_good_one_waiting(server: NameServer) -> None:
    async def run() -> None:
        names = Resolver()
        silent = [
            asyncio.create_task(names.addresses(f"n{number}.silent", 443)) for number in range(200)
        ]
        while len(server.asked) < 200:
            await asyncio.sleep(0.01)
        for good in ("good.example", "other.example", "good.example"):
            assert [str(address) for address in await names.addresses(good, 443)] == ["203.0.113.7"]
        assert not any(task.done() for task in silent)
        server.speak.set()
        assert len(await asyncio.gather(*silent)) == 200

    asyncio.run(run())


def test_who_gives_up_does_not_let_a_silent_name_have_a_second_thread(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "RESOLVE_TIMEOUT", 0.05)

    async def run() -> None:
        names = Resolver()
        await names.addresses("good.example", 443)
        for _ in range(3):
            with pytest.raises(httpx.ConnectError):  # others are resolved: the fault is the name's
                await asyncio.gather(*(names.addresses("a.silent", 443) for _ in range(20)))
        assert server.asked == ["good.example", "a.silent"]
        server.speak.set()
        monkeypatch.setattr(resolver, "RESOLVE_TIMEOUT", 5.0)
        assert len(await names.addresses("a.silent", 443)) == 1

    asyncio.run(run())


def test_where_all_places_are_taken_known_names_have_places_of_their_own_and_others_are_not_blamed(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "PLACES", 8)

    async def run() -> None:
        names = Resolver()
        await names.addresses("good.example", 443)
        silent = [
            asyncio.create_task(names.addresses(f"n{number}.silent", 443)) for number in range(8)
        ]
        while len(server.asked) < 9:
            await asyncio.sleep(0.01)
        with pytest.raises(ResolverAway):
            await names.addresses("new.example", 443)
        assert len(await names.addresses("good.example", 443)) == 1
        server.speak.set()
        await asyncio.gather(*silent)
        assert len(await names.addresses("new.example", 443)) == 1

    asyncio.run(run())
