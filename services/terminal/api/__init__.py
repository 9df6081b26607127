"""HTTP and WebSocket routes."""

from services.terminal.api import files, logs, nowhere, sessions, terminal, tickets
from services.terminal.api.exec import router as exec_router

routers = [tickets.router, exec_router, files.router, sessions.router, terminal.router, logs.router, nowhere.router]
