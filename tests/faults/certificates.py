"""A certificate authority of the suite's own, and two certificates of its server: one that is valid, one that was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """``file`` is what a client trusts; ``certificate(expired)`` returns a file with a server's key and certificate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fault suite")])
        now = datetime.now(UTC)
        own = self._signed(self._name, self._key.public_key(), now - timedelta(days=3), now + timedelta(days=3))
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        self._server(False, now - timedelta(days=2), now + timedelta(days=2))
        self._server(True, now - timedelta(days=2), now - timedelta(days=1))

    def certificate(self, expired: bool) -> str:
        """Return the path of a file with key and certificate."""
        return str(self._folder / ("expired.pem" if expired else "valid.pem"))

    def _server(self, expired: bool, since: datetime, until: datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        signed = self._signed(name, key.public_key(), since, until).add_extension(names, critical=False)
        form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        Path(self.certificate(expired)).write_bytes(
            key.private_bytes(serialization.Encoding.PEM, *form)
            + signed.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )

    def _signed(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, since: datetime, until: datetime
    ) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key)
        return made.serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)
