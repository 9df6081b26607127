"""A shell over a WebSocket: the protocol, frame by frame."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest
from websockets.asyncio.client import connect

from libs.common.contracts.identity import PLAN_LIMITS, Plan
from libs.common.ids import new_id
from services.terminal.protocol import BINARY_SUBPROTOCOL
from tests.integration.terminal.harness import TIMEOUT_S, Service


@pytest.fixture
async def user_id() -> str:
    return new_id()


@pytest.fixture
async def environment_id(service: Service, user_id: str) -> str:
    return await service.environment(user_id)


@pytest.fixture
def token(service: Service, user_id: str) -> str:
    return service.issuer.token(user_id)


class TestJson:
    async def test_ready_comes_first_and_what_is_typed_runs(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token) as shell:
            assert shell.started_at == 0
            await shell.run("echo =$((6*7))=", "=42=")

    async def test_the_size_of_the_handshake_and_of_a_resize_reach_the_shell(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token, cols=101, rows=33) as shell:
            await shell.run("stty size", "33 101")
            await shell.send(type="resize", cols=132, rows=50)
            await shell.run("stty size", "50 132")

    async def test_exit_tells_the_code_and_closes_normally(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token) as shell:
            await shell.type("echo last words; exit 7\n")
            assert (await shell.frame("exit"))["code"] == 7
            assert shell.output.count(b"last words") == 2
            assert await shell.closed() == 1000

    async def test_ping_is_answered(self, service: Service, environment_id: str, token: str) -> None:
        async with service.shell(environment_id, token) as shell:
            await shell.send(type="ping")
            assert await shell.frame("pong") == {"type": "pong"}

    @pytest.mark.parametrize("text", ["echo =$((40+2))=\n", " echo =$((40+2))= {}\n"])
    async def test_text_that_is_no_json_object_is_input(
        self, service: Service, environment_id: str, token: str, text: str
    ) -> None:
        async with service.shell(environment_id, token) as shell:
            await shell.socket.send(text)
            await shell.expect("=42=")

    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            ({"type": "dance"}, "unknown_type"),
            ({}, "unknown_type"),
            ({"type": "input"}, "invalid_frame"),
            ({"type": "input", "data": 7}, "invalid_frame"),
            ({"type": "resize", "cols": 0, "rows": 24}, "invalid_size"),
            ({"type": "resize", "cols": 80, "rows": 65536}, "invalid_size"),
            ({"type": "resize", "cols": "80", "rows": 24}, "invalid_size"),
            ({"type": "resize", "cols": True, "rows": 24}, "invalid_size"),
            ({"type": "resize"}, "invalid_size"),
        ],
    )
    async def test_a_frame_that_makes_no_sense_gets_an_error_and_the_connection_stays(
        self, service: Service, environment_id: str, token: str, frame: dict[str, object], code: str
    ) -> None:
        async with service.shell(environment_id, token) as shell:
            await shell.send(**frame)
            assert (await shell.frame("error"))["code"] == code
            await shell.run("echo =$((1+1))=", "=2=")

    async def test_characters_arrive_whole_however_the_shell_writes_them(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token) as shell:
            byte_by_byte = r"for b in f0 9f a6 80; do printf '\x'$b; sleep 0.02; done; echo .$((9*9))"
            await shell.run(byte_by_byte, "🦀.81")
            for frame in shell.frames:
                assert "\ufffd" not in frame.get("data", "")

    async def test_bytes_that_are_no_utf8_become_replacement_characters_and_are_counted_as_bytes(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token) as shell:
            # With `read` nothing follows that may come sooner or later.
            await shell.run(r"printf 'a\xffb\xc3'; printf .$((9*9)); read", "a\ufffdb\ufffd.81")
            offset, session_id = shell.offset, shell.session_id
        async with service.shell(environment_id, token, session=session_id) as again:
            await again.until(lambda: again.offset >= offset)
            assert again.offset == offset

    async def test_a_paste_of_a_megabyte_arrives_complete(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token) as shell:
            # In canonical mode the terminal would cut lines at 4096 bytes.
            await shell.run("stty raw -echo; echo go$((1+1)); head -c 1000000 | md5sum; stty sane", "go2")
            text = "0123456789" * 100_000
            await shell.type(text)
            await shell.expect(hashlib.md5(text.encode()).hexdigest())


class TestBinary:
    async def test_output_and_input_are_bytes_and_control_stays_json(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token, binary=True) as shell:
            assert shell.socket.subprotocol == BINARY_SUBPROTOCOL
            await shell.socket.send(b"printf 'x\\xff\\x00y'; echo $((6*7))\n")
            await shell.until(lambda: b"x\xff\x00y42" in shell.output)
            await shell.send(type="resize", cols=90, rows=20)
            await shell.socket.send(b"stty size\n")
            await shell.expect("20 90")
            await shell.send(type="ping")
            await shell.frame("pong")
            await shell.socket.send(b"exit 3\n")
            assert (await shell.frame("exit"))["code"] == 3
            assert await shell.closed() == 1000

    async def test_a_client_that_offers_other_protocols_gets_json(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token) as shell:
            assert shell.socket.subprotocol is None


class TestLimits:
    async def test_a_message_beyond_the_limit_closes_with_1009(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token) as shell:
            await shell.socket.send("x" * (service.settings.terminal_message_bytes + 1))
            assert await shell.closed() == 1009

    async def test_messages_over_the_rate_are_dropped_and_the_client_is_told_how_many(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        allowed = PLAN_LIMITS[Plan.FREE].messages_per_second
        # A machine that has no time for us takes them slowly, and allows more meanwhile.
        sent = 6 * allowed
        async with service.shell(environment_id, token) as shell:
            for _ in range(sent):
                await shell.send(type="ping")
            pongs = told = 0
            async with asyncio.timeout(TIMEOUT_S):
                while pongs + told < sent:
                    await shell.receive()
                    pongs = sum(frame["type"] == "pong" for frame in shell.frames)
                    words = [frame["message"].split()[0] for frame in shell.frames if frame["type"] == "error"]
                    told = sum(1 if word == "A" else int(word) for word in words)
            assert told > 0
            assert pongs >= 2 * allowed - 64
            message = next(frame["message"] for frame in shell.frames if frame["type"] == "error")
            assert f"at most {allowed} messages a second" in message

    async def test_input_that_the_shell_does_not_take_is_bounded_and_the_client_is_told(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token) as shell:
            await shell.run("stty raw -echo; echo go$((1+1)); sleep 600", "go2")
            for _ in range(4):
                await shell.type("x" * 900_000)
            assert (await shell.frame("error"))["code"] == "input_overflow"
            await shell.send(type="ping")
            await shell.frame("pong")


class TestModes:
    async def test_two_connections_share_one_shell(self, service: Service, environment_id: str, token: str) -> None:
        async with (
            service.shell(environment_id, token) as one,
            service.shell(environment_id, token, session=one.session_id) as two,
        ):
            assert one.session_id == two.session_id
            await one.type("echo from-one-$((1+1))\n")
            await asyncio.gather(one.expect("from-one-2"), two.expect("from-one-2"))
            await two.type("echo from-two-$((1+1))\n")
            await asyncio.gather(one.expect("from-two-2"), two.expect("from-two-2"))
            await one.type("exit 5\n")
            for shell in (one, two):
                assert (await shell.frame("exit"))["code"] == 5
                assert await shell.closed() == 1000

    async def test_the_window_is_that_of_the_writer_who_was_active_last(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with service.shell(environment_id, token, cols=200, rows=60) as laptop:
            async with service.shell(environment_id, token, session=laptop.session_id, cols=40, rows=20) as phone:
                await phone.run("stty size", "20 40")
                await laptop.run("stty size", "60 200")
                await phone.send(type="resize", cols=20, rows=40)
                await phone.run("while :; do stty size; sleep 0.05; done", "40 20")
            # The phone has left, and nobody types.
            await laptop.expect("60 200")

    async def test_a_watcher_sees_everything_and_types_nothing(
        self, service: Service, environment_id: str, token: str
    ) -> None:
        async with (
            service.shell(environment_id, token, cols=80, rows=24) as writer,
            service.shell(environment_id, token, session=writer.session_id, mode="ro", cols=50, rows=5) as watcher,
        ):
            await watcher.type("echo forbidden-$((1+1))\n")
            await watcher.send(type="resize", cols=40, rows=10)
            await watcher.send(type="ping")
            await watcher.frame("pong")
            await writer.run("stty size; echo seen-$((2+2))", "24 80")
            await watcher.expect("seen-4")
            assert b"forbidden" not in watcher.output + writer.output


async def test_the_token_may_come_in_the_header(service: Service, environment_id: str, token: str) -> None:
    url = service.url(f"terminal/{environment_id}")
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(url, proxy=None, additional_headers=headers) as socket:
        assert json.loads(await socket.recv())["type"] == "ready"
