"""`devpocket users …`: accounts from the command line, straight on the database.

Events ride in the written documents; the sweep of a running auth service publishes them within seconds, or the next one
that starts. Settings come from the environment, where `devpocket` has put those of its stack.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, TypeVar

import typer
from pymongo.errors import PyMongoError

from libs.common import mongo, redis
from libs.common.context import Cause, acting
from libs.common.contracts.identity import Plan
from libs.common.errors import DevPocketError
from libs.common.history.query import parse_time
from libs.common.messaging.outbox import OutboxRelay
from libs.common.security.revocation import Revocations
from libs.common.telemetry import configure_telemetry
from services.auth.assembly import AuthServices, make_key_ring
from services.auth.domain.audit import AuditEntry, AuditQuery
from services.auth.domain.rules import username_from
from services.auth.domain.users import User
from services.auth.keyring import PUBLISHED_AHEAD
from services.auth.schemas.accounts import UserOut
from services.auth.schemas.audit import AuditOut
from services.auth.schemas.fields import check_email
from services.auth.service.accounts import AccountChange, NewAccount
from services.auth.settings import AuthSettings

# Replicas of auth look for new keys once a minute.
_LEAST_AHEAD_S = 65

app = typer.Typer(help="Accounts: administrators, plans, locks, signing keys.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Who = Annotated[str, typer.Argument(help="User name or email address.", metavar="USER")]
T = TypeVar("T")


class _LeftToTheService:
    """A publisher that never publishes: the events wait in the database."""

    connected = False

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Raises ConnectionError."""
        raise ConnectionError("left to the auth service")


@asynccontextmanager
async def _services() -> AsyncIterator[AuthServices]:
    settings = AuthSettings()
    configure_telemetry("auth", settings.model_copy(update={"log_level": "ERROR", "log_format": "console"}))
    client, cache = mongo.connect(settings), redis.connect(settings)
    services = AuthServices(
        settings,
        mongo.database(client, settings, "auth"),
        OutboxRelay(_LeftToTheService()),
        Revocations(cache, token_life_s=settings.access_token_expire_minutes * 60),
        make_key_ring(settings),
    )
    try:
        await services.prepare()
        yield services
    finally:
        services.close()
        await cache.aclose()
        await mongo.close(client)


def _run(job: Callable[[AuthServices], Awaitable[T]]) -> T:
    """The result of `job`; an expected failure ends the command with its sentence and code 1."""

    async def run() -> T:
        with acting(Cause(actor="cli")):
            async with _services() as services:
                return await job(services)

    try:
        return asyncio.run(run())
    except (DevPocketError, ValueError) as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED)
    except mongo.UNAVAILABLE_ERRORS:
        typer.secho("MongoDB cannot be reached: is the stack running? Check MONGODB_URL", err=True, fg=typer.colors.RED)
    except PyMongoError as error:
        typer.secho(f"MongoDB refuses: {error}", err=True, fg=typer.colors.RED)
    raise typer.Exit(1)


def _print(users: Sequence[User], *, as_json: bool, single: bool = False) -> None:
    shown = [UserOut.of(user) for user in users]
    if as_json:
        documents = [user.model_dump(mode="json") for user in shown]
        typer.echo(json.dumps(documents[0] if single else documents))
        return
    for user in shown:
        state = "active" if user.is_active else "deactivated"
        typer.echo(f"{user.id}  {user.username:<30}  {user.subscription_plan:<8}  {state:<11}  {user.email}")


@app.command("create-admin")
def create_admin(
    email: Annotated[str, typer.Option(help="The administrator's email address.")],
    password: Annotated[
        str,
        typer.Option(
            envvar="DEVPOCKET_ADMIN_PASSWORD",
            prompt=True,
            confirmation_prompt=True,
            hide_input=True,
            help="Better typed when asked, or in the variable: arguments are visible to other users.",
        ),
    ],
    username: Annotated[str | None, typer.Option(help="Default: made from the email address.")] = None,
    full_name: Annotated[str | None, typer.Option(help="Shown in the app.")] = None,
    as_json: Json = False,
) -> None:
    """Create an administrator."""

    async def job(services: AuthServices) -> User:
        address = check_email(email)
        name = username or username_from(address)
        return await services.accounts.create_admin(NewAccount(name, address, password, full_name))

    _print([_run(job)], as_json=as_json, single=True)


@app.command("list")
def list_users(
    q: Annotated[str, typer.Option("--q", help="Part of a user name or email address.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
    as_json: Json = False,
) -> None:
    """List accounts, the oldest first."""

    async def job(services: AuthServices) -> list[User]:
        users, _ = await services.accounts.page(q, None, limit)
        return users

    _print(_run(job), as_json=as_json)


@app.command("set-plan")
def set_plan(who: Who, plan: Annotated[Plan, typer.Argument(help="The new plan.")], as_json: Json = False) -> None:
    """Give an account another plan; `admin` makes it an administrator."""
    _print([_administer(who, AccountChange(plan=plan))], as_json=as_json, single=True)


@app.command()
def unlock(who: Who, as_json: Json = False) -> None:
    """Lift the lock that too many wrong passwords have set."""
    _print([_administer(who, AccountChange(unlock=True))], as_json=as_json, single=True)


@app.command()
def verify(who: Who, as_json: Json = False) -> None:
    """Take an account's address as verified, e.g. where no mails can be sent."""
    _print([_administer(who, AccountChange(is_verified=True))], as_json=as_json, single=True)


@app.command()
def deactivate(who: Who, as_json: Json = False) -> None:
    """Shut an account out and end its sessions."""
    _print([_administer(who, AccountChange(is_active=False))], as_json=as_json, single=True)


@app.command()
def activate(who: Who, as_json: Json = False) -> None:
    """Let a deactivated account in again."""
    _print([_administer(who, AccountChange(is_active=True))], as_json=as_json, single=True)


@app.command("rotate-keys")
def rotate_keys(
    ahead: Annotated[
        int,
        typer.Option(
            min=_LEAST_AHEAD_S, max=24 * 60 * 60, help="Seconds until it signs; every replica must have seen it."
        ),
    ] = int(PUBLISHED_AHEAD.total_seconds()),
    as_json: Json = False,
) -> None:
    """Make the next signing key; it is published at once and signs ten minutes later, when every service has it."""
    key = _run(lambda services: services.ring.rotate(timedelta(seconds=ahead)))
    found = {"kid": key.kid, "signs_from": key.signs_from.isoformat()}
    typer.echo(json.dumps(found) if as_json else f"Key {key.kid} signs from {key.signs_from:%Y-%m-%d %H:%M:%S} UTC")


@app.command()
def delete(
    who: Who,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete an account with all that belongs to it: environments with their files, sessions, API keys."""
    if not yes:
        typer.confirm(f"Delete the account {who} with all its environments and files?", abort=True)

    async def job(services: AuthServices) -> None:
        user = await services.accounts.find(who)
        await services.deletion.delete(user.id, by=None)

    _run(job)
    typer.echo("The account is gone; what belongs to it goes now. 'devpocket users audit' shows when it has")


@app.command()
def audit(  # noqa: PLR0917 - typer passes arguments by name
    user: Annotated[str | None, typer.Option(help="Whose account or environment: an id.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who did it: a user id, a service, or cli.")] = None,
    action: Annotated[str | None, typer.Option(help="Such as user.logged_in.")] = None,
    since: Annotated[str | None, typer.Option(help="30s, 10m, 2h, 7d (ago), or an ISO 8601 time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
    as_json: Json = False,
) -> None:
    """Who did what, when, from where; the newest first."""

    async def job(services: AuthServices) -> list[AuditEntry]:
        query = AuditQuery(user_id=user, actor=actor, action=action, since=parse_time(since) if since else None)
        found, _ = await services.audit.page(query, None, limit)
        return found

    found = _run(job)
    if as_json:
        typer.echo(json.dumps([AuditOut.of(entry).model_dump(mode="json") for entry in found]))
        return
    for entry in found:
        details = " ".join(f"{name}={value}" for name, value in entry.details.items())
        typer.echo(
            f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.action:<24}  {entry.actor:<32}  {entry.address or '-'}  {details}"
        )


def _administer(who: str, change: AccountChange) -> User:
    async def job(services: AuthServices) -> User:
        user = await services.accounts.find(who)
        return await services.accounts.administer(user.id, change, by=None)

    return _run(job)
