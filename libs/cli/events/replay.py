"""`devpocket events replay`: a service's read models anew from the stream, and what differs from the live ones."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.events.connection import run
from libs.cli.events.options import token
from libs.cli.events.output import Column, Row, clock, note, print_table, progress_bar, say
from libs.cli.options import DATA_DIR, DataDir, Json, fail

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from libs.common.history.rebuilding import ReplayJob, ReplayPlan, ReplayReport
    from libs.common.history.recorded import Recorded
    from libs.common.history.replay import Step, TargetFactory
    from libs.common.mongo import Database

GROUP = "devpocket.replays"
# Longer silences of the past are not waited for.
_LONGEST_PAUSE_S = 60.0

Service = Annotated[str, typer.Option("--service", metavar="NAME", help="auth, envs, orchestrator or terminal.")]
Into = Annotated[
    str | None,
    typer.Option("--into", metavar="DB", help="The scratch database; made anew, and kept for you to look at."),
]
Diff = Annotated[bool, typer.Option("--diff", help="Compare with the live database and name every field that differs.")]
Environment = Annotated[str | None, typer.Option("--env", metavar="ID", help="Only this environment's events.")]
Until = Annotated[
    int | None, typer.Option("--until-seq", min=1, metavar="N", help="End with this event of the stream.")
]
Speed = Annotated[
    float | None, typer.Option("--speed", min=0.001, metavar="N", help="N times as fast as it happened, with pauses.")
]
ByStep = Annotated[bool, typer.Option("--step", help="Stop after each event and show what it changed.")]


def replay_events(
    *,
    service: Service,
    into: Into = None,
    diff: Diff = False,
    environment: Environment = None,
    until: Until = None,
    speed: Speed = None,
    by_step: ByStep = False,
    as_json: Json = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Rebuild a service's read models in a scratch database, by its own handlers, without any effect outside."""
    if diff and until is not None:
        fail("--diff compares with how it is now, --until-seq ends before: give one of them", code=2)
    if speed is not None and by_step:
        fail("--speed and --step: give one of them", code=2)
    factory = _factory(service)
    token("--env", environment, "environment id")

    async def work(js: JetStreamContext) -> ReplayReport:
        from libs.common.history.rebuilding import ReplayPlan
        from libs.common.settings import CommonSettings

        settings = CommonSettings()
        name = into or f"{settings.database_name}_replay_{service}"
        plan = ReplayPlan(service, name, environment, until, diff)
        return await _replay(js, plan, factory, settings, speed, by_step=by_step)

    report = run(data_dir, work)
    if as_json:
        typer.echo(json.dumps(report.as_json()))
    else:
        _show(report, compared=diff)
    if report.drifted or report.counts.failed:
        raise typer.Exit(1)


def _factory(service: str) -> TargetFactory:
    from importlib.metadata import entry_points

    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if service not in found:
        fail(f"--service {service}: write one of {', '.join(sorted(found))}", code=2)
    factory: TargetFactory = found[service].load()
    return factory


async def _replay(
    js: JetStreamContext, plan: ReplayPlan, factory: TargetFactory, settings: Any, speed: float | None, *, by_step: bool
) -> ReplayReport:
    from libs.common import mongo
    from libs.common.history.errors import EventsUnavailableError
    from libs.common.history.reader import StreamReader
    from libs.common.history.rebuilding import ReplayJob, scratch_database

    client = mongo.connect(settings)
    try:
        scratch = await scratch_database(client, settings, plan.into)
        live = mongo.database(client, settings, plan.service)
        job = ReplayJob(StreamReader(js), plan, factory, live=live, scratch=scratch)
        each = _pace(speed) if speed is not None else _Steps(job, scratch).show if by_step else None
        with progress_bar("replaying") as progress:
            return await job.run(None if by_step else progress, each=each)
    except mongo.UNAVAILABLE_ERRORS as error:
        raise EventsUnavailableError("MongoDB cannot be reached: is the stack running? Check MONGODB_URL") from error
    finally:
        await mongo.close(client)


def _pace(speed: float) -> Step:
    """Pauses between events as they were, divided by `speed`."""
    previous: datetime | None = None

    async def wait(item: Recorded, problem: str | None) -> None:
        nonlocal previous
        if previous is not None:
            gap_s = (item.time - previous).total_seconds() / speed
            await asyncio.sleep(min(max(gap_s, 0.0), _LONGEST_PAUSE_S))
        previous = item.time
        note(f"{item.sequence:>8}  {clock(item.time)}  {item.type}  {item.about}{f'  {problem}' if problem else ''}")

    return wait


class _Steps:
    """Shows each event with what it changed, and waits for the Enter key."""

    def __init__(self, job: ReplayJob, scratch: Database) -> None:
        self._job = job
        self._scratch = scratch
        self._known: dict[tuple[str, str], dict[str, Any]] = {}

    async def show(self, item: Recorded, problem: str | None) -> None:
        """One event. The end of the input ends the replay."""
        note(f"{item.sequence:>8}  {clock(item.time)}  {item.type}  {item.about}")
        if problem is not None:
            note(f"          {problem}")
        for change in await self._changes(item):
            note(f"          {change}")
        try:
            await asyncio.to_thread(input)
        except EOFError:
            fail("the input has ended; --step wants a key after each event")

    async def _changes(self, item: Recorded) -> list[str]:
        from libs.common.history.drift import compare

        changes: list[str] = []
        for model in self._job.target.models:
            about: dict[str, Any] = {"$or": [{"_id": item.about}, {model.environment_field or "_id": item.about}]}
            async for document in self._scratch[model.collection].find(about, dict.fromkeys(model.fields, 1)):
                key = (model.collection, document["_id"])
                changes += [
                    f"{model.collection} {key[1]}: {change.field}: {change.live} → {change.replayed}"
                    for change in compare(model, key[1], self._known.get(key, {}), document)
                ]
                self._known[key] = document
        return changes


def _show(report: ReplayReport, *, compared: bool) -> None:
    counts = report.counts
    say(f"{report.service}: {counts.events} events read, {counts.handled} handled, into the database {report.into}")
    if counts.failed:
        say(f"{counts.failed} events could not be handled:", failure=True)
        columns = [Column("SEQ", right=True), Column("SUBJECT"), Column("ERROR", keep=False)]
        print_table(columns, [Row([str(f.sequence), f.subject, f.error], failure=True) for f in counts.failures])
    if not compared:
        return
    if not report.drifted:
        say("no drift: the live read models are what the events say")
        return
    say(f"{report.drifted} fields differ from the live database:", failure=True)
    columns = [Column("COLLECTION"), Column("ID"), Column("FIELD"), Column("LIVE", keep=False)]
    columns.append(Column("REPLAYED", keep=False))
    rows = [Row([d.collection, d.id, d.field, str(d.live), str(d.replayed)], failure=True) for d in report.drift]
    print_table(columns, rows)
