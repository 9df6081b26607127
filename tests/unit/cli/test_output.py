"""Log files and what people see."""

from __future__ import annotations

import io
from pathlib import Path

from libs.cli.stack.console import ConsoleReporter
from libs.cli.stack.logfiles import LineBuffer, LogFile


class TestLogFile:
    def test_lines_may_come_in_pieces(self, tmp_path: Path) -> None:
        seen: list[str] = []
        log = LogFile(tmp_path / "a.log", seen.append)
        lines, others = LineBuffer(log), LineBuffer(log)
        for piece in (b"one\ntw", b"o\r\n", "drei \xe4".encode()):
            lines.feed(piece)
        others.feed(b"of another process\n")
        lines.feed(b"\xff")
        assert seen == ["one", "two", "of another process"]
        lines.flush()
        log.close()
        assert seen == ["one", "two", "of another process", "drei ä\N{REPLACEMENT CHARACTER}"]
        assert (tmp_path / "a.log").read_bytes() == b"one\ntwo\r\nof another process\ndrei \xc3\xa4\xff\n"

    def test_it_is_bounded(self, tmp_path: Path) -> None:
        log = LogFile(tmp_path / "a.log", lambda _: None, max_bytes=1000)
        for number in range(1000):
            log.write(b"%06d" % number)
        log.close()
        assert {path.name for path in tmp_path.iterdir()} == {"a.log", "a.log.1"}
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3000
        assert log.tail[-1] == "000999"
        assert len(log.tail) == 20

    def test_a_line_without_end_is_cut(self, tmp_path: Path) -> None:
        seen: list[str] = []
        log = LogFile(tmp_path / "a.log", seen.append)
        LineBuffer(log).feed(b"x" * 70_000)
        assert [len(line) for line in seen] == [70_000]
        log.close()

    def test_the_log_of_the_last_start_is_kept(self, tmp_path: Path) -> None:
        for start in ("first", "second"):
            log = LogFile(tmp_path / "a.log", lambda _: None)
            log.write(start.encode())
            log.close()
        assert (tmp_path / "a.log").read_text() == "second\n"
        assert (tmp_path / "a.log.1").read_text() == "first\n"


class TestConsole:
    def test_progress_first_then_logs_with_names(self) -> None:
        stream = io.StringIO()
        console = ConsoleReporter(stream)
        console.log_line("auth", "not shown yet")
        console.came_up("auth", 1.23)
        console.ready("http://127.0.0.1:8000")
        console.log_line("auth", "[bold]plain[/bold] \x1b[2Jtext")
        console.problem("envs died", ["its last line"])
        console.close()
        assert stream.getvalue().splitlines() == [
            "✓ auth             1.2 s",
            "DevPocket is ready at http://127.0.0.1:8000",
            "auth           | [bold]plain[/bold] text",
            "✗ envs died",
            "  | its last line",
        ]

    def test_a_detached_stack_shows_no_logs(self) -> None:
        stream = io.StringIO()
        console = ConsoleReporter(stream, show_logs=False)
        console.ready("http://x")
        console.log_line("auth", "for its file")
        console.close()
        assert stream.getvalue() == "DevPocket is ready at http://x\n"

    def test_a_reader_that_went_away_harms_nothing(self) -> None:
        class Closed(io.StringIO):
            def write(self, _text: str) -> int:
                raise BrokenPipeError

        console = ConsoleReporter(Closed())
        for _ in range(3):
            console.notice("hello?")
        console.close()
