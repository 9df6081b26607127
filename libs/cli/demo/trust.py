"""Whom to trust behind an https address: public authorities or SSL_CERT_FILE, the stack in the data folder, a file."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from libs.cli.stack.paths import StackPaths


class TrustError(Exception):
    """A file with certificates cannot be read; the text says which and why."""


def client_context(url: str, data_dir: Path, cacert: Path | None) -> ssl.SSLContext | None:
    """None for plain HTTP. The stack's own certificate needs no option: it is good for this machine's names only, and
    who can change it can read its key as well. Raises TrustError."""
    import httpx

    if urlsplit(url).scheme != "https":
        return None
    own = StackPaths.of(data_dir).own_certificate
    try:
        context = httpx.create_ssl_context()
        for file in (cacert, own if own.exists() else None):
            if file is not None:
                context.load_verify_locations(file)
    except (OSError, ValueError) as error:
        raise TrustError(f"the certificates in {cacert or own} cannot be read: {error}") from error
    return context
