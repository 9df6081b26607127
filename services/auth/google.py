"""Google ID tokens, checked with google-auth."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import requests
import structlog
from cachecontrol import CacheControlAdapter
from cachecontrol.cache import DictCache
from cryptography import x509
from google.auth import transport
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.oauth2 import id_token

from libs.common.errors import UnavailableError
from services.auth.errors import InvalidGoogleTokenError
from services.auth.ports import GoogleIdentity

GOOGLE_CERTS_URL = "https://www.googleapis.com/oauth2/v1/certs"

_ISSUERS = frozenset({"accounts.google.com", "https://accounts.google.com"})
# Clocks of phones and servers differ; the token lives an hour. google-auth has it for certificates by kid only.
_CLOCK_SKEW_S = 10
# To connect, and between two reads.
_FETCH_TIMEOUT_S = (3.0, 5.0)
# Waiting for the others' fetch included.
_TOTAL_TIMEOUT_S = 12.0
_PAUSE_S = 5.0

log = structlog.get_logger(__name__)


class GoogleAuthIdentities:
    """Accepts tokens made for one of `client_ids`, signed with one of the certificates at `certs_url`.

    The certificates (PEM by kid, or a JWK set) are kept in memory for as long as their Cache-Control says. Google
    publishes a key long before it signs with it, so a kid that is not among fresh ones is refused without asking.

    One thread does everything: a requests.Session is not made for several, checking takes a fifth of a millisecond,
    and sign-ins that come while certificates are fetched wait for that one fetch.
    """

    def __init__(
        self,
        client_ids: Sequence[str],
        certs_url: str = GOOGLE_CERTS_URL,
        *,
        pause_s: float = _PAUSE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """For `pause_s` seconds after a fetch that failed there is no other."""
        self._client_ids = list(client_ids)
        self._certs_url = certs_url
        self._certificates = _Certificates(pause_s, monotonic)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="google")

    async def identify(self, token: str) -> GoogleIdentity:
        """Raises InvalidGoogleTokenError; UnavailableError while there are no certificates and none can be loaded."""
        checking = asyncio.get_running_loop().run_in_executor(self._executor, self._verify, token)
        try:
            claims = await asyncio.wait_for(checking, _TOTAL_TIMEOUT_S)
        except (_NoCertificatesError, TimeoutError) as error:
            raise UnavailableError("Google cannot be reached right now, please try again in a moment") from error
        # The causes have the token in their messages. Deeply nested JSON is a RecursionError.
        except (GoogleAuthError, jwt.PyJWTError, ValueError, RecursionError):
            raise InvalidGoogleTokenError from None
        return identity_of(claims)

    def close(self) -> None:
        """Drop what waits, and the connection."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._certificates.close()

    def _verify(self, token: str) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = id_token.verify_token(
            token, self._certificates, self._client_ids, self._certs_url, _CLOCK_SKEW_S
        )
        # PyJWT, which checks tokens against a JWK set, takes them without an expiry too.
        if claims.get("iss") not in _ISSUERS or "exp" not in claims:
            raise InvalidGoogleTokenError
        return claims


class _NoCertificatesError(Exception):
    """There are none that are fresh."""


class _Certificates(transport.Request):
    """The transport by which google-auth asks for certificates: cached, and sure to be certificates. For one thread."""

    def __init__(self, pause_s: float, monotonic: Callable[[], float]) -> None:
        self._pause_s = pause_s
        self._monotonic = monotonic
        self._not_before = 0.0
        self._cache = DictCache()
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, CacheControlAdapter(self._cache))
        self._request = Request(self._session)

    def __call__(self, url: str, method: str = "GET", *_: Any, **__: Any) -> transport.Response:
        """Raises _NoCertificatesError."""
        if self._monotonic() < self._not_before:
            raise _NoCertificatesError("They could not be fetched a moment ago")
        try:
            response: transport.Response = self._request(url, method, timeout=_FETCH_TIMEOUT_S)
            if response.status != requests.codes.ok:
                raise _NoCertificatesError(f"The server answered {response.status}")
            _refuse_garbage(response.data)
        # Whatever it is, it is the server's: no token has been looked at.
        except Exception as error:
            log.warning("Google's certificates cannot be fetched", url=url, error=repr(error))
            self._not_before = self._monotonic() + self._pause_s
            self._forget()
            raise _NoCertificatesError("They cannot be fetched") from error
        return response

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _forget(self) -> None:
        """Garbage too may have said that it is good for hours."""
        for key in list(self._cache.data):
            self._cache.delete(key)


def _refuse_garbage(body: bytes) -> None:
    """Raises all kinds of errors."""
    certificates = json.loads(body)
    if "keys" in certificates:
        jwt.PyJWKSet.from_dict(certificates)
        return
    if not certificates:
        raise ValueError("There are no certificates")
    for pem in certificates.values():
        x509.load_pem_x509_certificate(pem.encode())


def identity_of(claims: Mapping[str, Any]) -> GoogleIdentity:
    """The claims of https://developers.google.com/identity/openid-connect/openid-connect#an-id-tokens-payload."""
    subject, email = claims.get("sub"), claims.get("email")
    if not isinstance(subject, str) or not isinstance(email, str):
        raise InvalidGoogleTokenError("The Google token has no email address, please allow access to it")
    return GoogleIdentity(
        subject=subject,
        email=email,
        email_verified=claims.get("email_verified") is True,
        name=claims.get("name"),
        picture=claims.get("picture"),
    )
