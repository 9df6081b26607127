"""HTTP routes: parse, call the service, answer."""

from __future__ import annotations

from services.auth.api.accounts import router as accounts
from services.auth.api.api_keys import router as api_keys
from services.auth.api.audit import router as audit
from services.auth.api.recovery import router as recovery
from services.auth.api.sessions import router as sessions
from services.auth.api.sign_in import router as sign_in
from services.auth.api.users import router as users

ROUTERS = (sign_in, accounts, sessions, api_keys, recovery, users, audit)
