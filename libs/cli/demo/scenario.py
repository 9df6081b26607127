"""The main job as a script: sign in, get a machine, type into a real shell, find the file again, clean up.

It speaks to the gateway only, as a phone would, and stops at the first surprise. That a service is restarted is none:
connections that last are made anew.
"""

from __future__ import annotations

import json
import secrets
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from libs.cli.demo.changes import Changes
from libs.cli.demo.shell import OUTPUT_TIMEOUT_S, DemoError, RefusedError, Shell, again_until

_CALL_TIMEOUT_S = 15.0
_METRICS_TIMEOUT_S = 30.0
_METRICS_POLL_S = 0.5
_GREETING = "hello from the startup command"
_PROOF = "this file survives a stop"


class Reporter(Protocol):
    """Shows progress."""

    def started(self, step: str) -> None:
        """A step begins."""
        ...

    def passed(self, step: str, duration_ms: float, detail: str) -> None:
        """It worked."""
        ...

    def failed(self, step: str, duration_ms: float, error: str) -> None:
        """It did not; the demo ends."""
        ...


class Step:
    """One running step; `detail` is shown beside it."""

    detail = ""


class Demo:
    """One run against the gateway at `url`. `context` says whom to trust there; None where it speaks plain HTTP."""

    def __init__(self, url: str, reporter: Reporter, context: ssl.SSLContext | None = None) -> None:
        self._url = url.rstrip("/")
        self._reporter = reporter
        self._context = context
        self._http = httpx.Client(base_url=f"{self._url}/api/v1", timeout=_CALL_TIMEOUT_S, verify=context or True)
        self._environment = ""
        self._token = ""

    def run(self) -> None:
        """All steps. Raises DemoError at the first surprise, after reporting it."""
        with self._http:
            self._sign_in()
            try:
                self._create()
                self._work_in_terminal()
                self._stop_and_start()
                self._find_file_again()
                self._follow_logs()
                self._read_metrics()
                self._list_events()
            except DemoError:
                self._clean_up()
                raise
            self._delete()
            self._log_out()

    @contextmanager
    def _step(self, name: str) -> Iterator[Step]:
        self._reporter.started(name)
        started = time.perf_counter()
        step = Step()
        try:
            yield step
        except (DemoError, httpx.HTTPError, WebSocketException, OSError, ValueError, KeyError) as error:
            message = str(error) or repr(error)
            self._reporter.failed(name, (time.perf_counter() - started) * 1000, message)
            raise DemoError(f"{name}: {message}") from error
        self._reporter.passed(name, (time.perf_counter() - started) * 1000, step.detail)

    def _call(self, method: str, path: str, expected: int, body: dict[str, Any] | None = None) -> Any:
        response = self._http.request(method, path, json=body)
        if response.status_code != expected:
            said = f"answered {response.status_code}, not {expected}: {response.text[:300]}"
            raise RefusedError(f"{method} {path} {said}", response.status_code)
        return response.json()

    def _sign_in(self) -> None:
        name = f"demo-{secrets.token_hex(5)}"
        password = f"Aa1-{secrets.token_urlsafe(16)}"
        with self._step("register") as step:
            account = {"username": name, "email": f"{name}@example.com", "password": password}
            step.detail = self._call("POST", "/auth/register", 201, account)["username"]
        with self._step("log in") as step:
            tokens = self._call("POST", "/auth/login", 200, {"username_or_email": name, "password": password})
            self._token = tokens["access_token"]
            self._http.headers["Authorization"] = f"Bearer {self._token}"
            step.detail = f"token for {tokens['expires_in']} s"

    def _create(self) -> None:
        with closing(Changes(self._http)) as changes:
            with self._step("create a python environment") as step:
                body = {"name": "demo", "template": "python", "startup_command": f"echo {_GREETING}"}
                created = self._call("POST", "/environments", 201, body)
                if created["status"] != "creating":
                    raise DemoError(f"status is {created['status']}, not creating")
                self._environment = created["id"]
                step.detail = self._environment
            with self._step("wait until it runs"):
                changes.wait(self._environment, "running")

    def _work_in_terminal(self) -> None:
        with self._terminal() as shell:
            with self._step("run python3 in the terminal") as step:
                shell.type('python3 -c "print(6*7)"\n')
                answer = shell.expect(r"\b42\b")
                step.detail = f"6*7 is {answer}"
            with self._step("write a file"):
                shell.type(f"echo {_PROOF} > proof.txt && echo writ''ten\n")
                shell.expect("written")
            with self._step("resize to 120 x 40") as step:
                shell.resize(120, 40)
                shell.type("stty size\n")
                step.detail = f"stty size: {shell.expect('40 120')}"
            with self._step("leave the shell") as step:
                shell.type("exit\n")
                step.detail = f"exit code {shell.expect_exit()}"

    def _stop_and_start(self) -> None:
        with closing(Changes(self._http)) as changes:
            for verb, status in (("stop", "stopped"), ("start", "running")):
                with self._step(f"{verb} it"):
                    self._call("POST", f"/environments/{self._environment}/{verb}", 200)
                    changes.wait(self._environment, status)

    def _find_file_again(self) -> None:
        with self._terminal() as shell, self._step("find the file again") as step:
            shell.type("cat proof.txt\n")
            step.detail = shell.expect(_PROOF)

    def _follow_logs(self) -> None:
        with self._step("follow the logs") as step:
            deadline = time.monotonic() + OUTPUT_TIMEOUT_S
            step.detail = again_until(deadline)(self._find_greeting, deadline)

    def _find_greeting(self, deadline: float) -> str:
        with self._socket("logs", "follow=true&tail=100") as socket:
            while True:
                line = json.loads(socket.recv(timeout=max(deadline - time.monotonic(), 0.01)))
                if line["type"] == "log" and _GREETING in line["message"]:
                    return f"{line['timestamp']} {line['message']}"

    def _read_metrics(self) -> None:
        with self._step("read metrics") as step:
            deadline = time.monotonic() + _METRICS_TIMEOUT_S
            while True:
                metrics = self._call("GET", f"/environments/{self._environment}/metrics", 200)
                if metrics["memory_usage"] > 0 and metrics["storage_usage"] > 0:
                    step.detail = f"memory {metrics['memory_usage']:.3g} %, storage {metrics['storage_usage']:.3g} %"
                    return
                if time.monotonic() > deadline:
                    raise DemoError(f"metrics are still zero: {metrics}")
                time.sleep(_METRICS_POLL_S)

    def _list_events(self) -> None:
        with self._step("list its events in order") as step:
            events = self._call("GET", f"/environments/{self._environment}/events", 200)["events"]
            names = [".".join(event["type"].split(".")[1:3]) for event in events]
            sequences = [event["sequence"] for event in events]
            if sequences != sorted(sequences):
                raise DemoError(f"events are out of order: {sequences}")
            milestones = ["env.created", "runtime.running", "env.stop_requested", "runtime.stopped"]
            positions = [names.index(milestone) for milestone in [*milestones, "env.start_requested"]]
            if positions != sorted(positions):
                raise DemoError(f"the story is told in the wrong order: {names}")
            step.detail = f"{len(names)} events, {names[0]} to {names[-1]}"

    def _delete(self) -> None:
        with closing(Changes(self._http)) as changes, self._step("delete it") as step:
            self._call("DELETE", f"/environments/{self._environment}", 200)
            changes.wait(self._environment, "terminated")
            self._call("GET", f"/environments/{self._environment}", 404)
            step.detail = "404"

    def _log_out(self) -> None:
        with self._step("log out") as step:
            self._call("POST", "/auth/logout", 200)
            self._call("GET", "/environments", 401)
            step.detail = "the token is dead"

    def _clean_up(self) -> None:
        """Best effort after a failure, so that a failed demo leaves no environment running."""
        if self._environment:
            try:
                self._http.delete(f"/environments/{self._environment}")
            except httpx.HTTPError:
                return

    @contextmanager
    def _terminal(self) -> Iterator[Shell]:
        with self._step("open a terminal") as step:
            shell = Shell(lambda query: self._socket("terminal", query))
            step.detail = f"session {shell.session_id}"
        with closing(shell):
            yield shell

    def _socket(self, kind: str, query: str) -> ClientConnection:
        """A single-use ticket keeps the long-lived token out of the URL."""
        body = {"environment_id": self._environment, "kind": kind}
        ticket = self._call("POST", "/ws/tickets", 201, body)["ticket"]
        base = self._url.replace("http", "ws", 1)
        url = f"{base}/api/v1/ws/{kind}/{self._environment}?ticket={ticket}&{query}"
        return connect(url, open_timeout=_CALL_TIMEOUT_S, ssl=self._context)
