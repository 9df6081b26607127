"""What the operator's URL decides about the connection."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from libs.common import mongo
from libs.common.settings import CommonSettings


@pytest.mark.parametrize(("query", "retried"), [("", True), ("?retryWrites=false", False)])
async def test_writes_are_retried_unless_the_url_says_otherwise(query: str, retried: bool) -> None:
    settings = CommonSettings(mongodb_url=SecretStr(f"mongodb://127.0.0.1:1/{query}"), _env_file=None)

    client = mongo.connect(settings)

    try:
        assert client.options.retry_writes is retried
    finally:
        await mongo.close(client)
