"""A web application for previews, of the standard library alone: it runs inside workspaces.

`python3 webapp.py PORT NAME`: says who it is and what it was asked, streams, echoes over WebSocket.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

NAME = sys.argv[2] if len(sys.argv) > 2 else "app"
SOURCE = Path(__file__).read_text()
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self) -> None:
        """By path."""
        place = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(place.query).items()}
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.talk(place.path)
        elif place.path == "/events":
            self.events()
        elif place.path == "/echo":
            self.echo()
        elif place.path == "/count":
            size = str(sum(len(piece) for piece in self.pieces())).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(size)))
            self.end_headers()
            self.wfile.write(size)
        elif place.path == "/flood":
            self.flood(int(query["bytes"]))
        elif place.path == "/slow":
            time.sleep(3600)
        elif place.path == "/goodbye":
            self.connection.close()
        elif place.path == "/answer":
            self.send([(key, value) for key, value in query.items() if key != "status"], int(query.get("status", 200)))
        else:
            self.send([])

    def send(self, headers: list[tuple[str, str]], status: int = 200) -> None:
        """What was asked, as JSON, with these headers."""
        length = int(self.headers.get("Content-Length") or 0)
        said = {
            "name": NAME,
            "method": self.command,
            "path": self.path,
            "headers": [[key.lower(), value] for key, value in self.headers.items()],
            "body": self.rfile.read(length).decode("latin-1"),
        }
        body = json.dumps(said).encode()
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def events(self) -> None:
        """One after the other, until the client has gone."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number in range(1_000_000):
            self.wfile.write(b"data: %d\n\n" % number)
            self.wfile.flush()
            time.sleep(0.05)

    def pieces(self) -> Any:
        """The body as it comes."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                left = size
                while left:
                    piece = self.rfile.read1(left)
                    left -= len(piece)
                    yield piece
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left and (piece := self.rfile.read1(min(left, 65536))):
            left -= len(piece)
            yield piece

    def echo(self) -> None:
        """Each piece back before the next is read."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in self.pieces():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def flood(self, size: int) -> None:
        """Zeros."""
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        while size > 0:
            size -= self.wfile.write(bytes(min(size, 65536)))

    def talk(self, path: str) -> None:
        """Echo messages; `bye` closes with 4321."""
        if path == "/denied":
            self.send([], 403)
            return
        key = self.headers["Sec-WebSocket-Key"] + _GUID
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        if self.headers.get("Sec-WebSocket-Protocol"):
            self.send_header("Sec-WebSocket-Protocol", self.headers["Sec-WebSocket-Protocol"].split(",")[-1].strip())
        self.end_headers()
        told = {"name": NAME, "path": self.path, "headers": [[k.lower(), v] for k, v in self.headers.items()]}
        self.frame(1, json.dumps(told).encode())
        self.close_connection = True
        while True:
            opcode, data = self.message()
            if opcode == 8:
                self.frame(8, data)
                return
            if data == b"bye":
                self.frame(8, struct.pack(">H", 4321) + b"enough")
                return
            self.frame(opcode, data)

    def frame(self, opcode: int, data: bytes) -> None:
        size = len(data)
        head = bytes([0x80 | opcode])
        head += (
            bytes([size])
            if size < 126
            else struct.pack(">BH", 126, size)
            if size < 65536
            else struct.pack(">BQ", 127, size)
        )
        self.wfile.write(head + data)
        self.wfile.flush()

    def message(self) -> tuple[int, bytes]:
        opcode, data, final = 0, b"", False
        while not final:
            first, second = self.rfile.read(2)
            size = second & 127
            if size > 125:
                size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
            mask = self.rfile.read(4)
            part = self.rfile.read(size)
            data += bytes(byte ^ mask[index % 4] for index, byte in enumerate(part))
            opcode, final = opcode or first & 15, bool(first & 0x80)
        return opcode, data


for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
    setattr(Handler, f"do_{_method}", Handler.answer)


class Server(ThreadingHTTPServer):
    """One thread for each connection."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that go are normal."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    threading.Thread(target=server.serve_forever).start()
    print("ready", flush=True)  # noqa: T201
