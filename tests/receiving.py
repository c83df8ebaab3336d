"""A receiver that counts connections and answers as a test wants, and certificates for it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Peer(asyncio.Protocol):
    """The receiver's end of one connection: counts, and runtime each whole request on."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver, self.unread, self.packets = receiver, b"", 0

    def connection_made(self, link: asyncio.BaseTransport) -> None:
        self.link: asyncio.Transport = link  # type: ignore[assignment]
        self.receiver.made += 1
        self.receiver.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.receiver.open.discard(self)

    def data_received(self, data: bytes) -> None:
        self.packets += 1
        self.unread += data
        head, found, rest = self.unread.partition(b"\r\n\r\n")
        length = (
            int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if found
            else 0
        )
        if found and len(rest) >= length:
            self.unread = rest[length:]
            self.receiver.requests.append(head + found + rest[:length])
            self.receiver.answer(self)

    def say(self, data: bytes, after: float = 0.0) -> None:
        asyncio.get_running_loop().call_later(
            after, lambda: self.link.is_closing() or self.link.write(data)
        )


class Receiver:
    """What came in, over how many connections, and how a request is answered."""

    def __init__(self, answer: Callable[[Peer], object]) -> None:
        self.answer, self.made, self.open, self.requests = answer, 0, set[Peer](), list[bytes]()
        self.url = ""


@asynccontextmanager
async def receiving(
    answer: Callable[[Peer], object] = lambda peer: peer.say(OK),
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    server = await asyncio.get_running_loop().create_server(
        lambda: Peer(receiver), host, 0, ssl=tls, backlog=1000
    )
    port = server.sockets[0].getsockname()[1]
    receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        server.close()
        for peer in list(receiver.open):
            peer.link.abort()
        await asyncio.sleep(0)


class Authority:
    """A certificate authority that lives as long as a test."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        root = self._built(
            "test authority", self._key, x509.BasicConstraints(ca=True, path_length=None)
        )
        self.client = ssl.create_default_context(
            cadata=root.public_bytes(serialization.Encoding.PEM).decode()
        )

    def _built(
        self, name: str, key: ec.EllipticCurvePrivateKey, kind: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return (
            x509.CertificateBuilder(
                self._name, subject, key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(kind, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def server(self, name: str, seen: list[str | None]) -> ssl.SSLContext:
        """TLS of a server with a certificate for the name.

        `seen` gets the SNI of each handshake.
        """
        key, path = ec.generate_private_key(ec.SECP256R1()), self._folder / f"{name}.pem"
        certificate = self._built(name, key, x509.SubjectAlternativeName([x509.DNSName(name)]))
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path)
        context.sni_callback = lambda _socket, sni, _context: seen.append(sni)
        return context
