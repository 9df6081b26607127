"""HTTP and WebSocket routes."""

from services.terminal.api import logs, terminal, tickets

routers = [tickets.router, terminal.router, logs.router]
