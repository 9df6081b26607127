"""The `templates` collection, by name."""

from __future__ import annotations

from dataclasses import fields

from pymongo.errors import DuplicateKeyError

from libs.common.contracts.environments import Resources
from libs.common.mongo import Database, Document
from services.envs.catalog import Template, TemplateCategory, TemplateStatus

_FIELDS = [field.name for field in fields(Template) if field.name != "name"]
_MAX_TEMPLATES = 1_000


class TemplateRepository:
    """Implements TemplateStore. All access is by name, which is the key, so no further index is needed."""

    def __init__(self, database: Database) -> None:
        self._collection = database["templates"]

    async def all(self) -> list[Template]:
        """See TemplateStore."""
        cursor = self._collection.find().sort("_id", 1).limit(_MAX_TEMPLATES)
        return [_from_document(document) for document in await cursor.to_list(_MAX_TEMPLATES)]

    async def get(self, name: str) -> Template | None:
        """See TemplateStore."""
        document = await self._collection.find_one({"_id": name})
        return _from_document(document) if document is not None else None

    async def insert(self, template: Template) -> bool:
        """See TemplateStore."""
        try:
            await self._collection.insert_one(_to_document(template))
        except DuplicateKeyError:
            return False
        return True

    async def replace(self, template: Template) -> bool:
        """See TemplateStore."""
        result = await self._collection.replace_one({"_id": template.name}, _to_document(template))
        return result.matched_count == 1


def _to_document(template: Template) -> Document:
    document: Document = {"_id": template.name, **{name: getattr(template, name) for name in _FIELDS}}
    document["category"] = template.category.value
    document["status"] = template.status.value
    document["default_resources"] = template.default_resources.model_dump()
    document["tags"] = list(template.tags)
    document["startup_commands"] = list(template.startup_commands)
    # A variable's name may be anything a shell takes, so the pairs are stored as a list, not as field names.
    document["environment_variables"] = [[name, value] for name, value in template.environment_variables.items()]
    return document


def _from_document(document: Document) -> Template:
    values = {name: document[name] for name in _FIELDS if name in document}
    values["category"] = TemplateCategory(document["category"])
    values["status"] = TemplateStatus(document["status"])
    values["default_resources"] = Resources.model_construct(**document["default_resources"])
    values["tags"] = tuple(document["tags"])
    values["startup_commands"] = tuple(document["startup_commands"])
    values["environment_variables"] = dict(document["environment_variables"])
    return Template(name=document["_id"], **values)
