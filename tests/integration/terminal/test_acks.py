"""Numbered input through real sockets that are cut: what is sent again is typed once."""

from __future__ import annotations

import random

import pytest

from libs.common.ids import new_id
from tests.integration.terminal.harness import Service
from tests.integration.terminal.retyping import type_through_cuts


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
async def test_a_client_that_is_cut_off_again_and_again_types_everything_once(service: Service, binary: bool) -> None:
    await type_through_cuts([service], random.Random(11), count=150, binary=binary)


async def test_acknowledgements_follow_what_is_typed(service: Service) -> None:
    user_id = new_id()
    environment_id = await service.environment(user_id)
    async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
        assert shell.frames[0]["seq"] == 0
        await shell.send(type="input", data="echo =$((6*7))=\n", seq=1)
        assert await shell.frame("ack") == {"type": "ack", "seq": 1}
        await shell.expect("=42=")
        await shell.send(type="input", data="lost", seq=3)
        assert (await shell.frame("error"))["code"] == "input_gap"
        assert await shell.frame("ack") == {"type": "ack", "seq": 1}
