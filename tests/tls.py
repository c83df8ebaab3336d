"""TLS in front of a real Redis: a certificate authority, and a door that passes bytes on."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A CA, with a file of its own certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA of a test")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self._signed(self._name, self._key, basic, None)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key, as files, for a host name or an address."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            known: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            known = x509.DNSName(name)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        alternative = x509.SubjectAlternativeName([known])
        certificate = self._signed(
            subject, key, x509.BasicConstraints(ca=False, path_length=None), alternative
        )
        pem, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        return pem, secret

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        basic: x509.BasicConstraints,
        names: x509.SubjectAlternativeName | None,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        build = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
        )
        build = build.serial_number(x509.random_serial_number()).not_valid_before(
            now - dt.timedelta(days=1)
        )
        build = build.not_valid_after(now + dt.timedelta(days=1)).add_extension(
            basic, critical=True
        )
        build = build.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        build = build.add_extension(issuer, critical=False)
        if names is not None:
            build = build.add_extension(names, critical=False)
        return build.sign(self._key, hashes.SHA256())


class Door:
    """Listens with TLS on a port of its own, and passes all on to a unix socket.

    `heard`: all that clients said, in the clear.
    """

    def __init__(self, behind: Path, files: tuple[Path, Path], clients: Path | None = None) -> None:
        """`clients`: only those with a certificate of this CA may enter."""
        self._behind, self.heard = behind, bytearray()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*files)
        if clients is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(clients)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(
                    target=self._serve, args=(self._listener.accept()[0],), daemon=True
                ).start()

    def _serve(self, peer: socket.socket) -> None:
        with suppress(OSError), peer, socket.socket(socket.AF_UNIX) as behind:
            behind.connect(str(self._behind))
            with self._context.wrap_socket(peer, server_side=True) as inside:
                back = threading.Thread(target=self._back, args=(behind, inside), daemon=True)
                back.start()
                while said := inside.recv(65536):
                    self.heard += said
                    behind.sendall(said)
                behind.shutdown(socket.SHUT_RDWR)
                back.join(5)

    def _back(self, behind: socket.socket, inside: ssl.SSLSocket) -> None:
        with suppress(OSError, ValueError):
            while said := behind.recv(65536):
                inside.sendall(said)
            inside.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
