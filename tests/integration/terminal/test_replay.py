"""What the events make of users, keys and sessions is the same a second time. No other replica may listen meanwhile."""

from __future__ import annotations

import nats

from libs.common import mongo
from libs.common.contracts.identity import Scope
from libs.common.contracts.users import UserDeleted
from libs.common.history.reader import StreamReader
from libs.common.history.rebuilding import ReplayJob, ReplayPlan, scratch_database
from libs.common.ids import new_id
from services.terminal.replay import replay_target
from tests.integration.terminal.harness import running_service, user_state
from tests.integration.terminal.test_accounts import sessions_of
from tests.support.app import eventually
from tests.support.servers import Servers


async def test_a_replay_finds_the_same_users_keys_and_sessions(clean_backend: Servers) -> None:
    database_name = f"test_{new_id()[-12:]}"
    async with running_service(clean_backend, database_name=database_name) as service:
        gone, stays = new_id(), new_id()
        for user_id in (gone, stays):
            key = str(await service.api_key(user_id, Scope.TERMINAL))
            environment_id = await service.environment(user_id)
            async with service.shell(environment_id, key) as shell:
                await shell.type("exit\n")
                assert await shell.closed() == 1000
        environment_id = await service.environment(gone)
        async with service.shell(environment_id, service.issuer.token(gone)) as shell:
            await service.publish(user_state(UserDeleted, gone, version=2, is_active=False), gone)
            assert await shell.closed() == 4401
        count = sessions_of(service, gone)

        async def are_gone() -> bool:
            return await count() == 0

        await eventually(are_gone)
        await service.caught_up("sessions")
    settings = service.settings
    client, connection = mongo.connect(settings), await nats.connect(settings.nats_url.get_secret_value())
    scratch = await scratch_database(client, settings, f"{database_name}_again")
    live = mongo.database(client, settings, "terminal")
    plan = ReplayPlan("terminal", f"{database_name}_again", diff=True)
    job = ReplayJob(StreamReader(connection.jetstream()), plan, replay_target, live=live, scratch=scratch)
    report = await job.run()
    assert (report.counts.failed, report.drift) == (0, [])
    assert [document["user_id"] for document in await scratch["sessions"].find({}).to_list(None)] == [stays]
    assert await scratch["api_keys"].count_documents({"secret_hash": None}) == 1
    await connection.close()
    await mongo.close(client)
