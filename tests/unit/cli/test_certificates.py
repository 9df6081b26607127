"""The gateway's certificate: made, kept, renewed, brought by the operator, trusted by the command."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.cli.demo.trust import TrustError, client_context
from libs.cli.stack.certificates import (
    Certificate,
    CertificateError,
    own_certificate,
    read_certificate,
    stack_certificate,
)
from libs.cli.stack.paths import StackPaths

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tls" / "tls.crt"


class TestOwn:
    def test_it_is_for_this_machine_and_its_key_is_private(self, path: Path) -> None:
        made = own_certificate(path, "Laptop.fritz.box", NOW)
        assert set(made.names) == {
            *("localhost", "*.preview.localhost", "127.0.0.1", "::1"),
            "laptop.fritz.box",
        }
        assert (made.host, made.expires_at, made.is_self_signed) == ("127.0.0.1", NOW + 365 * DAY, True)
        assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_it_is_kept_until_it_ends_soon(self, path: Path) -> None:
        made = own_certificate(path, "laptop", NOW)
        assert own_certificate(path, "laptop", NOW + 334 * DAY) == made
        renewed = own_certificate(path, "laptop", NOW + 336 * DAY)
        assert renewed.fingerprint != made.fingerprint
        assert renewed.expires_at == NOW + 701 * DAY

    def test_it_is_made_anew_for_another_name_or_when_half_of_it_is_gone(self, path: Path) -> None:
        made = own_certificate(path, "laptop", NOW)
        other = own_certificate(path, "desktop", NOW)
        assert "desktop" in other.names
        other.key.write_bytes(b"")
        assert own_certificate(path, "desktop", NOW).fingerprint not in {made.fingerprint, other.fingerprint}

    def test_clients_accept_it_for_its_names_and_no_others(self, path: Path) -> None:
        made = own_certificate(path, "laptop")
        for name in ("localhost", "127.0.0.1", "laptop", "7a1b.preview.localhost"):
            assert refusal(made, name, strict(made)) is None
        assert "mismatch" in str(refusal(made, "example.com", strict(made)))


def strict(certificate: Certificate) -> ssl.SSLContext:
    """The strictest client that trusts it."""
    context = ssl.create_default_context(cafile=certificate.certificate)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def refusal(certificate: Certificate, name: str, client: ssl.SSLContext) -> str | None:
    """Why a client would not speak to a server with that certificate; None when it does."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.certificate, certificate.key)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    except ssl.SSLError as error:
        return str(error)
    finally:
        ours.close()
        thread.join()
    return None


class TestBrought:
    def test_it_goes_before_one_of_our_own(self, tmp_path: Path, path: Path) -> None:
        brought = own_certificate(tmp_path / "brought.crt", "devpocket.example.com")
        operator = {"GATEWAY_TLS_CERT": str(brought.certificate), "GATEWAY_TLS_KEY": str(brought.key)}
        for self_signed in (True, False):
            assert stack_certificate(operator, path, "laptop", self_signed=self_signed) == brought
        assert not path.exists()

    def test_without_one_it_is_a_matter_of_the_option(self, path: Path) -> None:
        assert stack_certificate({}, path, "laptop", self_signed=False) is None
        made = stack_certificate({"GATEWAY_TLS_CERT": "", "GATEWAY_TLS_KEY": ""}, path, "laptop", self_signed=True)
        assert made is not None
        assert made.certificate == path

    @pytest.mark.parametrize("name", ["GATEWAY_TLS_CERT", "GATEWAY_TLS_KEY"])
    def test_half_of_it_is_refused(self, path: Path, name: str) -> None:
        with pytest.raises(CertificateError, match="belong together"):
            stack_certificate({name: str(path)}, path, "laptop", self_signed=True)

    def test_what_does_not_fit_or_cannot_be_read_is_named(self, tmp_path: Path, path: Path) -> None:
        one, other = own_certificate(path, "laptop"), own_certificate(tmp_path / "other.crt", "laptop")
        with pytest.raises(CertificateError, match=r"other\.key"):
            read_certificate(one.certificate, other.key)
        with pytest.raises(CertificateError, match=r"none\.crt"):
            read_certificate(tmp_path / "none.crt", one.key)

    @pytest.mark.parametrize(
        ("names", "host"),
        [
            (("*.example.com", "devpocket.example.com"), "devpocket.example.com"),
            (("devpocket.example.com", "localhost"), "localhost"),
            (("devpocket.example.com", "127.0.0.1", "localhost"), "127.0.0.1"),
            (("*.example.com",), "localhost"),
        ],
    )
    def test_the_stack_is_shown_by_a_name_that_it_is_good_for(
        self, path: Path, names: tuple[str, ...], host: str
    ) -> None:
        assert Certificate(path, path, names, "", NOW, is_self_signed=False).host == host


class TestTrust:
    def test_plain_http_needs_none(self, tmp_path: Path) -> None:
        assert client_context("http://127.0.0.1:8000", tmp_path, None) is None

    def test_the_stacks_own_and_a_file_are_trusted_and_nobody_else(self, tmp_path: Path) -> None:
        paths = StackPaths.of(tmp_path)
        paths.create()
        own = own_certificate(paths.own_certificate, "laptop")
        other = own_certificate(tmp_path / "other.crt", "laptop")

        def trusts(data_dir: Path, cacert: Path | None) -> list[Certificate]:
            context = client_context("https://127.0.0.1:8000", data_dir, cacert)
            assert context is not None
            return [known for known in (own, other) if refusal(known, "127.0.0.1", context) is None]

        assert trusts(tmp_path / "none", None) == []
        assert trusts(tmp_path, None) == [own]
        assert trusts(tmp_path / "none", other.certificate) == [other]
        assert trusts(tmp_path, other.certificate) == [own, other]

    def test_a_file_that_holds_none_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(TrustError, match=r"none\.pem"):
            client_context("https://127.0.0.1:8000", tmp_path, tmp_path / "none.pem")
