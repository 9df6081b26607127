"""Databases as files, in the layout of `mongodump --gzip`: `<database>/<collection>.bson.gz` and `.metadata.json.gz`,
so that `mongorestore --gzip` reads them as well. Documents pass as bytes; memory stays flat.

Blocking code, called in threads: copying is what the synchronous driver is quickest at.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import bson
from bson import json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from libs.common.backup.errors import BackupFailedError, BadBackupError, RestoreFailedError

DATA_SUFFIX = ".bson.gz"
METADATA_SUFFIX = ".metadata.json.gz"

_BATCH = 500
_BATCH_BYTES = 8 << 20
_COMPRESSION = 3
_TIMEOUT_MS = 5_000
_SOCKET_TIMEOUT_MS = 60_000
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
# NoSuchTransaction, SnapshotTooOld, TransactionExceededLifetimeLimitSeconds.
_OUT_OF_TIME = (251, 239, 290)
_ILLEGAL_OPERATION = 20
# Of an index's description what the server makes up itself.
_NOT_GIVEN = ("v", "ns", "key", "name")

Tell = Callable[[int], None]
"""Called with the number of documents that have passed."""
_Client = MongoClient[RawBSONDocument]
_Database = Database[RawBSONDocument]
_Collection = Collection[RawBSONDocument]


def connect(url: str) -> _Client:
    """A client that passes documents on as they are."""
    return MongoClient(
        url,
        document_class=RawBSONDocument,
        serverSelectionTimeoutMS=_TIMEOUT_MS,
        connectTimeoutMS=_TIMEOUT_MS,
        socketTimeoutMS=_SOCKET_TIMEOUT_MS,
        appname="devpocket-backup",
    )


class Moment:
    """All databases of a server as they were at one moment, whatever is written meanwhile: a transaction that reads."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._session: ClientSession | None = None

    def choose(self) -> None:
        """Now is the moment; what was acknowledged before the call is part of it. Raises BackupFailedError."""
        self.end()
        session = self._client.start_session(causal_consistency=True)
        try:
            # The snapshot must not be older than this: it would lack writes whose events are in the stream.
            self._client.admin.command("ping", session=session)
            session.start_transaction(read_concern=ReadConcern("snapshot"))
            self._client["devpocket_backup"]["moment"].find_one({}, session=session)
        except PyMongoError as error:
            session.end_session()
            raise _not_saved(error) from error
        self._session = session

    def end(self) -> None:
        """Let the server forget it."""
        if self._session is not None:
            self._session.end_session()
            self._session = None

    def save(self, name: str, folder: Path, tell: Tell = lambda _: None) -> dict[str, int]:
        """A whole database into `folder`; returns how many documents each collection has. Raises BackupFailedError."""
        database = self._client[name]
        folder.mkdir(mode=0o700)
        try:
            names = sorted(item for item in database.list_collection_names() if not item.startswith("system."))
            return {item: self._save_collection(database[item], folder, tell) for item in names}
        except (PyMongoError, OSError) as error:
            raise _not_saved(error) from error

    def _save_collection(self, collection: _Collection, folder: Path, tell: Tell) -> int:
        assert self._session is not None, "no moment is chosen"
        count = 0
        with _compressed(folder / f"{collection.name}{DATA_SUFFIX}") as file:
            for document in collection.find({}, session=self._session).batch_size(_BATCH):
                file.write(document.raw)
                count += 1
                if count % _BATCH == 0:
                    tell(_BATCH)
        tell(count % _BATCH)
        # mongorestore wants the list of indexes, and knows nothing else that these collections have.
        described = {
            "indexes": [_plain(index) for index in collection.list_indexes()],
            "options": {},
            "collectionName": collection.name,
            "type": "collection",
        }
        with _compressed(folder / f"{collection.name}{METADATA_SUFFIX}") as file:
            file.write(json_util.dumps(described, json_options=json_util.CANONICAL_JSON_OPTIONS).encode())
        return count


def is_empty(client: _Client, name: str) -> bool:
    """Whether a database holds no document. Raises PyMongoError."""
    database = client[name]
    return all(database[item].find_one({}, {"_id": 1}) is None for item in database.list_collection_names())


def saved_ids(folder: Path, collection: str) -> set[str]:
    """Of the documents that were saved into `folder`."""
    with gzip.open(folder / f"{collection}{DATA_SUFFIX}", "rb") as file:
        return {document["_id"] for document in bson.decode_file_iter(cast("BinaryIO", file), _RAW)}


def load(client: _Client, name: str, folder: Path, documents: Mapping[str, int], tell: Tell = lambda _: None) -> None:
    """Fill a database anew from `folder`, then build its indexes. Raises RestoreFailedError, BadBackupError."""
    database = client[name]
    try:
        for collection, expected in documents.items():
            loaded = _load_collection(database[collection], folder / f"{collection}{DATA_SUFFIX}", tell)
            if loaded != expected:
                raise BadBackupError(f"{folder / collection} holds {loaded} documents instead of {expected}")
            _make_indexes(database, collection, folder / f"{collection}{METADATA_SUFFIX}")
    except (PyMongoError, OSError, EOFError, bson.errors.BSONError) as error:
        raise RestoreFailedError(f"the database {name} could not be restored: {error}") from error


def _load_collection(collection: _Collection, path: Path, tell: Tell) -> int:
    count = 0
    with gzip.open(path, "rb") as file:
        for batch in _batches(cast("BinaryIO", file)):
            collection.insert_many(batch, ordered=False)
            count += len(batch)
            tell(len(batch))
    return count


def _batches(file: BinaryIO) -> Iterator[list[RawBSONDocument]]:
    batch: list[RawBSONDocument] = []
    size = 0
    for document in bson.decode_file_iter(file, _RAW):
        batch.append(document)
        size += len(document.raw)
        if len(batch) == _BATCH or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _make_indexes(database: _Database, name: str, path: Path) -> None:
    with gzip.open(path, "rb") as file:
        described = json_util.loads(file.read(), json_options=json_util.CANONICAL_JSON_OPTIONS)
    if name not in database.list_collection_names():
        database.create_collection(name)
    models = [
        IndexModel(
            list(index["key"].items()),
            name=index["name"],
            **{option: value for option, value in index.items() if option not in _NOT_GIVEN},
        )
        for index in described["indexes"]
        if index["name"] != "_id_"
    ]
    if models:
        database[name].create_indexes(models)


def _compressed(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "wb", compresslevel=_COMPRESSION))


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """A raw document and those in it as dictionaries."""
    return {name: _plain(value) if isinstance(value, Mapping) else value for name, value in document.items()}


def _not_saved(error: Exception) -> BackupFailedError:
    code = error.code if isinstance(error, OperationFailure) else None
    if code in _OUT_OF_TIME:
        return BackupFailedError(
            "reading took longer than the database keeps one moment (60 s unless set otherwise); let it keep it "
            "longer, e.g. db.adminCommand({setParameter: 1, transactionLifetimeLimitSeconds: 900}), and try again"
        )
    if code == _ILLEGAL_OPERATION:
        return BackupFailedError(
            "the database cannot be read as of one moment: MongoDB can as a replica set, also of one member"
        )
    return BackupFailedError(f"the databases could not be saved: {error}")
