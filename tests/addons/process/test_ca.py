"""The interception CA: usable by mitmproxy, private, made once, and a bundle that real TLS clients accept."""

import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from mitmproxy.certs import CertStore

from addons.process.ca import ca_certificate_path, ca_expiry, ca_key_path, ensure_ca, system_roots, trust_files
from store.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("app") / "ca"
    ensure_ca(directory)
    return directory


@pytest.fixture
def ca(made: Path, tmp_path: Path) -> Path:
    """A copy, because making a key takes a while."""
    return Path(shutil.copytree(made, tmp_path / "ca"))


def certificates(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def test_mitmproxy_uses_it_as_its_confdir(ca: Path) -> None:
    store = CertStore.from_store(ca, "mitmproxy", 2048)
    assert store.default_ca.to_pem() == ca_certificate_path(ca).read_bytes()
    assert store.default_ca.organization == "Tollgate"


def test_only_the_owner_can_read_the_key_and_everybody_the_certificates(ca: Path) -> None:
    for name in ("mitmproxy-ca.pem", "mitmproxy-ca.p12"):
        assert stat.S_IMODE((ca / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((ca / "bundle.pem").stat().st_mode) == 0o644
    for public in ("bundle.pem", "mitmproxy-ca-cert.pem"):
        assert b"PRIVATE KEY" not in (ca / public).read_bytes()


def test_it_is_made_once(ca: Path) -> None:
    before = {path.name: path.read_bytes() for path in ca.iterdir()}
    ensure_ca(ca)
    assert {path.name: path.read_bytes() for path in ca.iterdir()} == before


def test_a_key_that_others_could_read_is_closed_again(ca: Path) -> None:
    ca_key_path(ca).chmod(0o644)
    ensure_ca(ca)
    assert stat.S_IMODE(ca_key_path(ca).stat().st_mode) == 0o600


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from addons.process.ca import ensure_ca; ensure_ca(Path(sys.argv[1]))"
    starting = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "ca")]) for _ in range(3)]
    assert [each.wait(60) for each in starting] == [0, 0, 0]
    key_file, public = certificates(ca_key_path(tmp_path / "ca")), certificates(ca_certificate_path(tmp_path / "ca"))
    assert key_file == public
    assert not [path for path in (tmp_path / "ca").iterdir() if path.name.startswith((".new-", ".bundle"))]


def test_a_lost_certificate_comes_back_from_the_key_file(ca: Path) -> None:
    before = ca_certificate_path(ca).read_bytes()
    ca_certificate_path(ca).unlink()
    ensure_ca(ca)
    assert ca_certificate_path(ca).read_bytes() == before


def test_the_bundle_is_the_systems_roots_and_ours(ca: Path) -> None:
    roots = system_roots()
    assert len(roots) > 50
    bundle = certificates(ca / "bundle.pem")
    assert len(bundle) == len(set(roots)) + 1
    assert bundle[-1] == certificates(ca_certificate_path(ca))[0]


def test_system_roots_do_not_follow_the_callers_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = system_roots()
    (tmp_path / "one.pem").write_bytes(b"")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "one.pem"))
    assert system_roots() == before


def test_what_the_caller_trusted_stays_trusted_in_files_of_its_own(ca: Path, tmp_path: Path) -> None:
    other = tmp_path / "corporate"
    CertStore.create_store(other, "mitmproxy", 2048, cn="Corporate")
    corporate = other / "mitmproxy-ca.pem"  # with its private key, as such files sometimes are
    files = trust_files(ca, {"SSL_CERT_FILE": str(corporate)})
    names = [each.subject.rfc4514_string() for each in certificates(files.bundle)]
    assert sum("Corporate" in name for name in names) == 1 and sum("Tollgate" in name for name in names) == 1
    assert b"PRIVATE KEY" not in files.bundle.read_bytes()
    assert files.bundle != ca / "bundle.pem" and files.added == ca_certificate_path(ca)
    assert trust_files(ca, {}).bundle == ca / "bundle.pem"

    added = trust_files(ca, {"NODE_EXTRA_CA_CERTS": str(corporate)})
    assert len(certificates(added.added)) == 2
    assert added.bundle == files.bundle  # the same extra certificates, the same file


def test_a_call_inside_a_call_and_files_that_are_gone_change_nothing(ca: Path) -> None:
    plain = trust_files(ca, {})
    inside = {"SSL_CERT_FILE": str(plain.bundle), "NODE_EXTRA_CA_CERTS": str(plain.added), "AWS_CA_BUNDLE": "/no/such/file"}
    assert trust_files(ca, inside) == plain


def test_garbage_in_a_named_file_is_left_behind(ca: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_bytes(b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n\xff\xfe")
    assert trust_files(ca, {"SSL_CERT_FILE": str(bad)}) == trust_files(ca, {})


def test_an_empty_ca_file_says_what_to_do(ca: Path) -> None:
    ca_certificate_path(ca).write_bytes(b"")
    with pytest.raises(UserError, match="holds no certificate: remove the directory"):
        trust_files(ca, {})


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be made: Permission denied"):
        ensure_ca(tmp_path / "ca")


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("")
    with pytest.raises(UserError, match="certificate authority in .* cannot be made"):
        ensure_ca(tmp_path / "ca")


def test_the_expiry_is_years_away(ca: Path) -> None:
    assert ca_expiry(ca).year >= 2035


def serve_tls(directory: Path, hostname: str) -> socket.socket:
    """One TLS server with a leaf of our CA, as mitmproxy makes them."""
    entry = CertStore.from_store(directory, "mitmproxy", 2048).get_cert(hostname, [x509.DNSName(hostname)])
    leaf = directory.parent / "leaf.pem"
    leaf.write_bytes(entry.cert.to_pem() + _key(directory))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf)
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as client:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            except OSError:
                continue

    threading.Thread(target=answer, daemon=True).start()
    return listener


def _key(directory: Path) -> bytes:
    text = ca_key_path(directory).read_bytes()
    return text[: text.index(b"-----BEGIN CERTIFICATE")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl_accepts_a_leaf_through_the_bundle_and_not_without(ca: Path) -> None:
    listener = serve_tls(ca, "api.openai.com")
    port = listener.getsockname()[1]
    command = ["curl", "-sS", "--resolve", f"api.openai.com:{port}:127.0.0.1", f"https://api.openai.com:{port}/"]
    environ = {"PATH": os.environ["PATH"], "NO_PROXY": "*"}
    try:
        trusting = subprocess.run(
            command, env={**environ, "CURL_CA_BUNDLE": str(ca / "bundle.pem")}, capture_output=True, text=True, timeout=20
        )
        assert (trusting.stdout, trusting.returncode) == ("ok", 0)
        assert subprocess.run(command, env=environ, capture_output=True, timeout=20).returncode == 60
    finally:
        listener.close()


def test_pythons_strict_verification_accepts_a_leaf(ca: Path) -> None:
    listener = serve_tls(ca, "api.anthropic.com")
    context = ssl.create_default_context(cafile=ca / "bundle.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        with (
            socket.create_connection(listener.getsockname()) as plain,
            context.wrap_socket(plain, server_hostname="api.anthropic.com") as tls,
        ):
            tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert tls.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        listener.close()
