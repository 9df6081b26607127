"""HTTP on a byte stream, and whose pages may use our cookie."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from services.terminal.api.preview.sites import check_site
from services.terminal.domain import OriginRefusedError
from services.terminal.preview.errors import BadRequestLineError
from services.terminal.preview.exchange import BrokenAnswerError, Exchange


class Application:
    """Says what it is told to, whatever it hears."""

    def __init__(self, *says: bytes) -> None:
        self.says = list(says)
        self.heard = b""

    async def read(self, max_bytes: int = 65536) -> bytes:
        return self.says.pop(0) if self.says else b""

    async def write(self, data: bytes) -> None:
        self.heard += data

    async def write_eof(self) -> None:
        """Heard."""

    async def close(self) -> None:
        """Over."""


async def asked(application: Application) -> Exchange:
    exchange = Exchange(application)
    await exchange.send_head(b"GET", b"/a?b=1", [(b"host", b"localhost:80")])
    await exchange.end_body()
    return exchange


class TestExchange:
    async def test_a_request_is_said_as_it_is(self) -> None:
        application = Application()
        await asked(application)
        assert application.heard == b"GET /a?b=1 HTTP/1.1\r\nhost: localhost:80\r\nconnection: close\r\n\r\n"

    async def test_bodies_of_unknown_length_go_in_chunks(self) -> None:
        application = Application()
        exchange = Exchange(application)
        await exchange.send_head(b"POST", b"/", [(b"host", b"x"), (b"transfer-encoding", b"chunked")])
        await exchange.send_body(b"abc")
        await exchange.end_body()
        assert application.heard.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    async def test_an_answer_may_come_before_the_request_is_complete(self) -> None:
        exchange = Exchange(Application(b"HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno"))
        await exchange.send_head(b"POST", b"/", [(b"host", b"x"), (b"content-length", b"1000")])
        await exchange.send_body(b"abc")
        assert (await exchange.head()).status_code == 413
        assert [piece async for piece in exchange.body()] == [b"no"]

    async def test_hints_on_the_way_are_passed_over(self) -> None:
        said = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        exchange = await asked(Application(said))
        assert (await exchange.head()).status_code == 200

    async def test_an_answer_without_a_length_ends_with_the_connection(self) -> None:
        exchange = await asked(Application(b"HTTP/1.0 200 OK\r\n\r\nab", b"c"))
        await exchange.head()
        assert b"".join([piece async for piece in exchange.body()]) == b"abc"

    @pytest.mark.parametrize(
        "said", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"]
    )
    async def test_what_is_no_answer(self, said: bytes) -> None:
        exchange = await asked(Application(said))
        with pytest.raises(BrokenAnswerError):
            await exchange.head()

    async def test_an_answer_that_is_cut_is_not_taken_for_whole(self) -> None:
        exchange = await asked(Application(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"))
        await exchange.head()
        with pytest.raises(BrokenAnswerError):
            [piece async for piece in exchange.body()]

    async def test_an_endless_head_is_not_kept(self) -> None:
        application = Application(b"HTTP/1.1 200 OK\r\n", *[b"X-A: " + b"a" * 60_000 + b"\r\n"] * 20)
        exchange = await asked(application)
        with pytest.raises(BrokenAnswerError):
            await exchange.head()
        assert len(application.says) > 10

    async def test_what_cannot_be_passed_on_is_refused(self) -> None:
        exchange = Exchange(Application())
        with pytest.raises(BadRequestLineError):
            await exchange.send_head(b"GET", "/ä".encode("latin-1") + b" x", [(b"host", b"x")])


def browser(*, method: str = "GET", **headers: str) -> HTTPConnection:
    raw = [(b"host", b"env-1.preview.example.com")]
    raw += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "method": method, "headers": raw})


OWN = "https://env-1.preview.example.com"
NEIGHBOUR = "https://env-2.preview.example.com"


class TestSites:
    @pytest.mark.parametrize("in_sandbox", [True, False])
    @pytest.mark.parametrize(
        "connection",
        [
            browser(),
            browser(origin=OWN, sec_fetch_site="same-origin"),
            browser(method="POST", origin=OWN.upper()),
            browser(sec_fetch_site="none", sec_fetch_mode="navigate"),
            browser(sec_fetch_site="same-site", sec_fetch_mode="navigate"),
        ],
    )
    def test_own_pages_tools_and_links_may(self, connection: HTTPConnection, in_sandbox: bool) -> None:
        check_site(connection, in_sandbox=in_sandbox)

    @pytest.mark.parametrize("in_sandbox", [True, False])
    @pytest.mark.parametrize("origin", [NEIGHBOUR, "https://evil.example", "https://env-1.preview.example.com:8443"])
    def test_pages_elsewhere_may_not(self, origin: str, in_sandbox: bool) -> None:
        with pytest.raises(OriginRefusedError):
            check_site(browser(origin=origin), in_sandbox=in_sandbox)

    def test_a_page_without_an_origin_may_in_the_sandbox_alone(self) -> None:
        check_site(browser(origin="null"), in_sandbox=True)
        with pytest.raises(OriginRefusedError):
            check_site(browser(origin="null"), in_sandbox=False)

    def test_neighbours_embed_nothing_and_send_no_forms(self) -> None:
        for connection in (
            browser(sec_fetch_site="same-site", sec_fetch_mode="no-cors"),
            browser(method="POST", sec_fetch_site="same-site", sec_fetch_mode="navigate"),
        ):
            with pytest.raises(OriginRefusedError):
                check_site(connection, in_sandbox=False)
