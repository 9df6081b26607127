"""HTTP and WebSocket routes."""

from services.terminal.api import files, logs, nowhere, ports, sessions, terminal, tickets
from services.terminal.api.exec import router as exec_router

routers = [
    *(tickets.router, exec_router, files.router, ports.router, sessions.router),
    *(terminal.router, logs.router, nowhere.router),
]
