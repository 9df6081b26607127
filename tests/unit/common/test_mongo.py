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


@pytest.mark.parametrize(("query", "seconds"), [("", 3), ("?serverselectiontimeoutms=200", 0.2)])
async def test_a_server_is_waited_for_as_long_as_the_url_says(query: str, seconds: float) -> None:
    settings = CommonSettings(mongodb_url=SecretStr(f"mongodb://127.0.0.1:1/{query}"), _env_file=None)
    client = mongo.connect(settings)
    try:
        assert client.options.server_selection_timeout == seconds
    finally:
        await mongo.close(client)
