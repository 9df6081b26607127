"""How many documents a repository's queries make the database read."""

from __future__ import annotations

from typing import Any, cast

from libs.common.mongo import Collection


class WatchedFinds:
    """Passes everything on to `collection` and remembers each `find`: its filter in `queries`, and its cursor."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._cursors: list[Any] = []
        self.queries: list[Any] = []

    @property
    def collection(self) -> Collection:
        """To be given to a repository."""
        return cast("Collection", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def find(self, *args: Any, **options: Any) -> Any:
        """As the collection's."""
        cursor = self._collection.find(*args, **options)
        self._cursors.append(cursor)
        self.queries.append(args[0] if args else {})
        return cursor

    async def documents_read(self) -> int:
        """By all queries so far, as the database explains them."""
        plans = [await cursor.clone().explain() for cursor in self._cursors]
        return sum(plan["executionStats"]["totalDocsExamined"] for plan in plans)
