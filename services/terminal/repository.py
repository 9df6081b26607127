"""MongoDB: the read models of environments, users and clusters, and the sessions of all replicas with their events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from libs.common.clock import Clock
from libs.common.context import current_cause
from libs.common.contracts.clusters import DEFAULT_CLUSTER, ClusterHealth, ClusterState, ClusterStatus
from libs.common.contracts.environments import DesiredState, EnvironmentStatus
from libs.common.contracts.events import (
    EnvironmentStatusChanged,
    EnvironmentWish,
    Event,
    EventData,
    TerminalSessionClosed,
    TerminalSessionOpened,
)
from libs.common.messaging.outbox import PENDING, Outbox, pending
from libs.common.mongo import Collection, Database, Document
from libs.common.security.identities import Identities
from services.terminal.domain import Cluster, Environment, User
from services.terminal.ports import ClosedSession, OpenedSession

_SOURCE = "terminal"
# Three heartbeats and a slow database write.
OWNER_DEAD_AFTER_SECONDS = 30.0
_CLOSED_KEPT_DAYS = 30
# A bound for an answer; a replica lets a user have ten.
_LISTED = 500


class MongoEnvironments:
    """One document per environment: the newest wish and the newest status, each kept by its own version."""

    def __init__(self, database: Database, clock: Clock, *, tombstone_days: int) -> None:
        """`tombstone_days`: longer than events last, so that none can bring a deleted environment back."""
        self._collection = database["environments"]
        self._clock = clock
        self._tombstone_days = tombstone_days

    async def prepare(self) -> None:
        """Make the indexes."""
        await self._collection.create_index("expires_at", expireAfterSeconds=0, name="tombstones")

    async def find(self, environment_id: str) -> Environment | None:
        """None when no event told of it."""
        document = await self._collection.find_one({"_id": environment_id})
        return None if document is None else _environment(document)

    async def find_many(self, environment_ids: Iterable[str]) -> Mapping[str, Environment]:
        """Those that are known, by id."""
        ids = list(environment_ids)
        documents = await self._collection.find({"_id": {"$in": ids}}).to_list(len(ids))
        return {document["_id"]: _environment(document) for document in documents}

    async def apply(self, data: EventData) -> None:
        """Keep what is newer than what is there; safe to repeat, in any order."""
        if isinstance(data, EnvironmentWish):
            gone = data.desired is DesiredState.DELETED
            await self._keep("wish", data, {"desired": data.desired.value}, gone=gone)
        elif isinstance(data, EnvironmentStatusChanged):
            gone = data.status is EnvironmentStatus.TERMINATED
            await self._keep("status", data, {"status": data.status.value, "cluster": data.cluster}, gone=gone)

    async def _keep(
        self, part: str, data: EnvironmentWish | EnvironmentStatusChanged, fields: Document, *, gone: bool
    ) -> None:
        version = f"{part}_version"
        changes = {**fields, "user_id": data.user_id, version: data.version, f"{part}_generation": data.generation}
        if gone:
            changes["expires_at"] = self._clock() + timedelta(days=self._tombstone_days)
        # Older, or not there. The embedded database looks through the whole collection for an `$or`, even by `_id`.
        older = {"_id": data.environment_id, version: {"$not": {"$gte": data.version}}}
        try:
            await self._collection.update_one(older, {"$set": changes}, upsert=True)
        except DuplicateKeyError:
            # Either what is there is as new, or another event has just made the document.
            await self._collection.update_one(older, {"$set": changes})


class MongoUsers(Identities):
    """What every service knows of users and keys, and here also who may not have anything open."""

    async def find_many(self, user_ids: Iterable[str]) -> Mapping[str, User]:
        """Those that are known, by id."""
        ids = list(user_ids)
        documents = await self._users.find({"_id": {"$in": ids}}, {"is_active": 1, "is_deleted": 1}).to_list(len(ids))
        return {
            document["_id"]: User(document["_id"], document["is_active"], document["is_deleted"])
            for document in documents
        }


class MongoClusters:
    """One document per registered cluster, of its newest version. All access is by id: no further index is needed."""

    def __init__(self, database: Database) -> None:
        self._collection = database["clusters"]

    async def find(self, cluster_id: str) -> Cluster | None:
        """None when no event told of it."""
        document = await self._collection.find_one({"_id": cluster_id})
        if document is None:
            return None
        return Cluster(
            id=cluster_id,
            status=ClusterStatus(document["status"]),
            health=ClusterHealth(document["health"]),
            message=document["message"],
            connection_sealed=document["connection_sealed"],
        )

    async def active_ids(self) -> Sequence[str]:
        """Ids of the clusters that are neither draining nor removed."""
        cursor = self._collection.find({"status": ClusterStatus.ACTIVE.value}, {"_id": 1})
        return [document["_id"] for document in await cursor.to_list(None)]

    async def apply(self, data: EventData) -> None:
        """Keep what is newer than what is there; safe to repeat, in any order."""
        if not isinstance(data, ClusterState):
            return
        is_removed = data.status is ClusterStatus.REMOVED
        values = {
            "status": data.status.value,
            "health": data.health.value,
            "message": data.message,
            "connection_sealed": None if is_removed else data.connection_sealed,
            "version": data.version,
        }
        older = {"_id": data.cluster_id, "version": {"$lt": data.version}}
        try:
            await self._collection.update_one(older, {"$set": values}, upsert=True)
        except DuplicateKeyError:
            # Either what is there is as new, or an older event has just made the document.
            await self._collection.update_one(older, {"$set": values})


class MongoSessions:
    """Sessions with their events in the same writes, and the heartbeats of the replicas that own them."""

    def __init__(self, database: Database, outbox: Callable[[Collection], Outbox], clock: Clock) -> None:
        self._collection: Collection = database["sessions"]
        self._replicas: Collection = database["replicas"]
        self._outbox = outbox(self._collection)
        self._clock = clock

    async def prepare(self) -> None:
        """Make the indexes."""
        await self._collection.create_index([("state", 1), ("owner", 1)], name="open_by_owner")
        await self._collection.create_index("user_id", name="user")
        await self._collection.create_index("expires_at", expireAfterSeconds=0, name="closed_expire")
        life = int(OWNER_DEAD_AFTER_SECONDS * 10)
        await self._replicas.create_index("seen_at", expireAfterSeconds=life, name="dead_expire")

    async def opened(self, session: OpenedSession) -> None:
        """Store it with its session_opened event."""
        event = TerminalSessionOpened(
            session_id=session.id, environment_id=session.environment_id, user_id=session.user_id
        )
        await self._collection.insert_one(
            {
                "_id": session.id,
                "environment_id": session.environment_id,
                "user_id": session.user_id,
                "owner": session.owner,
                "login_id": session.login_id,
                "generation": session.generation,
                "is_held": session.is_held,
                "state": "open",
                "opened_at": session.opened_at,
                PENDING: pending([_event(event, session.environment_id)]),
            }
        )
        self._outbox.poke(session.id)

    async def closed(self, session: ClosedSession) -> None:
        """Close it with its session_closed event, once."""
        event = TerminalSessionClosed(
            session_id=session.id,
            environment_id=session.environment_id,
            user_id=session.user_id,
            exit_code=session.exit_code,
            reason=session.reason.value,
            output_bytes=session.output_bytes,
        )
        now = self._clock()
        await self._collection.update_one(
            {"_id": session.id, "state": "open"},
            {
                "$set": {
                    "state": "closed",
                    "reason": session.reason.value,
                    "exit_code": session.exit_code,
                    "output_bytes": session.output_bytes,
                    "closed_at": now,
                    "expires_at": now + timedelta(days=_CLOSED_KEPT_DAYS),
                },
                "$push": {PENDING: {"$each": pending([_event(event, session.environment_id)])}},
            },
        )
        self._outbox.poke(session.id)

    async def find(self, session_id: str) -> OpenedSession | None:
        """Also one that is closed, for as long as that is kept."""
        document = await self._collection.find_one({"_id": session_id}, {PENDING: 0})
        return None if document is None else _opened(document)

    async def claim(self, session: OpenedSession, owner: str) -> OpenedSession | None:
        """Make this replica its owner; None when it is closed, or not its last owner's any more."""
        document = await self._collection.find_one_and_update(
            {"_id": session.id, "state": "open", "owner": session.owner},
            {"$set": {"owner": owner}},
            projection={PENDING: 0},
            return_document=ReturnDocument.AFTER,
        )
        return None if document is None else _opened(document)

    async def open_of(self, user_id: str, environment_id: str | None) -> Sequence[OpenedSession]:
        """This user's open sessions, the newest first; in this environment, if one is given."""
        wanted = {"user_id": user_id, "state": "open"}
        if environment_id is not None:
            wanted["environment_id"] = environment_id
        # Ids are UUIDv7, which grow with time.
        cursor = self._collection.find(wanted, {PENDING: 0}).sort("_id", -1).limit(_LISTED)
        return [_opened(document) for document in await cursor.to_list(_LISTED)]

    async def told(self, session_id: str) -> None:
        """The bus has its session_closed event, which is its last."""
        await self._collection.update_one({"_id": session_id}, {"$set": {"told": True}})

    async def forget(self, user_id: str) -> None:
        """Delete this user's sessions that `told` was called for; others may have events to publish."""
        await self._collection.delete_many({"user_id": user_id, "told": True})

    async def publish(self, session_ids: Iterable[str]) -> None:
        """Flush these sessions' outboxes."""
        for session_id in session_ids:
            if not await self._outbox.flush(session_id):
                return

    async def heartbeat(self, owner: str) -> None:
        """This replica lives."""
        await self._replicas.update_one({"_id": owner}, {"$set": {"seen_at": self._clock()}}, upsert=True)

    async def retire(self, owner: str) -> None:
        """Forget the replica, so that nobody waits for it."""
        await self._replicas.delete_one({"_id": owner})

    async def living(self) -> AbstractSet[str]:
        """The owners with a heartbeat that is young enough."""
        alive_since = self._clock() - timedelta(seconds=OWNER_DEAD_AFTER_SECONDS)
        living = await self._replicas.find({"seen_at": {"$gte": alive_since}}, {"_id": 1}).to_list(None)
        return {replica["_id"] for replica in living}

    async def lost(self, limit: int) -> Sequence[OpenedSession]:
        """Open sessions without a living owner."""
        owners = list(await self.living())
        cursor = self._collection.find({"state": "open", "owner": {"$nin": owners}}).limit(limit)
        return [_opened(document) for document in await cursor.to_list(limit)]


def _environment(document: Mapping[str, Any]) -> Environment:
    desired, status = document.get("desired"), document.get("status")
    return Environment(
        id=document["_id"],
        user_id=document["user_id"],
        generation=max(document.get("wish_generation", 0), document.get("status_generation", 0)),
        desired=None if desired is None else DesiredState(desired),
        status=None if status is None else EnvironmentStatus(status),
        cluster=document.get("cluster", DEFAULT_CLUSTER),
    )


def _opened(document: Mapping[str, Any]) -> OpenedSession:
    return OpenedSession(
        id=document["_id"],
        environment_id=document["environment_id"],
        user_id=document["user_id"],
        owner=document["owner"],
        opened_at=document["opened_at"],
        login_id=document.get("login_id", ""),
        generation=document.get("generation", 0),
        is_held=document.get("is_held", False),
        is_closed=document["state"] != "open",
    )


def _event(data: EventData, environment_id: str) -> Event:
    return Event.new(data, subject=environment_id, source=_SOURCE, cause=current_cause())
