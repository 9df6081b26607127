"""The administrator that ADMIN_EMAIL and ADMIN_PASSWORD ask for."""

from __future__ import annotations

import structlog

from libs.common.ids import new_id
from services.auth.domain.rules import username_from
from services.auth.errors import EmailTakenError, UsernameTakenError
from services.auth.schemas.fields import check_email
from services.auth.service.accounts import AccountService, NewAccount
from services.auth.settings import AuthSettings

log = structlog.get_logger(__name__)


async def ensure_first_admin(accounts: AccountService, settings: AuthSettings) -> None:
    """Make it unless somebody has the address already. Bad values are logged; the service starts without."""
    if not settings.admin_email and settings.admin_password is None:
        return
    if not settings.admin_email or settings.admin_password is None:
        log.error("no first administrator: set both ADMIN_EMAIL and ADMIN_PASSWORD, or neither")
        return
    try:
        email = check_email(settings.admin_email)
        if not await accounts.exists(email):
            await _create(accounts, email, settings.admin_password.get_secret_value())
    except EmailTakenError:
        log.info("another replica made the first administrator")
    except ValueError as error:
        log.error("no first administrator: ADMIN_EMAIL or ADMIN_PASSWORD cannot be used", reason=str(error))


async def _create(accounts: AccountService, email: str, secret: str) -> None:
    username = username_from(email)
    try:
        user = await accounts.create_admin(NewAccount(username, email, secret))
    except UsernameTakenError:
        user = await accounts.create_admin(NewAccount(f"{username}-{new_id()[-6:]}", email, secret))
    log.info("made the first administrator", user_id=user.id)
