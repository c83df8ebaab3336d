"""What the HTTP service makes of the bytes of a connection: heads in pieces, offers of other
protocols, bodies that are not awaited, lengths that contradict each other.

Behind each case comes a plain request on the same connection: it must be read as one, or not at
all, and never as a part of what came before.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.service.application import create_app
from cavendish_worker.service.openapi_document import operations
from cavendish_worker.service.parts import Parts
from serving import new_key, service

BODY = b'{"service":"nano-banana","ids":["a"]}'
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n"
EXPECT = b"expect: 100-continue\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
Tell = Callable[..., list[int]]


@pytest.fixture
def key(store: Store) -> str:
    return new_key(store, "wire")


@pytest.fixture
def tell(settings: Settings, key: str) -> Iterator[Tell]:
    """Sends bytes, piece by piece, and then a last request; the statuses of all answers."""
    with service(settings) as address:
        where = urlsplit(address)

        def told(*pieces: bytes, last: bytes = LAST, ends: bool = False) -> list[int]:
            with socket.create_connection((where.hostname, where.port), timeout=20) as peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with suppress(ConnectionError):
                    for piece in (*pieces, last):
                        peer.sendall(piece.replace(b"KEY", key.encode()))
                        arrived(peer)
                answers = all_of(peer)
                assert not ends or b"connection: close" in answers
                return statuses(answers)

        yield told


def arrived(peer: socket.socket) -> None:
    """Wait until the other side has taken what was sent: what follows is another segment."""
    size, tcp_info = 0, 11
    while not size:
        info = peer.getsockopt(socket.IPPROTO_TCP, tcp_info, 104)
        size = int.from_bytes(info[24:28], "little") == 0  # tcpi_unacked


def all_of(peer: socket.socket) -> bytes:
    came = b""
    with suppress(ConnectionError):
        while some := peer.recv(65536):
            came += some
    return came


def statuses(answers: bytes) -> list[int]:
    """The status of each answer; every refusal is a problem document."""
    found, heads = list[int](), set[bytes]()
    while answers:
        head, _, answers = answers.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        found.append(status)
        heads.add(head)
        if status == 100:
            continue
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        if answers.startswith(b"HTTP/1.1 "):
            continue  # the answer to a HEAD has no body
        body, answers = answers[:size], answers[size:]
        if status >= 400 and body:
            assert b"application/problem+json" in head, head
            assert json.loads(body)["status"] == status
    return found


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A submit with these header lines."""
    head = b"POST /v1/tasks HTTP/%b\r\nhost: a\r\nauthorization: Bearer KEY\r\n" % version
    return head + b"content-type: application/json\r\n" + b"".join(lines) + b"\r\n" + body


def get(path: bytes, *lines: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    head = b"%b %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\n" % (method, path)
    return head + b"".join(lines) + b"\r\n" + body


@pytest.mark.parametrize(
    "framing", [(LENGTH, BODY), (CHUNKED, IN_CHUNKS)], ids=["length", "chunks"]
)
def test_the_offer_of_another_protocol_is_ignored_wherever_its_bytes_are_divided(
    tell: Tell, framing: tuple[bytes, bytes]
) -> None:
    """Java's client makes it with its first request; a network divides bytes as it likes."""
    line, body = framing
    whole = post(OFFER, line, body=body)
    assert tell(whole)[1:] == [200]
    begin = whole.index(b"connection:")
    for place in (*range(begin, len(whole), 7), whole.index(b"grade: h2c"), len(whole) - len(body)):
        assert tell(whole[:place], whole[place:])[-2:] == [200, 200], place
    assert tell(whole[:begin], *(bytes([one]) for one in whole[begin:])) == [200, 200]


@pytest.mark.parametrize("also", [b"", OFFER])
def test_requests_that_follow_each_other_unasked_may_each_offer_another_protocol(
    tell: Tell, also: bytes
) -> None:
    one = get(b"/v1/tasks", OFFER)
    assert tell(get(b"/v1/tasks", also) + one + post(OFFER, LENGTH, body=BODY) + one) == [
        200,
        200,
        201,
        200,
        200,
    ]


def test_a_request_comes_in_pieces_of_one_byte(tell: Tell) -> None:
    assert tell(*(bytes([one]) for one in get(b"/healthz"))) == [200, 200]


def test_whoever_expects_to_be_told_to_go_on_is_told_so(tell: Tell) -> None:
    """But not by HTTP/1.0, which does not know that answer."""
    assert tell(post(EXPECT, LENGTH), BODY) == [100, 201, 200]
    assert tell(post(EXPECT, LENGTH, version=b"1.0"), BODY) == [200]
    assert tell(post(b"expect: 200-ok\r\n", LENGTH, body=BODY)) == [200, 200]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(EXPECT, LENGTH).replace(b"Bearer KEY", b"Bearer no"), 401),
        (post(EXPECT, LENGTH).replace(b"/v1/tasks", b"/nothing"), 404),
        (post(EXPECT, LENGTH).replace(b"POST", b"PUT"), 405),
        (post(EXPECT, LENGTH).replace(b"/v1/tasks", b"/v1/tasks?a=b"), 422),
        (post(EXPECT, b"content-length: 100000000\r\n"), 413),
    ],
)
def test_a_body_that_was_not_asked_for_is_not_awaited(
    tell: Tell, request_: bytes, status: int
) -> None:
    """Its caller need not send it, so what follows could be taken for it: the connection ends."""
    assert tell(request_, last=b"", ends=True) == [status]


@pytest.mark.parametrize(
    "lines",
    [
        LENGTH + LENGTH,
        LENGTH + b"content-length: 5\r\n",
        b"content-length: 5, 5\r\n",
        b"content-length: +5\r\n",
        b"content-length: 0x25\r\n",
        b"content-length: \r\n",
        b"content-length: 99999999999999999999999\r\n",
        LENGTH + CHUNKED,
        CHUNKED + LENGTH,
        CHUNKED + CHUNKED,
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: identity\r\n",
        b"transfer-encoding: gzip, chunked\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding: chunked;q=1\r\n",
        b"transfer-encoding: \x0bchunked\r\n",
        b"transfer-encoding : chunked\r\n",
        b"transfer-encoding:\r\n chunked\r\n",
        LENGTH.replace(b"\r\n", b"\n"),
        b"x: a\x00b\r\n",
        b" x: y\r\n",
    ],
)
def test_a_body_of_which_two_readers_could_think_two_things_is_not_read(
    tell: Tell, lines: bytes
) -> None:
    """A proxy in front may read it the other way, and what follows would be another's request."""
    assert tell(post(lines, body=BODY + b"\r\n0\r\n\r\n")) == [400]


@pytest.mark.parametrize(
    "line", [b"Transfer-Encoding: Chunked\r\n", b"transfer-encoding:\tchunked \r\n", CHUNKED]
)
def test_chunks_are_read_however_their_header_is_spelt(tell: Tell, line: bytes) -> None:
    assert tell(post(line, body=IN_CHUNKS)) == [201, 200]
    trailers = IN_CHUNKS.replace(b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n")
    assert tell(post(line, body=trailers.replace(b"\r\n", b";a=b\r\n", 1))) == [200, 200]


@pytest.mark.parametrize(
    ("request_", "answers"),
    [
        (get(b"http://a/healthz"), [200, 200]),
        (get(b"http://elsewhere.example/v1/tasks"), [200, 200]),
        (get(b"http://a"), [400]),
        (get(b"*", method=b"OPTIONS"), [404, 200]),
        (get(b"a:1", method=b"CONNECT"), [400]),
        (get(b"/healthz", b"content-length: 5\r\n", body=b"hello"), [200, 200]),
        (get(b"/v1/tasks", b"content-length: 5\r\n", body=b"hello"), [415, 200]),
        (get(b"/v1/tasks/nano-banana/a", CHUNKED, body=IN_CHUNKS), [415, 200]),
        (get(b"/docs", CHUNKED, body=IN_CHUNKS), [200, 200]),
        (get(b"/healthz").replace(b"HTTP/1.1", b"HTTP/1.0"), [200]),
        (get(b"/healthz").replace(b"HTTP/1.1", b"HTTP/2.0"), [400]),
        (get(b"/healthz").replace(b"GET", b"get"), [400]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
        (b"\r\n\r\n" + get(b"/healthz"), [200, 200]),
        (get("/v1/tasks/nano-banana/é".encode()), [400]),
        (get(b"/v1/tasks/nano-banana/%C3%A9%00%ff"), [404, 200]),
    ],
)
def test_unusual_requests_have_an_answer(tell: Tell, request_: bytes, answers: list[int]) -> None:
    assert tell(request_) == answers


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"TRACE", b"NONSENSE"])
def test_a_method_that_no_resource_takes_is_a_405_that_names_those_it_takes(
    tell: Tell, method: bytes
) -> None:
    """On each resource of the document; HEAD only where monitors ask by it."""
    document = create_app(Parts.of(Settings())).openapi()
    paths = {path.replace("{", "").replace("}", "") for _, path, _ in operations(document)}
    health = {"/healthz", "/readyz"} if method == b"HEAD" else set()
    for path in sorted(paths):
        expected = 200 if path in health else 405
        expected = 400 if method == b"NONSENSE" else expected
        answers = tell(get(path.encode(), method=method))
        assert answers == [expected, 200][: 1 if expected == 400 else 2], path
