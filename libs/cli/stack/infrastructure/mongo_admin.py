"""Makes the first database user, and mongod's replica set. A program of its own: reads one JSON request from stdin.

Every action may be repeated: it looks at what is there and does what is missing.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from libs.cli.stack.ports import LOOPBACK

_TIMEOUT_MS = 10_000
_USER_EXISTS = 51003
_AUTHENTICATION_FAILED = 18
_ALREADY_INITIALIZED = 23

Client = MongoClient[dict[str, Any]]


def _client(port: int, **options: Any) -> Client:
    return MongoClient(
        LOOPBACK,
        port,
        directConnection=True,
        serverSelectionTimeoutMS=_TIMEOUT_MS,
        connectTimeoutMS=_TIMEOUT_MS,
        socketTimeoutMS=_TIMEOUT_MS,
        **options,
    )


def create_user(client: Client, user: str, password: str) -> None:
    """Make the user, or give an existing one this password."""
    try:
        client.admin.command("createUser", user, pwd=password, roles=["root"])
    except OperationFailure as error:
        if error.code != _USER_EXISTS:
            raise
        client.admin.command("updateUser", user, pwd=password)


def initiate(port: int, user: str, password: str, replica_set: str) -> None:
    """A single-node replica set with one user. mongod lets a local client do both until the first user exists."""
    member = f"{LOOPBACK}:{port}"
    with _client(port, username=user, password=password, authSource="admin") as client:
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != _AUTHENTICATION_FAILED:
                raise
            _bootstrap(port, user, password, {"_id": replica_set, "members": [{"_id": 0, "host": member}]})
            return
        if config["members"][0]["host"] != member:
            # The port is another one than at the last start, so the member does not find itself in its own set.
            config["members"][0]["host"] = member
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)
        _require_primary(client)


def _bootstrap(port: int, user: str, password: str, config: dict[str, Any]) -> None:
    with _client(port) as client:
        try:
            client.admin.command("replSetInitiate", config)
        except OperationFailure as error:
            if error.code != _ALREADY_INITIALIZED:
                raise
        _require_primary(client)
        create_user(client, user, password)


def _require_primary(client: Client) -> None:
    """The caller asks again until the election is over."""
    if not client.admin.command("hello").get("isWritablePrimary"):
        raise PyMongoError("the replica set has no primary yet")


def main() -> int:
    """Exit code 0, or 1 with the reason on standard error."""
    request = json.load(sys.stdin)
    try:
        if request["action"] == "create-user":
            with _client(request["port"]) as client:
                create_user(client, request["user"], request["password"])
        else:
            initiate(request["port"], request["user"], request["password"], request["replica_set"])
    except PyMongoError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
