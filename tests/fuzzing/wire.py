"""Answers of HTTP servers, byte for byte, by chance: from sound ones to what no server would send.

`Said.sound` marks those that every client has to understand.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from fuzzing.shapes import damaged

#: What a server does after its last byte.
KEEP, CLOSE, RESET, STALL = "keep", "close", "reset", "stall"

_NAMES = (
    b"retry-after date ratelimit ratelimit-remaining ratelimit-reset x-ratelimit-remaining "
    b"x-ratelimit-reset location set-cookie content-type trailer upgrade webhook-delivery x-odd "
    b"etag server keep-alive proxy-authenticate link"
).split()
_VALUES = (
    b"0|1|7.5|-1|1e999|nan|99999999999999999999|1_0|Wed, 21 Oct 2015 07:28:00 GMT|"
    b"Fri, 31 Dec 9999 23:59:59 GMT|Mon, 01 Jan 0001 00:00:00 +2359|Wed,|https://[::1|//xn--a/|"
    b'http://a:99999|gzip|identity|r=1;t=-5|"d";r=9999999999;t=1|disable|abort-message|a=b|a=\xe9|'
    b"=; expires=Wed, 99|timeout=0|h2c|websocket|chunked|close|\xc3\xa9"
).split(b"|")
#: Lines that are no sound header, or change how the answer is framed.
_ODD_LINES = [
    b"x: \0", b" folded: a", b"\tfolded", b"no colon", b": no name", b"a b: c", b"x : y",
    b"\xff\xfe: x", b"content-length: -1", b"content-length: 0x10", b"content-length: +5",
    b"content-length: 3, 3", b"content-length: 99999999999999999999", b"content-length:",
    b"content-length: 0", b"content-length: \xd9\xa3", b"content-length: 1_0",
    b"transfer-encoding: gzip, chunked", b"transfer-encoding: chunked, identity",
    b"transfer-encoding: xchunked", b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    b"content-encoding: br", b"content-encoding: gzip, gzip", b"content-encoding: zstd",
    b"content-encoding: gzip", b"connection: close, keep-alive", b"connection: upgrade",
    b"x: a\rb: c", b"x: a\nb: c", b"proxy-connection: close",
]  # fmt: skip
_VERSIONS = [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"ICY", b"HTTP/11"]
_REASONS = [b"OK", b"OK", b"OK", b"", b"\xff\xfe", b"a  b\tc", b"x" * 300, b"\xe6\xb0\xb4"]
_INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nlink: <x>; rel=preload\r\n\r\n",
    b"HTTP/1.1 199 \r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
]
_SURPLUS = [
    b"zzz", b"\r\n", b"\n", b"0\r\n\r\n", b"\0", b"HTTP/1.1 100 Go\r\n\r\n", b"H",
    b"HTTP/1.1 299 Stale\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 299 Stale\r\n",
    b'HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n{"items":[{"id":"stale"}]}\n',
]  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What a server sends to one request, in these pieces, and how it goes on.

    `sound`: a complete answer in order, with this `status` and `body`. `ends`: where its pieces
    end, but the last one. `after`: what the server does then.
    """

    data: bytes
    status: int
    body: bytes
    sound: bool
    ends: tuple[int, ...] = ()
    after: str = KEEP

    def pieces(self) -> list[bytes]:
        starts = [0, *self.ends]
        return [self.data[a:b] for a, b in zip(starts, [*self.ends, len(self.data)], strict=True)]


def answer(chance: Random, status: int, body: bytes) -> Said:
    """An answer with this status and body: as it should be, or with anything wrong about it."""
    if chance.random() < 0.002:
        return _absurd(chance)
    lines, odd = _headers(chance), False
    version, reason = b"HTTP/1.1", chance.choice(_REASONS)
    if chance.random() < 0.1:
        lines.insert(chance.randrange(len(lines) + 1), chance.choice(_ODD_LINES))
        odd = True
    if chance.random() < 0.03:
        version, odd = chance.choice(_VERSIONS), True
    packed, packs_well = _packed(chance, lines, body)
    framed, frames_well, closes = _framed(chance, lines, packed)
    end = b"\n" if chance.random() < 0.03 else b"\r\n"
    head = end.join([b"%b %d %b" % (version, status, reason), *lines, b"", b""])
    empty = status in (204, 304) or status < 200
    sound = packs_well and frames_well and not odd and end == b"\r\n" and not empty
    said = Said(head + framed, status, body, sound, after=CLOSE if closes else KEEP)
    return _sent(chance, said)


def _headers(chance: Random) -> list[bytes]:
    if chance.random() < 0.5:
        return [b"content-type: application/json"]
    return [
        b"%b: %b" % (chance.choice(_NAMES), chance.choice(_VALUES))
        for _ in range(chance.randrange(6))
    ]


def _packed(chance: Random, lines: list[bytes], body: bytes) -> tuple[bytes, bool]:
    """The body with a content encoding, and whether every client can read it."""
    if chance.random() < 0.85:
        return body, True
    name, packed = chance.choice(
        [
            (b"gzip", gzip.compress(body, 1)),
            (b"deflate", zlib.compress(body, 1)),
            (b"gzip", _bomb()),
            (b"br", chance.randbytes(40)),
            (b"gzip, gzip", gzip.compress(gzip.compress(body, 1), 1)),
        ]
    )
    lines.append(b"content-encoding: " + name)
    if chance.random() < 0.3:
        return damaged(chance, packed), False
    return packed, name in (b"gzip", b"deflate") and packed is not _bomb()


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * 30_000_000)


def _framed(chance: Random, lines: list[bytes], body: bytes) -> tuple[bytes, bool, bool]:
    """The body as it is framed, whether it is framed well, and whether only a close ends it."""
    where = chance.randrange(len(lines) + 1)
    match chance.randrange(20):
        case 0 | 1 | 2 | 3:
            lines.insert(where, b"transfer-encoding: chunked")
            return _chunked(chance, body), True, False
        case 4:
            lines.insert(where, b"Transfer-Encoding: chunked")
            return damaged(chance, _chunked(chance, body)), False, False
        case 5:
            return body, True, True
        case 6:
            lie = max(len(body) + chance.choice((-3, -1, 1, 7, 10_000)), 0)
            lines.insert(where, b"content-length: %d" % lie)
            return body, False, chance.random() < 0.9
        case 7:
            lines += [b"content-length: %d" % len(body), b"transfer-encoding: chunked"]
            return chance.choice([body, _chunked(chance, body)]), False, True
        case 8:
            lines += [b"content-length: %d" % len(body), b"Content-Length: 3"]
            return body, False, True
    lines.insert(where, b"Content-Length: %d" % len(body))
    return body, True, False


def _chunked(chance: Random, body: bytes) -> bytes:
    parts, at = list[bytes](), 0
    while at < len(body):
        size = chance.choice((1, 7, 100, 5000))
        if len(parts) > 30:
            size = len(body)
        part = body[at : at + size]
        extension = b";a=b" if chance.random() < 0.05 else b""
        parts.append(b"%x%b\r\n%b\r\n" % (len(part), extension, part))
        at += size
    trailer = b"checksum: z\r\n" if chance.random() < 0.1 else b""
    return b"".join([*parts, b"0\r\n", trailer, b"\r\n"])


def _sent(chance: Random, said: Said) -> Said:
    """How the bytes leave: what comes before and after them, where they are cut, what then."""
    if chance.random() < 0.06:
        said = replace(said, data=chance.choice(_INTERIM) + said.data)
    elif chance.random() < 0.01:
        more = chance.choice(_INTERIM) * chance.choice((25, 3000))
        said = replace(said, data=more + said.data, sound=False)
    if chance.random() < 0.12:
        said = replace(said, data=damaged(chance, said.data), sound=False)
    if chance.random() < 0.08:  # an early end, at any byte
        cut = said.data[: chance.randrange(len(said.data) + 1)]
        said = replace(said, data=cut, sound=False, after=chance.choice((CLOSE, RESET)))
    elif chance.random() < 0.12:
        # What is framed by the end of the connection has no surplus: all of it is body.
        sound = said.sound and said.after == KEEP
        said = replace(said, data=said.data + chance.choice(_SURPLUS), sound=sound)
    if said.after == KEEP and chance.random() < 0.05:
        # A reset may destroy what the client has not read yet.
        after = chance.choice((CLOSE, RESET))
        said = replace(said, after=after, sound=said.sound and after == CLOSE)
    if not said.sound and said.after == KEEP:
        # Most of these would only be waited for; a few are, so that time ends them.
        said = replace(said, after=STALL if chance.random() < 0.05 else CLOSE)
    return replace(said, ends=_ends(chance, len(said.data)))


def _ends(chance: Random, size: int) -> tuple[int, ...]:
    """Where the pieces end: one piece, a few, or each byte alone."""
    if size < 2 or chance.random() < 0.5:
        return ()
    if size < 300 and chance.random() < 0.05:
        return tuple(range(1, size))
    return tuple(sorted({chance.randrange(1, size) for _ in range(chance.randrange(1, 5))}))


def _absurd(chance: Random) -> Said:
    """Floods, and bytes that are no HTTP."""
    ok, chunked = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    data = chance.choice(
        [
            ok + b"a: b\r\n" * 50_000 + b"\r\n",
            ok + b"a: " + b"b" * 300_000 + b"\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
            chunked + b"1\r\n \r\n" * 30_000 + b"0\r\n\r\n",
            chunked + b"0" * 100_000,
            chunked + b"ffffffffffffffffff\r\n",
            b"\r\n" * 50_000,
            b"\x16\x03\x01\x02\x00" + chance.randbytes(100),
            chance.randbytes(300),
            b"",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"<html>" * 20_000,
        ]
    )
    return Said(data, 0, b"", sound=False, after=CLOSE)
