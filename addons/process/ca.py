"""The interception CA and the certificate files that make a program trust it: made once, written atomically."""

import base64
import binascii
import contextlib
import hashlib
import os
import re
import ssl
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import certifi

from addons.process.locks import exclusive
from store.errors import UserError

KEY_BITS = 2048
_BASENAME = "mitmproxy"
"""The file names mitmproxy expects in its confdir."""
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_REPLACING = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "CODEX_CA_CERTIFICATE")
"""Variables of the caller that our bundle takes the place of: what they named stays trusted."""
_ADDING = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """Files to name in a program's environment. `added` goes where a client adds to its roots, `bundle` where it replaces them."""

    added: Path
    bundle: Path


def ca_certificate_path(directory: Path) -> Path:
    """Our CA's public certificate in PEM, inside the CA directory."""
    return directory / f"{_BASENAME}-ca-cert.pem"


def ca_key_path(directory: Path) -> Path:
    """The CA's private key with its certificate; readable by the owner only."""
    return directory / f"{_BASENAME}-ca.pem"


def ensure_ca(directory: Path) -> Path:
    """Make the CA in `directory` (mitmproxy's confdir) unless it is there, and its plain bundle; the path of its certificate.

    Several processes may call this at once. Raises UserError when the directory cannot be written or the key cannot be read.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with exclusive(directory / ".lock"):
            if not ca_key_path(directory).exists():
                _create(directory)
            _keep_private(directory)
            if not ca_certificate_path(directory).exists():
                _write(ca_certificate_path(directory), _pem(_certificates(ca_key_path(directory))))
            trust_files(directory, {})
    except OSError as fault:
        raise UserError(f"the certificate authority in {directory} cannot be made: {fault.strerror or fault}") from None
    return ca_certificate_path(directory)


def trust_for(directory: Path, inherited: Mapping[str, str]) -> TrustFiles:
    """As `ensure_ca`, then `trust_files`. Raises UserError."""
    ensure_ca(directory)
    try:
        return trust_files(directory, inherited)
    except OSError as fault:
        raise UserError(f"the certificate files in {directory} cannot be written: {fault.strerror or fault}") from None


def trust_files(directory: Path, inherited: Mapping[str, str]) -> TrustFiles:
    """The certificate files for a caller whose environment is `inherited`.

    Certificates which that environment names already stay trusted. A caller that names none gets the files shared by everybody
    (`bundle.pem` and the CA certificate); another one gets files of its own, named by their content, so that callers with different
    environments never write over one another. Raises OSError when they cannot be written.
    """
    ours = _certificates(ca_certificate_path(directory))
    if not ours:
        raise UserError(f"{ca_certificate_path(directory)} holds no certificate: remove the directory {directory} to make a new CA")
    replaced = _named(_REPLACING, inherited, directory)
    adding = _named(_ADDING, inherited, directory)
    bundle = _write_named(directory, "bundle", [*system_roots(), *ours], [*replaced, *adding])
    added = _write_named(directory, "added", ours, adding) if adding else ca_certificate_path(directory)
    return TrustFiles(added=added, bundle=bundle)


def system_roots() -> list[bytes]:
    """The machine's root certificates (DER), else certifi's. The caller's SSL_CERT_FILE has no say here."""
    if sys.platform == "win32":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_default_certs()
        return context.get_ca_certs(binary_form=True)
    for name in (ssl.get_default_verify_paths().openssl_cafile, *_SYSTEM_ROOTS):
        if found := _certificates(Path(name)):
            return found
    return _certificates(Path(certifi.where()))


def ca_expiry(directory: Path) -> datetime:
    """When the CA's certificate ends (UTC). Raises UserError when it cannot be read."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(ca_certificate_path(directory).read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as fault:
        raise UserError(f"{ca_certificate_path(directory)} cannot be read as a certificate: {fault}") from None


def _create(directory: Path) -> None:
    from mitmproxy.certs import CertStore  # heavy, and needed once in a CA's life

    with tempfile.TemporaryDirectory(dir=directory, prefix=".new-") as name:
        fresh = Path(name)
        CertStore.create_store(fresh, _BASENAME, KEY_BITS, organization="Tollgate", cn="Tollgate interception CA")
        # The file with the key goes last: while it is missing, the CA counts as not made.
        names = sorted((path.name for path in fresh.iterdir()), key=lambda each: each == ca_key_path(fresh).name)
        for each in names:
            os.replace(fresh / each, directory / each)


def _keep_private(directory: Path) -> None:
    if os.name != "posix":
        return
    for path in (ca_key_path(directory), directory / f"{_BASENAME}-ca.p12"):
        if path.exists() and path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _named(variables: Iterable[str], inherited: Mapping[str, str], directory: Path) -> list[bytes]:
    """Certificates (DER) in the files that the caller's variables name, leaving out files of ours (a call inside a call)."""
    found: dict[bytes, None] = {}
    for path in {Path(inherited[name]).expanduser() for name in variables if inherited.get(name)}:
        with contextlib.suppress(OSError):
            if path.resolve().parent == directory.resolve():
                continue
            found |= dict.fromkeys(_certificates(path))
    return sorted(found)


def _certificates(path: Path) -> list[bytes]:
    """Every certificate in a PEM file, as DER; keys and comments in it are left behind. Empty when it cannot be read."""
    try:
        text = path.read_bytes()
    except OSError:
        return []
    return list(_decoded(text))


def _decoded(text: bytes) -> Iterator[bytes]:
    for match in _CERTIFICATE.finditer(text):
        with contextlib.suppress(binascii.Error):
            yield base64.b64decode(b"".join(match[1].split()), validate=True)


def _pem(certificates: Iterable[bytes]) -> bytes:
    return "".join(ssl.DER_cert_to_PEM_cert(each) for each in certificates).encode("ascii")


def _write_named(directory: Path, stem: str, common: list[bytes], theirs: list[bytes]) -> Path:
    known = set(common)
    extra = [each for each in dict.fromkeys(theirs) if each not in known]
    tail = "-" + hashlib.sha256(b"".join(sorted(extra))).hexdigest()[:12] if extra else ""
    path = directory / f"{stem}{tail}.pem"
    content = _pem(dict.fromkeys([*common, *extra]))
    if not path.exists() or path.read_bytes() != content:
        _write(path, content)
    return path


def _write(path: Path, content: bytes) -> None:
    """Replace a public file in one step; a reader sees the old content or the new."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
