"""Addresses and headers of previews."""

from __future__ import annotations

import pytest

from services.terminal.preview.address import PreviewAddress, Venue, own_place
from services.terminal.preview.headers import Asker, preview_cookies, set_cookie, to_application, to_browser

ADDRESS = PreviewAddress("env-1", 3000, b"/a")
PREFIX = "/preview/env-1/3000"
ASKER = Asker("203.0.113.7", "https", "dev.example.com")


class TestAddress:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            (b"/preview/env-1/3000/", ("env-1", 3000, b"/")),
            (b"/preview/env-1/3000", ("env-1", 3000, b"")),
            (b"/preview/env-1/65535/a%2Fb//c\n", ("env-1", 65535, b"/a%2Fb//c\n")),
        ],
    )
    def test_is_read_from_a_path(self, path: bytes, expected: tuple[str, int, bytes]) -> None:
        address = PreviewAddress.parse(path)
        assert address is not None
        assert (address.environment_id, address.port, address.target) == expected

    @pytest.mark.parametrize(
        "path",
        [b"/preview/env-1/0/", b"/preview/env-1/65536/", b"/preview/env%2F1/80/", b"/preview/../80/", b"/api/v1", b"/"],
    )
    def test_is_nothing_else(self, path: bytes) -> None:
        assert PreviewAddress.parse(path) is None


class TestVenue:
    def test_shares_the_apis_origin_by_default(self) -> None:
        venue = Venue()
        assert venue.in_sandbox("whatever.example", "env-1")
        assert venue.url("env-1", 80) == "/preview/env-1/80/"
        assert venue.admits("whatever.example", "env-1")

    def test_gives_each_environment_an_origin(self) -> None:
        venue = Venue("https://*.preview.example.com")
        assert venue.url("env-1", 80) == "https://env-1.preview.example.com/preview/env-1/80/"
        own = "ENV-1.preview.example.com"
        assert venue.admits(own, "env-1")
        assert not venue.in_sandbox(own, "env-1")

    def test_shows_none_at_the_origin_of_another(self) -> None:
        venue = Venue("https://*.preview.example.com")
        for host in ("env-2.preview.example.com", "a.env-1.preview.example.com", "ENV-2.PREVIEW.example.com"):
            assert not venue.admits(host, "env-1")

    def test_shows_it_in_a_sandbox_where_the_api_is(self) -> None:
        venue = Venue("https://*.preview.example.com")
        for host in ("dev.example.com", "preview.example.com", "env-1.preview.example.com:8443", "", "[::1"):
            assert venue.admits(host, "env-1")
            assert venue.in_sandbox(host, "env-1")


class TestRedirects:
    @pytest.mark.parametrize(
        ("location", "expected"),
        [
            ("/login?next=%2F#x", f"{PREFIX}/login?next=%2F#x"),
            (f"{PREFIX}/login", f"{PREFIX}/login"),
            ("login", "login"),
            ("?page=2", "?page=2"),
            ("http://localhost:3000/login?a=1", f"{PREFIX}/login?a=1"),
            ("http://127.0.0.1:3000", f"{PREFIX}/"),
            ("http://0.0.0.0:4000/x", "/preview/env-1/4000/x"),
            ("http://[::1]:4000/x", "/preview/env-1/4000/x"),
            ("//localhost:3000/x", f"{PREFIX}/x"),
            ("https://dev.example.com/x", f"{PREFIX}/x"),
            (f"https://dev.example.com{PREFIX}/x", f"{PREFIX}/x"),
            ("https://accounts.example.org/oauth", "https://accounts.example.org/oauth"),
            ("//elsewhere.example.org/x", "//elsewhere.example.org/x"),
            ("mailto:a@example.com", "mailto:a@example.com"),
            ("http://[broken", "http://[broken"),
        ],
    )
    def test_lead_where_they_can_be_followed(self, location: str, expected: str) -> None:
        assert own_place(location, ADDRESS, "dev.example.com") == expected


class TestRequestHeaders:
    def test_say_how_the_application_is_reached_whatever_the_client_claims(self) -> None:
        given = [
            (b"Host", b"dev.example.com"),
            (b"X-Forwarded-For", b"6.6.6.6"),
            (b"X-Forwarded-Prefix", b"/evil"),
            (b"Forwarded", b"for=6.6.6.6"),
            (b"X-Real-IP", b"6.6.6.6"),
        ]
        assert to_application(given, ADDRESS, ASKER, with_authorization=False) == [
            (b"host", b"localhost:3000"),
            (b"x-forwarded-for", b"203.0.113.7"),
            (b"x-forwarded-proto", b"https"),
            (b"x-forwarded-host", b"dev.example.com"),
            (b"x-forwarded-prefix", PREFIX.encode()),
        ]

    def test_go_without_what_is_ours_or_for_one_hop(self) -> None:
        given = [
            (b"Connection", b"keep-alive, X-Hop"),
            (b"X-Hop", b"1"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Expect", b"100-continue"),
            (b"Authorization", b"Bearer ours"),
            (b"Cookie", b"devpocket_preview=secret; theirs=1;DevPocket_Preview=other"),
            (b"Cookie", b"devpocket_preview=secret"),
        ]
        sent = dict(to_application(given, ADDRESS, ASKER, with_authorization=False))
        assert sent.pop(b"cookie") == b"theirs=1"
        assert set(sent) == {b"host", *(b"x-forwarded-" + name for name in (b"for", b"proto", b"host", b"prefix"))}

    def test_keep_what_is_the_applications_own(self) -> None:
        given = [(b"authorization", b"Basic x"), (b"accept", b"*/*"), (b"origin", b"https://dev.example.com")]
        sent = dict(to_application(given, ADDRESS, ASKER, with_authorization=True))
        assert sent[b"authorization"] == b"Basic x"
        assert sent[b"accept"] == b"*/*"
        assert sent[b"origin"] == b"http://localhost:3000"

    def test_an_origin_elsewhere_stays(self) -> None:
        sent = dict(to_application([(b"origin", b"https://x.example")], ADDRESS, ASKER, with_authorization=True))
        assert sent[b"origin"] == b"https://x.example"


class TestAnswerHeaders:
    @pytest.mark.parametrize(
        ("cookie", "expected"),
        [
            (b"a=1", b"a=1; Path=/preview/env-1/3000/"),
            (b"a=1; Path=/", b"a=1; Path=/preview/env-1/3000/"),
            (b"a=1; path=/admin; HttpOnly", b"a=1; HttpOnly; Path=/preview/env-1/3000/admin"),
            (b"a=1; Path=/preview/env-1/3000/x", b"a=1; Path=/preview/env-1/3000/x"),
            (b"a=1; Path=/preview/env-2/3000/", b"a=1; Path=/preview/env-1/3000/preview/env-2/3000/"),
            (b"a=1; Path=/preview/env-1/30001/", b"a=1; Path=/preview/env-1/3000/preview/env-1/30001/"),
            (b"a=1; Domain=example.com; Secure; Path=relative", b"a=1; Secure; Path=/preview/env-1/3000/"),
        ],
    )
    def test_cookies_stay_below_the_port(self, cookie: bytes, expected: bytes) -> None:
        kept = to_browser([(b"Set-Cookie", cookie)], ADDRESS, "dev.example.com", in_sandbox=False)
        assert kept == [(b"cache-control", b"private"), (b"set-cookie", expected)]

    @pytest.mark.parametrize("cookie", [b"devpocket_preview=x", b" DEVPOCKET_PREVIEW =x; Path=/"])
    def test_our_cookie_is_not_theirs_to_set(self, cookie: bytes) -> None:
        kept = to_browser([(b"set-cookie", cookie)], ADDRESS, "h", in_sandbox=False)
        assert kept == [(b"cache-control", b"private")]

    def test_they_speak_for_no_other_page_and_not_to_the_gateway(self) -> None:
        names = ["X-Accel-Redirect", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "NEL", "Report-To"]
        given = [(name.encode(), b"x") for name in [*names, "Service-Worker-Allowed", "Keep-Alive"]]
        kept = to_browser([*given, (b"ETag", b"y")], ADDRESS, "h", in_sandbox=False)
        assert kept == [(b"cache-control", b"private"), (b"etag", b"y")]

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            (b"public, max-age=60, s-maxage=600", b"private, max-age=60"),
            (b"no-store", b"private, no-store"),
            (b"Private , Immutable", b"private, Immutable"),
        ],
    )
    def test_no_cache_on_the_way_keeps_them(self, said: bytes, expected: bytes) -> None:
        kept = to_browser([(b"Cache-Control", said)], ADDRESS, "h", in_sandbox=False)
        assert kept == [(b"cache-control", expected)]

    def test_the_sandbox_comes_beside_their_own_policy(self) -> None:
        kept = to_browser([(b"Content-Security-Policy", b"default-src *")], ADDRESS, "h", in_sandbox=True)
        policies = [value for name, value in kept if name == b"content-security-policy"]
        assert policies[0] == b"default-src *"
        assert policies[1].startswith(b"sandbox ")
        assert b"allow-same-origin" not in policies[1]


class TestOurCookie:
    def test_is_found_among_others(self) -> None:
        headers = [(b"cookie", b"a=1; devpocket_preview=one"), (b"Cookie", b"devpocket_preview=two")]
        assert preview_cookies(headers) == ["one", "two"]

    def test_goes_to_one_environments_previews_only(self) -> None:
        cookie = set_cookie("secret", "env-1", life_seconds=60, is_secure=True)
        parts = "Path=/preview/env-1/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
        assert cookie == f"devpocket_preview=secret; {parts}"
