"""The process half of the port: what every driver must do."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import pytest

from libs.runtime.port import ExecRuntime, TerminalSize
from tests.runtime_contract.workspaces import (
    Driver,
    Workspaces,
    make_spec,
    new_mark,
    opened,
    read_all,
    read_all_errors,
    read_until,
    shell,
)


async def test_the_driver_is_an_exec_runtime(runtime: Driver) -> None:
    assert isinstance(runtime, ExecRuntime)


async def test_a_terminal_echoes_and_answers(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref)) as stream:
        await stream.write(b"echo $((6*7)); tty; pwd\n")
        said = await read_until(stream, b"workspace")
        assert b"42\r\n" in said
        assert b"/dev/pts/" in said
        await stream.write(b"exit 3\n")
        await read_all(stream)
        assert await stream.wait() == 3


async def test_the_login_shell_starts_in_its_home_with_the_variables(runtime: Driver, workspaces: Workspaces) -> None:
    variables = {"SECRET": 'it\'s "quoted" $HOME `id`\n\\two lines', "UNICODE": "grüße", "EMPTY": ""}
    ref = await workspaces.start(make_spec(name="my-env", variables=variables))

    async with opened(await runtime.exec(ref, ["sh", "-c", "env -0; pwd"], tty=False, env={"EXTRA": "x y"})) as stream:
        *pairs, directory = (await read_all(stream)).split(b"\0")

    seen = dict(pair.decode().split("=", 1) for pair in pairs)
    assert variables.items() <= seen.items()
    assert seen["EXTRA"] == "x y"
    assert seen["DEVPOCKET_ENVIRONMENT_ID"] == ref.environment_id
    assert seen["DEVPOCKET_ENVIRONMENT_NAME"] == "my-env"
    assert seen["HOME"] == directory.decode().strip()


async def test_only_the_workspaces_variables_are_there(
    runtime: Driver, workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "of the services")
    ref = await workspaces.start()

    _, out, _ = await workspaces.run(ref, "env")

    assert b"of the services" not in out


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)],
)
@pytest.mark.parametrize("tty", [True, False])
async def test_exit_codes(runtime: Driver, workspaces: Workspaces, command: str, code: int, tty: bool) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["sh", "-c", command], tty=tty)) as stream:
        await read_all(stream)
        assert await stream.wait() == code
        assert await stream.wait() == code


@pytest.mark.parametrize("tty", [True, False])
async def test_a_missing_program_is_code_127_and_words(runtime: Driver, workspaces: Workspaces, tty: bool) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["no-such-program", "x"], tty=tty)) as stream:
        words = await read_all(stream) + await read_all_errors(stream)
        assert await stream.wait() == 127
    assert b"no-such-program" in words


async def test_arguments_arrive_as_they_are(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    arguments = ["a b", "", "'", '"', "$HOME", "`id`", "\\", "*", "line\nbreak", "-n", "--", "ünï"]

    code, out, _ = await workspaces.run(ref, ["printf", "%s\\0", *arguments])

    assert code == 0
    assert out.decode().split("\0")[:-1] == arguments


async def test_the_size_is_known_from_the_start_and_follows(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    command = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.02; done"
    async with opened(await runtime.exec(ref, ["sh", "-c", command], size=TerminalSize(cols=101, rows=33))) as stream:
        await read_until(stream, b"33 101")
        await stream.resize(TerminalSize(cols=132, rows=50))
        await read_until(stream, b"50 132")


async def test_control_c_interrupts(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    async with opened(await shell(runtime, ref)) as stream:
        await stream.write(b"sh -c 'echo started; exec sleep 1000'\n")
        await read_until(stream, b"started")
        await stream.write(b"\x03")
        await read_until(stream, b"READY>")
        await stream.write(b"echo code $?\n")
        assert b"code 130" in await read_until(stream, b"130")


async def test_end_of_file_on_a_terminal(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["cat"])) as stream:
        await stream.write(b"hello\n")
        await read_until(stream, b"hello\r\nhello\r\n")
        await stream.write_eof()
        assert await asyncio.wait_for(stream.wait(), 30) == 0


async def test_stdin_closes_by_halves_without_a_terminal(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()

    code, out, err = await workspaces.run(ref, "cat; echo end; cat >/dev/null; echo oops >&2", stdin=b"one\ntwo")

    assert (code, out, err) == (0, b"one\ntwoend\n", b"oops\n")


async def test_stdout_and_stderr_are_apart_without_a_terminal(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    code, out, err = await workspaces.run(ref, "echo out; echo err >&2; exit 4")
    assert (code, out, err) == (4, b"out\n", b"err\n")


async def test_a_terminal_has_no_separate_stderr(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["sh", "-c", "echo err >&2"])) as stream:
        assert await stream.read_stderr() == b""
        assert await read_all(stream) == b"err\r\n"
        assert await stream.read() == b""


async def test_every_byte_passes_both_ways(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    data = bytes(range(256)) * 4096
    code, out, _ = await workspaces.run(ref, "cat", stdin=data[:60_000])
    assert (code, out) == (0, data[:60_000])

    async with opened(await runtime.exec(ref, ["sha256sum"], tty=False)) as stream:
        await stream.write(data)
        await stream.write_eof()
        assert (await read_all(stream)).split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_every_byte_passes_a_raw_terminal(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    data = bytes(range(256)) * 2048
    command = f"stty raw -echo; echo go; head -c {len(data)} | sha256sum"
    async with opened(await runtime.exec(ref, ["sh", "-c", command])) as stream:
        await read_until(stream, b"go")
        await stream.write(data)
        assert hashlib.sha256(data).hexdigest().encode() in await read_until(stream, b" ")


async def test_the_last_output_is_not_lost(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["seq", "200000"])) as stream:
        lines = (await read_all(stream)).split(b"\r\n")
    assert len(lines) == 200_001
    assert lines[-2] == b"200000"


async def test_read_gives_no_more_than_asked_for(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["printf", "abcdefgh"], tty=False)) as stream:
        parts = [await stream.read(3)]
        while parts[-1]:
            parts.append(await stream.read(3))
    assert max(map(len, parts)) <= 3
    assert b"".join(parts) == b"abcdefgh"


async def test_not_reading_pauses_the_process(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    command = "while :; do printf '%01000d' 0; printf . >> count; done"
    async with opened(await runtime.exec(ref, ["sh", "-c", command])) as stream:

        async def written() -> int:
            return int((await workspaces.run(ref, "cat count 2>/dev/null | wc -c"))[1])

        before, now = 0, 0
        async with asyncio.timeout(60):
            while before != now or now == 0:
                before = now
                await asyncio.sleep(0.5)
                now = await written()
        assert now < 5000  # kilobytes: what buffers on the way may hold
        for _ in range(200):
            await stream.read()
        async with asyncio.timeout(30):
            while await written() <= now:
                pass


async def test_writing_waits_while_nobody_reads(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["sleep", "1000"], tty=False)) as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await stream.write(b"x" * 5_000_000)


@pytest.mark.parametrize("tty", [True, False])
async def test_writing_to_what_has_ended(runtime: Driver, workspaces: Workspaces, tty: bool) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["true"], tty=tty)) as stream:
        await stream.wait()
        await read_all(stream)
        with pytest.raises(BrokenPipeError):
            await stream.write(b"anybody?")


async def count_processes(workspaces: Workspaces, ref: object, mark: str) -> int:
    """How many processes carry `mark` on their command line."""
    command = f"ps -eo args | grep -c '[s]leep {mark}'"
    return int((await workspaces.run(ref, command))[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("tty", [True, False])
async def test_close_ends_the_process_and_its_children(runtime: Driver, workspaces: Workspaces, tty: bool) -> None:
    ref = await workspaces.start()
    mark = new_mark()
    command = f"(trap '' HUP TERM; exec sleep {mark}) & nohup sleep {mark} >/dev/null 2>&1 & echo up; sleep {mark}"
    stream = await runtime.exec(ref, ["bash", "-c", command], tty=tty)
    await read_until(stream, b"up")
    assert await count_processes(workspaces, ref, mark) == 3

    async with asyncio.timeout(30):
        await stream.close()
        await stream.close()

    assert await count_processes(workspaces, ref, mark) == 0
    assert await stream.read() == b""
    assert await stream.wait() > 128
    with pytest.raises(BrokenPipeError):
        await stream.write(b"x")


async def test_close_ends_background_jobs_of_a_shell_that_left(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    mark = new_mark()
    stream = await runtime.exec(ref, ["bash", "-c", f"trap '' HUP; sleep {mark} & exit 0"])
    await stream.wait()
    await stream.close()
    assert await count_processes(workspaces, ref, mark) == 0


@pytest.mark.parametrize("tty", [True, False])
async def test_the_stream_ends_with_its_process_though_children_hold_on(
    runtime: Driver, workspaces: Workspaces, tty: bool
) -> None:
    ref = await workspaces.start()
    command = "trap '' HUP; sleep 1000 & seq 20000; exit 6"
    async with opened(await runtime.exec(ref, ["bash", "-c", command], tty=tty)) as stream:
        async with asyncio.timeout(30):
            said = await read_all(stream)
        assert said.split()[-1] == b"20000"
        assert await stream.wait() == 6


async def test_close_spares_what_left_the_session(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    mark = new_mark()
    left = f"setsid sh -c 'echo > left; exec sleep {mark}' </dev/null >/dev/null 2>&1 &"
    stream = await runtime.exec(ref, ["bash", "-c", f"{left} until [ -e left ]; do sleep 0.02; done"])
    await stream.wait()
    await stream.close()
    assert await count_processes(workspaces, ref, mark) == 1


async def test_close_while_somebody_waits(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    stream = await runtime.exec(ref, ["sleep", "1000"])
    reader, waiter = asyncio.ensure_future(stream.read()), asyncio.ensure_future(stream.wait())
    await asyncio.sleep(0.05)

    await stream.close()

    assert await asyncio.wait_for(reader, 30) == b""
    assert await asyncio.wait_for(waiter, 30) > 128


async def test_a_cancelled_read_loses_nothing(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["cat"], tty=False)) as stream:
        reading = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0.05)
        reading.cancel()
        await stream.write(b"kept")
        assert await asyncio.wait_for(stream.read(), 30) == b"kept"


async def test_streams_end_when_the_workspace_stops(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    terminal, pipe = await runtime.exec(ref, ["sleep", "1000"]), await runtime.exec(ref, ["sleep", "1000"], tty=False)

    await runtime.stop(ref, grace_seconds=0.2)

    for stream in (terminal, pipe):
        assert await asyncio.wait_for(read_all(stream), 30) == b""
        assert await asyncio.wait_for(stream.wait(), 30) > 128
        await stream.close()


async def test_many_at_once(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    answers = await asyncio.gather(*(workspaces.run(ref, f"echo {number}; exit {number}") for number in range(20)))
    assert [(code, out) for code, out, _ in answers] == [(n, b"%d\n" % n) for n in range(20)]


async def test_a_cancelled_exec_leaves_nothing(runtime: Driver, workspaces: Workspaces) -> None:
    ref, mark = await workspaces.start(), new_mark()
    for delay in (0.0, 0.002, 0.006):
        starting = asyncio.ensure_future(runtime.exec(ref, ["sleep", mark]))
        await asyncio.sleep(delay)
        starting.cancel()
        # On a fast machine it may have been through before it was cancelled.
        with contextlib.suppress(asyncio.CancelledError):
            await (await starting).close()
    async with asyncio.timeout(30):
        while await count_processes(workspaces, ref, mark):
            pass
