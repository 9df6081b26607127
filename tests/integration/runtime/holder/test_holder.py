"""Shells that outlive who talks to them: holder and keeper as real processes, with real terminals."""

from __future__ import annotations

import asyncio
import binascii
import marshal
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from libs.common.ids import new_id
from libs.runtime.holder import packing
from libs.runtime.holder.held import HoldTerms, find_shell, start_shell
from libs.runtime.holder.inside import wire
from libs.runtime.holder.shells import HolderMissingError, Shell, ShellGoneError, ShellTakenError
from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import ExecRuntime, TerminalSize, WorkspaceRef
from tests.fakes.host_processes import HostProcess, HostProcessRuntime
from tests.integration.terminal.workspace.harness import open_folder
from tests.runtime_contract.workspaces import Workspaces, make_spec
from tests.support.app import eventually

TERMS = HoldTerms(
    quiet_bytes=1 << 20,
    burst_bytes=12 << 20,
    window_bytes=256 * 1024,
    hold_seconds=30.0,
    keep_seconds=60.0,
    bytes_per_second=8 << 20,
)
SIZE = TerminalSize(80, 24)


class Desk:
    """One workspace, and a shell in it."""

    def __init__(self, runtime: ExecRuntime, ref: WorkspaceRef, home: Path) -> None:
        self.home = home
        self.runtime = runtime
        self.ref = ref
        self.session = new_id()
        self.taken: list[tuple[str, int]] = []
        self.shells: list[Shell] = []

    async def start(self, terms: HoldTerms = TERMS) -> Shell:
        shell = await start_shell(self.runtime, self.ref, self.session, SIZE, terms)
        shell.on_taken = self._note
        self.shells.append(shell)
        await shell.write(b"exec bash --norc --noprofile --noediting\nPS1=; stty -echo; echo rea''dy\n")
        await until(shell, b"ready\r\n")
        return shell

    async def find(self) -> Shell:
        shell = await find_shell(self.runtime, self.ref, self.session)
        shell.on_taken = self._note
        self.shells.append(shell)
        return shell

    def _note(self, client: str, seq: int) -> None:
        self.taken.append((client, seq))

    async def lives(self, pid: int) -> bool:
        """And is no zombie that nobody has reaped yet."""
        return await self._does(f"grep -q '^State:.[^ZX]' /proc/{pid}/status")

    async def kill(self, pid: int) -> None:
        assert await self._does(f"kill -KILL {pid}")

    async def _does(self, command: str) -> bool:
        process = await self.runtime.exec(self.ref, ["/bin/sh", "-c", f"{command} 2>/dev/null"], tty=False)
        try:
            return await process.wait() == 0
        finally:
            await process.close()

    @property
    def processes(self) -> list[HostProcess]:
        """What was started to reach the holder."""
        assert isinstance(self.runtime, HostProcessRuntime)
        return self.runtime.streams

    async def leave(self) -> None:
        for shell in reversed(self.shells):
            await shell.close()
        await self.runtime.close()


def desk_with_holder(home: Path) -> Desk:
    return Desk(HostProcessRuntime(home), WorkspaceRef(new_id(), new_id()), home)


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Desk]:
    """With a holder in the workspace, which is this machine."""
    desk = desk_with_holder(tmp_path)
    yield desk
    await desk.leave()


@pytest.fixture(params=["holder", "keeper"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    """With a holder in the workspace, or with the keeper of a sandbox's machine."""
    if request.param == "holder":
        desk = desk_with_holder(tmp_path)
        yield desk
        await desk.leave()
        return
    with open_folder() as folder:
        runtime = LocalRuntime(folder, IsolationPolicy.AUTO)
        await runtime.open()
        workspaces = Workspaces(runtime)
        ref = WorkspaceRef(new_id(), new_id())
        await workspaces.start(make_spec(ref=ref))
        desk = Desk(runtime, ref, folder)
        yield desk
        for shell in reversed(desk.shells):
            await shell.close()
        await workspaces.remove_all()
        await runtime.stop_all()
        await runtime.close()


async def until(shell: Shell, end: bytes) -> bytes:
    """What is read up to and with `end`."""
    got = b""
    async with asyncio.timeout(20):
        while end not in got:
            data = await shell.read(65536)
            assert data, got
            got += data
    return got


async def rest(shell: Shell) -> bytes:
    got = b""
    async with asyncio.timeout(20):
        while data := await shell.read(65536):
            got += data
    return got


def numbers(count: int) -> bytes:
    return b"".join(b"%d\r\n" % number for number in range(1, count + 1))


class TestOneShell:
    async def test_it_types_and_puts_out(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"echo $((6*7)); pwd; echo te''rm $TERM\n")
        assert b"42\r\n" in await until(shell, b"term xterm")

    async def test_its_exit_code_comes_after_all_output(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"seq 100000; exit 3\n")
        assert (await rest(shell)).startswith(numbers(100_000))
        assert await shell.wait() == 3

    async def test_a_job_it_leaves_behind_does_not_hold_its_end_up(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"(trap '' HUP; sleep 1000) & echo child $!; exit 4\n")
        child = int((await rest(shell)).split(b"child ")[1].split()[0])
        assert await shell.wait() == 4
        assert await desk.lives(child)
        await shell.close()
        assert not await desk.lives(child)

    async def test_it_is_a_terminal_of_the_size_that_is_wanted(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"stty size\n")
        await until(shell, b"24 80\r\n")
        await shell.resize(TerminalSize(132, 50))
        await shell.write(b"stty size\n")
        await until(shell, b"50 132\r\n")

    async def test_closing_it_ends_all_that_it_has_started(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"trap '' HUP TERM; (trap '' HUP TERM; sleep 1000) & echo child $! $$ end\n")
        words = (await until(shell, b" end\r\n")).split(b"child ")[-1].split()
        await shell.close()
        assert not any([await desk.lives(int(pid)) for pid in words[:2]])

    async def test_a_shell_killed_from_outside_tells_the_signal(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"echo pid $$ end\n")
        await desk.kill(int((await until(shell, b" end\r\n")).split(b"pid ")[-1].split()[0]))
        assert await rest(shell) == b""
        assert await shell.wait() == 128 + 9

    async def test_a_flood_waits_for_its_reader(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"exec sh -c 'seq 2000000; echo over'\n")
        await until(shell, b"1000\r\n")
        got = await rest(shell)
        assert got.endswith(b"1999999\r\n2000000\r\nover\r\n")


class TestFoundAgain:
    async def test_output_is_exact_whoever_read_how_much(self, desk: Desk) -> None:
        shell = await desk.start()
        begin = shell.offset
        await shell.write(b"seq 300000; echo o''ver\n")
        got = b""
        for _ in range(8):
            for _ in range(5):
                got += await shell.read(40_000)
            await shell.release()
            shell = await desk.find()
            end = begin + len(got)
            assert shell.offset <= end
            skipped = 0
            while skipped < end - shell.offset + skipped:
                skipped += len(await shell.read(min(65536, end - shell.offset)))
        got += await until(shell, b"over\r\n")
        assert got == numbers(300_000) + b"over\r\n"

    async def test_programs_run_on_meanwhile(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"i=0; while read -r line; do i=$((i+1)); echo got $i $line; done\n")
        await shell.write(b"one\n")
        await until(shell, b"got 1 one\r\n")
        await shell.release()
        shell = await desk.find()
        await shell.write(b"two\n")
        await until(shell, b"got 2 two\r\n")

    async def test_an_exit_that_nobody_saw_is_told(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"exec sh -c 'sleep 0.2; echo last; exit 5'\n")
        await shell.release()
        shell = await desk.find()
        assert (await rest(shell)).endswith(b"last\r\n")
        assert await shell.wait() == 5
        await shell.release()
        again = await desk.find()
        assert (await rest(again)).endswith(b"last\r\n")
        assert await again.wait() == 5

    async def test_one_that_was_closed_is_gone(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.close()
        with pytest.raises(ShellGoneError):
            await desk.find()

    async def test_one_that_is_being_closed_is_gone_at_once(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"trap '' HUP; (trap '' HUP; sleep 1000) & echo rea''dy\n")
        await until(shell, b"ready\r\n")
        closing = asyncio.create_task(shell.close())

        async def is_gone() -> bool:
            try:
                await (await desk.find()).release()
            except ShellGoneError:
                return True
            return False

        await eventually(is_gone)
        await closing

    async def test_all_that_is_kept_is_right_while_more_comes(self, desk: Desk) -> None:
        """The oldest must not be overwritten before it was read."""
        terms = HoldTerms(1 << 20, 1 << 20, 1 << 18, hold_seconds=30.0, keep_seconds=60.0, bytes_per_second=1 << 20)
        shell = await desk.start(terms)
        begin = shell.offset
        await shell.write(b"seq 1000000; echo o''ver\n")
        while shell.offset - begin < 3_000_000:
            await shell.read(65536)
        await shell.release()
        shell = await desk.find()
        start = shell.offset
        # Time for what flows on to arrive before the first byte is asked for.
        for _ in range(200):
            await asyncio.sleep(0.001)
        kept = await until(shell, b"over\r\n")
        assert start > begin
        assert kept == (numbers(1_000_000) + b"over\r\n")[start - begin :]

    async def test_who_loses_it_while_catching_up_is_told(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write(b"seq 100000; echo o''ver\n")
        await until(shell, b"over\r\n")
        await shell.release()
        slow = await desk.find()
        await slow.read(1000)
        await desk.find()
        with pytest.raises(ShellTakenError):
            await rest(slow)

    async def test_the_newest_has_it(self, desk: Desk) -> None:
        old = await desk.start()
        new = await desk.find()
        with pytest.raises(ShellTakenError):
            await old.read(1)
        await new.write(b"echo st''ill here\n")
        await until(new, b"still here\r\n")

    async def test_the_window_is_remembered(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.resize(TerminalSize(100, 40))
        await shell.write(b"stty size\n")
        await until(shell, b"40 100")
        await shell.release()
        assert (await desk.find()).size == TerminalSize(100, 40)

    async def test_left_alone_it_ends(self, desk: Desk) -> None:
        terms = HoldTerms(1 << 20, 1 << 20, 1 << 18, hold_seconds=0.1, keep_seconds=0.3, bytes_per_second=1 << 20)
        shell = await desk.start(terms)
        await shell.write(b"echo pid $$ end\n")
        pid = int((await until(shell, b" end\r\n")).split(b"pid ")[-1].split()[0])
        await shell.release()

        async def has_ended() -> bool:
            return not await desk.lives(pid)

        await eventually(has_ended)

    async def test_a_burst_is_kept_while_the_service_takes_nothing(self, held: Desk) -> None:
        """Output that rests because nobody takes it has not reached those whom the service serves."""
        shell = await held.start(replace(TERMS, quiet_after_seconds=0.05))
        begin = shell.offset
        await shell.write(b"seq 1000000\n")
        while shell.offset - begin < 3_000_000:
            await shell.read(65536)
        # Ten times as long as it would take to be forgotten.
        await asyncio.sleep(0.5)
        await shell.release()
        assert (await held.find()).offset <= begin

    async def test_after_the_hold_a_flood_runs_on_and_the_ring_forgets(self, held: Desk) -> None:
        terms = HoldTerms(1 << 20, 1 << 20, 1 << 18, hold_seconds=0.1, keep_seconds=60.0, bytes_per_second=64 << 20)
        shell = await held.start(terms)
        await shell.write(b"seq 1000000; touch done\n")
        await shell.release()

        async def is_done() -> bool:
            return (held.home / "done").exists()

        await eventually(is_done, 30)
        shell = await held.find()
        assert shell.offset > 1 << 20
        assert shell.backlog_end - shell.offset <= (1 << 20) + 65536


class TestNumbered:
    async def test_what_is_sent_twice_is_typed_once(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write_numbered("phone", 1, b"echo a\n")
        await shell.write_numbered("phone", 1, b"echo a\n")
        await shell.write_numbered("phone", 2, b"echo en''d\n")
        assert await until(shell, b"end\r\n") == b"a\r\nend\r\n"

        async def is_confirmed() -> bool:
            return ("phone", 2) in desk.taken

        await eventually(is_confirmed)

    async def test_numbers_are_remembered(self, desk: Desk) -> None:
        shell = await desk.start()
        await shell.write_numbered("phone", 1, b"echo on''ce\n")
        await until(shell, b"once\r\n")
        await shell.release()
        shell = await desk.find()
        assert shell.taken == {"phone": 1}
        await shell.write_numbered("phone", 1, b"echo twi''ce\n")
        await shell.write(b"echo en''d\n")
        assert b"twice" not in await until(shell, b"end\r\n")


class TestBrokenConnections:
    async def test_reading_goes_on_as_if_nothing_had_been(self, held: Desk) -> None:
        shell = await held.start()
        await shell.write(b"seq 200000; echo o''ver\n")
        got = b""
        while b"over\r\n" not in got:
            got += await shell.read(30_000)
            if len(held.processes) < 10:
                assert isinstance(held.runtime, HostProcessRuntime)
                held.runtime.away = 1
                await held.processes[-1].cut()
        assert got == numbers(200_000) + b"over\r\n"

    async def test_numbered_input_arrives_once(self, held: Desk) -> None:
        shell = await held.start()
        reading = asyncio.create_task(until(shell, b"end\r\n"))
        for number in range(1, 200):
            if number % 20 == 0:
                await held.processes[-1].cut()
            await shell.write_numbered("phone", number, b"echo %d\n" % number)
        await shell.write_numbered("phone", 200, b"echo en''d\n")
        assert await reading == numbers(199) + b"end\r\n"

    async def test_a_workspace_that_has_ended_is_told(self, held: Desk) -> None:
        shell = await held.start()
        assert isinstance(held.runtime, HostProcessRuntime)
        held.runtime.stopped = True
        await held.processes[-1].cut()
        with pytest.raises(ShellGoneError):
            await shell.read(1)
        held.runtime.stopped = False
        await (await held.find()).close()


class TestWithoutPython:
    async def test_it_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("libs.runtime.holder.connection.COMMAND", ("/bin/sh", "-c", "exit 127"))
        desk = desk_with_holder(tmp_path)
        with pytest.raises(HolderMissingError):
            await desk.start()
        await desk.runtime.close()


def hasty(silent_s: float) -> str:
    """The holder's program, with little patience for silence."""
    texts = marshal.loads(zlib.decompress(binascii.a2b_base64(packing.packed())))
    name = wire.__name__
    assert "SILENT_S = 90.0" in texts[name]
    texts[name] = (
        texts[name].replace("SILENT_S = 90.0", f"SILENT_S = {silent_s}").replace("BEAT_S = 25.0", "BEAT_S = 0.1")
    )
    return binascii.b2a_base64(zlib.compress(marshal.dumps(texts, 2)), newline=False).decode()


class TestSilence:
    async def test_a_service_that_gives_no_sign_of_life_is_gone(
        self, held: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on a node that tells nobody: pipes stay open, and nothing comes. One that lives after all comes back."""
        program = hasty(0.3)
        monkeypatch.setattr(packing, "packed", lambda: program)
        shell = await held.start()
        reading = asyncio.create_task(shell.read(1))

        async def is_let_go() -> bool:
            return len(held.processes) > 1

        await eventually(is_let_go)
        reading.cancel()

    async def test_beats_are_a_sign_of_life(self, held: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        # We may be held up for a second.
        program = hasty(1.5)
        monkeypatch.setattr(packing, "packed", lambda: program)
        monkeypatch.setattr(wire, "BEAT_S", 0.05)
        shell = await held.start()
        await shell.write(b"sleep 2; echo still here\n")
        await until(shell, b"still here\r\n")
        assert len(held.processes) == 1
