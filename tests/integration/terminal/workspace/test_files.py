"""Files over HTTP, on both runtimes."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import pytest

from libs.common.contracts.identity import PLAN_LIMITS, Plan
from libs.runtime.port import WorkspaceLimits
from tests.integration.terminal.workspace.harness import LOCAL, Desk, archive_of, file, noise, problem
from tests.support.app import eventually

_MIB = 1024 * 1024
_ODD_NAMES = [b"line\nbreak '\"` $HOME `id`\n", "-rf grüße 🚂".encode(), b"\xff\xfe a\\b|c%s"]


class TestFiles:
    async def test_what_is_stored_comes_back(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        data = noise(5 * _MIB + 1)

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(data), 100_000):
                yield data[at : at + 100_000]

        made = await http.put(file(f"{place}/new/data.bin"), content=pieces())
        assert (made.status_code, made.json()["size"]) == (201, len(data))
        said = await desk.run(f"cd {place}/new; sha256sum data.bin; stat -c %a data.bin")
        assert said.split() == [hashlib.sha256(data).hexdigest().encode(), b"data.bin", b"644"]
        await desk.run(f"chmod 750 {place}/new/data.bin")

        replaced = await http.put(file(f"{place}/new/data.bin"), content=data[::-1])
        assert replaced.status_code == 200
        assert replaced.json()["etag"] == replaced.headers["etag"] != made.headers["etag"]

        answer = await http.get(file(f"{place}/new/data.bin"))
        assert answer.content == data[::-1]
        assert answer.headers["content-type"] == "application/octet-stream"
        assert (answer.headers["etag"], answer.headers["accept-ranges"]) == (replaced.headers["etag"], "bytes")
        changed = parsedate_to_datetime(answer.headers["last-modified"])
        assert abs((datetime.now(UTC) - changed).total_seconds()) < 60
        assert await desk.run(f"stat -c %a {place}/new/data.bin") == b"750\n"
        await desk.nothing_waits()

    async def test_an_empty_file(self, http: httpx.AsyncClient, place: str) -> None:
        assert (await http.put(file(f"{place}/empty"), content=b"")).status_code == 201
        answer = await http.get(file(f"{place}/empty"))
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")

    @LOCAL
    async def test_parts(self, http: httpx.AsyncClient, place: str) -> None:
        data, address = noise(300_000), file(f"{place}/parts")
        await http.put(address, content=data)
        for asked, first, end in (("100-199", 100, 200), ("299990-", 299_990, 300_000), ("-5", 299_995, 300_000)):
            answer = await http.get(address, headers={"Range": f"bytes={asked}"})
            assert (answer.status_code, answer.content) == (206, data[first:end])
            assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/300000"
        beyond = await http.get(address, headers={"Range": "bytes=300000-"})
        assert problem(beyond) == (416, "range_not_satisfiable")
        assert beyond.headers["content-range"] == "bytes */300000"

        etag = answer.headers["etag"]
        for known, status in ((etag, 206), ('"another"', 200)):
            answer = await http.get(address, headers={"Range": "bytes=0-9", "If-Range": known})
            assert answer.status_code == status
        head = await http.head(address)
        assert (head.status_code, head.headers["content-length"], head.headers["etag"]) == (200, "300000", etag)
        assert (await http.get(address, headers={"If-None-Match": f'"x", {etag}'})).status_code == 304

    @LOCAL
    async def test_only_what_the_client_expects_is_replaced(self, http: httpx.AsyncClient, place: str) -> None:
        address = file(f"{place}/note")
        new = {"If-None-Match": "*"}
        assert problem(await http.put(address, content=b"0", headers={"If-Match": "*"})) == (412, "precondition_failed")
        first = await http.put(address, content=b"1", headers=new)
        assert first.status_code == 201
        assert problem(await http.put(address, content=b"2", headers=new)) == (412, "precondition_failed")
        second = await http.put(address, content=b"22", headers={"If-Match": first.headers["etag"]})
        assert second.status_code == 200
        old = {"If-Match": first.headers["etag"]}
        assert problem(await http.put(address, content=b"333", headers=old)) == (412, "precondition_failed")
        assert (await http.get(address)).content == b"22"

    async def test_who_comes_first_among_two_that_make_a_file(self, http: httpx.AsyncClient, place: str) -> None:
        started = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"slow"
            started.set()
            await finished.wait()

        finished = asyncio.Event()
        address, new = file(f"{place}/contested"), {"If-None-Match": "*"}
        slow = asyncio.create_task(http.put(address, content=slowly(), headers=new))
        await started.wait()
        await eventually(lambda: self._is_made(http, address, new))
        finished.set()
        assert problem(await slow) == (412, "precondition_failed")
        assert (await http.get(address)).content == b"quick"

    async def _is_made(self, http: httpx.AsyncClient, address: str, new: dict[str, str]) -> bool:
        return (await http.put(address, content=b"quick", headers=new)).status_code == 201

    async def test_odd_names(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        for name in _ODD_NAMES:
            path = place.encode() + b"/" + name
            assert (await http.put(file(path + b"/" + name), content=name)).status_code == 201, name
            (entry,) = (await http.get(file(path))).json()["entries"]
            assert entry["name"] == name.decode("utf-8", "replace")
            assert (await http.get(f"/files/{entry['path']}")).content == name
            assert (await http.delete(file(path), params={"recursive": True})).status_code == 204
        assert await desk.run(f"ls -A {place}") == b""

    @LOCAL
    async def test_what_is_not_there_or_something_else(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        await desk.run(f"mkdir -p {place}/d; echo x > {place}/f; mkfifo {place}/pipe; touch {place}/d/secret")
        expected = {
            ("GET", "none"): (404, "file_not_found"),
            ("GET", "f/below"): (404, "file_not_found"),
            ("GET", "pipe"): (409, "not_a_regular_file"),
            ("PUT", "pipe"): (409, "not_a_regular_file"),
            ("PUT", "d"): (409, "is_a_directory"),
            ("PUT", "f/below"): (409, "not_a_directory"),
            ("GET", "f?archive=tar.gz"): (409, "not_a_directory"),
            ("PUT", "f?archive=tar.gz"): (409, "not_a_directory"),
            ("DELETE", "none"): (404, "file_not_found"),
            ("DELETE", "d"): (409, "directory_not_empty"),
        }
        for (method, path), problem_ in expected.items():
            body = archive_of(("x", b"x")) if "archive" in path else b"x"
            content = body if method == "PUT" else None
            answer = await http.request(method, f"/files/{place}/{path}", content=content)
            assert problem(answer) == problem_, (method, path)
        assert await desk.run(f"ls {place}") == b"d\nf\npipe\n"
        assert (await http.delete(f"/files/{place}/f")).status_code == 204
        assert (await http.delete(f"/files/{place}/d?recursive=true")).status_code == 204

    @LOCAL
    async def test_what_may_not_be_read_or_written(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        if await desk.run("id -u") == b"0\n":
            pytest.skip("everything is allowed here")
        await desk.run(f"mkdir -p {place}; echo x > {place}/secret; chmod 0 {place}/secret; chmod 500 {place}")
        assert problem(await http.get(f"/files/{place}/secret")) == (403, "path_denied")
        assert problem(await http.put(f"/files/{place}/new", content=b"x")) == (403, "path_denied")
        assert problem(await http.delete(f"/files/{place}/secret")) == (403, "path_denied")
        await desk.nothing_waits()


class TestLinks:
    async def test_none_leads_out(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        script = (
            f"mkdir {place}; cd {place}; ln -s /etc/passwd file; ln -s /etc dir; ln -s ../.. up; ln -s /tmp/new gone"
        )
        await desk.run(script)
        for path in ("file", "dir/passwd", "up"):
            assert problem(await http.get(f"/files/{place}/{path}")) == (403, "path_outside_workspace"), path
        for path in ("file", "dir/x", "up/tmp/x", "gone"):
            refused = problem(await http.put(f"/files/{place}/{path}", content=b"x"))
            assert refused == (403, "path_outside_workspace"), path
        packed = archive_of(("x", b"x"))
        for path in ("dir/more", "up"):
            refused = problem(await http.put(f"/files/{place}/{path}?archive=tar.gz", content=packed))
            assert refused == (403, "path_outside_workspace"), path
        assert problem(await http.delete(f"/files/{place}/dir/passwd")) == (403, "path_outside_workspace")
        assert (await http.delete(f"/files/{place}/dir?recursive=true")).status_code == 204
        assert await desk.run(f"ls {place}; ls /etc/passwd") == b"file\ngone\nup\n/etc/passwd\n"

    @LOCAL
    async def test_those_within_are_followed(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        await desk.run(
            f"mkdir -p {place}/real; cd {place}; ln -s real way; ln -s real/f f; ln -s loop loop; echo 1 > real/f"
        )
        assert (await http.get(f"/files/{place}/way/f")).content == b"1\n"
        assert (await http.put(f"/files/{place}/f", content=b"2")).status_code == 200
        assert (await http.put(f"/files/{place}/way/g", content=b"3")).status_code == 201
        assert await desk.run(f"cd {place}; cat real/f real/g; readlink f") == b"23real/f\n"
        assert problem(await http.get(f"/files/{place}/loop")) == (404, "file_not_found")
        assert problem(await http.put(f"/files/{place}/loop", content=b"x")) == (404, "file_not_found")

    @LOCAL
    async def test_paths_that_name_nothing(self, desk: Desk) -> None:
        bad = [
            "..",
            "../x",
            "x/../../y",
            "%2e%2e/x",
            "..%2Fx",
            "%2Fetc/passwd",
            "/etc/passwd",
            "a//b",
            "a/./b",
            "n%00l",
        ]
        for path in bad:
            for method in ("GET", "PUT", "DELETE"):
                answer = await desk.send(method, f"/files/{path}", "Content-Length: 0")
                assert answer.startswith(b"HTTP/1.1 422 "), answer
                assert b'"code":"bad_path"' in answer


class TestUploadsThatBreakOff:
    async def test_the_old_file_stays_and_nothing_is_left(
        self, desk: Desk, http: httpx.AsyncClient, place: str
    ) -> None:
        await http.put(file(f"{place}/f"), content=b"old")
        for query, announced in (("f", True), ("f", False), ("tree?archive=tar.gz", True)):
            await self._cut_off(desk, f"{place}/{query}", announced=announced)
            await desk.nothing_waits()
        assert await desk.run(f"ls -A {place}; cat {place}/f") == b"f\nold"

    async def _cut_off(self, desk: Desk, path: str, *, announced: bool) -> None:
        """Upload a part and be gone once it has arrived in the workspace."""
        token = desk.service.issuer.token(desk.user_id)
        head = f"PUT /api/v1/environments/{desk.environment_id}/files/{path} HTTP/1.1\r\nHost: x\r\n"
        body = archive_of(("data", noise(200_000))) if "archive" in path else noise(200_000)
        framing = "Content-Length: 1000000" if announced else "Transfer-Encoding: chunked"
        part = body if announced else b"%x\r\n%s\r\n" % (len(body), body)
        with socket.create_connection(tuple(desk.service.address.split(":"))) as client:  # type: ignore[arg-type]
            client.setblocking(False)
            message = f"{head}Authorization: Bearer {token}\r\n{framing}\r\n\r\n".encode() + part
            await asyncio.get_running_loop().sock_sendall(client, message)
            await eventually(lambda: self._waits(desk, 150_000))

    async def _waits(self, desk: Desk, size: int) -> bool:
        said = await desk.run("cat .devpocket-uploads/*/body 2>/dev/null | wc -c")
        return int(said) >= size

    @LOCAL
    async def test_what_a_dead_one_has_left_is_swept_away(
        self, desk: Desk, http: httpx.AsyncClient, place: str
    ) -> None:
        await desk.run(
            "mkdir -p .devpocket-uploads/1-7 .devpocket-uploads/999999-5; echo x > .devpocket-uploads/1-7/body"
        )
        assert (await http.put(file(f"{place}/f"), content=b"new")).status_code == 201
        await desk.nothing_waits()

    @LOCAL
    async def test_a_file_that_is_too_large_for_the_plan(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        limit = PLAN_LIMITS[Plan.FREE].largest_file_bytes
        announced = await desk.send("PUT", f"/files/{place}/f", f"Content-Length: {limit + 1}")
        assert announced.startswith(b"HTTP/1.1 413 ")
        assert b'"code":"file_too_large"' in announced

        token = desk.service.issuer.token(desk.user_id)
        counted = await desk.upload(f"/files/{place}/f", token, itertools.repeat(bytes(_MIB), 200))
        assert counted.startswith(b"HTTP/1.1 413 ")
        assert b'"code":"file_too_large"' in counted
        await desk.nothing_waits()
        assert await desk.run(f"ls -A {place} 2>/dev/null || true") == b""

    @LOCAL
    async def test_a_workspace_without_room(self, desk: Desk) -> None:
        limits = WorkspaceLimits(cpu_millis=1000, memory_bytes=256 * _MIB, storage_bytes=2 * _MIB)
        async with desk.another(limits) as small, small.client() as client:
            assert (await client.put("/files/f", content=b"old")).status_code == 201
            for address, body in (
                ("/files/f", noise(3 * _MIB)),
                ("/files?archive=tar.gz", archive_of(("f", bytes(3 * _MIB)))),
            ):
                assert problem(await client.put(address, content=body)) == (507, "workspace_full")
            assert (await client.get("/files/f")).content == b"old"
            await small.nothing_waits()

    @LOCAL
    async def test_bodies_of_other_calls_keep_their_limit(self, http: httpx.AsyncClient, place: str) -> None:
        data = noise(11 * _MIB)
        assert problem(await http.post("/exec", content=data)) == (413, "content_too_large")
        assert (await http.put(file(f"{place}/f"), content=data)).status_code == 201
