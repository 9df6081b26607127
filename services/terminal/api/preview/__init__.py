"""/preview/…: web applications in workspaces, over HTTP and WebSocket."""

from services.terminal.api.preview.gate import PreviewMiddleware

__all__ = ["PreviewMiddleware"]
