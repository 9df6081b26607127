"""HTTP and WebSocket routes."""

from services.terminal.api import logs, nowhere, terminal, tickets

routers = [tickets.router, terminal.router, logs.router, nowhere.router]
