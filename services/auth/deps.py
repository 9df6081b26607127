"""The use cases, for routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from services.auth.assembly import AuthServices
from services.auth.keyring import KeyRing
from services.auth.metrics import CountedSignIn
from services.auth.service.accounts import AccountService
from services.auth.service.api_keys import ApiKeyService
from services.auth.service.audit import AuditService
from services.auth.service.deletion import DeletionService
from services.auth.service.recovery import RecoveryService
from services.auth.service.sessions import SessionService


def _services(request: Request) -> AuthServices:
    services: AuthServices = request.app.state.auth
    return services


async def _accounts(request: Request) -> AccountService:
    return _services(request).accounts


async def _sessions(request: Request) -> SessionService:
    return _services(request).sessions


async def _sign_in(request: Request) -> CountedSignIn:
    sign_in: CountedSignIn = request.app.state.sign_in
    return sign_in


async def _api_keys(request: Request) -> ApiKeyService:
    return _services(request).api_keys


async def _recovery(request: Request) -> RecoveryService:
    return _services(request).recovery


async def _deletion(request: Request) -> DeletionService:
    return _services(request).deletion


async def _audit(request: Request) -> AuditService:
    return _services(request).audit


async def _ring(request: Request) -> KeyRing:
    return _services(request).ring


Accounts = Annotated[AccountService, Depends(_accounts)]
Sessions = Annotated[SessionService, Depends(_sessions)]
SignIn = Annotated[CountedSignIn, Depends(_sign_in)]
ApiKeys = Annotated[ApiKeyService, Depends(_api_keys)]
Recovery = Annotated[RecoveryService, Depends(_recovery)]
Deletion = Annotated[DeletionService, Depends(_deletion)]
Audit = Annotated[AuditService, Depends(_audit)]
Keys = Annotated[KeyRing, Depends(_ring)]
