"""Directories over HTTP: pages, archives out and in, also those that somebody made with bad intent."""

from __future__ import annotations

import io
import tarfile

import httpx

from tests.integration.terminal.workspace.harness import LOCAL, Desk, archive_of, link, noise, problem


class TestPages:
    async def test_entries_are_described(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        await desk.run(f"mkdir -p {place}/d; cd {place}; echo hi > f; chmod 4751 f; ln -s f l; mkfifo p; touch .hidden")
        answer = await http.get(f"/files/{place}")
        assert answer.headers["content-type"] == "application/json"
        page = answer.json()
        assert (page["path"], page["next_cursor"]) == (place, None)
        found = [(entry["name"], entry["type"]) for entry in page["entries"]]
        types = [(".hidden", "file"), ("d", "directory"), ("f", "file"), ("l", "symlink"), ("p", "other")]
        assert found == types
        file = page["entries"][2]
        assert (file["size"], file["mode"], file["path"]) == (3, "4751", f"{place}/f")
        assert (await http.head(f"/files/{place}")).status_code == 200

    @LOCAL
    async def test_pages_are_complete_and_in_order(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        await desk.run(f"mkdir {place}; cd {place}; for n in $(seq 23); do : > $n; done")
        names, address, pages = [], f"/files/{place}?limit=5", 0
        while True:
            answer = await http.get(address)
            names += [entry["name"] for entry in answer.json()["entries"]]
            pages += 1
            if answer.json()["next_cursor"] is None:
                break
            following = answer.headers["link"]
            assert following.endswith('>; rel="next"')
            address = following[1:].partition(">")[0].partition(desk.environment_id)[2]
        assert (names, pages) == (sorted(str(number) for number in range(1, 24)), 5)

    @LOCAL
    async def test_a_page_costs_what_it_shows(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        await desk.run(f"mkdir {place}; cd {place}; seq -f 'name-%05g' 300 | xargs touch")
        page = (await http.get(f"/files/{place}", params={"limit": 2, "cursor": "bmFtZS0wMDI5OA"})).json()
        assert [entry["name"] for entry in page["entries"]] == ["name-00299", "name-00300"]
        assert page["next_cursor"] is None

    async def test_the_top_directory(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        await desk.run(f"mkdir {place}")
        for address in ("/files", "/files/"):
            page = (await http.get(address, params={"limit": 1000})).json()
            assert page["path"] == ""
            assert place in {entry["name"] for entry in page["entries"]}
        assert problem(await http.put("/files", content=b"x")) == (400, "bad_upload")
        assert (await http.delete("/files")).status_code == 405

    @LOCAL
    async def test_questions_that_make_no_sense(self, desk: Desk, http: httpx.AsyncClient) -> None:
        for query in ({"cursor": "?"}, {"cursor": "YS9i"}, {"limit": 0}, {"archive": "zip"}):
            assert (await http.get("/files", params=query)).status_code == 422


class TestArchives:
    async def test_there_and_back(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        data = noise(700_000)
        await http.put(f"/files/{place}/a/data", content=data)
        await desk.run(
            f"cd {place}/a; mkdir -p 'x y/deep' r; chmod 500 r; ln -s ../data 'x y/l'; ln data hard; chmod 755 data"
        )
        answer = await http.get(f"/files/{place}/a?archive=tar.gz")
        assert answer.headers["content-type"] == "application/gzip"
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
            assert set(archive.getnames()) == {".", "./data", "./hard", "./x y", "./x y/deep", "./x y/l", "./r"}

        made = await http.put(f"/files/{place}/new/b?archive=tar.gz", content=answer.content)
        assert made.status_code == 201
        same = f"cd {place}; diff -r --no-dereference a new/b && stat -c '%a %h' new/b/data"
        assert await desk.run(same) == b"755 2\n"
        await desk.nothing_waits()

    @LOCAL
    async def test_what_is_there_already_is_replaced_or_stays(
        self, desk: Desk, http: httpx.AsyncClient, place: str
    ) -> None:
        await desk.run(f"mkdir -p {place}/d/e; cd {place}; echo old > d/f; echo stays > d/e/kept; ln -s /etc d/l")
        packed = archive_of(("d/f", b"new"), ("d/e/more", b"1"), ("d/l", b"file"), ("g/h", b"2"))
        assert (await http.put(f"/files/{place}?archive=tar.gz", content=packed)).status_code == 200
        said = await desk.run(f"cd {place}; cat d/f d/e/kept d/e/more d/l g/h; ls -A . d d/e")
        assert said == b"newstays\n1file2.:\nd\ng\n\nd:\ne\nf\nl\n\nd/e:\nkept\nmore\n"

    @LOCAL
    async def test_nothing_moves_when_something_is_in_the_way(
        self, desk: Desk, http: httpx.AsyncClient, place: str
    ) -> None:
        await desk.run(f"mkdir -p {place}/z/dir; cd {place}; echo old > z/file; ln -s dir z/l")
        in_the_way = {("z/dir", b"x"): "is_a_directory", ("z/file/x", b"x"): "not_a_directory", ("z/l/x", b""): ""}
        for member, code in in_the_way.items():
            packed = archive_of(("a", b"first"), member)
            answer = await http.put(f"/files/{place}?archive=tar.gz", content=packed)
            assert problem(answer) == (409, code or "not_a_directory")
        assert await desk.run(f"ls -A {place} {place}/z/dir; cat {place}/z/file") == (
            f"{place}:\nz\n\n{place}/z/dir:\nold\n".encode()
        )
        await desk.nothing_waits()

    async def test_bad_ones_leave_no_trace(self, desk: Desk, http: httpx.AsyncClient, place: str) -> None:
        for packed in (
            archive_of(("a", b"x"), ("../x", b"x")),
            archive_of(("a", b"x"), link("l", "../../x")),
            archive_of(("a", noise(300_000)))[:-20],
            b"no gzip at all",
        ):
            answer = await http.put(f"/files/{place}?archive=tar.gz", content=packed)
            assert problem(answer) == (422, "bad_archive")
            assert await desk.run(f"ls -A {place} 2>/dev/null || echo none") == b"none\n"
        await desk.nothing_waits()

    @LOCAL
    async def test_one_that_unpacks_to_more_than_the_plan_allows(
        self, desk: Desk, http: httpx.AsyncClient, place: str
    ) -> None:
        bomb = io.BytesIO()
        with tarfile.open(fileobj=bomb, mode="w:gz", compresslevel=1) as archive:
            for number in range(3):
                info = tarfile.TarInfo(str(number))
                info.size = 40 * 1024 * 1024
                archive.addfile(info, io.BytesIO(bytes(info.size)))
        answer = await http.put(f"/files/{place}?archive=tar.gz", content=bomb.getvalue())
        assert problem(answer) == (413, "file_too_large")
