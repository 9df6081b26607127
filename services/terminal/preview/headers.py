"""What an application is told of a request, and a browser of its answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.terminal.preview.address import ROOT, PreviewAddress, own_place

Headers = list[tuple[bytes, bytes]]

COOKIE = "devpocket_preview"
"""Opens the previews of one environment; no application ever sees it."""

SANDBOX = b"sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads"

# Meant for the next machine only (RFC 9110, 7.6.1), or settled between us and the application anew.
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"}
    | {b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"}
)
# What a client says of its own way here is worth nothing; we say it anew.
_OURS_TO_SAY = frozenset({b"host", b"forwarded", b"x-real-ip"})
_FORWARDED = b"x-forwarded-"
_HANDSHAKE = b"sec-websocket-"
# The application may speak for itself, not for the whole origin, nor to the gateway.
_NOT_ITS_BUSINESS = frozenset(
    {b"strict-transport-security", b"public-key-pins", b"expect-ct", b"alt-svc", b"clear-site-data"}
    | {b"nel", b"report-to", b"reporting-endpoints", b"service-worker-allowed", b"origin-agent-cluster"}
    | {b"date", b"server", b"set-login", b"surrogate-control", b"cdn-cache-control"}
)
_TO_THE_GATEWAY = b"x-accel-"
_PLACES = frozenset({b"location", b"content-location"})


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, as the application may know it: the browser's address, and how it came to us."""

    address: str
    scheme: str
    host: str


def to_application(
    headers: Iterable[tuple[bytes, bytes]], address: PreviewAddress, asker: Asker, *, with_authorization: bool
) -> Headers:
    """For the request to the application, which is asked as `localhost`: that is what development servers allow.

    `with_authorization`: the header is the application's own affair and not ours.
    """
    given = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP | _OURS_TO_SAY | _named_in_connection(given)
    own_host = f"localhost:{address.port}".encode()
    kept: Headers = [(b"host", own_host)]
    for name, value in given:
        if name in dropped or name.startswith((_FORWARDED, _HANDSHAKE)):
            continue
        if name == b"authorization" and not with_authorization:
            continue
        if name == b"cookie":
            others = _without_ours(value)
            if others:
                kept.append((name, others))
        elif name == b"origin" and value == f"{asker.scheme}://{asker.host}".encode("latin-1"):
            kept.append((name, b"http://" + own_host))
        else:
            kept.append((name, value))
    return [
        *kept,
        (b"x-forwarded-for", asker.address.encode()),
        (b"x-forwarded-proto", asker.scheme.encode()),
        (b"x-forwarded-host", asker.host.encode("latin-1")),
        (b"x-forwarded-prefix", address.prefix.encode()),
    ]


def to_browser(
    headers: Iterable[tuple[bytes, bytes]], address: PreviewAddress, host: str, *, in_sandbox: bool
) -> Headers:
    """For the answer. Its cookies stay below the port's address; redirects lead where they can be followed; no cache
    on the way keeps anything, for it would give it to others."""
    given = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP | _NOT_ITS_BUSINESS | {b"cache-control"} | _named_in_connection(given)
    kept: Headers = [(b"cache-control", _for_the_browser_alone(given))]
    for name, value in given:
        if name in dropped or name.startswith(_TO_THE_GATEWAY):
            continue
        if name == b"set-cookie":
            if not _is_ours(value.partition(b"=")[0]):
                kept.append((name, _confined(value, address)))
        elif name in _PLACES:
            kept.append((name, own_place(value.decode("latin-1"), address, host).encode("latin-1")))
        else:
            kept.append((name, value))
    if in_sandbox:
        # One more policy beside the application's own: all of them hold.
        kept.append((b"content-security-policy", SANDBOX))
    return kept


def preview_cookies(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The values of our cookie; there may be several, for applications can set cookies of any name."""
    found = []
    for name, value in headers:
        if name.lower() == b"cookie":
            pairs = (part.strip().partition(b"=") for part in value.split(b";"))
            found += [content.decode("latin-1") for key, _, content in pairs if _is_ours(key)]
    return found


def set_cookie(secret: str, environment_id: str, *, life_seconds: int, is_secure: bool) -> str:
    """The header that gives our cookie to a browser; it goes to the previews of this environment and nowhere else."""
    secure = "; Secure" if is_secure else ""
    return f"{COOKIE}={secret}; Path={ROOT}/{environment_id}/; Max-Age={life_seconds}; HttpOnly; SameSite=Lax{secure}"


def _named_in_connection(headers: Headers) -> frozenset[bytes]:
    return frozenset(
        token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")
    )


def _for_the_browser_alone(headers: Headers) -> bytes:
    given = [part.strip() for name, value in headers if name == b"cache-control" for part in value.split(b",")]
    shared = (b"public", b"private", b"s-maxage")
    return b", ".join([b"private", *(part for part in given if part and not part.lower().startswith(shared))])


def _is_ours(name: bytes) -> bool:
    return name.strip().lower() == COOKIE.encode()


def _without_ours(value: bytes) -> bytes:
    kept = [part.strip() for part in value.split(b";") if not _is_ours(part.partition(b"=")[0])]
    return b"; ".join(part for part in kept if part)


def _confined(value: bytes, address: PreviewAddress) -> bytes:
    """A cookie of the application's, for its own paths: `Domain` goes, `Path` gets the prefix."""
    prefix = address.prefix.encode()
    pair, *attributes = [part.strip() for part in value.split(b";")]
    path, kept = b"/", [pair]
    for attribute in attributes:
        name, _, content = attribute.partition(b"=")
        name = name.strip().lower()
        if name == b"path":
            path = content.strip() if content.strip().startswith(b"/") else b"/"
        elif name != b"domain":
            kept.append(attribute)
    own = path if path == prefix or path.startswith(prefix + b"/") else prefix + path
    return b"; ".join([*kept, b"Path=" + own])
