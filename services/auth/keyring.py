"""The keys that access tokens are signed with: Ed25519, sealed at rest, replaced before they get old.

A key is one document whose `_id` is its place in the row, so that of several replicas exactly one makes the next key:
the insert of the others fails. A new key is published before it signs, and an old one for as long as a token that it
signed may live, so nobody ever meets a token whose key cannot be found. Only keys that open with our SECRET_KEY count:
a public key that somebody wrote into the database would otherwise be trusted.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pymongo.errors import DuplicateKeyError, PyMongoError

from libs.common.clock import Clock
from libs.common.errors import UnavailableError
from libs.common.mongo import UNAVAILABLE_ERRORS, Collection, Database, Document
from libs.common.security.sealing import SealBrokenError, Sealer
from libs.common.tasks import end_tasks

SEALING_PURPOSE = "signing-keys"

# Longer than the services keep their copy of the published keys (libs.common.security.keys).
PUBLISHED_AHEAD = timedelta(minutes=10)
# Clocks of replicas differ.
_LEEWAY = timedelta(minutes=5)
_RELOAD_INTERVAL_S = 60.0
# An unknown kid may be garbage, which must not turn into a query each; nor must a wait each while MongoDB is away.
_MIN_RELOAD_INTERVAL_S = 5.0
_MAX_TRIES = 10

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair. It signs from `signs_from` until the next one does."""

    place: int
    private: Ed25519PrivateKey
    created_at: datetime
    signs_from: datetime

    @property
    def public(self) -> Ed25519PublicKey:
        """What the signature is checked with."""
        return self.private.public_key()

    @property
    def x(self) -> str:
        """The public key as RFC 8037 writes it."""
        return _base64url(self.public.public_bytes_raw())

    @property
    def kid(self) -> str:
        """The thumbprint of RFC 7638."""
        members = {"crv": "Ed25519", "kty": "OKP", "x": self.x}
        return _base64url(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


def current_key(keys: Sequence[SigningKey], now: datetime) -> SigningKey | None:
    """The newest that may sign already; `keys` in the order of their places."""
    return next((key for key in reversed(keys) if key.signs_from <= now), None)


def published_keys(keys: Sequence[SigningKey], now: datetime, token_life: timedelta) -> list[SigningKey]:
    """All but those whose last token has expired."""
    ends = [following.signs_from + token_life + _LEEWAY for following in keys[1:]]
    retired = sum(1 for end in ends if end <= now)
    return list(keys[retired:])


class KeyRing:
    """Auth's own `KeySource`, and what its tokens are signed with.

    `token_life` is the life of an access token, `key_life` how long a key signs.
    """

    def __init__(self, sealer: Sealer, clock: Clock, *, token_life: timedelta, key_life: timedelta) -> None:
        self._database: Database | None = None
        self._sealer = sealer
        self._clock = clock
        self._token_life = token_life
        self._key_life = key_life
        self._keys: list[SigningKey] = []
        self._by_kid: dict[str, SigningKey] = {}
        self._unreadable: set[int] = set()
        self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def attach(self, database: Database) -> None:
        """Where the keys are. To be called once, before anything else: the platform wants the ring first."""
        self._database = database

    async def load(self) -> None:
        """Read the keys; make one when there is none that opens, or the newest is old. Raises PyMongoError."""
        for _ in range(_MAX_TRIES):
            last_place = await self._read()
            now = self._clock()
            if current_key(self._keys, now) is None:
                await self._add(last_place + 1, now, signs_from=now)
            elif self._keys[-1].created_at + self._key_life <= now:
                await self._add(last_place + 1, now, signs_from=now + PUBLISHED_AHEAD)
            else:
                await self._forget_retired(now)
                return
        raise UnavailableError("Signing keys cannot be made right now, please try again in a moment")

    async def rotate(self, ahead: timedelta = PUBLISHED_AHEAD) -> SigningKey:
        """Make the next key now; it signs `ahead` later, or with the first that is due before. Raises PyMongoError.

        A service that meets a key before it has heard of it asks for it at once, and again after five seconds at the
        earliest. So less than PUBLISHED_AHEAD works as well, but depends on auth being there in that moment.
        """
        await self.load()
        now = self._clock()
        await self._add(self._keys[-1].place + 1, now, signs_from=now + ahead)
        await self.load()
        return self._keys[-1]

    async def signing_key(self, now: datetime) -> SigningKey:
        """The key for a new token. Raises UnavailableError."""
        key = current_key(self._keys, now)
        if key is None:
            await self._reload()
            key = current_key(self._keys, now)
        if key is None:
            raise UnavailableError("Sign-in keys cannot be loaded right now, please try again in a moment")
        return key

    async def published(self) -> list[SigningKey]:
        """What other services may check tokens with. Raises UnavailableError."""
        now = self._clock()
        await self.signing_key(now)
        return published_keys(self._keys, now, self._token_life)

    async def get(self, kid: str) -> Any | None:
        """The public key of a token, or None for an unknown `kid`. Raises UnavailableError."""
        if kid not in self._by_kid:
            await self._reload()
        if not self._keys:
            raise UnavailableError("Sign-in keys cannot be loaded right now, please try again in a moment")
        key = self._by_kid.get(kid)
        return key.public if key is not None else None

    async def start(self) -> None:
        """Look every minute for keys of other replicas and for one that is old, until `stop`."""
        self._task = asyncio.create_task(self._reload_forever())

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            await end_tasks([self._task])

    @property
    def _collection(self) -> Collection:
        if self._database is None:
            raise RuntimeError("the key ring is not attached to a database")
        return self._database["signing_keys"]

    async def _reload(self) -> None:
        async with self._lock:
            if time.monotonic() - self._tried_at < _MIN_RELOAD_INTERVAL_S:
                return
            self._tried_at = time.monotonic()
            try:
                await self.load()
            except UNAVAILABLE_ERRORS as error:
                log.warning("signing keys not loaded", error=repr(error))

    async def _reload_forever(self) -> None:
        while True:
            await asyncio.sleep(_RELOAD_INTERVAL_S)
            try:
                await self.load()
            except (PyMongoError, UnavailableError) as error:
                log.warning("signing keys not loaded, will be tried again", error=repr(error))

    async def _read(self) -> int:
        """Take over what is stored; the place of the last key, readable or not, or 0."""
        documents = await self._collection.find({}).sort("_id", 1).to_list(None)
        keys = [key for document in documents if (key := self._open(document)) is not None]
        self._keys = keys
        self._by_kid = {key.kid: key for key in published_keys(keys, self._clock(), self._token_life)}
        return documents[-1]["_id"] if documents else 0

    def _open(self, document: Document) -> SigningKey | None:
        place: int = document["_id"]
        try:
            raw = base64.b64decode(self._sealer.open(document["sealed"]))
        except SealBrokenError:
            if place not in self._unreadable:
                self._unreadable.add(place)
                log.error(
                    "a signing key was sealed with another SECRET_KEY: tokens it signed are void, clients have to "
                    "refresh; if you did not change SECRET_KEY, check that all replicas have the same one",
                    place=place,
                )
            return None
        return SigningKey(
            place=place,
            private=Ed25519PrivateKey.from_private_bytes(raw),
            created_at=document["created_at"],
            signs_from=document["signs_from"],
        )

    async def _add(self, place: int, now: datetime, *, signs_from: datetime) -> None:
        private = base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()
        sealed = self._sealer.seal(private)
        document = {"_id": place, "sealed": sealed, "created_at": now, "signs_from": signs_from}
        try:
            await self._collection.insert_one(document)
        except DuplicateKeyError:
            log.info("another replica made the next signing key", place=place)
        else:
            log.info("made a signing key", place=place, signs_from=signs_from.isoformat())

    async def _forget_retired(self, now: datetime) -> None:
        kept = {key.place for key in published_keys(self._keys, now, self._token_life)}
        retired = [key.place for key in self._keys if key.place not in kept]
        if retired:
            self._keys = [key for key in self._keys if key.place in kept]
            await self._collection.delete_many({"_id": {"$in": retired}})


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
